"""The port of the log for who only looks: what is on disk can be loaded and read, and nothing can be appended.

For rehearsals: the actors of a log can be brought to life on it beside its owner, or without one. Invariant: no call
writes, waits for the owner, or needs its lock.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from perdure.store.errors import LogClosedError, UsageError
from perdure.store.protocols import Ticket
from perdure.store.reader import LogReader
from perdure.store.records import Index, Loaded, LogStatistics, OpenStream, Query, Recorded, StreamId, Unit


class LogOnlyRead:
    """An `EventLog` on a reader; its methods are those of the port."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    def append(self, unit: Unit, *, is_refusable: bool = True) -> Ticket:
        """Refuse.

        Raises:
            LogClosedError: always.
        """
        del unit, is_refusable
        raise LogClosedError

    def barrier(self) -> Ticket | None:
        """Return None: nothing waits for the disk."""
        return None

    @property
    def position(self) -> int:
        """The position of the newest event on disk."""
        return self._reader.last_position()

    @property
    def is_congested(self) -> bool:
        """Never."""
        return False

    async def load(self, streams: Sequence[tuple[StreamId, str]]) -> list[Loaded]:
        """Return streams with all their events; snapshots are passed over."""
        return [self._load(stream) for stream, _ in streams]

    def _load(self, stream: StreamId) -> Loaded:
        row = self._reader.stream(stream)
        if row is None:
            return Loaded(stream, 0, None, (), None)
        events: list[Recorded] = []
        query = Query(stream=stream)
        while page := self._reader.read(query):
            events.extend(page)
            query = Query(stream=stream, after=page[-1].position)
        version = events[-1].version if events else 0  # the owner may have gone on since the row was read
        return Loaded(stream, version, None, tuple(events), Index(row.is_open, row.wake_at, row.waits_on))

    def forget(self, streams: Iterable[StreamId]) -> None:
        """Do nothing: nothing is kept."""

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of events."""
        return self._reader.read(query)

    def tail(self, after: int, query: Query | None = None) -> AsyncIterator[Recorded]:
        """Refuse: who looks does not follow.

        Raises:
            UsageError: always.
        """
        del after, query
        raise UsageError("a log that is only looked at is not followed: use LogReader.tail")

    async def open_streams(
        self,
        prefix: str = "",
        *,
        after: str = "",
        wake_before: int | None = None,
        waits_on: str | None = None,
        limit: int = 1000,
    ) -> list[OpenStream]:
        """Return open streams by name."""
        rows = self._reader.streams(prefix, after=after, only_open=True, limit=limit)
        found = [OpenStream(row.stream, row.version, row.wake_at, row.waits_on, row.last_at) for row in rows]
        if waits_on is not None:
            raise UsageError("a log that is only looked at is not searched for what streams wait on")
        if wake_before is None:
            return found
        return [row for row in found if row.wake_at is not None and row.wake_at <= wake_before]

    async def next_wake(self, after: int = 0) -> int | None:
        """Return None: nobody is woken here."""
        del after
        return None

    async def blobs(self, hashes: Iterable[str]) -> Mapping[str, bytes]:
        """Return large values by their hashes."""
        return self._reader.blobs(hashes)

    def statistics(self) -> LogStatistics:
        """Refuse: only an owner has figures.

        Raises:
            UsageError: always.
        """
        raise UsageError("a log that is only looked at has no figures")

    @property
    def log_id(self) -> str:
        """The identity of the log."""
        return self._reader.log_id

    async def flush(self) -> None:
        """Return at once."""

    async def settle(self) -> bool:
        """Return False: no thread works here."""
        return False

    def abandon(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing: the reader belongs to who opened it."""
