"""Ways to write one batch, and what each index costs: the figures behind docs/decisions/0002-one-statement-commit.md.

Not part of `python -m benchmarks`, which measures what must hold; run it as `python -m benchmarks.commit_shapes`.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec.structs import astuple

from perdure.store.batch import Batch, Bounds, StreamRow
from perdure.store.connection import CHECKPOINT_BYTES
from perdure.store.journal import Journal
from perdure.store.queries import queries, script
from perdure.store.records import Append, NewEvent, Unit, stream_id
from perdure.store.staging import Origin
from perdure.store.statement import encode
from perdure.store.tips import Tip

EVENTS, STREAMS, AT_ONCE = 100_000, 1_000, 1_000
DATA = b'{"tool":"search","key":"search-000371","args":{"query":"hello world 371"}}'
SETTINGS = f"""
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {CHECKPOINT_BYTES};
"""
EVENT = f"INSERT INTO events VALUES ({', '.join('?' * 15)})"
CREATED = "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
MOVED = "UPDATE streams SET version = ?, is_open = ?, wake_at = ?, waits_on = ?, last_at = ? WHERE id = ?"

Write = Callable[[sqlite3.Connection, Batch], None]


async def batches() -> list[Batch]:
    """Return what the journal hands to a committer when a thousand streams take turns."""
    made: list[Batch] = []

    class Collect:
        async def commit(self, batch: Batch) -> None:
            made.append(batch)

    journal = Journal(Collect(), Origin.empty("00" * 16), bounds=Bounds(batch_events=AT_ONCE, head_every=10**9))
    names = [stream_id(f"run/{number:05d}") for number in range(STREAMS)]
    for name in names:
        journal.tips.adopt(name, Tip())
    for version in range(EVENTS // STREAMS):
        for name in names:
            event = NewEvent(type="step-completed", type_version=1, data=DATA)
            journal.append(Unit(appends=(Append(stream=name, expected=version, events=(event,)),), at=version))
        await journal.flush()
    return made


def one_statement(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.execute(queries()["commit"], encode(batch, 1))


def without_streams(connection: sqlite3.Connection, batch: Batch) -> None:
    bare = Batch(batch.after)
    bare.events = batch.events
    bare.moved = dict.fromkeys(batch.moved, StreamRow(0, 0, is_open=True, wake_at=None, waits_on=None, last_at=0))
    connection.execute(queries()["commit"], encode(bare, 1))


def executemany(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(EVENT, [(*r[:6], r[11].decode(), *r[6:11], *r[12:]) for r in map(astuple, batch.events)])
    new = batch.created.values()
    connection.executemany(CREATED, [(n.id, n.name, "run", 1, 1, None, None, n.first_at, 0) for n in new])
    moved = batch.moved.values()
    connection.executemany(MOVED, [(m.version, m.is_open, m.wake_at, m.waits_on, m.last_at, m.id) for m in moved])
    connection.execute("COMMIT")


@contextmanager
def busy() -> Generator[None]:
    """Keep the GIL as busy as an event loop under load does."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def rate(work: list[Batch], write: Write, *, change: str = "", limit: int = EVENTS) -> float:
    """Return events a second, checkpoints included."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(SETTINGS + script("schema") + change)
            connection.executescript(script("writer").replace("<> NEW.version", "IS NULL"))
            wal = path.with_name("log.db-wal")
            started = time.perf_counter()
            for batch in work[: limit // AT_ONCE]:
                write(connection, batch)
                if wal.stat().st_size > CHECKPOINT_BYTES:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return limit / (time.perf_counter() - started)


def shape(stream: str, unique: str) -> str:
    """Return a change of the table `events` to another key."""
    sql = script("schema")
    table = sql[sql.index("CREATE TABLE events") : sql.index(") STRICT;\n\n-- All") + len(") STRICT;")]
    changed = table.replace("stream       INTEGER", f"stream       {stream}")
    changed = changed.replace("UNIQUE (stream, version)", unique)
    return f"DROP VIEW log; DROP TABLE events; {changed}"


def main() -> None:
    work = asyncio.run(batches())
    table: list[tuple[str, float]] = [
        ("one statement, idle", rate(work, one_statement)),
        ("executemany, idle", rate(work, executemany)),
    ]
    with busy():
        table += [
            ("one statement, beside a busy thread", rate(work, one_statement)),
            ("executemany, beside a busy thread", rate(work, executemany, limit=4_000)),
        ]
    table += [
        ("without rows of streams", rate(work, without_streams)),
        ("without UNIQUE(stream, version)", rate(work, one_statement, change=shape("INTEGER", "CHECK (1)"))),
        ("stream by name: UNIQUE over TEXT", rate(work, by_name, change=shape("TEXT", "UNIQUE (stream, version)"))),
        ("and an index on type", rate(work, one_statement, change="CREATE INDEX t ON events (type);")),
        ("and an index on correlation", rate(work, correlated, change="CREATE INDEX c ON events (correlation);")),
        ("and an index on at", rate(work, one_statement, change="CREATE INDEX a ON events (at);")),
        ("one statement, idle, again", rate(work, one_statement)),
    ]
    for what, figure in table:
        print(f"{what:40} {figure:9,.0f} events/s")


def by_name(connection: sqlite3.Connection, batch: Batch) -> None:
    renamed = Batch(batch.after)
    renamed.created = batch.created
    renamed.moved = {f"run/{key:05d}": row for key, row in batch.moved.items()}  # type: ignore[misc]
    renamed.events = [msgspec.structs.replace(row, stream=f"run/{row.stream:05d}") for row in batch.events]
    connection.execute(queries()["commit"], encode(renamed, 1))


def correlated(connection: sqlite3.Connection, batch: Batch) -> None:
    marked = Batch(batch.after)
    marked.created, marked.moved = batch.created, batch.moved
    marked.events = [msgspec.structs.replace(row, correlation=f"run-{row.stream:05d}") for row in batch.events]
    connection.execute(queries()["commit"], encode(marked, 1))


if __name__ == "__main__":
    main()
