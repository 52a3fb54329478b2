"""The baseline of everything durable: the rows of a log, written by SQLite alone.

The same columns and the same bytes into a table of the same shape, one `INSERT … SELECT … FROM json_each` a batch, all
parameters made beforehand; no trigger, no hash, no thread, no Python but the call itself.
"""

import sqlite3
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

CHECKPOINT_BYTES = 4 * 2**20
"""As the runtime's own writer does it."""

_COLUMNS = "position, stream, version, type, type_version, at, blobs, correlation, causation, principal, idx"
_READ = f"SELECT {_COLUMNS}, CAST(data AS BLOB), salt, commitment, digest FROM events ORDER BY position"
_INSERT = """
INSERT INTO events
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5,
       CAST(substr(?2, (value->>11) + 1, value->>12) AS TEXT),
       value->>6, value->>7, value->>8, value->>9, value->>10,
       substr(?2, (value->>11) + (value->>12) + 1, 16), substr(?2, (value->>11) + (value->>12) + 17, 32),
       substr(?2, (value->>11) + (value->>12) + 49, 32)
FROM json_each(CAST(?1 AS TEXT))
"""

RawRow = tuple[Any, ...]
RawBatch = tuple[bytes, bytes]


def events_of(path: Path) -> tuple[str, list[RawRow]]:
    """Return the shape of the table `events` in a log that nobody owns now, and its rows."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        (shape,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'events'").fetchone()
        return shape, connection.execute(_READ).fetchall()


def batches(rows: Sequence[RawRow], size: int) -> list[RawBatch]:
    """Return the parameters that write *rows* in batches of *size*."""
    return [_batch(rows[start : start + size]) for start in range(0, len(rows), size)]


def _batch(rows: Sequence[RawRow]) -> RawBatch:
    lines: list[RawRow] = []
    buffer: list[bytes] = []
    offset = 0
    for *columns, data, salt, commitment, digest in rows:
        lines.append((*columns, offset, len(data)))
        parts = (data, salt, commitment, digest)
        buffer += parts
        offset += sum(map(len, parts))
    return msgspec.json.encode(lines), b"".join(buffer)


class RawLog:
    """A table of events under the settings of the runtime's writer."""

    def __init__(self, connection: sqlite3.Connection, wal: Path) -> None:
        self._connection = connection
        self._wal = wal

    def write(self, parameters: Sequence[RawBatch]) -> float:
        """Write each batch durably, one commit after the other; return the seconds it took, checkpoints included."""
        started = time.perf_counter()
        for batch in parameters:
            self._connection.execute(_INSERT, batch)
            if self._wal.stat().st_size > CHECKPOINT_BYTES:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return time.perf_counter() - started


@contextmanager
def raw_log(path: Path, shape: str) -> Generator[RawLog]:
    """Make a new raw log at *path*."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            f"""
            PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
            PRAGMA journal_size_limit = {CHECKPOINT_BYTES}; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;
            PRAGMA cache_size = -65536; {shape};
            """
        )
        yield RawLog(connection, path.with_name(path.name + "-wal"))
