"""SqliteEventLog: the event log in one SQLite file.

It puts together the lock, the two connections and the journal, and translates SQLite's errors. The invariant: whatever
happens while opening or closing, the connections and the lock are released.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from perdure.store.batch import Bounds
from perdure.store.committer import SqliteCommitter
from perdure.store.connection import Connection, Synchronous, make_reader, make_writer
from perdure.store.errors import LogClosedError, LogUnavailableError, LogWriteError, SqliteTooOldError
from perdure.store.faults import read_error
from perdure.store.follow import follow
from perdure.store.journal import Journal
from perdure.store.loads import Found, compose, load_events, load_tips
from perdure.store.location import to_write
from perdure.store.lock import OwnerLock, lock_path
from perdure.store.migrations import check_identity, install_views, migrate
from perdure.store.pages import NAME_END, Reading, reading
from perdure.store.queries import queries, script
from perdure.store.records import Loaded, LogStatistics, OpenStream, Query, Recorded, StreamId, Unit
from perdure.store.restore import restore
from perdure.store.ticket import Ticket
from perdure.store.tips import Tip

NEEDED_SQLITE: Final = (3, 38, 0)
"""The first with `->>`."""

_decode_open = msgspec.json.Decoder(list[tuple[StreamId, int, int | None, str | None, int]]).decode


class _Parts(NamedTuple):
    path: Path
    lock: OwnerLock
    writer: Connection
    reader: Connection
    committer: SqliteCommitter


class SqliteEventLog:
    """An `EventLog` in a file; made by `open`, on one event loop."""

    def __init__(self, parts: _Parts, journal: Journal) -> None:
        self._parts = parts
        self._journal = journal
        self._reader = parts.reader
        self._is_closed = False
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        bounds: Bounds | None = None,
        on_failure: Callable[[LogWriteError], None] | None = None,
        views: str = "",
    ) -> "SqliteEventLog":
        """Take ownership of the log at *path*, which is made when it does not exist.

        With `synchronous="normal"` a power failure may take back what was acknowledged in the last moments; a crash of
        the process takes back nothing. *on_failure* is called once, on the loop, when the log refuses further writes,
        before anybody else hears of it. *views* are `CREATE VIEW` statements that become a part of the file.

        Raises:
            StoreLockedError: another runtime owns it.
            NotALogError: the file is something else.
            SchemaTooNewError: a newer version of Perdure wrote it.
            CorruptLogError: its tail contradicts itself.
            LogUnavailableError: SQLite or the file system refused.
            UsageError: the path is empty, or no path.
            SqliteTooOldError: this Python's SQLite lacks what is needed.
        """
        check_sqlite(sqlite3.sqlite_version_info)
        resolved = to_write(path)
        if resolved.exists() and not lock_path(resolved).exists():
            await _identify(resolved)  # what is no log gets no lock beside it either
        async with AsyncExitStack() as stack:
            lock = OwnerLock.acquire(resolved)
            stack.callback(lock.release)
            with _reading(resolved):
                writer = await Connection.open(resolved, "rwc")
                stack.push_async_callback(writer.close)
                await _prepare(writer, resolved, synchronous, views)
                reader = await Connection.open(resolved, "ro")
                stack.push_async_callback(reader.close)
                await make_reader(reader)
                origin = await restore(reader, resolved)
                committer = SqliteCommitter(writer, resolved, await writer.value(queries()["data_version"]))
            journal = Journal(committer, origin, bounds=bounds, on_failure=on_failure)
            committer.on_idle_error = journal.fail
            stack.pop_all()
            return cls(_Parts(resolved, lock, writer, reader, committer), journal)

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
        """See `EventLog.load`.

        Raises:
            LogClosedError: the log was closed.
            LogWriteError: what was appended to one of the streams could not be made durable.
            CorruptLogError: the file contradicts itself.
            LogUnavailableError: SQLite could not read.
        """
        self._check_open()
        names = [name for name, _ in streams]
        found, events = await self._journal.settled_read(names, lambda: self._load(streams))
        for name in names:
            self._journal.tips.adopt(name, found[0].get(name) or Tip())
        return [compose(name, found, events) for name in names]

    def forget(self, streams: Iterable[StreamId]) -> None:
        """See `EventLog.forget`."""
        self._journal.tips.forget(streams)

    async def read(self, query: Query) -> list[Recorded]:
        """See `EventLog.read`; one statement looks at some 20,000 rows at most, so that it delays no checkpoint.

        Raises:
            LogClosedError: the log was closed.
            CorruptLogError: the file contradicts itself.
            LogUnavailableError: SQLite could not read.
        """
        return await self._run(reading(query, self._journal.durable_position))

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
        bounds = (after, prefix, prefix + NAME_END, limit, waits_on)
        if wake_before is None:
            text = await self._value("open_streams", *bounds)
        else:
            text = await self._value("due_streams", *bounds, wake_before)
        return [OpenStream(*row) for row in _decode_open(text)]

    async def next_wake(self, after: int = 0) -> int | None:
        """See `EventLog.next_wake`."""
        earliest: int | None = await self._value("next_wake", after)
        return earliest

    async def blobs(self, hashes: Iterable[str]) -> Mapping[str, bytes]:
        """See `EventLog.blobs`."""
        self._check_open()
        with _reading(self._parts.path):
            wanted = msgspec.json.encode(list(hashes)).decode()
            return dict(await self._reader.rows(queries()["blobs"], (wanted,)))

    def statistics(self) -> LogStatistics:
        """See `EventLog.statistics`."""
        committer = self._parts.committer
        return self._journal.statistics(
            checkpoints=committer.checkpoints,
            database_bytes=committer.database_bytes,
            wal_bytes=committer.wal_bytes,
        )

    @property
    def log_id(self) -> str:
        """See `EventLog.log_id`."""
        return self._journal.log_id

    @property
    def path(self) -> Path:
        """The file."""
        return self._parts.path

    async def flush(self) -> None:
        """See `EventLog.flush`."""
        await self._journal.flush()

    async def settle(self) -> bool:
        """See `EventLog.settle`."""
        return any([await connection.flights.settle() for connection in (self._parts.writer, self._parts.reader)])

    async def close(self) -> None:
        """See `EventLog.close`. Cancelling the caller does not stop it."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="perdure close")
            await asyncio.shield(self._closing)
        else:
            await asyncio.wait([self._closing])

    def abandon(self) -> None:
        """Let go of the file as a crash would, without a last commit; for tests of recovery.

        A commit that is under way may still reach the disk.
        """
        self._is_closed = True
        self._journal.abandon()
        parts = self._parts
        parts.committer.cancel()
        parts.reader.abandon()
        parts.writer.abandon()
        parts.lock.release()

    async def _close(self) -> None:
        parts = self._parts
        try:
            await self._journal.close()
        finally:
            self._is_closed = True
            async with AsyncExitStack() as stack:
                stack.callback(parts.lock.release)
                stack.push_async_callback(parts.writer.close)
                await parts.committer.stop()
                await parts.reader.close()
                if self._journal.failure is None:
                    await parts.committer.empty_wal()

    async def _load(self, streams: Sequence[tuple[StreamId, str]]) -> tuple[Found, dict[StreamId, list[Recorded]]]:
        with _reading(self._parts.path):
            found = await load_tips(self._reader, self._parts.path, streams)
            return found, await load_events(self._reader, self._parts.path, found)

    async def _run(self, steps: Reading) -> list[Recorded]:
        self._check_open()
        with _reading(self._parts.path):
            try:
                statement = next(steps)
                while True:
                    statement = steps.send(await self._reader.value(*statement))
            except StopIteration as end:
                events: list[Recorded] = end.value
                return events

    async def _value(self, name: str, *parameters: object) -> Any:
        self._check_open()
        with _reading(self._parts.path):
            return await self._reader.value(queries()[name], parameters)

    def _check_open(self) -> None:
        if self._is_closed:
            raise LogClosedError


def check_sqlite(version: tuple[int, ...]) -> None:
    """Check that SQLite *version* has what the log needs.

    Raises:
        SqliteTooOldError: it has not.
    """
    if version < NEEDED_SQLITE:
        raise SqliteTooOldError(found=".".join(map(str, version)), needed=".".join(map(str, NEEDED_SQLITE)))


async def _identify(path: Path) -> None:
    with _reading(path):
        onlooker = await Connection.open(path, "ro")
        try:
            [(application_id, found, tables)] = await onlooker.rows(queries()["identity"])
        finally:
            await onlooker.close()
    check_identity(path, application_id, found, tables, may_be_new=True)


async def _prepare(writer: Connection, path: Path, synchronous: Synchronous, views: str) -> None:
    # The identity comes first: switching a foreign database to WAL would already change it.
    await migrate(writer, path)
    mode = await make_writer(writer, synchronous)
    if mode != "wal":
        raise LogUnavailableError(
            path=str(path), detail=f"SQLite offers journal mode {mode!r} here, not WAL: use a local file system"
        )
    await install_views(writer, views)
    await writer.script(script("writer"))


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise read_error(error, path) from error
