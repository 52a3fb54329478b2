"""The runs of one runtime: starts, resumes, interrupts and settles them, and tells those who wait for their ends.

Resuming is not a special path: a run that was just started, one that slept and one that a crash interrupted all go
through `resume`, with more or less recorded.
"""

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import structlog

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.messages import Effect
from perdure.actors.kernel.payloads import encode_payload
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem, Interpreter
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.invoke import Invoker
from perdure.actors.tools.limits import Gate
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.retry import NO_RETRY
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.driver import Abandoned, Driver, Ending, Suspending
from perdure.actors.workflows.errors import UnknownWorkflowError
from perdure.actors.workflows.events import RunStarted, RunSuspended
from perdure.actors.workflows.recording import Recording
from perdure.actors.workflows.run import (
    ATTENTION,
    CLOSED,
    Interrupt,
    Launch,
    Note,
    ResumeRun,
    RunState,
    RunView,
    Settled,
    needs_solitude,
    view,
)
from perdure.store.codec import blob_hashes
from perdure.store.errors import InternalError, LogWriteError, PerdureError, UsageError
from perdure.store.records import Loaded, Query, StreamId

T = TypeVar("T")


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A run that is ready to be resumed."""

    shell: Shell
    recording: Recording
    given: dict[str, Any]
    version: int
    """Of the stream, when it was read."""


_log = structlog.get_logger("perdure.runs")


class Engine:
    """Drives the runs that are in memory."""

    def __init__(
        self,
        tools: Registry,
        workflows: Mapping[str, Workflow[..., Any]],
        invoker: Invoker,
        clock: Clock,
        *,
        park_after: timedelta,
        max_active: int,
    ) -> None:
        self.tools = tools
        self.workflows = workflows
        self.invoker = invoker
        self.redaction = invoker.redaction
        self.clock = clock
        self.park_after = park_after // timedelta(microseconds=1)
        self.life = 0
        """The position at which this life of the runtime began: tells its calls from those of former ones."""
        self.system: ActorSystem
        self._drivers: dict[str, Driver] = {}
        self._waiters: dict[str, Answer[RunView]] = {}
        self._pinned: set[str] = set()
        self._gates: dict[StreamId, Gate] = {}
        self._max_active = max_active
        self._deferred: deque[StreamId] = deque()
        """Runs over the bound, which wait for a place; only their names are kept."""
        self._alone: asyncio.Task[None] | None = None
        self._resuming: set[asyncio.Task[Any]] = set()
        self._beside: set[asyncio.Task[Any]] = set()
        self._sentinel: asyncio.Task[Any]
        self._is_stopping = False
        self._is_filling = False
        self._coming: set[StreamId] = set()
        """Runs that are being resumed: two at once would each make the other's reading old."""
        self._idle: Answer[None] | None = None
        self.on_parked: Callable[[int], None] = lambda _: None
        """Told the time at which a run that left memory wants to be woken."""
        self.as_tool = lru_cache(maxsize=1024)(_as_tool)

    @property
    def interpreters(self) -> Mapping[type[Effect], Interpreter]:
        """The effects of runs, and what performs them."""
        return {Launch: self._launch, Interrupt: self._interrupt, Settled: self._settled}

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._is_stopping

    @property
    def is_loop_ending(self) -> bool:
        """Whether somebody cancels all tasks of the loop, as `asyncio.run` does when its coroutine has ended."""
        return self._sentinel.cancelling() > 0

    def __len__(self) -> int:
        """Return how many runs are in memory with their code."""
        return len(self._drivers)

    async def attach(self, system: ActorSystem, life: int) -> None:
        """Bring the actors of all registered tools into memory, where they stay."""
        self.system, self.life = system, life
        self._sentinel = system.loop.create_task(asyncio.Event().wait(), name="perdure sentinel")
        for tool in list(self.tools.values()):
            await self._bring(tool)

    async def _bring(self, tool: Tool[..., Any]) -> None:
        shell = await self.system.directory.activate(tool.stream(None))
        if tool.name not in self._pinned:
            self._pinned.add(tool.name)
            shell.pins += 1

    def shell_in_memory(self, tool: Tool[..., Any], conversation: str | None = None) -> Shell | None:
        """Return the actor of *tool* if it is registered and in memory, as it nearly always is."""
        if not self.tools.holds(tool):
            return None
        return self.system.directory.active(tool.stream(conversation))

    async def tool_shell(self, tool: Tool[..., Any], conversation: str | None = None) -> Shell:
        """Return the actor that guards *tool* in a conversation, registering the tool if it is new.

        Raises:
            UsageError: another tool has the name.
            ActorFailedError: the tool's actor failed and has not come back.
        """
        self.tools.register(tool)
        if tool.name not in self._pinned:
            await self._bring(tool)
        return await self.system.directory.activate(tool.stream(conversation))

    def gate(self, tool: Tool[..., Any], stream: StreamId) -> Gate:
        """Return what is in memory only of the actor at *stream*: who runs, who waits for a place or the circuit."""
        gate = self._gates.get(stream)
        if gate is None:
            gate = self._gates[stream] = Gate(tool.concurrency, tool.queue)
        return gate

    def circuit_moved(self, stream: StreamId) -> None:
        """Tell those whom the circuit of the tool at *stream* refused that it has moved."""
        if (gate := self._gates.get(stream)) is not None:
            gate.circuit_moved()

    def settle_gate(self, stream: StreamId) -> None:
        """Forget a gate that nobody stands at."""
        gate = self._gates.get(stream)
        if gate is not None and gate.is_idle:
            del self._gates[stream]

    async def opened_by(self, stream: StreamId) -> int | None:
        """Return the position of the event that opened the circuit of the tool at *stream*."""
        types = ("circuit-opened", "circuit-forced")
        found = await self.system.log.read(Query(stream=stream, types=types, newest_first=True, limit=1))
        return found[0].position if found else None

    def workflow(self, name: str) -> Workflow[..., Any]:
        """Return a registered workflow.

        Raises:
            UnknownWorkflowError: there is none of that name.
        """
        try:
            return self.workflows[name]
        except KeyError:
            known = ", ".join(sorted(self.workflows)) or "none"
            raise UnknownWorkflowError(workflow=name, known=known) from None

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as JSON, redacted.

        Raises:
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        return encode_payload(value, where=where, redaction=self.redaction)

    # Starting and resuming

    def _launch(self, shell: Shell, effect: Launch) -> None:
        if len(self._drivers) >= self._max_active:
            self._deferred.append(shell.stream)
        else:
            given = self.workflow(shell.state.workflow).decode_input(effect.input)
            self._drive(shell, Recording(), given)

    def _drive(self, shell: Shell, recording: Recording, given: dict[str, Any]) -> Driver | None:
        """Run the code of a run whose start, or resume, is durable."""
        state = shell.state
        if self._is_stopping or state.run in self._drivers or state.status in CLOSED:
            return None
        workflow = self.workflow(state.workflow)
        driver = Driver(self, shell, workflow, given, recording)
        self._drivers[state.run] = driver
        driver.launch()
        return driver

    def has(self, run: str) -> bool:
        """Return whether the run's code is in memory."""
        return run in self._drivers

    async def resume_many(self, streams: Iterable[StreamId]) -> list[tuple[StreamId, PerdureError | None]]:
        """Run the code of these runs again; return for each why not, or None.

        One query for all of them. Each resume is durable before its code runs. Runs that may have killed the process
        are resumed one after another, in the background.
        """
        wanted = [s for s in streams if s.partition("/")[2] not in self._drivers and s not in self._coming]
        if not wanted or self._is_stopping:
            return []
        room = max(0, self._max_active - len(self._drivers))
        self._deferred.extend(wanted[room:])
        wanted = wanted[:room]
        self._coming.update(wanted)
        try:
            outcomes, left = await self._bring_back(wanted)
        finally:
            self._coming.difference_update(wanted)
        again = await self.resume_many(left)
        return [*again, *outcomes]

    async def _bring_back(
        self, wanted: list[StreamId]
    ) -> tuple[list[tuple[StreamId, PerdureError | None]], list[StreamId]]:
        """Resume runs that nobody else is resuming; return also those to be read again."""
        # The schema "" fits no snapshot: all events come, from which both the state and the recording are folded.
        with self.system.directory.reading() as left:
            loaded = await self.system.log.load([(stream, "") for stream in wanted])
            blobs = await self.system.log.blobs(blob_hashes(e for one in loaded for e in one.events))
        outcomes = [(one.stream, self._prepare(one, blobs)) for one in loaded if one.stream not in left]
        suspects = [p for _, p in outcomes if isinstance(p, Prepared) and needs_solitude(p.shell.state, self.life)]
        ready = [p for _, p in outcomes if isinstance(p, Prepared) and p not in suspects]
        await self._go_on(ready)
        if suspects:
            self._alone = self._spawn(self._one_by_one(suspects, after=self._alone))
        reasons = [(stream, p if isinstance(p, PerdureError) else None) for stream, p in outcomes]
        return reasons, [stream for stream in wanted if stream in left]

    def _prepare(self, loaded: Loaded, blobs: Mapping[str, bytes]) -> "Prepared | PerdureError":
        try:
            shell = self.system.directory.adopt(loaded, blobs)
            decoded = [(self.system.codec.decode(event, blobs), event.at) for event in loaded.events]
            first = decoded[0][0]
            if not isinstance(first, RunStarted):
                raise InternalError(detail=f"{loaded.stream} does not begin with run-started")
            given = self.workflow(shell.state.workflow).decode_input(first.input)
            return Prepared(shell, Recording(decoded), given, loaded.version)
        except PerdureError as error:
            return error

    async def _go_on(self, ready: "Sequence[Prepared]") -> list[Driver]:
        """Record the resume of these runs, and once that is durable run their code."""
        allowed: list[Prepared] = []
        for one in ready:
            one.shell.pins += 1
            done = self.system.transact(((one.shell, ResumeRun(self.life)),), correlation=one.shell.state.run)
            if done.replies[0]:
                allowed.append(one)
        try:
            await self.system.log.flush()
        except asyncio.CancelledError:
            self._lay_down(allowed)
            raise
        finally:
            for one in ready:
                one.shell.pins -= 1
        if self._is_stopping:
            self._lay_down(allowed)
            return []
        for one in [one for one in allowed if one.shell.version != one.version + 1]:
            allowed.remove(one)
            self._spawn(self._resume(one.shell.stream))  # it was settled or cancelled meanwhile: read it again
        drivers = [self._drive(one.shell, one.recording, one.given) for one in allowed]
        return [driver for driver in drivers if driver is not None]

    def _lay_down(self, resumed: "Sequence[Prepared]") -> None:
        """Record that the runtime stops before the code of these runs ran: the next life takes it for no crash."""
        for one in resumed:
            state: RunState = one.shell.state
            if state.life == self.life and not self.has(state.run):
                with contextlib.suppress(PerdureError):  # a log that fails at the end is told to who closes it
                    suspended = Note(RunSuspended(tuple(state.in_flight)))
                    self.system.transact(((one.shell, suspended),), correlation=state.run)

    async def _one_by_one(self, suspects: "Sequence[Prepared]", after: "asyncio.Task[None] | None") -> None:
        """Resume runs that may have killed the process, each when the one before is past the steps in question."""
        if after is not None:
            await asyncio.wait([after])
        for one in suspects:
            one.shell.pins += 1
        for one in suspects:
            one.shell.pins -= 1
            if one.shell.stream in self._coming or self.has(one.shell.state.run):
                continue  # somebody cancelled or settled it, and so it was resumed
            self._coming.add(one.shell.stream)
            try:
                drivers = await self._go_on([one])
            finally:
                self._coming.discard(one.shell.stream)
            for driver in drivers:
                await driver.cleared

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self.system.loop.create_task(work)
        self._resuming.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _fill_places(self) -> None:
        if self._deferred and not self._is_stopping and len(self._drivers) < self._max_active and not self._is_filling:
            self._is_filling = True
            self._spawn(self._resume_deferred())

    async def _resume_deferred(self) -> None:
        """Resume runs that wait for a place until there is none left; one that cannot go on holds up nobody."""
        try:
            while self._deferred and len(self._drivers) < self._max_active and not self._is_stopping:
                await self._resume_or_report(self._deferred.popleft())
        finally:
            self._is_filling = False

    async def _resume_or_report(self, stream: StreamId) -> None:
        try:
            await self._resume(stream)
        except PerdureError as error:
            _log.error("a run could not be started or resumed", stream=stream, error=str(error))

    async def _resume(self, stream: StreamId) -> None:
        for _, error in await self.resume_many([stream]):
            if error is not None:
                raise error

    def _spawned(self, task: "asyncio.Task[Any]") -> None:
        self._resuming.discard(task)
        self._check_idle()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a run could not be started or resumed", error=str(error), exc_info=error)

    # Interrupting

    def _interrupt(self, shell: Shell, effect: Interrupt) -> None:
        del effect
        driver = self._drivers.get(shell.state.run)
        if driver is not None:
            driver.cancel(shell.state.cancel_reason)
        else:
            self._spawn(self._resume(shell.stream))  # its code takes itself down where its recording ends

    def _settled(self, shell: Shell, effect: Settled) -> None:
        driver = self._drivers.get(shell.state.run)
        if driver is not None:
            driver.settled(effect.step, effect.verdict)
        else:
            self._spawn(self._resume(shell.stream))

    # Ends

    def ended(self, driver: Driver) -> None:
        """Take a driver out of memory; tell those who wait once its end is durable."""
        self._drivers.pop(driver.run_id, None)
        self._fill_places()
        self._check_idle()
        shell = driver.shell
        barrier = self.system.log.barrier()
        if barrier is None:
            self._is_durable(shell)
        else:
            shell.pins += 1
            barrier.on_settled(lambda ticket: self._unpin(shell, ticket.error))

    def _unpin(self, shell: Shell, error: BaseException | None) -> None:
        shell.pins -= 1
        if error is None:
            self._is_durable(shell)
        else:
            self._tell(shell.state.run, error)

    def _is_durable(self, shell: Shell) -> None:
        state = shell.state
        if state.status in CLOSED or state.status == "blocked":
            self._tell(state.run, view(state))
        elif state.status == "waiting" and _may_go_on(state) and not self._is_stopping:
            self._spawn(self._resume(shell.stream))  # somebody cancelled or settled it while it was leaving
            return
        elif state.status == "waiting" and state.wake_at is not None:
            self.on_parked(state.wake_at)
        if not self._is_stopping:
            self.system.directory.passivate(shell)

    def _tell(self, run: str, outcome: RunView | BaseException) -> None:
        answer = self._waiters.pop(run, None)
        if answer is None:
            return
        if isinstance(outcome, BaseException):
            answer.set_error(outcome)
        else:
            answer.set(outcome)

    def until_ended(self, run: str) -> Answer[RunView]:
        """Return the answer to come when the run is closed or blocked."""
        return self._waiters.setdefault(run, Answer())

    def until_idle(self) -> Answer[None]:
        """Return the answer to come when no run is in memory and none is being brought back."""
        self._idle = self._idle or Answer()
        idle = self._idle
        self._check_idle()
        return idle

    def _check_idle(self) -> None:
        if self._idle is not None and not self._drivers and not self._resuming:
            idle, self._idle = self._idle, None
            idle.set()

    def abandoned(self, driver: Driver, error: PerdureError) -> None:
        """Tell those who wait for a run that the log failed."""
        self._tell(driver.run_id, error)

    async def beside_runs(self, effect: Coroutine[Any, Any, T]) -> T:
        """Return what an effect outside of runs comes to; a failure of the log cancels it, and so does a stop.

        Raises:
            CancelledError: it was cancelled, or the caller was.
        """
        task = self.system.loop.create_task(effect, name="perdure call")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return await task

    def log_failed(self, error: LogWriteError) -> None:
        """Take every run down as it is and tell those who wait: nothing can be recorded any more."""
        self._is_stopping = True
        self._take_down(self._drivers.values(), Abandoned())
        for task in self._beside:
            task.cancel()
        for run in list(self._waiters):
            self._tell(run, error)

    # Stop

    async def stop(self, drain_seconds: float) -> None:
        """Let steps in flight end for a while, then take every run down; their code goes on in the next life."""
        self._is_stopping = True
        for task in list(self._resuming):
            task.cancel()
        await _settle(self._resuming, None)
        tasks = {d.task for d in self._drivers.values() if d.task is not None}
        for driver in list(self._drivers.values()):
            driver.stop_at_next_step()
        await _settle(tasks | self._beside, drain_seconds)
        self._take_down(self._drivers.values(), Suspending())
        for task in self._beside:
            task.cancel()
        await _settle(tasks | self._beside, None)
        self._sentinel.cancel()
        for run in list(self._waiters):
            self._tell(run, UsageError(f"the runtime was closed while run {run} was open; open it again and ask"))

    def _take_down(self, drivers: Iterable[Driver], ending: Ending) -> None:
        for driver in list(drivers):
            driver.take_down(ending)


def _may_go_on(state: RunState) -> bool:
    """Return whether a run that waits has already got what it waits for."""
    is_settled = state.waits_on == ATTENTION and not any(flight.in_doubt for flight in state.in_flight.values())
    return state.cancel_reason is not None or is_settled


async def _settle(tasks: "set[asyncio.Task[Any]]", timeout: float | None) -> None:
    pending = {task for task in tasks if not task.done()}
    if pending:
        await asyncio.wait(pending, timeout=timeout)


def _as_tool(function: Callable[..., Any]) -> Tool[..., Any]:
    if not inspect.iscoroutinefunction(function):
        raise UsageError(f"ctx.step takes an async function; make {function!r} async, or a @tool, which may block")
    name = getattr(function, "__qualname__", "step").replace("<locals>.", "").replace("<lambda>", "lambda")
    made: Tool[..., Any] = Tool(
        function, name=name, effect="idempotent", breaker=BreakerPolicy(), retry=NO_RETRY, timeout=None, reconcile=None
    )
    # A tool that says nothing is broken; a function that says nothing, and does not promise to, is just a function.
    made.declares_none = made.declares_none or "return" not in getattr(function, "__annotations__", {})
    return made
