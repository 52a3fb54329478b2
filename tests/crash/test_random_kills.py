"""SIGKILL at instants that nobody chose, again and again on the same log, with everything checked after each.

`PERDURE_CRASH_ROUNDS` is how many kills in all (100), `PERDURE_CRASH_SEED` repeats the delays of an earlier run.
"""

import os
import random
import sys
from pathlib import Path

import pytest

from tests.crash.life import Order
from tests.crash.nursery import Nursery
from tests.crash.oracle import Aftermath

KILLS = 10
"""On one log: more would check the same beginnings over and over."""
CHAINS = -(-int(os.environ.get("PERDURE_CRASH_ROUNDS", "100")) // KILLS)
KILLED = -9


@pytest.mark.crash
@pytest.mark.row("A0-23", "A3-79", "A3-83")
@pytest.mark.parametrize("chain", range(CHAINS))
def test_whatever_the_instant_of_a_kill_nothing_acknowledged_is_lost_and_nothing_finished_runs_again(
    chain: int, tmp_path: Path
) -> None:
    seed = os.environ.get("PERDURE_CRASH_SEED") or str(random.SystemRandom().getrandbits(32))
    sys.stdout.write(f"PERDURE_CRASH_SEED={seed}\n")
    delays = random.Random(f"{seed}/{chain}")
    kills, number, longest = 0, 0, 0.2

    with Nursery() as nursery:
        while kills < KILLS:
            number += 1
            order = Order(directory=str(tmp_path), name=str(number))
            status = nursery.live(order, kill_after=delays.uniform(0, longest))
            assert status in (0, KILLED)
            kills += status == KILLED
            # Neither always before anything was done, nor always after all of it, however fast the machine is.
            longest *= 0.9 if status == 0 else 1.1
            if (tmp_path / "acks").exists():  # before that nothing was promised, not even that there is a log
                Aftermath(tmp_path).check()

        assert nursery.live(Order(directory=str(tmp_path), name="last", starts=(), calls=0, finishes=True)) == 0

    aftermath = Aftermath(tmp_path)
    aftermath.check()
    aftermath.check_finished()
