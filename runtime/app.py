"""The runtime that an application embeds: opens a log, brings back what was going on, starts runs.

All state is in the log and in what is passed here; two runtimes on two files in one process know nothing of each other.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.commands import QuarantineSlot
from perdure.actors.state.goal_model import Goal
from perdure.actors.state.goals import GoalBook
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.outcome import Success
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.tool import ForceCircuit
from perdure.actors.triggers.bus import EventBus
from perdure.actors.triggers.typed import Topic
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.pool import Agents
from perdure.actors.workflows.commands import GetRun
from perdure.actors.workflows.defined.conditions import Predicate
from perdure.actors.workflows.defined.known import Known, Reducer
from perdure.actors.workflows.defined.reading import Source
from perdure.actors.workflows.defined.registry import Workflows
from perdure.actors.workflows.defined.stepwise import stepwise_saga
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.engine import Engine
from perdure.actors.workflows.errors import UnknownWorkflowError
from perdure.actors.workflows.failures import Failures
from perdure.actors.workflows.queue import Queue
from perdure.actors.workflows.state import RunView
from perdure.runtime.beginning import Beginnings
from perdure.runtime.calls import DirectCall, call_tool
from perdure.runtime.clock import SystemClock
from perdure.runtime.dispatch import dispatched
from perdure.runtime.door import Door
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.event_entries import EventEntries
from perdure.runtime.entries.events import Events
from perdure.runtime.entries.overview import overview
from perdure.runtime.entries.publishing import Published, publish
from perdure.runtime.entries.registry import EntryPoints
from perdure.runtime.entries.schedules import Schedules
from perdure.runtime.executions import Executions, read_executions
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.figuring import read_figures, select_tool
from perdure.runtime.following import ask_following
from perdure.runtime.goals import Goals
from perdure.runtime.handle import RunHandle
from perdure.runtime.lookup import called_by, named_input
from perdure.runtime.machinery import Machinery, OpenLog, Parts
from perdure.runtime.naming import check_place, queues_by_name
from perdure.runtime.opening import resolver
from perdure.runtime.options import OptionValues
from perdure.runtime.questions import OpenQuestion, Questions
from perdure.runtime.recovery import WaitingRun
from perdure.runtime.rehearsing import CheckedRun
from perdure.runtime.sagas import Sagas
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.executor import ToolExecutor
from perdure.runtime.sandbox.operating import reset_slot
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.runtime.sandbox.wiring import make_executor
from perdure.runtime.settings import Settings
from perdure.runtime.state import SharedState
from perdure.runtime.steering import ForkRequest
from perdure.runtime.ways import Ways
from perdure.runtime.web.making import make_api
from perdure.runtime.web.webhooks.route import WebhookRoute
from perdure.runtime.web.webhooks.webhooks import Webhooks
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but
from perdure.store.location import checked_path
from perdure.store.protocols import EventLog
from perdure.store.records import Query, Recorded, StreamId, stream_id

if TYPE_CHECKING:
    from perdure.runtime.web.api.application import HttpApi
    from perdure.runtime.web.api.roles import Tokens

R = TypeVar("R")


@checked_but("start", "call")
class Runtime(Ways, Door):
    """Runs workflows on a log; `async with Runtime("agents.db", workflows=[…]) as rt`."""

    def __init__(  # noqa: PLR0913 - what an application may pass, all by keyword
        self,
        path: str | os.PathLike[str],
        *,
        tools: Iterable[Tool[..., Any]] = (),
        workflows: Iterable[Workflow[..., Any] | Source] = (),
        agents: Iterable[Agent] = (),
        predicates: Mapping[str, Predicate] | None = None,
        reducers: Mapping[str, Reducer] | None = None,
        events: Iterable[str] | None = None,
        settings: Settings | None = None,
        secrets: Mapping[str, str] | Callable[[str], str | None] | None = None,
        resume: bool = True,
        clock: Clock | None = None,
        log: OpenLog | None = None,
        sandbox: Backend | None = None,
        executor: ExecutorConfig | None = None,
        queues: Iterable[Queue] = (),
        entry_points: Iterable[EntryPoint] = (),
        webhooks: Iterable[WebhookRoute] = (),
        goals: Iterable[Goal] = (),
    ) -> None:
        """Describe a runtime; nothing is opened before `async with`.

        Args:
            path: the log's file, created if it is not there.
            tools: tools to have ready; those that workflows call are found by themselves.
            workflows: what can be run: functions made by `@workflow`, and definitions in any form that
                `load_definition` reads. Runs of others that are in the log wait for their code.
            agents: whom steps of workflows may call; see `Agent`.
            predicates: conditions as functions over the data, which definitions name.
            reducers: functions that merge what the steps of a fan-out returned, which definitions name.
            events: the types of events that event-driven definitions may wait for; any when left out.
            settings: see `Settings`.
            secrets: values that `Secret(name).reveal()` gives; environment variables when left out.
            resume: False leaves every open run asleep, and calls in slots that a crash interrupted; `waiting()` says
                what waits and `resume()` goes on.
            clock: time; the system's when left out.
            log: opens another event log than the file, such as `perdure.testing.MemoryDisk().open`.
            sandbox: the machine that slots are on, such as `Bubblewrap("slots")`; without one there are none. It brings
                the tools `bash`, `bash_stateful`, `read_file`, `write_file` and `tmux`, where these names are free.
            executor: settings of slots and of the calls in them.
            queues: where runs can be had to wait for their turn, `with_options(queue=…)`.
            entry_points: the ways in; see `EntryPoint`.
            webhooks: where deliveries over HTTP come in, beside those of entry points; see `WebhookRoute`.
            goals: what runs pursue; see `Goal`. A check of a constraint may name one of the *predicates*.

        Raises:
            UsageError: two tools, agents, workflows or entry points have the same name, or something is not one.
            InvalidDefinitionError: a definition has faults; names all of them.
        """
        self.path = checked_path(path)
        self.settings = settings or Settings()
        self.redaction = Redaction(self.settings.redacted_keys)
        self._clock = clock or SystemClock()
        self.bus = EventBus(clock=lambda: self._clock.moment().now)
        """The bus of this process, for what need not outlive it."""
        self._tools = Registry(tools)
        self._agents = Agents(
            agents,
            self._tools,
            max_loaded=self.settings.max_loaded_agents,
            unload_after=self.settings.unload_agents_after,
        )
        self._executor = make_executor(sandbox, self._tools, executor)
        known = Known(
            agents=self._agents,
            tools=self._tools,
            predicates=dict(predicates or {}),
            reducers=dict(reducers or {}),
            events=None if events is None else frozenset(events),
        )
        self._workflows = Workflows(workflows, known)
        self._workflows.provide(stepwise_saga(self._workflows.known))
        self.sagas = Sagas(self, self._workflows.known)
        """Sagas that the application drives step by step."""
        self._executions = Executions()
        parts = Parts(
            path=self.path,
            settings=self.settings,
            tools=self._tools,
            agents=self._agents,
            workflows=self._workflows,
            queues=queues_by_name(queues),
            secrets=resolver(secrets),
            redaction=self.redaction,
            clock=self._clock,
            open_log=log,
            executor=self._executor,
            resume=resume,
        )
        self._machinery = Machinery(self, parts)
        self._beginnings = Beginnings(self, self._machinery)
        self._state = SharedState(self, self._machinery)
        self._goals = Goals(self, self._machinery, GoalBook(goals, known.predicates, self.redaction))
        self._entry_points = EntryPoints(self, self._machinery, self._beginnings, entry_points)
        self._events = Events(self, self._machinery)
        self._schedules = Schedules(self, self._machinery)
        self._webhooks = Webhooks(self, self._machinery, webhooks)
        self._machinery.attachments += [  # opened in this order: what lets others in is the last one
            self._goals, self._events, self._entry_points, EventEntries(self), self._schedules, self._webhooks,
        ]  # fmt: skip

    @property
    def _engine(self) -> Engine:
        return self._machinery.engine

    @property
    def _system(self) -> ActorSystem:
        return self._machinery.system

    @property
    def _log(self) -> EventLog:
        return self._machinery.log

    def _opened(self) -> None:
        self._machinery.check_open()

    # Opening and closing

    @property
    def is_running(self) -> bool:
        """Whether it is open."""
        return self._machinery.is_open

    async def open(self) -> Self:
        """Open it, for programs without an `async with` block; nothing if it is open, also at the same time.

        What fails leaves nothing behind, and it can be opened again.

        Raises:
            As `__aenter__`.
        """
        async with self._machinery.turn():
            if not self.is_running:
                await self._machinery.open()
        return self

    async def __aenter__(self) -> Self:
        """Open the log and bring back what was going on.

        Raises:
            StoreLockedError: another process, or another runtime of this one, owns the log; names it.
            CorruptLogError, NotALogError, SchemaTooNewError: the file cannot be used.
            SandboxUnavailableError: this machine cannot isolate commands as asked.
            Whatever an agent that is to be preloaded raises.
        """
        async with self._machinery.turn():
            await self._machinery.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop in good order: steps in flight may end for a while, everything is made durable, the file is released.

        Runs that are open stay open in the log and go on when it is opened again. Idempotent. If it is being opened,
        that ends first.

        Raises:
            LogWriteError: the log failed; what was acknowledged is safe.
        """
        async with self._machinery.turn():
            pass
        await self._machinery.close()

    async def abandon(self) -> None:
        """End as `kill -9` would, as far as a process that lives on can; for tests of recovery. Idempotent.

        What waited for the disk is lost, and nothing more is recorded. Unlike in a crash, `finally` blocks of workflows
        and async tools run, and threads go on to the end of their calls, whose results are dropped. Whoever waits for a
        run gets `LogWriteError`. If it is being opened, that ends first.
        """
        async with self._machinery.turn():
            pass
        await self._machinery.abandon()

    # Runs

    @property
    def workflows(self) -> Workflows:
        """The workflows of this runtime: register more, list them, take some out."""
        return self._workflows

    async def start_run(self, workflow: Workflow[..., R], data: bytes, options: OptionValues) -> RunHandle[R]:
        """Start a run from its encoded input; durable on return. See `start`."""
        self._opened()
        if self._workflows.get(workflow.name) is not workflow:
            raise UsageError(f"{workflow.name} is not registered: Runtime(…, workflows=[{workflow.name}])")
        return RunHandle(self, await self._beginnings.start(workflow.name, data, options), workflow.result_decoder)

    async def start_named(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: OptionValues
    ) -> RunHandle[Any]:
        """Start a run of the workflow that is registered under a name; durable on return. See `start`.

        Raises:
            UnknownWorkflowError: there is none.
        """
        workflow = self.workflow(name)
        return await self.start_run(workflow, named_input(workflow, args, kwargs, self.redaction), options)

    async def start_data(self, name: str, data: Mapping[str, Any], options: OptionValues) -> RunHandle[Any]:
        """Start a run of a registered workflow from one object: all that it takes, or its arguments by name.

        Raises:
            UnknownWorkflowError: there is none.
        """
        takes_data = self.workflow(name).takes_data
        return await self.start_named(name, (data,) if takes_data else (), {} if takes_data else data, options)

    def workflow(self, name: str) -> Workflow[..., Any]:
        """Return the workflow that is registered under a name.

        Raises:
            UnknownWorkflowError: there is none.
        """
        self._opened()
        workflow: Workflow[..., Any] | None = self._workflows.get(name)
        if workflow is None:
            raise UnknownWorkflowError(workflow=name, known=", ".join(sorted(self._workflows)) or "none")
        return workflow

    async def retry_run(self, run: str, who: str | None) -> str | None:
        """Have a run tried again; return the step that it failed of. See `RunHandle.retry`."""
        self._opened()
        return await self._beginnings.retry(run, who)

    async def fork_run(self, run: str, asked: ForkRequest) -> str:
        """Start a run that begins where another one was before a step; return its id. See `RunHandle.fork`."""
        self._opened()
        return await self._beginnings.fork(run, asked)

    async def publish(
        self,
        type: str | Topic[Any],
        data: object = None,
        *,
        id: str | None = None,
        who: str | None = None,
        source: str | None = None,
        correlation: str | None = None,
    ) -> bool:
        """Publish an event of a type; durable when this returns, and it waits for nobody who gets it.

        Runs that wait for such an event, now or from a place before it, get it (`Context.event`), and so do those who
        subscribe to it (`events`). With an *id* of the caller's, publishing it again (the last 10,000 ids of a type are
        remembered) changes nothing and returns False. *source* says who publishes, as what subscribers can filter by;
        *correlation* what the event is tied to, from within a handler that of the event which it handles.

        Raises:
            PublicationConflictError: the id was another event's.
            UsageError: the type, the id, *who*, *source* or *correlation* cannot be one, or the data are not what the
                `Topic` says.
            UnencodableError, PayloadTooLargeError: the data cannot be recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        self._opened()
        return await publish(self, type, data, Published(id=id, who=who, source=source, correlation=correlation))

    async def questions(self) -> list[OpenQuestion]:
        """Return the open questions of all runs, oldest first; `run(question.run).answer(question.id, …)` answers one.

        It reads every question of the log, answered ones too.
        """
        found = Questions()
        while page := await self.read(found.next_page):
            found.add(page)
        return found.open(self._clock.moment().now)

    @property
    def failures(self) -> Failures:
        """The exceptions that runs end with, as long as somebody waits for them."""
        self._opened()
        return self._engine.failures

    async def get_stats(self) -> dict[str, Any]:
        """Return the figures of defined workflows, of their agents and of entry points, from the whole log.

        The keys: `total_executions`, `successful_executions`, `failed_executions`, `cancelled_executions`,
        `running_executions`, `success_rate`, `average_duration` (seconds, of the successful ones), `pattern_usage`,
        `agent_performance` (by agent or tool: `executions`, `avg_time`, `min_time`, `max_time`) and `circuit_breakers`
        (by agent: `state`, `failure_count`); and those of document 003: `running`, `entry_points` (how many), `streams`
        (see `EntryPoints.statistics`), `goal_id` (of the only goal), `outcome_aggregator`, `event_bus`,
        `state_manager`; and `webhooks` (see `Webhooks.statistics`; counted in memory since the runtime opened).
        The first call reads the log, later ones what has come since.
        """
        self._opened()
        await read_executions(self, self._executions)
        figures = {agent.name: await self._machinery.agent_figures(agent) for agent in self._agents.values()}
        breakers = {name: {"state": one.state, "failure_count": one.failures} for name, one in figures.items()}
        others = {**await overview(self), "webhooks": msgspec.structs.asdict(self._webhooks.statistics())}
        return {**self._executions.figures(), "circuit_breakers": breakers, **others}

    # Over HTTP

    def http_api(
        self,
        tokens: "Tokens | None" = None,
        *,
        hosts: Iterable[str] | None = ("localhost", "127.0.0.1", "::1"),
        webhooks: bool = False,
    ) -> "HttpApi":
        """Return the HTTP API of this runtime, an ASGI application to be served or mounted. Before the runtime is open.

        It answers 503 until the runtime is open, and from when it closes. `perdure serve` serves the same.

        Args:
            tokens: who is let in, `Tokens.of(lines)`; without any, everybody who reaches it may operate.
            hosts: the names that requests may be for; None: any, which takes tokens.
            webhooks: whether it answers for the runtime's webhooks too. Set `Settings(webhook_port=None)` then.

        Raises:
            UsageError: the runtime is open already, *hosts* is None without tokens, a webhook has a path of the API's,
                or the extra `serve` is not installed.
        """
        return make_api(self, self._machinery, tokens, hosts, webhooks=webhooks)

    # Tools

    @property
    def tools(self) -> Registry:
        """The tools of this runtime: register more, list those that can be offered to a model."""
        return self._tools

    async def call_encoded(self, tool: Tool[..., Any], arguments: bytes, options: OptionValues) -> Success:
        """Call a tool with encoded arguments. See `call`."""
        self._opened()
        call = DirectCall(tool, arguments, options.timeout, options.conversation, options.limit_key, options.principal)
        return await call_tool(self._engine, call)

    async def dispatch_encoded(
        self, name: str, arguments: str | bytes | Mapping[str, Any], options: OptionValues
    ) -> str:
        """Make a call as a model asks for it, with options. See `dispatch`."""
        self._opened()
        return await dispatched(self, name, arguments, options)

    async def select(self, required: Iterable[str], *, partial: bool = False) -> Tool[..., Any] | None:
        """Return the tool that has all these capabilities (with *partial*, most of them), or None.

        Tools that are not available, or whose circuit is open, are chosen only if there is no other. On ties the first
        one registered is.
        """
        return await select_tool(self._tools, self.ask, required, partial=partial)

    async def force_circuit(
        self, tool: str, to: Forcing, *, because: str, who: str | None = None, conversation: str | None = None
    ) -> bool:
        """Take a tool's circuit over as an operator; return whether that changed anything. Durable on return.

        `open` refuses every call, `disabled` lets every call through, until `auto` gives the circuit back; `closed`
        closes it now and leaves it to its policy. Who and why are in the log (`circuit-forced`).
        """
        name = f"tool/{tool}" if conversation is None else f"tool/{tool}@{conversation}"
        changed: bool = await self.ask(stream_id(name), ForceCircuit(to, because), principal=who)
        if changed:
            self._engine.toolbox.circuit_moved(stream_id(name))
        return changed

    # Agents

    @property
    def agents(self) -> Agents:
        """The agents of this runtime: by name, by capability, and which of them are in memory."""
        return self._agents

    # Slots

    @property
    def executor(self) -> ToolExecutor:
        """What runs the calls of trajectories.

        Raises:
            UsageError: this runtime has no slots.
        """
        if self._executor is None:
            raise UsageError("this runtime has no slots: write Runtime(…, sandbox=Bubblewrap('slots'))")
        return self._executor

    def trajectory(self, trajectory_id: str) -> Trajectory:
        """Return the handle of a sequence of calls that shares one slot; nothing happens before its first call.

        Raises:
            UsageError: this runtime has no slots.
        """
        self._opened()
        _ = self.executor
        return Trajectory(self, trajectory_id)

    async def quarantine_slot(self, slot: str, because: str, *, who: str) -> None:
        """Give a slot to nobody until it was reset; who holds it has lost it. Durable on return.

        Raises:
            SlotError: there is none of that name.
        """
        self._opened()
        if self._executor is None:
            await self.ask(stream_id(f"slot/{slot}"), QuarantineSlot(because), principal=who)
        elif (ticket := self._executor.pool.quarantine(slot, because, principal=who)) is not None:
            await ticket

    async def reset_slot(self, slot: str, *, who: str, take_away: bool = False) -> str | None:
        """Empty a slot, also, with *take_away*, one that a trajectory holds; the way out of quarantine. Durable.

        Return the trajectory that has lost it.

        Raises:
            SlotTransitionError: somebody holds it.
            ResetFailedError: it could not be emptied, and is quarantined.
            SlotError: there is none of that name.
            UsageError: this runtime has no slots.
        """
        self._opened()
        return await reset_slot(self.executor, slot, who=who, take_away=take_away)

    # Recovery

    async def check(self) -> list[CheckedRun]:
        """Say of every open run of the log whether this runtime's code fits what it has recorded.

        For a runtime that is not open: make one with the new code on the log's file, and ask before it is deployed. The
        log is only read, also beside its owner, and no tool is called; the code of workflows runs up to where each run
        stands, so what it does beside its context is done. `perdure check FILE.py` prints the same.

        Raises:
            UsageError: the runtime is open, or its log is not a file.
            LogNotFoundError, NotALogError, SchemaTooNewError: the file cannot be read.
        """
        return await self._machinery.check()

    async def waiting(self) -> list[WaitingRun]:
        """Return the open runs that are not in memory and what each waits for."""
        self._opened()
        return await self._machinery.reconciler.waiting()

    async def resume(self, run: str | None = None) -> None:
        """Bring back every open run that does not sleep; what opening does unless told `resume=False`.

        With *run*, only that one. A run that sleeps is woken when its time comes. One whose code is missing stays as
        it is; `waiting()` says so.
        """
        self._opened()
        if run is None:
            if self._executor is not None:
                await self._executor.resume()
            await self._machinery.reconciler.resume_open()
        else:
            await self._machinery.reconciler.resume_run(stream_id(f"run/{run}"))

    async def until_idle(self) -> None:
        """Wait until no run can go on by itself now: each open one sleeps, waits for somebody or for its code.

        What brought that about is durable on return. Wakes nobody and starts nothing.

        Raises:
            LogWriteError: the log failed; what was acknowledged is safe.
        """
        self._opened()
        await self._engine.until_idle()
        await self._log.flush()

    # Looking

    async def statistics(self) -> RuntimeStatistics:
        """Return the figures of the runtime; those of tools and entry points are folds, which a restart does not zero.

        Among them are those of document 003 by its keys (`running`, `entry_points`, `streams`, `goal_id`,
        `outcome_aggregator`, `event_bus`, `state_manager`); `get_stats` has them too, beside those of workflows. The
        first call reads the log for the figures of the shared state, later ones what has come since.
        """
        self._opened()
        of_003 = await overview(self)
        came_in = self._webhooks.statistics()
        figures = await read_figures(self._machinery, self.ask)
        return msgspec.structs.replace(figures, webhooks=came_in if came_in.routes else None, **of_003)

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of the durable events that match."""
        self._opened()
        return await self._log.read(query)

    def tail(self, after: int = 0, query: Query | None = None) -> AsyncIterator[Recorded]:
        """Yield every durable event after a position, in order and without gaps, until the runtime closes."""
        self._opened()
        return self._log.tail(after, query)

    async def blob(self, sha256: str) -> bytes | None:
        """Return a large value of the log by its hash, such as the one in the preview of a result; None if unknown."""
        self._opened()
        return (await self._log.blobs([sha256])).get(sha256)

    def ask(self, stream: StreamId, message: Command, *, principal: str | None = None) -> Answer[Any]:
        """Ask an actor, in the name of *principal*; from any thread. What a run is asked is correlated with it."""
        self._opened()
        kind, _, name = stream.partition("/")
        if kind != "run":
            return self._system.ref(stream).ask(message, principal=principal)

        def ask(run: str) -> Answer[Any]:
            ref = self._system.ref(StreamId(f"run/{run}"))
            return ref.ask(message, correlation=run, principal=principal)

        return ask_following(ask, name)

    async def ended(self, run: str) -> RunView:
        """Return how a run, or the last that it goes on as, stands once closed or blocked. See `RunHandle.result`."""
        view = await self._ended(run)
        while view.continued_as is not None:
            view = await self._ended(view.continued_as)
        return view

    async def _ended(self, run: str) -> RunView:
        self._opened()
        if self._engine.has(run):
            return await self._engine.waiters.end_of(run)
        ref = self._system.ref(stream_id(f"run/{run}"))
        view: RunView = await ref.ask(GetRun())
        if view.is_closed or view.status == "blocked":
            return view
        ended = self._engine.waiters.end_of(run)
        view = await ref.ask(GetRun())  # it may have ended since it was asked first
        return view if view.is_closed or view.status == "blocked" else await ended

    def check_place(self, queue: str | None, priority: int, partition: str | None) -> None:
        """Check where a run is to wait for its turn.

        Raises:
            UsageError: there is no such queue, or its turn cannot go by that.
        """
        check_place(queue, priority, partition, self._machinery.parts.queues)

    async def check_settlement(self, run: str, step: str, data: msgspec.Raw) -> None:
        """Check that JSON fits the declared result of the tool or the child that a step calls, if that is known.

        Raises:
            UnencodableError: it does not.
        """
        called = await called_by(self.read, stream_id(f"run/{run}"), step)
        if called is not None:
            known = self._tools.get(called.tool) if called.tool else self._workflows.get(called.workflow)
            if known is not None:
                known.result_decoder.decode(data, step)

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as it would be recorded.

        Raises:
            UnencodableError, PayloadTooLargeError: it cannot be.
        """
        return encode_payload(value, where=where, redaction=self.redaction)
