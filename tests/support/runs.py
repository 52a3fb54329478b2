"""What the tests of runs share: one way to play a scenario on a loop, and short ways to look at a run."""

import asyncio
import gc
import json
import os
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from perdure import Recorded, Runtime
from perdure.store.batch import StreamRow
from perdure.testing import Crashable, MemoryDisk, TestClock

T = TypeVar("T")

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

on_both_logs = pytest.mark.parametrize("kind", ["memory", "file"])


def play(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run *scenario*; an error that a loop would only have logged fails the test."""

    async def watched() -> T:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        result = await scenario()
        gc.collect()  # a future whose error nobody took complains when it is collected
        assert problems == []
        return result

    gc.freeze()  # what was there before is not looked at: all that the tests have loaded is a hundred times more
    try:
        return asyncio.run(watched())
    finally:
        gc.unfreeze()


def storage(kind: str, folder: Path) -> Path | MemoryDisk:
    return MemoryDisk() if kind == "memory" else folder / "test.db"


class Box(Crashable):
    """A `Crashable` with its clock at hand."""

    def __init__(self, on: str | os.PathLike[str] | MemoryDisk | None, clock: TestClock, **options: Any) -> None:
        super().__init__(on, clock=clock, **options)
        self.clock = clock


def box_with(*workflows: Any, on: Path | MemoryDisk | None = None, **options: Any) -> Box:
    return Box(on, TestClock(), workflows=workflows, **options)


async def facts(rt: Runtime, run: str) -> list[str]:
    """The types of the events of a run, in order."""
    return [event.type for event in await rt.run(run).history()]


async def events(rt: Runtime, run: str, kind: str) -> list[dict[str, Any]]:
    """The data of the events of a run that have one type."""
    return [json.loads(event.data or "{}") for event in await rt.run(run).history() if event.type == kind]


def data(event: Recorded) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.data or "{}")
    return found


def disk_until(disk: Any, position: int) -> MemoryDisk:
    """A disk as it would be had the process died when *position* was the last event on it."""
    copy, source = MemoryDisk(), disk._storage
    target = copy._storage
    target.log_id, target.blobs = source.log_id, dict(source.blobs)
    target.events = [row for row in source.events if row.position <= position]
    for id in {row.stream for row in target.events}:
        rows = [row for row in target.events if row.stream == id]
        indexes: list[Any] = [json.loads(row.idx) for row in rows if row.idx is not None]
        is_open, wake_at, waits_on = indexes[-1] if indexes else (True, None, None)
        target.names[id] = source.names[id]
        target.ids[source.names[id]] = id
        target.versions[id] = [row.position for row in rows]
        target.streams[id] = StreamRow(id, rows[-1].version, is_open, wake_at, waits_on, rows[-1].at)
    return copy
