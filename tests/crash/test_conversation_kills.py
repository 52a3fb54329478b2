"""SIGKILL while a conversation is saved to a real file, and a save of which only a part reached the disk.

What was acknowledged is there, whole; of the save that was under way all is there or nothing.
"""

import asyncio
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import ConversationView
from tests.crash.conversation_life import Order, document, runtime_on
from tests.crash.nursery import Nursery

KILLED = -9
KILLS = int(os.environ.get("PERDURE_CONVERSATION_KILLS", "8"))


def acknowledged(directory: Path) -> list[tuple[int, int]]:
    """The versions that a life was told were saved, with the size of the write-ahead log by then."""
    path = directory / "acks"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # a line that was not ended was not told
    return [tuple(msgspec.json.decode(line)) for line in lines]


def load(directory: Path) -> tuple[Any, ConversationView]:
    async def scenario() -> tuple[Any, ConversationView]:
        async with runtime_on(directory) as rt:
            view = await rt.conversation("c").status()
            found = await rt.conversation("c").artifact("document") if view.artifacts else None
            return found, view

    return asyncio.run(scenario())


@pytest.mark.crash
@pytest.mark.row("A3-83")
def test_a_kill_while_a_conversation_is_saved_loses_no_version_that_was_acknowledged(tmp_path: Path) -> None:
    seed = os.environ.get("PERDURE_CRASH_SEED") or str(random.SystemRandom().getrandbits(32))
    sys.stdout.write(f"PERDURE_CRASH_SEED={seed}\n")
    delays, kills, last = random.Random(seed), 0, 0

    with Nursery("tests.crash.conversation_life") as nursery:
        while kills < KILLS:
            status = nursery.live(Order(directory=str(tmp_path)), kill_after=delays.uniform(0.05, 0.6))
            assert status == KILLED
            kills += 1
            told = [version for version, _ in acknowledged(tmp_path)]
            if not (tmp_path / "log.db").exists():
                continue
            found, view = load(tmp_path)
            newest = 0 if found is None else found["version"]
            assert max([last, *told]) <= newest <= max([last, *told]) + 1  # one may have been saved, and nobody told
            assert found is None or found == document(newest)
            assert view.status in ("active", "completed")
            last = newest

    assert last > 0


@pytest.mark.crash
@pytest.mark.row("A3-83")
def test_of_a_save_that_was_torn_the_version_before_it_loads(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    with Nursery("tests.crash.conversation_life") as nursery:
        assert nursery.live(Order(directory=str(whole), kill_at=4)) == KILLED
    version, begin = acknowledged(whole)[-1]
    end = (whole / "log.db-wal").stat().st_size
    assert version == 3
    assert end > begin  # the fourth save reached the disk, and nobody was told
    step = max(1, (end - begin) // 12)

    for cut in [*range(begin, end, step), end - 1, end]:
        torn = tmp_path / str(cut)
        shutil.copytree(whole, torn, ignore=shutil.ignore_patterns("*.sock"))
        os.truncate(torn / "log.db-wal", cut)

        found, _ = load(torn)

        expected = 4 if cut == end else 3
        assert found == document(expected), f"cut at {cut} of {begin} to {end}"
