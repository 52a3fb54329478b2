"""SIGKILL while 20 trajectories run commands in slots, at instants that nobody chose and at those that matter most.

`PERDURE_SLOT_ROUNDS` is how many kills in all (50), `PERDURE_SLOT_SEED` repeats plan and delays of an earlier run.
"""

import asyncio
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from perdure import Bubblewrap
from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.sandbox.backend import Backend
from tests.crash.left_processes import USERS, end_all, of_slots, terminals_of
from tests.crash.nursery import Nursery
from tests.crash.slot_life import POINTS
from tests.crash.slot_oracle import SlotAftermath
from tests.crash.slot_plan import TERMINALS, Order, name_of
from tests.support.backends import make_root, need, remove_root

KILLS = 25
"""On one log: a terminal, a shell and a workspace are to survive many."""
CHAINS = -(-int(os.environ.get("PERDURE_SLOT_ROUNDS", "50")) // KILLS)
KILLED = -9
FIRST_UID = 1_000_000
WAYS = ("in doubt", "found", "irreversible again", "idempotent again", "reset")
"""What is to become, at least once, of calls that a kill cut off."""
FIRST_POINTS = (
    "before recover:3", "after recover:9", "before outcome:4", "after commit:2", "before begin:25", "after begin:45",
    "after running:35", "after start:10", "after start:30", "after start:50",
    "before finish:30", "after finish:40", "before forget:20", "after reset:2", "before release:1",
)  # fmt: skip
"""At each of them somebody is told something, or not yet; the number is the how-manieth time in that life."""


@pytest.fixture
def slots() -> Iterator[Path]:
    """Return a folder for slots, on a machine that can have them."""
    need("bwrap", "bubblewrap")
    need("tmux", "tmux")
    root = make_root()
    try:
        asyncio.run(start_and_stop(Bubblewrap(root)))
    except SandboxUnavailableError as error:
        remove_root(root)
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    yield root
    remove_root(root)


async def start_and_stop(backend: Backend) -> None:
    await backend.start()
    await backend.stop()


class Kill(msgspec.Struct, frozen=True):
    """How a life ends, in one of three ways."""

    point: str | None = None
    of_life: float | None = None
    """Seconds after its birth: it is still about to begin, or busy with what it has found."""
    of_work: float | None = None
    """Seconds after it has opened the log."""


def kills_of(chance: random.Random) -> list[Kill]:
    """Return how the lives of one log end."""
    times = [Kill(of_life=chance.uniform(0, 0.6)) for _ in range(4)]
    times += [Kill(of_work=chance.uniform(0, 0.9)) for _ in range(4)]
    drawn = [
        f"{chance.choice(['before', 'after'])} {chance.choice(sorted(POINTS))}:{chance.randrange(1, 20)}"
        for _ in range(KILLS - len(times) - len(FIRST_POINTS))
    ]
    kills = [*times, *(Kill(point) for point in (*FIRST_POINTS, *drawn))]
    chance.shuffle(kills)
    return kills


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.row("A1-33", "A1-34")
@pytest.mark.parametrize("chain", range(CHAINS))
def test_after_any_kill_slots_files_and_calls_are_what_they_were_and_nothing_irreversible_runs_twice(
    chain: int, tmp_path: Path, slots: Path
) -> None:
    seed = os.environ.get("PERDURE_SLOT_SEED") or str(random.SystemRandom().getrandbits(32))
    sys.stdout.write(f"PERDURE_SLOT_SEED={seed}\n")
    chance = random.Random(f"{seed}/{chain}")
    order = Order(
        directory=str(tmp_path),
        slots=str(slots),
        first_uid=FIRST_UID + os.getpid() % 10_000 * USERS,  # tests beside this one have slots too
        seed=f"{seed}/{chain}",
        tag=f"{random.SystemRandom().randrange(10**12):012d}",
    )
    terminals: dict[str, tuple[int, int]] = {}

    try:
        with Nursery("tests.crash.slot_life") as nursery:
            for kill in kills_of(chance):
                one = msgspec.structs.replace(order, point=kill.point, seconds=kill.of_work)
                status = nursery.live(one, kill_after=kill.of_life)
                assert status == KILLED, f"a life with {kill} ended with {status}"
                if (tmp_path / "acks").exists():  # before that nothing was promised, not even that there is a log
                    aftermath = SlotAftermath(order)
                    aftermath.check()
                    check_terminals(aftermath, terminals)
            assert nursery.live(msgspec.structs.replace(order, finishes=True)) == 0
        assert of_slots(slots, order.tag, order.first_uid) == []
    finally:
        end_all(slots, order.tag, order.first_uid)
    aftermath = SlotAftermath(order)
    aftermath.check()
    aftermath.check_finished()
    happened = aftermath.happened()
    sys.stdout.write(f"{dict(happened)}\n")
    assert set(WAYS) <= {way for way, count in happened.items() if count}, f"the kills missed something: {happened}"
    assert terminals  # on a busy machine a kill may come before one of them is started


def check_terminals(aftermath: SlotAftermath, known: dict[str, tuple[int, int]]) -> None:
    """A terminal that was told to run runs in all later lives, as the same process."""
    running = terminals_of(Path(aftermath.order.slots))
    for trajectory in range(TERMINALS):
        if aftermath.told.done[trajectory] > 1:
            server = running[aftermath.slots[name_of(trajectory)]]
            assert known.setdefault(name_of(trajectory), server) == server
