"""Group commit: append now, durable when the ticket says so.

The journal assigns positions, versions, salts and digests, gathers units into batches and hands them to a `Committer`
one after the other; it knows neither SQLite nor actors. The invariant: order of `append` = order of positions = order
of commits; after one failed commit nothing is ever written again.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from perdure.store.batch import Batch, Bounds, Committer
from perdure.store.errors import BacklogFullError, LogClosedError, LogWriteError, UsageError
from perdure.store.heads import HEADS, head_event
from perdure.store.pipeline import Pipeline
from perdure.store.records import Append, Index, LogStatistics, Unit
from perdure.store.staging import Origin, Stager, check, weigh
from perdure.store.ticket import Ticket
from perdure.store.tips import Tip, Tips

_T = TypeVar("_T")


class Journal:
    """Gathers appends into commits, on one event loop. Everything appended in one tick of it shares a commit."""

    def __init__(
        self,
        committer: Committer,
        origin: Origin,
        *,
        bounds: Bounds | None = None,
        on_failure: Callable[[LogWriteError], None] | None = None,
    ) -> None:
        self.tips = Tips()
        self.log_id = origin.log_id
        self._bounds = bounds or Bounds()
        self._pipeline = Pipeline(committer, origin.position, self._bounds, on_failure)
        self._stager = Stager(origin)
        self._headed = origin.headed
        self._heads = origin.heads
        self._is_closing = False
        self.position = origin.position
        """Of the newest event that was appended, durable or not; heads aside."""

    def append(self, unit: Unit, *, is_refusable: bool = True) -> Ticket:
        """Add *unit* to the next commit and return its ticket; see `EventLog.append`."""
        if self._is_closing or self._pipeline.failure is not None:
            raise self._refusal()
        tips = check(unit, self.tips)
        events, size = weigh(unit)
        self._check_bounds(events, size, is_refusable=is_refusable)
        batch = self._pipeline.batch_for(events, size, self._stager.position)
        self._stage(unit, tips, batch, size)
        self.position = self._stager.position
        if self._stager.position - self._headed >= self._bounds.head_every:
            self._record_head(batch)
        return batch.ticket

    def barrier(self) -> Ticket | None:
        """Return the ticket of the newest append, or None when all that was appended is durable."""
        newest = self._pipeline.newest
        return None if newest is None or newest.is_durable else newest

    @property
    def is_congested(self) -> bool:
        """Whether more than half the backlog's bound waits."""
        pipeline, bounds = self._pipeline, self._bounds
        return pipeline.backlog_events * 2 > bounds.backlog_events or pipeline.backlog_bytes * 2 > bounds.backlog_bytes

    @property
    def durable_position(self) -> int:
        """The last position that is known to be on disk."""
        return self._pipeline.durable

    @property
    def failure(self) -> LogWriteError | None:
        """Why the journal takes no more writes."""
        return self._pipeline.failure

    def statistics(self, *, checkpoints: int = 0, database_bytes: int = 0, wal_bytes: int = 0) -> LogStatistics:
        """Return the figures since the log was opened, together with those of its place of storage."""
        pipeline = self._pipeline
        return LogStatistics(
            position=self._stager.position,
            durable_position=pipeline.durable,
            commits=pipeline.commits,
            events=pipeline.events,
            backlog_events=pipeline.backlog_events,
            backlog_bytes=pipeline.backlog_bytes,
            largest_batch=pipeline.largest,
            checkpoints=checkpoints,
            database_bytes=database_bytes,
            wal_bytes=wal_bytes,
        )

    async def flush(self) -> None:
        """Return once everything appended so far is durable.

        Raises:
            LogWriteError: it could not be made durable.
        """
        if (ticket := self.barrier()) is not None:
            await ticket

    async def settled_read(self, names: Iterable[str], read: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *read* finds out about these streams, none of which was forgotten while it read.

        What was appended to them before the call is durable by then.

        Raises:
            LogWriteError: it could not be made durable.
        """
        names = frozenset(names)
        while True:
            for ticket in self.tips.waiting(names):
                await ticket
            with self.tips.loading(names) as attempt:
                found = await read()
            if not attempt.is_stale:
                return found

    async def beyond(self, position: int) -> bool:
        """Return True once a position greater than *position* is durable; False when the log closed instead.

        Raises:
            LogWriteError: a commit failed.
        """
        return await self._pipeline.beyond(position)

    async def close(self) -> None:
        """Refuse further appends, record a head, make everything durable.

        Raises:
            LogWriteError: it could not be made durable.
        """
        self._is_closing = True
        try:
            if self._pipeline.failure is None and self._stager.position > self._headed:
                self._record_head(self._pipeline.batch_for(1, 0, self._stager.position))
            await self.flush()
        finally:
            await self._pipeline.stop()
            self._pipeline.end()

    def fail(self, error: LogWriteError) -> None:
        """Take no more writes, because the place of storage failed outside of a commit."""
        self._pipeline.fail(error)

    def abandon(self) -> None:
        """End at once, as a crash would: whatever waits for the disk fails, nothing more is recorded."""
        self._is_closing = True
        self._pipeline.fail(LogWriteError(detail="the log was abandoned"), is_reported=False)
        self._pipeline.end()

    def _refusal(self) -> LogWriteError | LogClosedError:
        failure = self._pipeline.failure
        if failure is None:
            return LogClosedError()
        refusal = LogWriteError(detail=failure.detail)
        refusal.__cause__ = failure
        return refusal

    def _check_bounds(self, events: int, size: int, *, is_refusable: bool) -> None:
        bounds, pipeline = self._bounds, self._pipeline
        if events > bounds.batch_events or size > bounds.unit_bytes:
            raise UsageError(
                f"a unit of {events} events and {size} bytes is over the bound of {bounds.batch_events} events and "
                f"{bounds.unit_bytes} bytes: append it in several units"
            )
        waiting = pipeline.backlog_events if is_refusable else 0
        # An empty backlog takes anything: a bound smaller than one unit must not stop the log for ever.
        if waiting and (
            waiting + events > bounds.backlog_events or pipeline.backlog_bytes + size > bounds.backlog_bytes
        ):
            raise BacklogFullError(waiting=waiting, bound=bounds.backlog_events)

    def _stage(self, unit: Unit, tips: Sequence[Tip], batch: Batch, size: int) -> None:
        before = self._stager.position
        self._stager.stage(unit, tips, batch)
        self._pipeline.push(batch, self._stager.position - before, size)

    def _record_head(self, batch: Batch) -> None:
        event = head_event(self._stager.frontier)
        index = Index(is_open=False) if self._heads.id == 0 else None
        append = Append(stream=HEADS, expected=self._heads.version, events=(event,), index=index)
        # Stamped 0: a head takes the time of the event before it, the log has no clock.
        unit = Unit(appends=(append,), at=0)
        self._stage(unit, (self._heads,), batch, weigh(unit)[1])
        self._headed = self._stager.position
