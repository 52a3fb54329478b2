"""A kill at every border of a commit: just before it begins, and just after it returned and before anybody was told.

A life is killed at its n-th commit, for every n that it gets to: on a fresh log, and on one that it has to recover. The
next one finishes what is open.
"""

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.crash.life import Order
from tests.crash.nursery import Nursery
from tests.crash.oracle import Aftermath

SHARES = 2
"""So that workers beside one another have something to do each."""
KILLED = -9


@pytest.mark.crash
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("edge", ["before", "after"])
def test_a_kill_at_any_border_of_a_commit_loses_nothing_and_repeats_nothing(
    edge: str, share: int, tmp_path: Path
) -> None:
    reached = 0

    with Nursery() as nursery:
        for number in count(share + 1, SHARES):
            directory = tmp_path / str(number)
            was_killed = killed_at(nursery, directory, f"{edge}:{number}", name="first")
            finished(nursery, directory)
            if not was_killed:
                break
            reached += 1

    assert reached > 1


@pytest.mark.crash
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("edge", ["before", "after"])
def test_a_kill_at_any_border_of_a_commit_while_recovering_loses_nothing_and_repeats_nothing(
    edge: str, share: int, tmp_path: Path
) -> None:
    reached = 0

    with Nursery() as nursery:
        for number in count(share + 1, SHARES):
            directory = tmp_path / str(number)
            assert killed_at(nursery, directory, "after:9", name="first")
            was_killed = killed_at(nursery, directory, f"{edge}:{number}", name="second", starts=(), calls=0)
            finished(nursery, directory)
            if not was_killed:
                break
            reached += 1

    assert reached > 1


def killed_at(nursery: Nursery, directory: Path, border: str, **order: Any) -> bool:
    """Live a life that is killed at *border*, and check what it left; return whether it got there."""
    directory.mkdir(exist_ok=True)
    status = nursery.live(Order(directory=str(directory), kill=border, finishes=True, **order))
    assert status in (0, KILLED)
    if (directory / "acks").exists():
        Aftermath(directory).check()
    return status == KILLED


def finished(nursery: Nursery, directory: Path) -> None:
    assert nursery.live(Order(directory=str(directory), name="last", starts=(), calls=0, finishes=True)) == 0
    aftermath = Aftermath(directory)
    aftermath.check()
    aftermath.check_finished()
