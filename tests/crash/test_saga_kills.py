"""SIGKILL in the middle of a saga, over a real file: what was done is undone, and nothing that ended is done again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import Query
from perdure.store.reader import LogReader
from tests.crash.nursery import ROOT

WHOLE = ["book 1", "book 2", "book 3", "unbook 3", "unbook 2", "unbook 1"]


def live(directory: Path, place: str) -> int:
    command = [sys.executable, "-W", "error", "-m", "tests.crash.saga_life", str(directory), place]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode


@pytest.mark.row("A2-35")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["book 2", "unbook 3", "unbook 1"])
def test_a_saga_that_was_killed_is_undone_once(tmp_path: Path, what: str, when: str) -> None:
    assert live(tmp_path, f"{what} {when}") == -9
    assert live(tmp_path, "nowhere") == 0

    effects = [json.loads(line) for line in (tmp_path / "effects").read_text().splitlines()]
    expected = list(WHOLE)
    if when == "after":  # it was in flight: it is done again, under the same idempotency key
        expected.insert(expected.index(what), what)
    assert [name for _, name in effects] == expected
    assert len({key for key, _ in effects}) == len(WHOLE)
    assert (tmp_path / "end").read_text() == "step book#4 failed: ValueError: no place left"
    with LogReader.open(tmp_path / "log.db") as log:
        [ended] = log.read(Query(types=("saga-compensated",)))
    assert json.loads(ended.data or "")["undone"] == ["book#3", "book#2", "book#1"]
