"""The audit finds each change of a file that SQLite itself finds in order, and says where."""

import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from perdure.store.audit import Report, verify
from perdure.store.batch import Bounds
from perdure.store.errors import LogNotFoundError
from perdure.store.evidence import Finding
from perdure.store.records import Blob, Index, Snapshot
from perdure.store.sqlite import SqliteEventLog
from tests.support.logs import ADA, BOB, SCHEMA, append, event, run, unit

LARGE = b"a large value"
LARGE_HASH = sha256(LARGE).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of 4 events of ada, 4 of bob, and heads at 5 and 10."""
    path = tmp_path / "log.db"

    async def scenario() -> None:
        log = await SqliteEventLog.open(path, bounds=Bounds(head_every=4))
        await log.load([(ADA, SCHEMA), (BOB, SCHEMA)])
        for version in range(4):
            index = Index(is_open=version < 3, wake_at=version * 100, waits_on="run/bob") if version % 2 else None
            log.append(
                unit(
                    append(ADA, version, event(data=b'{"n":%d}' % version), index=index),
                    append(BOB, version, event(blobs=b'{"x":"%s"}' % LARGE_HASH.encode())),
                    at=version,
                    blobs=(Blob(LARGE_HASH, LARGE),),
                )
            )
        log.append(unit(append(ADA, 4, snapshot=Snapshot(4, SCHEMA, b"{}"))))
        await log.close()

    run(scenario)
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for sql in statements:
            connection.execute(sql)


def kinds(report: Report) -> list[tuple[str, int | None]]:
    return [(found.kind, found.position) for found in report.findings]


def test_a_sound_log_is_sound_and_the_report_says_what_was_looked_at(path: Path) -> None:
    report = verify(path)

    assert report.findings == ()
    assert report.is_sound
    assert (report.events, report.streams, report.heads, report.snapshots, report.blobs) == (10, 3, 2, 1, 1)
    assert report.last_head == 10
    assert report.first_position is None


def test_an_empty_log_is_sound(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = await SqliteEventLog.open(tmp_path / "empty.db")
        await log.close()

    run(scenario)

    assert verify(tmp_path / "empty.db") == Report(
        path=str(tmp_path / "empty.db"), log_id=verify(tmp_path / "empty.db").log_id
    )


def test_the_root_is_the_one_that_the_next_head_would_record(path: Path) -> None:
    before = verify(path).root

    async def scenario() -> str | None:
        log = await SqliteEventLog.open(path, bounds=Bounds(head_every=10**6))
        await log.load([(ADA, SCHEMA)])
        root = log._journal._stager.frontier.root().hex()
        await log.close()
        return root

    assert run(scenario) == before


def test_it_works_beside_a_running_owner(path: Path) -> None:
    async def scenario() -> Report:
        log = await SqliteEventLog.open(path)
        await log.load([(ADA, SCHEMA)])
        await log.append(unit(append(ADA, 4, event())))
        report = verify(path)
        await log.append(unit(append(ADA, 5, event())))
        await log.close()
        return report

    report = run(scenario)

    assert (report.findings, report.events) == ((), 11)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        # ada and bob take turns: positions 1 to 4, a head at 5, 6 to 9, a head at 10.
        ("UPDATE events SET data = '{\"n\":9}' WHERE position = 3", [("commitment", 3)]),
        ("UPDATE events SET data = '{\"n\":1} ' WHERE position = 3", [("commitment", 3)]),
        ("UPDATE events SET salt = zeroblob(16) WHERE position = 3", [("commitment", 3)]),
        ("UPDATE events SET salt = NULL WHERE position = 3", [("commitment", 3)]),
        ("UPDATE events SET type = 'other' WHERE position = 3", [("chain", 3)]),
        ("UPDATE events SET type_version = 2 WHERE position = 3", [("chain", 3)]),
        ("UPDATE events SET principal = 'eve' WHERE position = 3", [("chain", 3)]),
        ("UPDATE events SET correlation = 'c' WHERE position = 3", [("chain", 3)]),
        ("UPDATE events SET causation = 'c' WHERE position = 3", [("chain", 3)]),
        ("UPDATE events SET commitment = zeroblob(32) WHERE position = 3", [("commitment", 3), ("chain", 3)]),
        ("UPDATE events SET digest = zeroblob(32) WHERE position = 3", [("chain", 3), ("head", 5)]),
        ("UPDATE events SET version = 9 WHERE position = 3", [("version", 3), ("chain", 3), ("version", 6)]),
        ("UPDATE events SET idx = '[true,1,null]' WHERE position = 8", [("chain", 8), *[("rebuild", None)] * 3]),
        ("DELETE FROM events WHERE position = 3", [("position", 4), ("head", 5), ("version", 6), ("chain", 6)]),
        ("UPDATE streams SET version = 3 WHERE name = 'run/bob'", [("rebuild", None)]),
        ("UPDATE streams SET kind = 'tool' WHERE name = 'run/bob'", [("rebuild", None)]),
        ("UPDATE streams SET is_open = 1 WHERE name = 'run/ada'", [("rebuild", None)]),
        ("UPDATE streams SET wake_at = 1 WHERE name = 'run/ada'", [("rebuild", None)]),
        ("UPDATE streams SET waits_on = NULL WHERE name = 'run/ada'", [("rebuild", None)]),
        ("UPDATE streams SET first_at = 9 WHERE name = 'run/ada'", [("rebuild", None)]),
        ("UPDATE streams SET last_at = 9 WHERE name = 'run/ada'", [("rebuild", None)]),
        ("INSERT INTO streams VALUES (99, 'x y', 'x y', 1, 1, NULL, NULL, 1, 1)", [("rebuild", None)] * 2),
        ("UPDATE snapshots SET version = 5", [("rebuild", None)]),
        ("UPDATE snapshots SET data = '{'", [("rebuild", None)]),
        ("UPDATE snapshots SET stream = 77", [("rebuild", None)]),
        ("UPDATE blobs SET data = x'00'", [("blob", None)]),
        ("UPDATE blobs SET size = 1", [("blob", None)]),
        ("DELETE FROM blobs", [("blob", position) for position in (2, 4, 7, 9)]),
        ("DELETE FROM meta", [("rebuild", None), ("chain", 1), ("chain", 2), ("chain", 5)]),
    ],
)
def test_a_change_is_found_where_it_was_made(path: Path, sql: str, expected: list[tuple[str, int | None]]) -> None:
    change(path, sql)

    report = verify(path)

    assert sorted(kinds(report), key=str) == sorted(expected, key=str)
    assert report.first_position == min((p for _, p in expected if p is not None), default=None)


def test_a_renamed_stream_breaks_its_chain(path: Path) -> None:
    change(path, "UPDATE streams SET name = 'run/eve' WHERE name = 'run/bob'")

    assert kinds(verify(path))[0] == ("chain", 2)


def test_a_stream_without_a_row_is_found(path: Path) -> None:
    change(path, "DELETE FROM streams WHERE name = 'run/bob'")

    found = {found.kind for found in verify(path).findings}

    assert found == {"rebuild", "chain"}


def test_time_that_falls_is_found(path: Path) -> None:
    change(path, "UPDATE events SET at = 1 WHERE position = 8")

    assert ("time", 8) in kinds(verify(path))


def test_an_erased_payload_is_not_damage(path: Path) -> None:
    change(path, "UPDATE events SET data = NULL, salt = NULL WHERE position IN (1, 3)")

    assert verify(path).findings == ()


def test_a_head_whose_root_was_made_to_fit_the_forgery_breaks_its_own_chain(path: Path) -> None:
    change(path, "UPDATE events SET data = replace(data, '\"size\":4', '\"size\":3') WHERE position = 5")

    assert ("commitment", 5) in kinds(verify(path))


def test_pages_that_were_overwritten_are_a_finding_and_no_exception(path: Path) -> None:
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096

    for page in range(1, pages):
        damaged = content.copy()
        damaged[page * 4096 : page * 4096 + 64] = b"\xff" * 64
        path.write_bytes(damaged)

        assert not verify(path).is_sound, f"page {page + 1}"


def test_every_flipped_byte_of_an_event_is_found(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b'{"n":2}')

    for offset in range(start - 40, start + 110):
        damaged = bytearray(content)
        damaged[offset] ^= 0x01
        path.write_bytes(damaged)

        assert not verify(path).is_sound, f"byte {offset - start} from the payload"


@pytest.mark.parametrize("content", [b"", b"no database" * 1_000])
def test_a_file_that_is_no_log_is_a_finding(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)

    [found] = verify(tmp_path / "x.db").findings

    assert isinstance(found, Finding)
    assert found.kind == "integrity"


def test_a_file_that_is_cut_off_is_a_finding(path: Path) -> None:
    content = path.read_bytes()

    for kept in (100, 4_096, len(content) // 2, len(content) - 4_096):
        path.write_bytes(content[:kept])

        assert not verify(path).is_sound, kept


def test_a_file_that_is_missing_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(LogNotFoundError):
        verify(tmp_path / "none.db")


def test_findings_are_bounded(path: Path) -> None:
    change(
        path,
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1500) "
        "INSERT INTO blobs SELECT 'wrong' || n, 1, x'00' FROM n",
    )

    report = verify(path)

    assert (len(report.findings), report.omitted) == (1_000, 500)
