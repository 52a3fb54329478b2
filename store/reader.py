"""Reading a log from outside: other processes, the command line. It never writes, owns nothing and blocks its thread.

Works beside a running owner and when nobody owns the log. The invariant: the file is opened by SQLite only, in
`mode=ro`, and read a page at a time, so a reader neither changes a log nor delays its owner for long.
"""

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec

from perdure.store import lock
from perdure.store.errors import LogNotFoundError, UsageError
from perdure.store.expected import checked_but
from perdure.store.faults import describe, is_callers, read_error
from perdure.store.location import check_file, to_read
from perdure.store.migrations import check_identity
from perdure.store.pages import NAME_END, reading
from perdure.store.queries import queries
from perdure.store.records import Query, Recorded, StreamId, StreamSummary
from perdure.store.sizes import size_of

BUSY_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.2
_decode_streams = msgspec.json.Decoder(list[StreamSummary]).decode
_ACTIONS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_PRAGMAS: Final = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "data_version", "user_version"}
)


class Table(NamedTuple):
    """The result of a query; the rows come as they are asked for."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@checked_but("__init__")
class LogReader:
    """A log, open for reading; a context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path) -> "LogReader":
        """Open the log at *path* for reading.

        Raises:
            LogNotFoundError: there is no file.
            NotALogError: it is something else.
            SchemaTooNewError: a newer version of Perdure wrote it.
            CorruptLogError: SQLite finds the file damaged.
            LogUnavailableError: SQLite or the file system refused.
        """
        resolved = to_read(path)
        return cls(resolved, connect(resolved))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    @property
    def log_id(self) -> str:
        """The identity of this log, made when it was created."""
        return self.meta()["log_id"]

    def meta(self) -> Mapping[str, str]:
        """Return what the log says of itself."""
        return msgspec.json.decode(self._value("meta"), type=dict[str, str])

    def last_position(self) -> int:
        """Return the position of the last durable event, 0 when there is none."""
        position: int = self._value("last_position")
        return position

    def read(self, query: Query) -> list[Recorded]:
        """Return one page of events that match, at most `query.limit`, in the order of positions."""
        steps = reading(query)
        with _translated(self.path):
            try:
                statement = next(steps)
                while True:
                    sql, parameters = statement
                    statement = steps.send(self._connection.execute(sql, parameters).fetchone()[0])
            except StopIteration as end:
                events: list[Recorded] = end.value
                return events

    def tail(
        self,
        after: int,
        query: Query | None = None,
        *,
        wait: Callable[[], object] | None = None,
        page: int = 1_000,
    ) -> Iterator[Recorded]:
        """Yield every event after a position, for ever, in order and without gaps.

        *wait* is called between looks at the file; it sleeps for 0.2 s unless told otherwise.
        """
        template = msgspec.structs.replace(query or Query(), limit=page, newest_first=False)
        seen = None
        while True:
            if (version := self._value("data_version")) == seen:
                (wait or _sleep)()
                continue
            # A version taken before reading: what is written meanwhile makes it differ, and is looked for again.
            until = self.last_position()
            while after < until:
                events = self.read(msgspec.structs.replace(template, after=after, until=until))
                yield from events
                after = events[-1].position if len(events) == page else until
            seen = version

    def streams(
        self, prefix: str = "", *, after: str = "", only_open: bool = False, limit: int = 1000
    ) -> list[StreamSummary]:
        """Return streams whose name starts with *prefix* and is greater than *after*, in the order of names."""
        return _decode_streams(self._value("streams", after, prefix, prefix + NAME_END, limit, only_open))

    def stream(self, name: StreamId) -> StreamSummary | None:
        """Return one stream, None when it does not exist."""
        found = self.streams(name, limit=1)
        return found[0] if found and found[0].stream == name else None

    def blobs(self, hashes: Iterable[str]) -> Mapping[str, bytes]:
        """Return the content of the blobs that exist, by sha256."""
        wanted = msgspec.json.encode(list(hashes)).decode()
        with _translated(self.path):
            return dict(self._connection.execute(queries()["blobs"], (wanted,)).fetchall())

    def blob(self, sha256: str) -> bytes | None:
        """Return the content of one blob, None when the log has none of that hash."""
        return self.blobs([sha256]).get(sha256)

    def sql(self, query: str, parameters: Sequence[object] = ()) -> Table:
        """Run one SELECT of the caller's; everything else is refused.

        A query that runs long, or whose rows are fetched slowly, keeps the owner's WAL from being reset: it grows
        meanwhile, and nothing else happens.

        Raises:
            UsageError: it is not a SELECT, or has a mistake; the detail is SQLite's message.
            CorruptLogError: SQLite finds the file damaged.
            LogUnavailableError: SQLite or the file system refused.
        """
        with _translated(self.path):
            self._connection.set_authorizer(_authorize)
            try:
                cursor = self._connection.execute(query, parameters)
            except sqlite3.Error as error:
                if is_callers(error):
                    raise UsageError(describe(error)) from error
                raise
            finally:
                self._connection.set_authorizer(None)
            return Table(tuple(column[0] for column in cursor.description or ()), self._rows(cursor))

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        with _translated(self.path):
            yield from cursor

    def _value(self, name: str, *parameters: object) -> Any:
        with _translated(self.path):
            return self._connection.execute(queries()[name], parameters).fetchone()[0]


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that can only read the log at *path*.

    Raises:
        LogNotFoundError: there is no file.
        NotALogError: it is something else.
        SchemaTooNewError: a newer version of Perdure wrote it.
        CorruptLogError: SQLite finds the file damaged.
        LogUnavailableError: SQLite or the file system refused.
    """
    if not check_file(path):
        raise LogNotFoundError(path=str(path))
    with _translated(path):
        try:
            return _connect(path, "mode=ro")
        except sqlite3.OperationalError:
            # A folder that may not be written: SQLite cannot make the -shm that a file in WAL mode needs. When nobody
            # owns the log and it was closed well, it cannot change, and may be read as it lies there.
            if size_of(path.with_name(path.name + "-wal")) or lock.look(path).is_held:
                raise
            return _connect(path, "mode=ro&immutable=1")


def _sleep() -> None:
    time.sleep(POLL_SECONDS)


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?{options}", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        connection.executescript("PRAGMA query_only = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;")
        # SQLite makes these two tables when a connection first names them, which `_authorize` would take for a write.
        connection.execute("SELECT count(*) FROM json_each('[]'), json_tree('[]')").fetchone()
        application_id, found, tables = connection.execute(queries()["identity"]).fetchone()
        check_identity(path, application_id, found, tables, may_be_new=False)
    except BaseException:
        connection.close()
        raise
    return connection


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    allowed = action in _ACTIONS or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS)
    if action == sqlite3.SQLITE_FUNCTION and second == "load_extension":
        allowed = False
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise read_error(error, path) from error
