"""The reconcile loop: brings back runs that are due, at open and whenever a sleeper's time has come.

Recovery is no special path: at open the loop looks at all open work, later at what is due. Its cost grows with open
work, not with the length of the log.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from perdure.actors.kernel.clock import SECOND, Clock, Timer
from perdure.actors.kernel.logs import logger
from perdure.actors.workflows.children import CHILD
from perdure.actors.workflows.commands import ReportInterrupted
from perdure.actors.workflows.engine import Engine
from perdure.actors.workflows.mailbox import ANSWER, SIGNAL
from perdure.actors.workflows.queue import is_queued
from perdure.actors.workflows.steering import PAUSED
from perdure.actors.workflows.subscriptions import EVENT
from perdure.store.errors import PerdureError
from perdure.store.protocols import EventLog
from perdure.store.records import OpenStream, StreamId

PAGE = 200
"""Runs brought back with one query."""

LOOK_AGAIN = SECOND
"""Microseconds until sleepers are looked for again after a failure."""

_log = logger("perdure.recovery")


class WaitingRun(msgspec.Struct, frozen=True):
    """An open run that is not in memory, and what it waits for."""

    id: str
    wake_at: int | None
    """Microseconds since 1970 UTC; None: it would go on at once."""
    waits_on: str | None
    """`attention`: only a person can move it; `answer`, `signal`: it sleeps until one comes; `resume`: it is paused;
    `queue:NAME`: it waits for its turn; otherwise the reason why it could not be resumed, or None."""
    could_not: str | None = None
    """Why it could not be resumed, if that was tried: its code is missing, or cannot read what is recorded."""


class Reconciler:
    """Resumes open runs."""

    def __init__(self, log: EventLog, engine: Engine, clock: Clock, *, interrupted: str = "resume") -> None:
        self._is_to_report = interrupted == "report"
        self._log = log
        self._engine = engine
        self._clock = clock
        self._timer: Timer | None = None
        self._armed_for: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._reasons: dict[str, str] = {}
        self._is_stopped = False
        engine.on_parked = self._arm

    async def waiting(self, limit: int = 10_000) -> list[WaitingRun]:
        """Return open runs that are not in memory, at most *limit*."""
        found: list[WaitingRun] = []
        async for page in self._pages(None):
            for row in page:
                run = row.stream.partition("/")[2]
                if not self._engine.has(run):
                    could_not = self._reasons.get(run)
                    found.append(WaitingRun(run, row.wake_at, row.waits_on or could_not, could_not))
            if len(found) >= limit:
                break
        return found[:limit]

    async def resume_open(self) -> None:
        """Bring back every open run but those that sleep; then wake sleepers as their times come."""
        now = self._clock.moment().now
        async for page in self._pages(None):
            await self._engine.queues.restore([row.stream for row in page if is_queued(row.waits_on)])
            await self._resume(await self._unless_reported([row.stream for row in page if not _sleeps(row, now)]))
        # Whoever was at work has a place, and may have to wait for memory: before all that waits for its turn.
        self._engine.resumer.after_deferred(self._engine.queues.open)
        await self._arm_next(now)
        await self._engine.exchange.wake_sleepers()

    async def resume_run(self, stream: StreamId) -> None:
        """Bring back one open run, at once or, if it sleeps, when its time comes; in a queue, when its turn comes."""
        now = self._clock.moment().now
        row = await self._row(stream)
        if row is None:
            return
        if is_queued(row.waits_on):
            await self._engine.queues.restore([stream])
        if row.wake_at is not None and row.wake_at > now:
            self._arm(row.wake_at)
        elif not _sleeps(row, now):
            await self._resume([stream])

    async def _row(self, stream: StreamId) -> OpenStream | None:
        # By name, the stream itself comes before all whose names it begins.
        rows = await self._log.open_streams(stream, limit=1)
        return rows[0] if rows and rows[0].stream == stream else None

    async def _pages(self, wake_before: int | None) -> AsyncIterator[list[OpenStream]]:
        after = ""
        while page := await self._log.open_streams("run/", after=after, wake_before=wake_before, limit=PAGE):
            yield page
            after = page[-1].stream

    async def _unless_reported(self, streams: Sequence[StreamId]) -> Sequence[StreamId]:
        """Return the runs that go on; those that were in memory when the process ended are held, if that is wanted."""
        if not self._is_to_report:
            return streams
        report = ReportInterrupted(self._engine.life)
        asked = [(stream, self._engine.system.ref(stream).ask(report)) for stream in streams]
        left: list[StreamId] = []
        for stream, answer in asked:
            try:
                if await answer:
                    _log.warning("a run was interrupted, and is held", run=stream.partition("/")[2])
                else:
                    left.append(stream)
            except PerdureError:
                left.append(stream)  # it cannot be read: the resume says why
        return left

    async def _resume(self, streams: Sequence[StreamId]) -> None:
        for stream, outcome in await self._engine.resumer.resume_many(streams):
            run = stream.partition("/")[2]
            if isinstance(outcome, PerdureError):
                self._reasons[run] = str(outcome)
                _log.warning("a run was not resumed", run=run, reason=str(outcome))
            else:
                self._reasons.pop(run, None)

    def _arm(self, when: int) -> None:
        """See to it that somebody looks at *when*."""
        if self._is_stopped or (self._armed_for is not None and self._armed_for <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = when
        self._timer = self._clock.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = self._armed_for = None
        self._task = asyncio.get_running_loop().create_task(self._wake())

    async def _wake(self) -> None:
        now = self._clock.moment().now
        try:
            async for page in self._pages(now):
                await self._resume([row.stream for row in page])
            await self._arm_next(now)
        except PerdureError as error:
            # The disk may not be readable for a moment: sleepers must not be forgotten for that.
            _log.warning("sleepers could not be looked for; it is tried again", reason=str(error))
            self._arm(self._clock.moment().now + LOOK_AGAIN)

    async def _arm_next(self, now: int) -> None:
        # Those due at *now* were looked at: what could not be resumed (its code is missing) must neither make the loop
        # spin nor hide who comes after it. What came due since then is woken at once.
        when = await self._log.next_wake(after=now)
        if when is not None:
            self._arm(when)

    async def stop(self) -> None:
        """Wake nobody any more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def _sleeps(row: OpenStream, now: int) -> bool:
    """Return whether a run has nothing to do now: its time, its signal or its answer has not come."""
    if row.wake_at is not None:
        return row.wake_at > now
    return row.waits_on in (ANSWER, SIGNAL, EVENT, CHILD, PAUSED) or is_queued(row.waits_on)
