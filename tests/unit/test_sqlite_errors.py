"""What can go wrong with a file, and what its owner is told."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure.store.errors import (
    CorruptLogError,
    LogUnavailableError,
    LogWriteError,
    NotALogError,
    SchemaTooNewError,
    SqliteTooOldError,
    StoreLockedError,
)
from perdure.store.records import Query, Recorded
from perdure.store.sqlite import SqliteEventLog, check_sqlite
from tests.support.logs import ADA, BOB, SCHEMA, append, event, one, run, unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


async def opened(path: Path) -> SqliteEventLog:
    log = await SqliteEventLog.open(path)
    await log.load([(ADA, SCHEMA), (BOB, SCHEMA)])
    return log


def make(path: Path, events: int = 3) -> None:
    async def scenario() -> None:
        log = await opened(path)
        for version in range(events):
            log.append(unit(append(ADA, version, event(data=b'{"n":%d}' % version))))
        await log.close()

    run(scenario)


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)


def opening(path: Path) -> Callable[[], Coroutine[Any, Any, None]]:
    async def scenario() -> None:
        log = await SqliteEventLog.open(path)
        await log.close()

    return scenario


def read_all(path: Path) -> list[Recorded]:
    async def scenario() -> list[Recorded]:
        log = await SqliteEventLog.open(path)
        events = await log.read(Query())
        await log.close()
        return events

    return run(scenario)


def test_a_full_disk_stops_the_log_and_what_was_acknowledged_is_there(path: Path) -> None:
    async def scenario() -> int:
        log = await opened(path)
        pages = await log._parts.writer.value("PRAGMA page_count")
        await log._parts.writer.script(f"PRAGMA max_page_count = {pages + 20}")
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            for version in range(100):
                await log.append(unit(append(ADA, version, event(data=b'"%s"' % (b"x" * 9_000)))))
                acknowledged += 1

        with pytest.raises(LogWriteError, match="is full"):
            await write()
        with pytest.raises(LogWriteError, match="is full"):
            log.append(one(BOB, 0))
        with pytest.raises(LogWriteError):
            await log.close()
        return acknowledged

    acknowledged = run(scenario)

    assert acknowledged > 0
    assert len(read_all(path)) == acknowledged


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO meta VALUES ('x', 'y')",
        "DELETE FROM events WHERE position = 1",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
    ],
)
def test_a_foreign_writer_stops_the_log_and_is_named(path: Path, sql: str) -> None:
    async def scenario() -> list[str]:
        failures: list[str] = []
        log = await SqliteEventLog.open(path, on_failure=lambda error: failures.append(error.detail))
        await log.load([(ADA, SCHEMA)])
        await log.append(one(ADA, 0))
        change(path, sql)
        with pytest.raises(LogWriteError, match="foreign writer"):
            await log.append(one(ADA, 1))
        with pytest.raises(LogWriteError, match="foreign writer"):
            await log.close()
        return failures

    assert len(run(scenario)) == 1


def test_a_foreign_reader_is_welcome(path: Path) -> None:
    async def scenario() -> int:
        log = await opened(path)
        for version in range(3):
            await log.append(one(ADA, version))
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT count(*) FROM log").fetchone()
        position = log.statistics().durable_position
        await log.close()
        return position

    assert run(scenario) == 3


def test_a_file_that_another_connection_has_locked_is_waited_for(path: Path) -> None:
    async def scenario() -> bool:
        log = await opened(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            ticket = log.append(one(ADA, 0))
            for _ in range(20):
                await asyncio.sleep(0)
            was_waiting = not ticket.is_settled
            stranger.execute("ROLLBACK")
        await ticket
        await log.close()
        return was_waiting

    assert run(scenario)
    assert len(read_all(path)) == 2


def test_a_second_owner_in_the_same_process_is_refused(path: Path) -> None:
    async def scenario() -> StoreLockedError:
        log = await opened(path)
        with pytest.raises(StoreLockedError) as caught:
            await SqliteEventLog.open(path)
        await log.append(one(ADA, 0))
        await log.close()
        return caught.value

    assert run(scenario).pid == os.getpid()


def test_a_second_name_of_the_file_has_the_same_owner(path: Path) -> None:
    link = path.with_name("link.db")

    async def scenario() -> None:
        log = await opened(path)
        link.symlink_to(path)
        with pytest.raises(StoreLockedError):
            await SqliteEventLog.open(link)
        await log.close()

    run(scenario)


def test_another_database_is_refused_and_left_as_it_is(path: Path) -> None:
    change(path, "CREATE TABLE mine (a)")
    before = path.read_bytes()

    with pytest.raises(NotALogError, match="another application"):
        run(opening(path))

    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["log.db"]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"some text, long enough to look like a header of one hundred bytes" * 100)
    before = path.read_bytes()

    with pytest.raises(NotALogError):
        run(opening(path))

    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.touch()

    make(path)

    assert len(read_all(path)) == 4


def test_a_newer_format_is_refused(path: Path) -> None:
    make(path)
    change(path, "PRAGMA user_version = 99")

    with pytest.raises(SchemaTooNewError) as caught:
        run(opening(path))

    assert (caught.value.found, caught.value.supported) == (99, 1)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError, match=r"no/log\.db"):
        run(opening(tmp_path / "no" / "log.db"))


def test_a_folder_in_the_place_of_the_file_is_named(path: Path) -> None:
    path.mkdir()

    with pytest.raises(NotALogError, match="it is a folder"):
        run(opening(path))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_damaged(path: Path, kept: float) -> None:
    make(path, events=500)
    os.truncate(path, int(path.stat().st_size * kept))

    with pytest.raises((CorruptLogError, NotALogError)):
        run(opening(path))


@pytest.mark.parametrize(
    ("sql", "position"),
    [
        ("UPDATE events SET data = '{\"n\":7}' WHERE position = 2", 2),
        ("UPDATE events SET principal = 'eve' WHERE position = 3", 3),
        ("UPDATE events SET version = 9 WHERE position = 3", 3),
        ("DELETE FROM events WHERE position = 2", 3),
        ("UPDATE events SET idx = '[false,null,null]' WHERE position = 2", 2),
    ],
)
def test_a_tail_that_was_changed_is_not_opened(path: Path, sql: str, position: int) -> None:
    async def scenario() -> None:
        log = await opened(path)
        for version in range(3):
            await log.append(one(ADA, version))
        log.abandon()  # no head: all of it is tail

    run(scenario)
    change(path, sql)

    with pytest.raises(CorruptLogError) as caught:
        run(opening(path))

    assert caught.value.position == position


def test_a_head_that_was_changed_is_not_built_upon(path: Path) -> None:
    make(path)
    change(path, "UPDATE events SET data = replace(data, 'size', 'sice') WHERE type = 'head-recorded'")

    with pytest.raises(CorruptLogError, match="head"):
        run(opening(path))


def test_a_stream_whose_last_event_is_missing_does_not_load(path: Path) -> None:
    make(path)
    change(path, "UPDATE streams SET version = 9 WHERE name = 'run/ada'")

    async def scenario() -> None:
        log = await SqliteEventLog.open(path)
        with pytest.raises(CorruptLogError, match="run/ada lacks event 9"):
            await log.load([(ADA, SCHEMA)])
        await log.close()

    run(scenario)


@pytest.mark.parametrize("missing", [1, 5_000, 11_000])
def test_a_long_stream_that_lacks_an_event_does_not_load_and_leaves_no_reading_behind(path: Path, missing: int) -> None:
    make(path, events=12_000)
    change(path, f"DELETE FROM events WHERE version = {missing} AND type <> 'head-recorded'")

    async def scenario() -> list[str]:
        log = await SqliteEventLog.open(path)
        with pytest.raises(CorruptLogError, match="run/ada lacks events"):
            await log.load([(ADA, SCHEMA)])
        left = [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()} if "_rows" in repr(task)]
        await log.close()
        return left

    assert run(scenario) == []


def test_a_log_that_failed_to_open_can_be_opened_by_the_next(path: Path) -> None:
    make(path)
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(SchemaTooNewError):
        run(opening(path))
    change(path, "PRAGMA user_version = 1")

    assert len(read_all(path)) == 4


def test_a_copy_beside_a_wal_is_complete(path: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        log = await opened(path)
        await log.append(one(ADA, 0))
        for suffix in ("", "-wal"):
            # A copy made by another process: this one must not open the files.
            subprocess.run(["cp", f"{path}{suffix}", f"{tmp_path}/copy.db{suffix}"], check=True)  # noqa: ASYNC221
        await log.close()

    run(scenario)

    assert [recorded.stream for recorded in read_all(tmp_path / "copy.db")] == [ADA]


@pytest.mark.parametrize("version", [(3, 37, 2), (3, 7, 0)])
def test_an_sqlite_that_is_too_old_is_refused(version: tuple[int, int, int]) -> None:
    with pytest.raises(SqliteTooOldError, match=r"3\.38\.0 is the least"):
        check_sqlite(version)


SCRIPTS = {
    "falls off the end": "",
    "raises": "raise SystemExit(0)",
    "loses the log": "globals().clear()",
}


@pytest.mark.parametrize("ending", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_program_that_never_closes_the_log_ends_and_keeps_what_was_durable(path: Path, ending: str) -> None:
    script = f"""
