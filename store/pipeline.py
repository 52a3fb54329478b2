"""The commit side of the journal: batches waiting, one committing, and who is told afterwards.

While one batch commits the next fills. The invariant: batches commit one at a time in order, and after one failed
every batch behind it fails with the same error; nothing is retried.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from perdure.store.batch import Batch, Bounds, Committer
from perdure.store.errors import LogWriteError
from perdure.store.ticket import Ticket


class Pipeline:
    """Commits what waits, on one event loop."""

    def __init__(
        self, committer: Committer, durable: int, bounds: Bounds, on_failure: Callable[[LogWriteError], None] | None
    ) -> None:
        self.durable = durable
        """The last position that is known to be on disk."""
        self.failure: LogWriteError | None = None
        self.newest: Ticket | None = None
        self.backlog_events = self.backlog_bytes = 0
        self.commits = self.events = self.largest = 0
        self._loop = asyncio.get_running_loop()
        self._committer = committer
        self._bounds = bounds
        self._on_failure = on_failure
        self._waiting: deque[Batch] = deque()
        self._committing: Batch | None = None
        self._untold: Batch | None = None
        """The one that is on disk while its waiters are not told yet."""
        self._task: asyncio.Task[None] | None = None
        self._is_ended = False
        self._sleepers: set[asyncio.Future[None]] = set()

    def batch_for(self, events: int, size: int, after: int) -> Batch:
        """Return the batch that a unit of this size joins; *after* is the last position so far."""
        bounds = self._bounds
        if self._waiting:
            batch = self._waiting[-1]
            if len(batch.events) + events <= bounds.batch_events and batch.size + size <= bounds.batch_bytes:
                return batch
        return Batch(after)

    def push(self, batch: Batch, events: int, size: int) -> None:
        """Count what was added to *batch* and see to it that it gets committed."""
        batch.size += size
        self.backlog_events += events
        self.backlog_bytes += size
        self.newest = batch.ticket
        if not self._waiting or self._waiting[-1] is not batch:
            self._waiting.append(batch)
        if self._task is None:
            # A task starts in the next tick of the loop: all that is appended in this one shares its commit.
            self._task = self._loop.create_task(self._drain(), name="perdure journal")

    async def beyond(self, position: int) -> bool:
        """Return True once a position greater than *position* is durable; False when the log ended instead.

        Raises:
            LogWriteError: a commit failed.
        """
        while self.durable <= position:
            if self.failure is not None:
                raise LogWriteError(detail=self.failure.detail) from self.failure
            if self._is_ended:
                return False
            sleeper: asyncio.Future[None] = self._loop.create_future()
            self._sleepers.add(sleeper)
            try:
                await sleeper
            finally:
                self._sleepers.discard(sleeper)
        return True

    def end(self) -> None:
        """Tell those who wait in `beyond` that nothing more will come."""
        self._is_ended = True
        self._wake()

    def fail(self, error: LogWriteError, *, is_reported: bool = True) -> None:
        """Fail everything that waits, and all that comes."""
        if self.failure is not None:
            return
        self._tell()
        self.failure = error
        failed = [batch for batch in (self._committing, *self._waiting) if batch is not None]
        self._committing = None
        self._waiting.clear()
        self.backlog_events = self.backlog_bytes = 0
        # The runtime hears of it first: nobody may act on an error while it still believes that the log works.
        if is_reported and self._on_failure is not None:
            self._on_failure(error)
        if is_reported and not failed:
            # Nobody waits. Whoever asks from now on what is durable is told all the same that the log failed.
            self.newest = Ticket()
            self.newest.settle(error)
        for batch in failed:
            batch.ticket.settle(error)
        self._wake()

    async def stop(self) -> None:
        """Wait until no commit is under way, whatever became of it."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._task])

    async def _drain(self) -> None:
        try:
            await self._commit_all()
        except LogWriteError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever a committer raises, the batch is in doubt
            self.fail(_in_doubt(error))
        except BaseException as error:
            self.fail(_in_doubt(error))
            raise
        finally:
            self._task = None

    async def _commit_all(self) -> None:
        while self._waiting:
            batch = self._committing = self._waiting.popleft()
            commit = self._loop.create_task(self._committer.commit(batch), name="perdure commit")
            await asyncio.sleep(0)
            # The disk is busy with this batch while those who waited for the one before are told.
            self._tell()
            await commit
            if self.failure is not None:
                return  # somebody else failed the log meanwhile, and this batch with it
            self._committing, self._untold = None, batch
            if not self._waiting:
                self._tell()
                await asyncio.sleep(0)  # those who were told append now, and share the next commit

    def _tell(self) -> None:
        batch, self._untold = self._untold, None
        if batch is None:
            return
        events = len(batch.events)
        self.durable = batch.after + events
        self.backlog_events -= events
        self.backlog_bytes -= batch.size
        self.commits += 1
        self.events += events
        self.largest = max(self.largest, events)
        batch.ticket.settle()
        self._wake()

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)


def _in_doubt(error: BaseException) -> LogWriteError:
    return LogWriteError(detail=f"a commit ended with {type(error).__name__}: {error}")
