"""What only the file has: one call per commit, checkpoints, settings, readers beside it."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from perdure.store import committer
from perdure.store.batch import Bounds
from perdure.store.connection import CHECKPOINT_BYTES
from perdure.store.records import Blob, Index, Query, Snapshot, stream_id
from perdure.store.sqlite import SqliteEventLog
from tests.support.logs import ADA, BOB, SCHEMA, append, event, one, run, unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def opened(path: Path, *streams: str, bounds: Bounds | None = None) -> SqliteEventLog:
    log = await SqliteEventLog.open(path, bounds=bounds)
    await log.load([(stream_id(name), SCHEMA) for name in streams])
    return log


@pytest.mark.parametrize("units", [1, 7, 300])
def test_a_commit_is_one_call_to_sqlite_whatever_the_batch(
    path: Path, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> int:
        log = await opened(path, ADA, BOB)
        calls: list[object] = []
        writer = log._parts.writer._inner
        to_thread: Callable[..., Awaitable[object]] = getattr(writer, "_execute")  # noqa: B009 - untyped in aiosqlite

        async def counted(function: Callable[..., object], *args: object) -> object:
            calls.append(function)
            return await to_thread(function, *args)

        monkeypatch.setattr(writer, "_execute", counted)
        for version in range(units):
            log.append(
                unit(
                    append(ADA, version, event(), index=Index(wake_at=version)),
                    append(BOB, version, event(), snapshot=Snapshot(version + 1, SCHEMA, b"{}")),
                    blobs=(Blob(f"{version:064x}", b"large"),),
                )
            )
        await log.flush()
        found = len(calls)
        await log.close()
        return found

    assert run(scenario) == 1


def test_the_writer_waits_for_the_disk_and_alone_checkpoints(path: Path) -> None:
    async def scenario() -> list[object]:
        log = await opened(path)
        names = ("journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size", "busy_timeout")
        found = [await log._parts.writer.value(f"PRAGMA {name}") for name in names]
        found.append(await log._parts.reader.value("PRAGMA query_only"))
        await log.close()
        return found

    assert run(scenario) == ["wal", 2, 0, 0, 5000, 1]


def test_normal_is_a_setting(path: Path) -> None:
    async def scenario() -> object:
        log = await SqliteEventLog.open(path, synchronous="normal")
        found = await log._parts.writer.value("PRAGMA synchronous")
        await log.close()
        return found

    assert run(scenario) == 1


def test_the_wal_is_copied_back_between_batches_and_stays_small(path: Path) -> None:
    async def scenario() -> tuple[int, int]:
        log = await opened(path, ADA)
        largest = 0
        for version in range(30):
            await log.append(unit(append(ADA, version, event(data=b'"%s"' % (b"x" * 1_000_000)))))
            largest = max(largest, log.statistics().wal_bytes)
        checkpoints = log.statistics().checkpoints
        await log.close()
        return checkpoints, largest

    checkpoints, largest = run(scenario)

    assert checkpoints > 3
    assert largest < CHECKPOINT_BYTES + 2_000_000


def test_a_reader_that_never_finishes_lets_the_wal_grow_and_delays_nobody(path: Path) -> None:
    async def scenario() -> tuple[int, int, int]:
        log = await opened(path, ADA)
        await log.append(one(ADA, 0))
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            seen = reader.execute("SELECT count(*) FROM events").fetchone()[0]
            for version in range(1, 13):
                await log.append(unit(append(ADA, version, event(data=b'"%s"' % (b"x" * 1_000_000)))))
            grown = log.statistics().wal_bytes
            assert reader.execute("SELECT count(*) FROM events").fetchone()[0] == seen
        await log._parts.committer.empty_wal()
        emptied = log.statistics().wal_bytes
        await log.close()
        return grown, emptied, len(await _positions(path))

    grown, emptied, events = run(scenario)

    assert grown > 12_000_000
    assert emptied == 0
    assert events == 14


async def _positions(path: Path) -> list[int]:
    log = await SqliteEventLog.open(path)
    events = await log.read(Query())
    await log.close()
    return [recorded.position for recorded in events]


def test_emptying_the_wal_is_not_mistaken_for_a_foreign_writer(path: Path) -> None:
    async def scenario() -> int:
        log = await opened(path, ADA)
        for version in range(3):
            await log.append(one(ADA, version))
            await log._parts.committer._empty_when_idle()
        position = log.statistics().durable_position
        await log.close()
        return position

    assert run(scenario) == 3


def test_a_closed_log_is_one_file_and_its_lock(path: Path) -> None:
    async def scenario() -> None:
        log = await opened(path, ADA)
        await log.append(one(ADA, 0))
        await log.close()

    run(scenario)

    assert sorted(file.name for file in path.parent.iterdir()) == ["log.db", "log.db.lock"]


def test_a_caller_that_is_cancelled_while_closing_does_not_stop_it(path: Path) -> None:
    async def scenario() -> int:
        log = await opened(path, ADA)
        log.append(one(ADA, 0))
        caller = asyncio.ensure_future(log.close())
        await asyncio.sleep(0)
        caller.cancel()
        await log.close()
        return len(await _positions(path))

    assert run(scenario) == 2


def test_a_stream_that_is_longer_than_a_page_loads_whole(path: Path) -> None:
    async def scenario() -> list[list[int]]:
        log = await opened(path, ADA, BOB)
        for batch in range(3):
            log.append(unit(append(ADA, batch * 1_500, *[event()] * 1_500)))
            log.append(unit(append(BOB, batch, event())))
        await log.flush()
        loaded = await log.load([(ADA, SCHEMA), (BOB, SCHEMA)])
        await log.close()
        return [[recorded.version for recorded in one.events] for one in loaded]

    ada, bob = run(scenario)

    assert ada == list(range(1, 4_501))
    assert bob == [1, 2, 3]


def test_filters_find_what_lies_far_apart(path: Path) -> None:
    async def scenario() -> list[list[int]]:
        log = await opened(path, ADA, bounds=Bounds(head_every=10**9))
        for batch in range(10):
            kind = "rare" if batch in {0, 9} else "common"
            log.append(unit(append(ADA, batch * 4_500, event(kind), *[event("common")] * 4_499)))
        await log.flush()
        found = [
            [e.position for e in await log.read(Query(types=("rare",)))],
            [e.position for e in await log.read(Query(types=("rare",), newest_first=True))],
            [e.position for e in await log.read(Query(types=("rare",), newest_first=True, limit=1))],
        ]
        everything = await log.read(Query(limit=44_000))
        assert [e.position for e in everything] == list(range(1, 44_001))
        await log.close()
        return found

    assert run(scenario) == [[1, 40_501], [40_501, 1], [40_501]]


def test_sql_tools_read_the_log(path: Path) -> None:
    async def scenario() -> None:
        log = await opened(path, ADA)
        await log.append(unit(append(ADA, 0, event(data=b'{"tool":"search"}'))))
        await log.close()

    run(scenario)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT stream, kind, version, data->>'$.tool' FROM log WHERE version = 1").fetchall()
    assert rows == [("run/ada", "run", 1, "search"), ("log/heads", "log", 1, None)]


def test_a_commit_that_ends_after_the_log_was_abandoned_has_nothing_done_to_the_closed_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> object:
        monkeypatch.setattr(committer, "IDLE_SECONDS", 0)
        log, under_way = await opened(path, ADA), asyncio.Event()
        connection = log._parts.committer._connection
        rows: Callable[..., Awaitable[object]] = connection.rows

        async def told(*args: object) -> object:
            under_way.set()
            return await rows(*args)

        monkeypatch.setattr(connection, "rows", told)
        log.append(one(ADA, 0)).on_settled(lambda _: None)
        await under_way.wait()

        log.abandon()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        for _ in range(3):
            await asyncio.sleep(0)

        return log._parts.committer._emptying

    assert run(scenario) is None
