"""Brings runs back into memory: reads them, records that they go on, and has the engine run their code.

A run that slept, one that a crash interrupted and one that waited for a place all come this way. Invariant: a resume
is durable before the code runs, and of the runs that may have killed the process one at a time is resumed.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.shell import Shell
from perdure.actors.workflows.ancestry import Part, is_fork, read_ancestors
from perdure.actors.workflows.commands import Note, ResumeRun
from perdure.actors.workflows.driver import Driver
from perdure.actors.workflows.events import RunStarted, RunSuspended
from perdure.actors.workflows.lines import queued
from perdure.actors.workflows.recording import Recording
from perdure.actors.workflows.state import CLOSED, RunState, needs_solitude
from perdure.actors.workflows.steering import is_to_run
from perdure.store.codec import blob_hashes
from perdure.store.errors import InternalError, LogClosedError, LogWriteError, PerdureError
from perdure.store.records import Loaded, StreamId, stream_id

if TYPE_CHECKING:
    from perdure.actors.workflows.engine import Engine

_log = logger("perdure.runs")


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A run that is ready to be resumed."""

    shell: Shell
    recording: Recording
    given: dict[str, Any]
    principal: str | None
    """Who asked for the run."""
    version: int
    """Of the stream, when it was read."""
    started_at: int
    """Microseconds."""


