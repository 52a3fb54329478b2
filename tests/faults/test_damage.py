"""A file that was cut off or has flipped bytes: it is refused in plain words, or nothing of what was recorded is wrong.

What cannot be noticed is a WAL that lost its end: SQLite takes it for a crash. The log is then what it was before.
"""

import asyncio
import contextlib
import random
import shutil
from pathlib import Path

import pytest

from perdure import PerdureError
from perdure.store.audit import verify
from perdure.store.errors import StoreError
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded
from tests.faults.processes import application
from tests.faults.programs import make_runtime

FLIPS = 120
CUTS = 40


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that was closed well, with some runs."""
    database = tmp_path_factory.mktemp("closed") / "log.db"
    with application("exit_inside", database, database.with_name("gate")) as owner:
        assert owner.hear() == "started open"
        owner.end()
    database.with_name("gate").touch()  # so that what is open can end whenever a copy is opened
    return database


@pytest.mark.faults
def test_a_log_with_a_flipped_byte_is_refused_or_tells_nothing_wrong(closed: Path, tmp_path: Path) -> None:
    content, original, rng = closed.read_bytes(), events_of(closed), random.Random(20)
    outcomes: set[str] = set()

    for number in range(FLIPS):
        copy = tmp_path / f"{number}.db"
        place = rng.randrange(len(content))
        copy.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        outcomes.add(examined(copy, original))

    assert {"sound", "found"} <= outcomes


@pytest.mark.faults
def test_a_log_that_was_cut_off_is_refused_or_tells_nothing_wrong(closed: Path, tmp_path: Path) -> None:
    content, original, rng = closed.read_bytes(), events_of(closed), random.Random(21)

    for number in range(CUTS):
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(content[: rng.randrange(1, len(content))])
        # Of the last page there may be nothing in use: then nothing is missing.
        assert examined(copy, original) in ("sound", "found", "refused")


@pytest.mark.faults
def test_a_wal_that_lost_its_end_leaves_the_log_as_it_was_before(tmp_path: Path) -> None:
    database = tmp_path / "log.db"
    with application("exit_at_once", database, tmp_path / "gate") as owner:
        assert owner.hear() == "started open"
        owner.end()
    original, wal = events_of(database), database.with_name("log.db-wal").read_bytes()

    for share in range(1, 20):
        copy = tmp_path / f"{share}.db"
        shutil.copy(database, copy)
        copy.with_name(f"{share}.db-wal").write_bytes(wal[: len(wal) * share // 20])
        left = events_of(copy)
        assert left == original[: len(left)]
        assert verify(copy).findings == ()


def examined(copy: Path, original: list[Recorded]) -> str:
    """Return what becomes of a damaged log, after checking that nobody was told anything wrong."""
    try:
        report = verify(copy)
    except PerdureError:
        return "refused"
    if not report.is_sound:
        opens_or_is_refused(copy)
        return "found"
    assert events_of(copy) == original
    opens_or_is_refused(copy)
    return "sound"


def opens_or_is_refused(copy: Path) -> None:
    """Open the log for writing: it works, or fails with an error that names what is wrong with it, and no other."""

    async def scenario() -> None:
        async with make_runtime(str(copy)) as runtime:
            await runtime.statistics()

    with contextlib.suppress(StoreError):
        asyncio.run(scenario())


def events_of(database: Path) -> list[Recorded]:
    with LogReader.open(database) as reader:
        return reader.read(Query(limit=10_000))
