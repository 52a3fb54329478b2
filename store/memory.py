"""MemoryEventLog: the verified fake. The same journal over rows in lists; passes the contract tests of the real one.

Not durable and not fast at reading. The invariant: it answers as `SqliteEventLog` does, including when a commit fails.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from perdure.store.batch import Batch, Bounds, EventRow, SnapshotRow, StreamRow
from perdure.store.chain import Frontier
from perdure.store.errors import LogClosedError, LogWriteError
from perdure.store.follow import follow
from perdure.store.heads import HEADS
from perdure.store.journal import Journal
from perdure.store.matching import matches
from perdure.store.records import (
    Index,
    Loaded,
    LogStatistics,
    OpenStream,
    Query,
    Recorded,
    Snapshot,
    StreamId,
    Unit,
)
from perdure.store.staging import Origin
from perdure.store.ticket import Ticket
from perdure.store.tips import Tip


class MemoryStorage:
    """What stays when a `MemoryEventLog` is closed or abandoned: open another on it, as one reopens a file."""

    def __init__(self) -> None:
        self.log_id = os.urandom(16).hex()
        self.events: list[EventRow] = []
        self.names: dict[int, StreamId] = {}
        self.ids: dict[str, int] = {}
        self.versions: dict[int, list[int]] = {}
        """Stream -> the positions of its events."""
        self.streams: dict[int, StreamRow] = {}
        self.snapshots: dict[int, SnapshotRow] = {}
        self.blobs: dict[str, bytes] = {}
        self.failures: list[BaseException] = []

    async def commit(self, batch: Batch) -> None:
        """Write *batch*, a tick of the loop later."""
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        for new in batch.created.values():
            self.names[new.id] = new.name
            self.ids[new.name] = new.id
            self.versions[new.id] = []
        for row in batch.events:
            self.events.append(row)
            self.versions[row.stream].append(row.position)
        self.streams.update(batch.moved)
        self.snapshots.update(batch.snapshots)
        self.blobs.update(batch.blobs)

    def recorded(self, row: EventRow) -> Recorded:
        """Return *row* as a reader sees it."""
        return Recorded(
            row.position, self.names[row.stream], row.version, row.type, row.type_version, row.at, row.data.decode(),
            row.blobs, row.correlation, row.causation, row.principal,
        )  # fmt: skip

    def tip(self, stream: StreamId) -> Tip:
        """Return the tip of *stream*."""
        id = self.ids.get(stream)
        if id is None:
            return Tip()
        state, newest = self.streams[id], self.events[self.versions[id][-1] - 1]
        return Tip(
            id=id,
            version=state.version,
            digest=newest.digest,
            is_open=state.is_open,
            wake_at=state.wake_at,
            waits_on=state.waits_on,
        )

    def origin(self) -> Origin:
        """Return where the log stands."""
        if not self.events:
            return Origin.empty(self.log_id)
        frontier = Frontier()
        for row in self.events:
            frontier.add(row.digest)
        heads = self.ids.get(HEADS)
        return Origin(
            log_id=self.log_id,
            heads=self.tip(HEADS),
            position=len(self.events),
            at=self.events[-1].at,
            streams=max(self.names),
            headed=0 if heads is None else self.versions[heads][-1],
            frontier=frontier,
        )


class MemoryEventLog:
    """An `EventLog` in memory; made on a running loop."""

    def __init__(
        self,
        storage: MemoryStorage | None = None,
        *,
        bounds: Bounds | None = None,
        on_failure: Callable[[LogWriteError], None] | None = None,
    ) -> None:
        self.storage = storage or MemoryStorage()
        self._journal = Journal(self.storage, self.storage.origin(), bounds=bounds, on_failure=on_failure)
        self._is_closed = False

    def fail_next(self, error: BaseException) -> None:
        """Let the next commit fail with *error*, for tests of callers."""
        self.storage.failures.append(error)

    def append(self, unit: Unit, *, is_refusable: bool = True) -> Ticket:
        """See `EventLog.append`."""
        return self._journal.append(unit, is_refusable=is_refusable)

    def barrier(self) -> Ticket | None:
        """See `EventLog.barrier`."""
        return self._journal.barrier()

    @property
    def position(self) -> int:
        """See `EventLog.position`."""
        return self._journal.position

    @property
    def is_congested(self) -> bool:
        """See `EventLog.is_congested`."""
        return self._journal.is_congested

    async def load(self, streams: Sequence[tuple[StreamId, str]]) -> list[Loaded]:
        """See `EventLog.load`."""
        self._check_open()
        names = [name for name, _ in streams]
        await self._journal.settled_read(names, lambda: asyncio.sleep(0))
        for name in names:
            self._journal.tips.adopt(name, self.storage.tip(name))
        return [self._loaded(name, schema) for name, schema in streams]

    def forget(self, streams: Iterable[StreamId]) -> None:
        """See `EventLog.forget`."""
        self._journal.tips.forget(streams)

    async def read(self, query: Query) -> list[Recorded]:
        """See `EventLog.read`."""
        self._check_open()
        await asyncio.sleep(0)
        events = [self.storage.recorded(row) for row in self.storage.events[: self._journal.durable_position]]
        if query.newest_first:
            events.reverse()
        return [event for event in events if matches(event, query)][: query.limit]

    def tail(self, after: int, query: Query | None = None) -> AsyncIterator[Recorded]:
        """See `EventLog.tail`."""
        return follow(self._journal, self.read, after, query)

    async def open_streams(
        self,
        prefix: str = "",
        *,
        after: str = "",
        wake_before: int | None = None,
        waits_on: str | None = None,
        limit: int = 1000,
    ) -> list[OpenStream]:
        """See `EventLog.open_streams`."""
        self._check_open()
        await asyncio.sleep(0)
        found = [
            OpenStream(self.storage.names[row.id], row.version, row.wake_at, row.waits_on, row.last_at)
            for row in self.storage.streams.values()
            if row.is_open and (wake_before is None or (row.wake_at is not None and row.wake_at <= wake_before))
        ]
        found = [row for row in found if row.stream.startswith(prefix) and row.stream > after]
        found = [row for row in found if waits_on is None or row.waits_on == waits_on]
        return sorted(found, key=lambda row: row.stream)[:limit]

    async def next_wake(self, after: int = 0) -> int | None:
        """See `EventLog.next_wake`."""
        self._check_open()
        await asyncio.sleep(0)
        times = [row.wake_at for row in self.storage.streams.values() if row.is_open and row.wake_at is not None]
        return min((time for time in times if time > after), default=None)

    async def blobs(self, hashes: Iterable[str]) -> Mapping[str, bytes]:
        """See `EventLog.blobs`."""
        self._check_open()
        await asyncio.sleep(0)
        return {sha256: self.storage.blobs[sha256] for sha256 in hashes if sha256 in self.storage.blobs}

    def statistics(self) -> LogStatistics:
        """See `EventLog.statistics`; the sizes are 0."""
        return self._journal.statistics()

    @property
    def log_id(self) -> str:
        """See `EventLog.log_id`."""
        return self._journal.log_id

    async def flush(self) -> None:
        """See `EventLog.flush`."""
        await self._journal.flush()

    async def settle(self) -> bool:
        """See `EventLog.settle`: there is no other thread."""
        return False

    async def close(self) -> None:
        """See `EventLog.close`."""
        if not self._is_closed:
            self._is_closed = True
            await self._journal.close()

    def abandon(self) -> None:
        """End as a crash would; the storage keeps what was committed."""
        self._is_closed = True
        self._journal.abandon()

    def _check_open(self) -> None:
        if self._is_closed:
            raise LogClosedError

    def _loaded(self, stream: StreamId, schema: str) -> Loaded:
        storage = self.storage
        id = storage.ids.get(stream)
        if id is None:
            return Loaded(stream, 0, None, (), None)
        state, row = storage.streams[id], storage.snapshots.get(id)
        snapshot = Snapshot(row.version, row.schema, row.data) if row is not None and row.schema == schema else None
        after = 0 if snapshot is None else snapshot.version
        events = tuple(storage.recorded(storage.events[position - 1]) for position in storage.versions[id][after:])
        return Loaded(stream, state.version, snapshot, events, Index(state.is_open, state.wake_at, state.waits_on))
