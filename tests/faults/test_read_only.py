"""Somebody who may read a log and write nothing: the reading commands work, opening it is refused in plain words."""

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.faults.processes import application

READING = ["ps 0", "log 0", "verify 0", "doctor 0"]
REFUSED = "own LogUnavailableError None"


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder that everybody can come to, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o755)
        yield made
        made.chmod(0o755)


@pytest.mark.faults
@pytest.mark.parametrize("ending", ["exit_inside", "exit_at_once"])
def test_another_user_reads_a_log_that_nobody_owns_and_cannot_own_it(ending: str, folder: Path) -> None:
    with application(ending, folder / "log.db", folder / "gate") as owner:
        assert owner.hear() == "started open"
        owner.end()

    assert answers(folder) == [*READING, REFUSED]


@pytest.mark.faults
def test_another_user_reads_a_log_beside_its_owner_and_cannot_own_it(folder: Path) -> None:
    with application("work", folder / "log.db", folder / "gate", 3) as owner:
        assert owner.hear() == f"working {owner.pid}"

        assert answers(folder) == [*READING, REFUSED]


def answers(folder: Path) -> list[str]:
    """Return what the reading commands say to a user who may not write."""
    is_root = os.geteuid() == 0
    if not is_root:
        protect(folder)
    with application("read_as_nobody", folder / "log.db", "root" if is_root else "user") as reader:
        heard = [reader.hear() for _ in range(5)]
        assert reader.end() == 0
    return heard


def protect(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
