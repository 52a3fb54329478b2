"""The runtime that an application embeds: opens a log, brings back what was going on, starts runs.

All state is in the log and in what is passed here; two runtimes on two files in one process know nothing of each other.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeAlias, TypeVar

import msgspec
import structlog
import uuid_utils

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.commands import QuarantineSlot
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.errors import InvalidArgumentsError, ToolError
from perdure.actors.tools.invoke import Invoker
from perdure.actors.tools.outcome import Success
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.selection import Candidate, select_best
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.tools.tool import ForceCircuit, GetToolStatistics
from perdure.actors.triggers.bus import EventBus
from perdure.actors.triggers.topic import Publish, check_id, check_type, topic_of
from perdure.actors.workflows.agents.agent import HOME, Agent
from perdure.actors.workflows.agents.pool import Agents
from perdure.actors.workflows.children import checked_run_id
from perdure.actors.workflows.commands import GetRun, StartRun
from perdure.actors.workflows.defined.conditions import Predicate
from perdure.actors.workflows.defined.known import Known, Reducer
from perdure.actors.workflows.defined.reading import Source
from perdure.actors.workflows.defined.registry import Workflows
from perdure.actors.workflows.defined.stepwise import stepwise_saga
from perdure.actors.workflows.definition import Workflow, digest, shorter
from perdure.actors.workflows.engine import Engine
from perdure.actors.workflows.errors import UnknownWorkflowError
from perdure.actors.workflows.events import Origin
from perdure.actors.workflows.failures import Failures
from perdure.actors.workflows.queue import Queue
from perdure.actors.workflows.run import RunView
from perdure.runtime.calls import DirectCall, call_tool
from perdure.runtime.clock import HandMoved, SystemClock
from perdure.runtime.control.server import ControlServer
from perdure.runtime.dispatch import parse_arguments, text_of, text_of_error
from perdure.runtime.executions import Executions, read_executions
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.following import ask_following
from perdure.runtime.handle import RunHandle
from perdure.runtime.life import RUNTIME, CloseRuntime
from perdure.runtime.lookup import called_tool, named_input
from perdure.runtime.naming import check_conversation, check_place, check_principal, queues_by_name
from perdure.runtime.opening import begin_life, make_system, resolver, start_clock
from perdure.runtime.options import Options, OptionValues
from perdure.runtime.questions import OpenQuestion, Questions
from perdure.runtime.recovery import Reconciler, WaitingRun
from perdure.runtime.rehearsing import CheckedRun, check_runs
from perdure.runtime.sagas import Sagas
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.executor import ToolExecutor
from perdure.runtime.sandbox.operating import reset_slot
from perdure.runtime.sandbox.tools import RUNTIME as RUNNING
from perdure.runtime.sandbox.tools import TOOLS as SANDBOX_TOOLS
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.runtime.sandbox.wiring import Wiring
from perdure.runtime.settings import Settings
from perdure.runtime.steering import ForkRequest, changed_input, place_of_fork, plan_of_retry
from perdure.runtime.threads import WorkerThreads
from perdure.runtime.views import views
from perdure.store.errors import LogWriteError, PayloadTooLargeError, UnencodableError, UsageError
from perdure.store.looking import LogOnlyRead
from perdure.store.protocols import EventLog
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId, stream_id
from perdure.store.sqlite import SqliteEventLog

P = ParamSpec("P")
R = TypeVar("R")

_log = structlog.get_logger("perdure.runtime")

OpenLog: TypeAlias = Callable[[Callable[[LogWriteError], None]], Awaitable[EventLog]]
"""Opens a log; it is given whom to tell, before anybody else, that the log takes no more writes."""


class Runtime:
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

        Raises:
            UsageError: two tools, agents or workflows have the same name, or something is not one.
            InvalidDefinitionError: a definition has faults; names all of them.
        """
        self.path = Path(path)
        self.settings = settings or Settings()
        self._tools = Registry(tools)
        self._agents = Agents(
            agents,
            self._tools,
            max_loaded=self.settings.max_loaded_agents,
            unload_after=self.settings.unload_agents_after,
        )
        self._queues = queues_by_name(queues)
        self._secrets = resolver(secrets)
        self._resume_at_open = resume
        self._clock = clock or SystemClock()
        self._make_log = log
        self.bus = EventBus(clock=lambda: self._clock.moment().now)
        """The bus of this process, for what need not outlive it."""
        self.redaction = Redaction(self.settings.redacted_keys)
        self._is_open = False
        self._pid = 0
        """Of the process that opened it: a forked child has a copy, and neither the lock nor the threads."""
        self._system: ActorSystem
        self._engine: Engine
        self._reconciler: Reconciler
        self._threads: WorkerThreads
        self._log: EventLog
        if sandbox is not None and not hasattr(sandbox, "execute_batch"):
            raise UsageError(f"sandbox=… is where slots are, such as Bubblewrap('slots'), not {sandbox!r}")
        self._executor = None if sandbox is None else ToolExecutor(sandbox, self._tools, executor)
        if sandbox is None and executor is not None:
            raise UsageError("executor=… are settings of slots: pass sandbox=… too")
        if sandbox is not None:
            for ours in (each for each in SANDBOX_TOOLS if each.name not in self._tools):
                self._tools.register(ours)
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
        self._wiring: Wiring | None = None
        self._control: ControlServer | None = None

    # Opening and closing

    async def __aenter__(self) -> Self:
        """Open the log and bring back what was going on.

        Raises:
            StoreLockedError: another process, or another runtime of this one, owns the log; names it.
            CorruptLogError, NotALogError, SchemaTooNewError: the file cannot be used.
            SandboxUnavailableError: this machine cannot isolate commands as asked.
            Whatever an agent that is to be preloaded raises.
        """
        if self._is_open:
            raise UsageError("this runtime is open already: make another one for another file")
        self._pid = os.getpid()
        self._log = await self._open_log()
        try:
            if self._make_log is None:  # only the file's owner, who holds its lock, may have its socket
                self._control = ControlServer.bind(self, self.path, is_wanted=self.settings.socket)
            await self._wire()
        except BaseException:
            await self._hang_up()
            self._leave_clock()
            await self._log.close()
            raise
        self._is_open = True
        try:
            await self._agents.open(self._threads, self._clock, self._agent_figures)
            if self._executor is not None:
                await self._executor.start(resume=self._resume_at_open)
            if self._resume_at_open:
                await self._reconciler.resume_open()
            else:
                self._engine.queues.open()
        except BaseException:
            await self.close()
            raise
        if self._control is not None:
            self._control.listen()
        return self

    async def _open_log(self) -> EventLog:
        if self._make_log is not None:
            return await self._make_log(self._log_failed)
        return await SqliteEventLog.open(
            self.path, synchronous=self.settings.synchronous, on_failure=self._log_failed, views=views()
        )

    async def _make_engine(self) -> None:
        settings, log = self.settings, self._log
        await start_clock(self._clock, log)
        self._threads = WorkerThreads(settings.worker_threads)
        if isinstance(self._clock, HandMoved):
            self._clock.attach(self._settle)
        invoker = Invoker(self._threads, self.redaction, self._secrets, self._clock)
        invoker.prepare = self._prepare_call
        self._engine = Engine(
            self._tools,
            self._workflows,
            invoker,
            self._clock,
            park_after=settings.park_after,
            max_active=settings.max_active_runs,
            queues=self._queues.values(),
        )
        self._engine.agents = self._agents
        self._system = make_system(log, self._engine, self._tools, self._clock, settings)

    async def _wire(self) -> None:
        await self._make_engine()
        log = self._log
        await begin_life(log, self._system, self._engine)
        self._reconciler = Reconciler(log, self._engine, self._clock)
        if (executor := self._executor) is not None:
            self._wiring = Wiring(self._engine, self._tools, self.redaction, executor.backend, executor.config)
            executor.attach(self._wiring.surroundings(self._system))
            self._engine.on_closed = executor.run_ended

    def _prepare_call(self) -> None:
        """Set what a tool may find in the context of its call."""
        HOME.set(self._agents)
        if self._executor is not None:
            RUNNING.set(self)

    async def _agent_figures(self, agent: Agent) -> ToolStatistics:
        figures: ToolStatistics = await self.ask(agent.tool.stream(None), GetToolStatistics())
        return figures

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop in good order: steps in flight may end for a while, everything is made durable, the file is released.

        Runs that are open stay open in the log and go on when it is opened again. Idempotent.

        Raises:
            LogWriteError: the log failed; what was acknowledged is safe.
        """
        if not self._is_open:
            return
        self._is_open = False
        if os.getpid() != self._pid:
            return
        try:
            if self._control is not None:
                self._control.close_begins()
            await self._reconciler.stop()
            await self._engine.stop(self.settings.drain.total_seconds())
            await self._hang_up()
            await self._detach()
            self._system.ref(RUNTIME).tell(CloseRuntime())
            await self._system.stop()
        finally:
            await self._hang_up()
            self._threads.close()
            await self._log.close()
            self._leave_clock()

    async def abandon(self) -> None:
        """End as `kill -9` would, as far as a process that lives on can; for tests of recovery. Idempotent.

        What waited for the disk is lost, and nothing more is recorded. Unlike in a crash, `finally` blocks of workflows
        and async tools run, and threads go on to the end of their calls, whose results are dropped. Whoever waits for a
        run gets `LogWriteError`.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._log.abandon()
        if self._control is not None:
            await self._control.abandon()
        abandoned = LogWriteError(detail="the runtime was abandoned")
        self._engine.log_failed(abandoned)
        if self._executor is not None:
            self._executor.log_failed(abandoned)
        await self._reconciler.stop()
        await self._engine.stop(0)
        await self._detach()
        with contextlib.suppress(LogWriteError):
            await self._system.stop()
        self._threads.close()
        self._leave_clock()

    async def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close_begins()
            await control.close()

    async def _detach(self) -> None:
        await self._agents.close()
        if self._executor is not None:
            await self._executor.detach()
        if self._wiring is not None:
            await self._wiring.aclose()

    async def _settle(self) -> bool:
        """Wait until no other thread works for this runtime; return whether one did."""
        return any([await self._log.settle(), await self._threads.flights.settle()])

    def _leave_clock(self) -> None:
        if isinstance(self._clock, HandMoved):
            self._clock.detach(self._settle)

    def _log_failed(self, error: BaseException) -> None:
        _log.error("the log failed: the runtime stops", error=str(error))
        if self._is_open:
            failure = LogWriteError(detail=error.detail if isinstance(error, LogWriteError) else str(error))
            self._engine.log_failed(failure)
            if self._executor is not None:
                self._executor.log_failed(failure)

    def _opened(self) -> None:
        if not self._is_open:
            raise UsageError("the runtime is not open: write `async with Runtime(…) as rt:` and use rt inside")
        if os.getpid() != self._pid:
            detail = f"process {self._pid} opened this runtime and is its owner: a forked child cannot use it"
            raise UsageError(f"{detail}; read the log with `perdure ps`, or let the parent do the work")

    # Runs

    async def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]:
        """Start a run with an id of its own; durable on return.

        Raises:
            UsageError: the workflow is not registered, or the runtime is not open.
            InvalidArgumentsError: the input does not fit; nothing was recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        return await self.with_options().start(workflow, *args, **kwargs)

    def with_options(
        self,
        *,
        id: str | None = None,
        deadline: timedelta | None = None,
        conversation: str | None = None,
        limit_key: str = "",
        timeout: timedelta | None = None,
        principal: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        partition: str | None = None,
    ) -> Options:
        """Return a way to start runs and to call tools with options.

        Args:
            id: the run's id; starting it again is the same run, with other input an error. A UUIDv7 when left out.
            deadline: how long the run may take from now, restarts included; then it fails with DeadlineExceededError.
            conversation: whose circuits and rate limits the calls go by, where a tool has them by conversation. A run
                is a conversation of its own when left out.
            limit_key: for `call` and `dispatch`: whose bucket of the tool's rate limit the token comes from.
            timeout: for `call` and `dispatch`: how long the tool may take.
            principal: who asks, as the log is to name them; a run's tools are told too (`ToolContext.principal`), also
                after a restart. It is written down, not checked.
            queue: for `start`: the queue in which the run waits for its turn.
            priority: in the queue: larger ones come first, equal ones in the order of starting.
            partition: in the queue: whom the run is for, such as a customer, where the queue bounds runs by partition.

        Raises:
            UsageError: the conversation's id is not 1 to 60 printable ASCII characters without a space, or the
                principal is not 1 to 200 printable characters.
        """
        check_conversation(conversation)
        check_principal(principal)
        check_place(queue, priority, partition, self._queues)
        values = OptionValues(
            id=id,
            deadline=deadline,
            conversation=conversation,
            limit_key=limit_key,
            timeout=timeout,
            principal=principal,
            queue=queue,
            priority=priority,
            partition=partition,
        )
        return Options(self, values)

    @property
    def workflows(self) -> Workflows:
        """The workflows of this runtime: register more, list them, take some out."""
        return self._workflows

    async def start_run(self, workflow: Workflow[..., R], data: bytes, options: OptionValues) -> RunHandle[R]:
        """Start a run from its encoded input; durable on return. See `start`."""
        self._opened()
        if self._workflows.get(workflow.name) is not workflow:
            raise UsageError(f"{workflow.name} is not registered: Runtime(…, workflows=[{workflow.name}])")
        return RunHandle(self, await self._start(workflow.name, data, options), workflow.result_decoder)

    async def _start(self, workflow: str, data: bytes, options: OptionValues, origin: Origin | None = None) -> str:
        run = str(uuid_utils.uuid7()) if options.id is None else checked_run_id(options.id)
        known = self._workflows.get(workflow)
        limit = shorter(options.deadline, None if known is None else known.timeout)
        until = None if limit is None else self._clock.moment().now + limit // timedelta(microseconds=1)
        command = StartRun(
            workflow,
            msgspec.Raw(data),
            digest(workflow, data),
            self._engine.life,
            until,
            options.conversation,
            options.principal,
            forked_from=origin,
            place=options.place,
        )
        await self.ask(stream_id(f"run/{run}"), command, principal=options.principal)
        return run

    async def start_named(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: OptionValues
    ) -> RunHandle[Any]:
        """Start a run of the workflow that is registered under a name; durable on return. See `start`.

        Raises:
            UnknownWorkflowError: there is none.
        """
        workflow = self.workflow(name)
        return await self.start_run(workflow, named_input(workflow, args, kwargs, self.redaction), options)

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
        command = await plan_of_retry(self._system, checked_run_id(run))
        await self.ask(stream_id(f"run/{run}"), command, principal=who)
        return command.fact.step

    async def fork_run(self, run: str, asked: ForkRequest) -> str:
        """Start a run that begins where another one was before a step; return its id. See `RunHandle.fork`."""
        self._opened()
        place = await place_of_fork(self._system, checked_run_id(run), asked.step)
        name, data = place.started.workflow, changed_input(place.started, asked.changed)
        if name in self._workflows:
            self._workflows[name].decode_input(data)
        queue = place.started.place
        options = OptionValues(
            id=asked.id,
            deadline=asked.deadline,
            conversation=place.started.conversation,
            principal=asked.who or place.principal,
            queue=None if queue is None else queue.queue,
            priority=0 if queue is None else queue.priority,
            partition=None if queue is None else queue.partition,
        )
        return await self._start(name, data, options, place.origin)

    def run(self, run_id: str, workflow: Workflow[..., R] | None = None) -> RunHandle[R]:
        """Return a handle to a run by its id, whether it exists or not; with *workflow*, its result is typed."""
        return RunHandle(self, checked_run_id(run_id), None if workflow is None else workflow.result_decoder)

    async def publish(self, type: str, data: object = None, *, id: str | None = None, who: str | None = None) -> bool:
        """Publish an event of a type; durable when this returns, and it waits for nobody who gets it.

        Runs that wait for such an event, now or from a place before it, get it (`Context.event`). With an *id* of the
        caller's, publishing it again (the last 10,000 ids of a type are remembered) changes nothing and returns False.

        Raises:
            PublicationConflictError: the id was another event's.
            UsageError: the type, the id or *who* cannot be one.
            UnencodableError, PayloadTooLargeError: the data cannot be recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        check_type(type)
        check_id(id)
        check_principal(who)
        self._opened()
        encoded = msgspec.Raw(self.encode(data, f"the event {type}"))
        is_new: bool = await self.ask(topic_of(type), Publish(encoded, id), principal=who)
        return is_new

    async def questions(self) -> list[OpenQuestion]:
        """Return the open questions of all runs, oldest first; `run(question.run).answer(question.id, …)` answers one.

        It reads every question of the log, answered ones too.
        """
        found = Questions()
        while page := await self.read(found.next_page):
            found.add(page)
        return found.open(self._clock.moment().now)

    async def execute(self, workflow_id: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a workflow to its end; return its `workflow_id`, `status` ("completed"), `result` and `duration` (seconds).

        It is a run like any other: with an id (`with_options(id=…).execute(…)`) the caller can ask again after a crash.
        Cancelling the wait does not cancel the run.

        Raises:
            UnknownWorkflowError: there is none of that name; nothing was recorded.
            WorkflowFailedError: it failed, was compensated, timed out, was cancelled or is blocked, which its `status`
                says; it names the step, the agent and the type of the error, and has the result as far as there is
                one. The original exception is the cause, in the life in which it was raised.
            As `start`.
        """
        return await self.with_options().execute(workflow_id, data)

    @property
    def failures(self) -> Failures:
        """The exceptions that runs end with, as long as somebody waits for them."""
        self._opened()
        return self._engine.failures

    async def get_stats(self) -> dict[str, Any]:
        """Return the figures of defined workflows and of their agents, from the whole log.

        The keys: `total_executions`, `successful_executions`, `failed_executions`, `cancelled_executions`,
        `running_executions`, `success_rate`, `average_duration` (seconds, of the successful ones), `pattern_usage`,
        `agent_performance` (by agent or tool: `executions`, `avg_time`, `min_time`, `max_time`) and `circuit_breakers`
        (by agent: `state`, `failure_count`). The first call reads the log, later ones what has come since.
        """
        self._opened()
        await read_executions(self, self._executions)
        figures = {agent.name: await self._agent_figures(agent) for agent in self._agents.values()}
        breakers = {name: {"state": one.state, "failure_count": one.failures} for name, one in figures.items()}
        return {**self._executions.figures(), "circuit_breakers": breakers}

    # Tools

    @property
    def tools(self) -> Registry:
        """The tools of this runtime: register more, list those that can be offered to a model."""
        return self._tools

    async def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once, outside of a run: guarded and recorded, its outcome durable on return.

        It is one attempt: the tool's retry policy is for runs, where waits are durable. Its fallback is called where
        it is refused or fails.

        Raises:
            CircuitOpenError, RateLimitedError, BulkheadFullError: refused; the tool was not called.
            ToolFailedError: it failed; the original exception is the cause.
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
        """
        return await self.with_options().call(tool, *args, **kwargs)

    async def call_encoded(self, tool: Tool[..., Any], arguments: bytes, options: OptionValues) -> Success:
        """Call a tool with encoded arguments. See `call`."""
        self._opened()
        call = DirectCall(tool, arguments, options.timeout, options.conversation, options.limit_key, options.principal)
        return await call_tool(self._engine, call)

    async def dispatch(self, tool: str, arguments: str | bytes | Mapping[str, Any] = "{}") -> str:
        """Make a call as a model asks for it, by name and with a JSON object, and return what the model is told.

        Never raises for what goes wrong with the call: the text is then a JSON object with the key `error`. An unknown
        name, or arguments that do not fit, count against nobody. Of a result over 64 KiB the model gets a preview; the
        log keeps all of it, and `blob` returns it by the `sha256` of the preview.

        Raises:
            LogWriteError, BacklogFullError: the log refused.
            UsageError: the runtime is not open.
        """
        return await self.with_options().dispatch(tool, arguments)

    async def dispatch_encoded(
        self, name: str, arguments: str | bytes | Mapping[str, Any], options: OptionValues
    ) -> str:
        """Make a call as a model asks for it, with options. See `dispatch`."""
        self._opened()
        try:
            tool = self._tools[name]
            data = tool.encode_arguments((), parse_arguments(name, arguments), self.redaction)
            success = await self.call_encoded(tool, data, options)
        except ToolError as error:
            return text_of_error(error)
        except (PayloadTooLargeError, UnencodableError) as error:
            return text_of_error(InvalidArgumentsError(detail="", tool=name, reason=str(error)))
        return text_of(success.result)

    async def select(self, required: Iterable[str], *, partial: bool = False) -> Tool[..., Any] | None:
        """Return the tool that has all these capabilities (with *partial*, most of them), or None.

        Tools that are not available, or whose circuit is open, are chosen only if there is no other. On ties the first
        one registered is.
        """
        candidates: list[Candidate] = []
        for tool in self._tools.in_order():
            figures: ToolStatistics = await self.ask(tool.stream(None), GetToolStatistics())
            usable = figures.state != "open" and self._tools.is_available(tool.name)
            candidates.append(Candidate(tool.name, tool.offer.capabilities, usable))
        name = select_best(candidates, frozenset(required), partial=partial)
        return None if name is None else self._tools[name]

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
        if self._is_open or self._make_log is not None:
            raise UsageError("check() is for a runtime on a file that is not open yet: Runtime('agents.db', …)")
        with LogReader.open(self.path) as reader:
            self._log = LogOnlyRead(reader)
            await self._make_engine()
            try:
                await self._engine.attach(self._system, 0)
                return await check_runs(self._engine, self._log)
            finally:
                await self._engine.stop(0)
                self._threads.close()
                self._leave_clock()

    async def waiting(self) -> list[WaitingRun]:
        """Return the open runs that are not in memory and what each waits for."""
        self._opened()
        return await self._reconciler.waiting()

    async def resume(self, run: str | None = None) -> None:
        """Bring back every open run that does not sleep; what opening does unless told `resume=False`.

        With *run*, only that one. A run that sleeps is woken when its time comes. One whose code is missing stays as
        it is; `waiting()` says so.
        """
        self._opened()
        if run is None:
            if self._executor is not None:
                await self._executor.resume()
            await self._reconciler.resume_open()
        else:
            await self._reconciler.resume_run(stream_id(f"run/{run}"))

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
        """Return the figures of the runtime; those of tools are folds of the log, which a restart does not zero."""
        self._opened()
        streams = {f"tool/{name}" for name in self._tools}
        streams |= {shell.stream for shell in self._system.directory.shells("tool/")}
        figures = {s.partition("/")[2]: await self.ask(StreamId(s), GetToolStatistics()) for s in sorted(streams)}
        return RuntimeStatistics(
            life=self._engine.life,
            runs_in_memory=len(self._engine),
            actors_in_memory=len(self._system.directory),
            failed_actors={str(stream): reason for stream, reason in self._system.directory.parked().items()},
            tools=figures,
            log=self._log.statistics(),
            slots=None if self._executor is None else self._executor.statistics(),
            queues=dict(self._engine.queues.statistics()),
        )

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
        stream = stream_id(f"run/{run}")
        view: RunView = await self.ask(stream, GetRun())
        if view.is_closed or view.status == "blocked":
            return view
        ended = self._engine.until_ended(run)
        view = await self.ask(stream, GetRun())  # it may have ended since it was asked first
        return view if view.is_closed or view.status == "blocked" else await ended

    async def check_settlement(self, run: str, step: str, data: msgspec.Raw) -> None:
        """Check that JSON fits the declared result of the tool that a step calls, if that tool is known.

        Raises:
            UnencodableError: it does not.
        """
        tool = self._tools.get(await called_tool(self.read, stream_id(f"run/{run}"), step) or "")
        if tool is not None:
            tool.result_decoder.decode(data, step)

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as it would be recorded.

        Raises:
            UnencodableError, PayloadTooLargeError: it cannot be.
        """
        return encode_payload(value, where=where, redaction=self.redaction)