class Resumer:
    """Resumes runs for an engine, as many as it has places for."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._deferred: deque[StreamId | Callable[[], None]] = deque()
        """Runs over the bound, which wait for a place, only their names; and who is told when those before it came."""
        self._alone: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_filling = False
        self._coming: set[StreamId] = set()
        """Runs that are being resumed: two at once would each make the other's reading old."""

    @property
    def is_busy(self) -> bool:
        """Whether runs are being brought back."""
        return bool(self._tasks)

    async def resume_many(self, streams: Iterable[StreamId]) -> list[tuple[StreamId, PerdureError | None]]:
        """Run the code of these runs again; return for each why not, or None.

        One query for all of them. Each resume is durable before its code runs. Runs that may have killed the process
        are resumed one after another, in the background.
        """
        wanted = [s for s in streams if not self._engine.has(s.partition("/")[2]) and s not in self._coming]
        if not wanted or self._engine.is_stopping:
            return []
        room = self._engine.room
        self._deferred.extend(wanted[room:])
        wanted = wanted[:room]
        self._coming.update(wanted)
        try:
            outcomes, left = await self._bring_back(wanted)
        finally:
            self._coming.difference_update(wanted)
        again = await self.resume_many(left)
        return [*again, *outcomes]

    async def read(self, stream: StreamId) -> Prepared | PerdureError | None:
        """Return a run as it is to be resumed, without resuming it; why it cannot be; None for one that has ended."""
        loaded = (await self._engine.system.log.load([(stream, "")]))[0]
        blobs = await self._engine.system.log.blobs(blob_hashes(loaded.events))
        inherited = await self._inherited(loaded, blobs) if is_fork(loaded) else []
        return self._prepare(loaded, blobs, inherited)

    def is_bringing(self, run: str) -> bool:
        """Return whether a run is in memory, or is being resumed this moment."""
        return self._engine.has(run) or stream_id(f"run/{run}") in self._coming

    def resume_soon(self, stream: StreamId) -> None:
        """Resume a run in the background."""
        self.spawn(self._resume(stream))

    def defer(self, stream: StreamId) -> None:
        """Resume a run when there is a place for it."""
        self._deferred.append(stream)

    def after_deferred(self, callback: Callable[[], None]) -> None:
        """Call *callback* when the runs that wait for a place now have come into memory, or cannot."""
        if self._deferred or self._is_filling:
            self._deferred.append(callback)
            self.fill_places()
        else:
            callback()

    async def stop(self) -> None:
        """Resume nothing any more."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _bring_back(
        self, wanted: list[StreamId]
    ) -> tuple[list[tuple[StreamId, PerdureError | None]], list[StreamId]]:
        """Resume runs that nobody else is resuming; return also those to be read again."""
        # The schema "" fits no snapshot: all events come, from which both the state and the recording are folded.
        with self._engine.system.directory.reading() as left:
            loaded = await self._engine.system.log.load([(stream, "") for stream in wanted])
            blobs = await self._engine.system.log.blobs(blob_hashes(e for one in loaded for e in one.events))
            inherited = {one.stream: await self._inherited(one, blobs) for one in loaded if is_fork(one)}
        outcomes = [
            (one.stream, self._prepare(one, blobs, inherited.get(one.stream, [])))
            for one in loaded
            if one.stream not in left
        ]
        self._conclude([stream for stream, found in outcomes if found is None])
        let_on = [p for _, p in outcomes if isinstance(p, Prepared) and self._is_let_on(p)]
        # Suspects keep their places in their queues, however long they wait to be alone.
        suspects = [p for p in let_on if needs_solitude(p.shell.state, self._engine.life)]
        try:
            await self._go_on([p for p in let_on if p not in suspects])
            if suspects:
                self._alone = self.spawn(self._one_by_one(suspects, after=self._alone))
        finally:
            kept = {p.shell.stream for p in suspects} | left
            runs = (stream.partition("/")[2] for stream in wanted if stream not in kept)
            self._engine.queues.vacate([run for run in runs if not self._engine.has(run)])
        reasons = [(stream, p if isinstance(p, PerdureError) else None) for stream, p in outcomes]
        return reasons, [stream for stream in wanted if stream in left]

    def _is_let_on(self, one: Prepared) -> bool:
        """Return whether its queue lets a run go on now; if not, the queue lets it in later."""
        state: RunState = one.shell.state
        if state.place is None or not is_to_run(state, self._engine.clock.moment().now):
            return True
        waiting = queued(state.run, state.place, one.started_at, is_back=True)
        if self._engine.queues.is_let_on(waiting):
            return True
        self._engine.system.directory.passivate(one.shell)
        return False

    def _conclude(self, ended: Iterable[StreamId]) -> None:
        """Have runs that have ended and are open work settle what they still owe."""
        for stream in ended:
            if (shell := self._engine.system.directory.active(stream)) is not None:
                self._engine.kin.conclude(shell)

    def _prepare(
        self, loaded: Loaded, blobs: Mapping[str, bytes], inherited: list[Part] | PerdureError
    ) -> Prepared | PerdureError | None:
        if isinstance(inherited, PerdureError):
            return inherited
        try:
            shell = self._engine.system.directory.adopt(loaded, blobs)
            if shell.state.status in CLOSED:
                return None
            decoded = [(self._engine.system.codec.decode(event, blobs), event.at) for event in loaded.events]
            first = decoded[0][0]
            if not isinstance(first, RunStarted):
                raise InternalError(detail=f"{loaded.stream} does not begin with run-started")
            given = self._engine.workflow(shell.state.workflow).decode_input(first.input)
            recording = Recording(decoded, inherited)
            recording.began_at = loaded.events[0].position
            return Prepared(shell, recording, given, loaded.events[0].principal, loaded.version, loaded.events[0].at)
        except PerdureError as error:
            return error

    async def _inherited(self, fork: Loaded, blobs: Mapping[str, bytes]) -> list[Part] | PerdureError:
        """Return what a fork takes over, or why it cannot be read."""
        system = self._engine.system
        try:
            started = system.codec.decode(fork.events[0], blobs)
            return await read_ancestors(system, started.forked_from if isinstance(started, RunStarted) else None)
        except PerdureError as error:
            return error

    async def _go_on(self, ready: Sequence[Prepared]) -> list[Driver]:
        """Record the resume of these runs, and once that is durable run their code."""
        allowed: list[Prepared] = []
        for one in ready:
            one.shell.pins += 1
            done = self._engine.system.transact(
                ((one.shell, ResumeRun(self._engine.life)),), correlation=one.shell.state.run
            )
            if done.replies[0]:
                allowed.append(one)
        try:
            await self._engine.system.log.flush()
        except asyncio.CancelledError:
            self._lay_down(allowed)
            raise
        finally:
            for one in ready:
                one.shell.pins -= 1
        if self._engine.is_stopping:
            self._lay_down(allowed)
            return []
        for one in [one for one in allowed if one.shell.version != one.version + 1]:
            allowed.remove(one)
            self.resume_soon(one.shell.stream)  # it was settled or cancelled meanwhile: read it again
        drivers = [self._engine.drive(one.shell, one.recording, one.given, one.principal) for one in allowed]
        return [driver for driver in drivers if driver is not None]

    def _lay_down(self, resumed: Sequence[Prepared]) -> None:
        """Record that the runtime stops before the code of these runs ran: the next life takes it for no crash."""
        for one in resumed:
            state: RunState = one.shell.state
            if state.life == self._engine.life and not self._engine.has(state.run):
                with contextlib.suppress(PerdureError):  # a log that fails at the end is told to who closes it
                    suspended = Note(RunSuspended(tuple(state.in_flight)))
                    self._engine.system.transact(((one.shell, suspended),), correlation=state.run)

    async def _one_by_one(self, suspects: Sequence[Prepared], after: asyncio.Task[None] | None) -> None:
        """Resume runs that may have killed the process, each when the one before is past the steps in question."""
        if after is not None:
            await asyncio.wait([after])
        for one in suspects:
            one.shell.pins += 1
        for one in suspects:
            one.shell.pins -= 1
            state: RunState = one.shell.state
            if one.shell.stream in self._coming or self._engine.has(state.run):
                continue  # somebody cancelled or settled it, and so it was resumed
            self._coming.add(one.shell.stream)
            try:
                drivers = await self._go_on([one])
            finally:
                self._coming.discard(one.shell.stream)
            if not drivers:
                self._engine.queues.left(state.run, state.place)
            for driver in drivers:
                await driver.cleared

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something in the background that brings runs back."""
        task = self._engine.system.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def fill_places(self) -> None:
        """Resume runs that wait for a place, if there is one."""
        if self._deferred and not self._engine.is_stopping and self._engine.room and not self._is_filling:
            self._is_filling = True
            self.spawn(self._resume_deferred())

    async def _resume_deferred(self) -> None:
        """Resume runs that wait for a place until there is none left; one that cannot go on holds up nobody."""
        try:
            while self._deferred and self._engine.room and not self._engine.is_stopping:
                one = self._deferred.popleft()
                if callable(one):
                    one()
                else:
                    await self._resume_or_report(one)
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

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._engine.check_idle()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, (LogWriteError, LogClosedError)):
            return  # whoever waits was told; the next life resumes it
        if isinstance(error, PerdureError):  # such as code that is not here: it says all that there is to say
            _log.error("a run could not be started or resumed", error=str(error))
        elif error is not None:
            _log.error("a run could not be started or resumed", error=str(error), exception=account_of(error))
