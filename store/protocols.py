"""The ports of the store: what an event log owes to whoever uses it.

Two implementations, `SqliteEventLog` and `MemoryEventLog`, pass the same contract tests. Everything here runs on one
event loop; no method may be called from another thread.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from perdure.store.records import (
    Loaded,
    LogStatistics,
    OpenStream,
    Query,
    Recorded,
    StreamId,
    Unit,
)


class Ticket(Awaitable[None], Protocol):
    """A promise that everything appended up to here is durable.

    Awaiting it returns once the commit is on disk. It never completes early, and always completes: with an error if
    the commit failed. Cancelling a waiter cancels nothing but the wait.

    Raises:
        LogWriteError: the commit failed; whether it reached the disk is known after reopening.
    """

    @property
    def is_durable(self) -> bool:
        """Whether everything up to here is on disk."""
        ...

    @property
    def error(self) -> BaseException | None:
        """Why the commit failed; None while it waits and when it is durable."""
        ...

    def on_settled(self, callback: Callable[["Ticket"], None]) -> None:
        """Call *callback* on the loop once settled; at once if it is already."""
        ...


class EventLog(Protocol):
    """An append-only log of streams with one order over all of them."""

    def append(self, unit: Unit, *, is_refusable: bool = True) -> Ticket:
        """Add *unit* to the next commit and return its ticket; the stream's head moves at once.

        All of the unit is committed, or none. Events of one `append` get consecutive versions; positions follow the
        order of the calls. Nothing is durable until the ticket says so.

        Raises:
            ConcurrencyError: a stream is not at the expected version; nothing was appended.
            UsageError: a stream was not loaded (a new one is loaded too, and found to be at version 0), is twice in the
                unit, or belongs to the log; or the unit is empty or over its bound.
            UnencodableError: a text of the unit cannot be written; nothing was appended.
            BacklogFullError: more waits for the disk than the bound allows; nothing was appended. With
                *is_refusable* False this is never raised: outcomes of what was dispatched are not refused.
            LogWriteError: an earlier commit failed; nothing is accepted any more.
            LogClosedError: the log was closed.
        """
        ...

    def barrier(self) -> Ticket | None:
        """Return the ticket of the newest append, or None when all that was appended is durable."""
        ...

    @property
    def position(self) -> int:
        """The position of the newest event that was appended, durable or not; right after `append`, the unit's last."""
        ...

    @property
    def is_congested(self) -> bool:
        """Whether more than half the backlog's bound waits: whoever can wait should."""
        ...

    async def load(self, streams: Sequence[tuple[StreamId, str]]) -> list[Loaded]:
        """Load streams, given with the schema of the snapshots that the caller can read, in the order asked.

        A snapshot of another schema is passed over and the events come from the beginning. One query, however many
        streams. Afterwards the log knows their heads, so that they can be appended to. Includes what was appended
        and is not yet durable only after it became durable (the call waits for it).
        """
        ...

    def forget(self, streams: Iterable[StreamId]) -> None:
        """Drop what is kept in memory of these streams; they must be loaded before the next append."""
        ...

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of durable events that match, at most `query.limit`, in the order of positions."""
        ...

    def tail(self, after: int, query: Query | None = None) -> AsyncIterator[Recorded]:
        """Yield every durable event after a position, for ever, in order and without gaps; ends when the log closes.

        Waits without polling. *query* narrows (its `after` and `newest_first` are ignored); its `limit` bounds the
        events that are read ahead of who takes them.
        """
        ...

    async def open_streams(
        self,
        prefix: str = "",
        *,
        after: str = "",
        wake_before: int | None = None,
        waits_on: str | None = None,
        limit: int = 1000,
    ) -> list[OpenStream]:
        """Return open streams whose name starts with *prefix* and is greater than *after*, in the order of names.

        With *wake_before*, only those whose `wake_at` is set and not later; with *waits_on*, only those that say so.
        """
        ...

    async def next_wake(self, after: int = 0) -> int | None:
        """Return the earliest `wake_at` of the open streams that is later than *after*."""
        ...

    async def blobs(self, hashes: Iterable[str]) -> Mapping[str, bytes]:
        """Return the content of the blobs that exist, by sha256."""
        ...

    def statistics(self) -> LogStatistics:
        """Return the figures since the log was opened."""
        ...

    @property
    def log_id(self) -> str:
        """The identity of this log, made when it was created."""
        ...

    async def flush(self) -> None:
        """Return once everything appended so far is durable.

        Raises:
            LogWriteError: it could not be made durable.
        """
        ...

    async def settle(self) -> bool:
        """Wait until no other thread works for the log; return whether one did. For clocks that tests move by hand."""
        ...

    def abandon(self) -> None:
        """Let go at once, as a crash would: what waits for the disk fails and is lost. For tests of recovery."""
        ...

    async def close(self) -> None:
        """Make everything appended durable, record a head, release the file. Idempotent.

        Raises:
            LogWriteError: what waited could not be made durable; the file is released all the same.
        """
        ...