import asyncio
from perdure.store.sqlite import SqliteEventLog
from tests.support.logs import ADA, one

async def main():
    global log
    log = await SqliteEventLog.open({str(path)!r})
    await log.load([(ADA, "")])
    await log.append(one(ADA, 0))
    log.append(one(ADA, 1))

asyncio.run(main())
{ending}
"""

    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60, cwd=_root()
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert read_all(path)[0].position == 1


def test_a_program_that_is_killed_leaves_a_log_that_opens(path: Path) -> None:
    script = f"""
import asyncio, os, signal
from perdure.store.sqlite import SqliteEventLog
from tests.support.logs import ADA, one

async def main():
    log = await SqliteEventLog.open({str(path)!r})
    await log.load([(ADA, "")])
    for version in range(50):
        await log.append(one(ADA, version))
    log.append(one(ADA, 50))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

    subprocess.run([sys.executable, "-c", script], check=False, timeout=60, cwd=_root())

    assert len(read_all(path)) >= 50


def test_a_loop_that_ends_with_an_open_log_leaves_no_trace(path: Path) -> None:
    logs: list[SqliteEventLog] = []

    async def scenario() -> None:
        log = await opened(path)
        await log.append(one(ADA, 0))
        logs.append(log)

    run(scenario)
    logs.pop().abandon()

    assert len(read_all(path)) == 1


def test_a_moved_folder_is_found_again(path: Path, tmp_path: Path) -> None:
    make(path)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(path, moved / "log.db")

    assert len(read_all(moved / "log.db")) == 4


def test_reading_beside_commits_sees_whole_units_only(path: Path) -> None:
    async def scenario() -> list[int]:
        log = await opened(path)
        seen: list[int] = []

        async def look() -> None:
            while len(seen) < 20:
                seen.append(len(await log.read(Query(stream_prefix="run/"))))

        async def write() -> None:
            for version in range(40):
                await log.append(unit(append(ADA, version, event()), append(BOB, version, event())))

        await asyncio.gather(look(), write())
        await log.close()
        return seen

    assert all(count % 2 == 0 for count in run(scenario))


def _root() -> Path:
    return Path(__file__).resolve().parents[2]
