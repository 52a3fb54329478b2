"""Reading from outside, and what a doctor can say."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.store.doctor import doctor_facts, has_wal_reset_bug
from perdure.store.errors import LogNotFoundError, NotALogError, UsageError
from perdure.store.heads import HEADS
from perdure.store.reader import LogReader
from perdure.store.records import Blob, Index, Query, stream_id
from perdure.store.sqlite import SqliteEventLog
from tests.support.logs import ADA, BOB, SCHEMA, append, event, one, positions, run, unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"

    async def scenario() -> None:
        log = await SqliteEventLog.open(path)
        await log.load([(ADA, SCHEMA), (BOB, SCHEMA)])
        log.append(unit(append(ADA, 0, event(data=b'{"tool":"a"}')), at=5, blobs=(Blob("aa", b"\x00"),)))
        log.append(one(BOB, 0, at=6, index=Index(is_open=False)))
        log.append(one(ADA, 1, at=7, index=Index(wake_at=70)))
        await log.close()

    run(scenario)
    return path


def test_a_closed_log_is_read_like_an_open_one(path: Path) -> None:
    with LogReader.open(path) as reader:
        everything = reader.read(Query())
        assert positions(everything) == [1, 2, 3, 4]
        assert positions(reader.read(Query(stream=ADA, newest_first=True))) == [3, 1]
        assert positions(reader.read(Query(tool="a", since_time=1, until_time=5))) == [1]
        assert reader.blobs(["aa", "bb"]) == {"aa": b"\x00"}
        assert reader.last_position() == 4
        assert reader.meta()["log_id"] == reader.log_id


def test_streams_are_listed_with_their_index(path: Path) -> None:
    with LogReader.open(path) as reader:
        listed = reader.streams()
        assert [(row.stream, row.version, row.is_open, row.wake_at, row.last_at) for row in listed] == [
            (HEADS, 1, False, None, 7),
            (ADA, 2, True, 70, 7),
            (BOB, 1, False, None, 6),
        ]
        assert [row.stream for row in reader.streams("run/", only_open=True)] == [ADA]
        assert [row.stream for row in reader.streams(after=ADA)] == [BOB]
        assert reader.stream(BOB) == listed[2]
        assert reader.stream(stream_id("run")) is None


def test_it_reads_beside_an_owner_what_is_durable(path: Path) -> None:
    async def scenario() -> list[list[int]]:
        log = await SqliteEventLog.open(path)
        await log.load([(ADA, SCHEMA)])
        with LogReader.open(path) as reader:
            before = positions(reader.read(Query(after=3)))
            await log.append(one(ADA, 2))
            after = positions(reader.read(Query(after=3)))
        await log.append(one(ADA, 3))
        await log.close()
        return [before, after]

    assert run(scenario) == [[4], [4, 5]]


def test_a_tail_looks_again_when_something_was_written(path: Path) -> None:
    async def scenario() -> list[int]:
        log = await SqliteEventLog.open(path)
        await log.load([(ADA, SCHEMA)])
        waits: list[int] = []
        with LogReader.open(path) as reader:
            tail = reader.tail(2, Query(stream=ADA), wait=lambda: waits.append(len(waits)), page=1)
            seen = [next(tail).position]
            await log.append(one(ADA, 2))
            seen.append(next(tail).position)
            await log.append(one(ADA, 3))
            seen.append(next(tail).position)
        await log.close()
        return seen

    assert run(scenario) == [3, 5, 6]


def test_a_query_of_the_users_is_answered(path: Path) -> None:
    with LogReader.open(path) as reader:
        table = reader.sql("SELECT stream, count(*) AS events FROM log WHERE position < ? GROUP BY stream", (4,))

        assert table.columns == ("stream", "events")
        assert list(table.rows) == [(ADA, 2), (BOB, 1)]
        counting = "WITH RECURSIVE n(n) AS (SELECT 1 UNION SELECT n + 1 FROM n LIMIT 3) SELECT * FROM n"
        assert list(reader.sql(counting).rows) == [(1,), (2,), (3,)]
        assert list(reader.sql("PRAGMA table_info(events)").rows)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM events",
        "UPDATE meta SET value = ''",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "ATTACH '/tmp/other.db' AS other",
        "VACUUM INTO '/tmp/other.db'",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA wal_checkpoint",
        "BEGIN",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "SELECT nothing FROM log",
    ],
)
def test_anything_but_a_query_is_refused(path: Path, sql: str) -> None:
    with LogReader.open(path) as reader, pytest.raises(UsageError):
        list(reader.sql(sql).rows)

    assert doctor_facts(path).events == 4


def test_a_log_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LogNotFoundError):
        LogReader.open(tmp_path / "none.db")

    assert list(tmp_path.iterdir()) == []


def test_another_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE x (a)")
    connection.close()

    with pytest.raises(NotALogError):
        LogReader.open(tmp_path / "other.db")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_somebody_who_may_not_write_reads_a_closed_log(path: Path) -> None:
    script = f"""
import os
from perdure.store.reader import LogReader
from perdure.store.records import Query
LogReader.open({str(path)!r}).close()  # imports everything while that is still allowed
os.remove({str(path)!r} + "-wal")
os.remove({str(path)!r} + "-shm")
os.setgid(65534); os.setgroups([]); os.setuid(65534)
with LogReader.open({str(path)!r}) as reader:
    print(len(reader.read(Query())))
"""
    for folder in (path.parent, *list(path.parent.parents)[:-2]):
        folder.chmod(0o755)

    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("4\n", "")


def test_a_doctor_knows_sizes_and_open_work(path: Path) -> None:
    facts = doctor_facts(path)

    assert (facts.events, facts.streams, facts.open_streams, facts.sleeping_streams) == (4, 3, 1, 1)
    assert (facts.last_at, facts.blob_bytes, facts.exists, facts.problem) == (7, 1, True, None)
    assert (facts.is_owned, facts.owner, facts.is_lock_stale) == (False, None, False)
    assert facts.database_bytes > 0
    assert facts.free_bytes > 0
    assert facts.sqlite_version == sqlite3.sqlite_version


def test_a_doctor_names_the_owner(path: Path) -> None:
    async def scenario() -> tuple[bool, str | None, bool]:
        log = await SqliteEventLog.open(path)
        facts = doctor_facts(path)
        await log.close()
        return facts.is_owned, facts.owner, facts.is_lock_stale

    is_owned, owner, is_stale = run(scenario)

    assert (is_owned, is_stale) == (True, False)
    assert owner is not None
    assert str(os.getpid()) in owner


def test_a_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"rubbish" * 1_000)

    missing, rubbish = doctor_facts(tmp_path / "none.db"), doctor_facts(tmp_path / "x.db")

    assert (missing.exists, "no log at" in (missing.problem or "")) == (False, True)
    assert (rubbish.exists, "not a log" in (rubbish.problem or "")) == (True, True)


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: tuple[int, ...], *, has_bug: bool) -> None:
    assert has_wal_reset_bug(version) is has_bug
