"""What an auditor reads of slots and trajectories in SQL."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from perdure.actors.slots.slot import SlotBehavior
from perdure.actors.slots.trajectory import TrajectoryBehavior
from perdure.runtime.views import views
from perdure.store.codec import Codec
from perdure.store.records import Append, Unit
from perdure.store.sqlite import SqliteEventLog
from tests.histories.slots import Fact, slot_facts, trajectory_facts
from tests.support.logs import run

CODEC = Codec((*SlotBehavior.events, *TrajectoryBehavior.events))


def told(folder: Path, facts: Iterable[Fact], query: str) -> list[tuple[Any, ...]]:
    """Write *facts* to a log and return what *query* says of them."""

    async def write() -> None:
        log = await SqliteEventLog.open(folder / "slots.db", views=views())
        versions: dict[str, int] = {}
        for stream, at, event in facts:
            if stream not in versions:
                await log.load([(stream, "")])
            version = versions.get(stream, 0)
            log.append(Unit((Append(stream, version, (CODEC.encode(event)[0],)),), at))
            versions[stream] = version + 1
        await log.flush()
        await log.close()

    run(write)
    with closing(sqlite3.connect(folder / "slots.db")) as database:
        return database.execute(query).fetchall()


def test_a_lease_is_a_row_from_its_beginning_to_its_end_and_says_why_it_ended(tmp_path: Path) -> None:
    columns = "slot, lease, trajectory, acquired_at, released_at, because"

    rows = told(tmp_path, slot_facts(), f"SELECT {columns} FROM slot_leases ORDER BY position")

    assert rows == [
        ("s0", 1, "t1", 2, 8, "released"),
        ("s0", 2, "t1", 11, 15, "lease expired"),
        ("s0", 3, "t2", 16, 17, "quarantined: reset failed: busy"),
        ("s1", 1, "t2", 21, None, None),
        ("s2", 1, "t3", 23, None, "operator"),
    ]


def test_a_call_of_a_trajectory_is_a_row_from_its_intent_to_its_outcome(tmp_path: Path) -> None:
    columns = "execution, tool, effect, slot, attempts, requested_at, ended_at, success, error, in_doubt"

    rows = told(tmp_path, trajectory_facts(), f"SELECT {columns} FROM executions ORDER BY position")

    assert rows == [
        ("c1", "bash", "irreversible", "s0", 1, 2, 3, 1, None, 0),
        ("c2", "bash", "irreversible", "s0", 1, 4, 5, 0, "Exit code: 3", 0),
        ("c3", "read_file", "read", "s1", 2, 6, 10, 1, None, 0),
        ("c4", "web", "idempotent", None, 1, 11, 12, None, "given up", 0),
        ("c5", "bash", "irreversible", "s1", 1, 13, 15, 1, None, 0),
        ("c6", "bash", "irreversible", "s1", 1, 16, None, None, None, 1),
        ("c7", "bash", "irreversible", "s1", 1, 18, None, None, None, 0),
    ]
