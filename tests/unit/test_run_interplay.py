"""Features of runs beside one another: sagas, children, queues, pauses, retries, forks, events, approvals and rehearsals."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    CheckedRun,
    Context,
    ControlRefusedError,
    Queue,
    Retry,
    RunView,
    Runtime,
    Settings,
    StepFailedError,
    UsageError,
    tool,
    workflow,
)
from perdure.runtime.rehearsing import check_runs
from perdure.store.reader import LogReader
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import DAY, HOUR, Box, box_with, disk_until, events, facts, play

calls: list[Any] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _anew() -> None:
    calls.clear()
    broken.clear()


@tool(failure_threshold=100_000, retry=Retry(attempts=1))
async def work(item: Any) -> Any:
    calls.append(item)
    if item in broken:
        raise ValueError(f"bad {item}")
    return item


@tool(failure_threshold=100_000, retry=Retry(attempts=1))
async def undo(item: Any) -> None:
    calls.append(f"undo {item}")
    if f"undo {item}" in broken:
        raise OSError("out of order")


async def settle(box: Box, *, rounds: int = 4, by: float = 60) -> None:
    for _ in range(rounds):
        await box.clock.advance(by)


# Rehearsals: code that has not changed fits at every event border, and leaves no trace


async def rehearsed_everywhere(box: Box, *workflows: Any) -> int:
    """Rehearse all open runs at each event border of the box's log; return how many rehearsals there were."""
    disk = box.storage
    assert isinstance(disk, MemoryDisk)
    told: list[str] = []
    count = 0
    for position in range(1, len(disk._storage.events) + 1):
        copy = disk_until(disk, position)
        beside = Box(copy, box.clock, workflows=workflows, settings=Settings(idle_after=timedelta(days=99)))
        rt = await beside.open(resume=False)
        before = len(copy._storage.events)
        for found in await check_runs(rt._engine, rt._log):
            count += 1
            if found.verdict != "fits":
                told.append(f"{position} {copy._storage.events[position - 1]}: {found}")
        await rt.until_idle()
        await rt._log.flush()
        if len(copy._storage.events) != before:
            told.append(f"{position}: wrote {[e.type for e in copy._storage.events[before:]]}")
        await beside.close()
    assert told == []
    return count
