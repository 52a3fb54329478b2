"""Triggers that wait, killed after every unit of the log: each starts one run, which ends once, never two at a time."""

from functools import partial
from typing import Any, Final

import pytest

from perdure import Context, EntryPoint, Query, Recorded, Runtime, Settings, tool, workflow
from perdure.testing import MemoryDisk, TestClock
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, data, disk_until, play

NAMES: Final = "abcde"
PRIORITIES: Final = {"a": 0, "b": 0, "c": 5, "d": -1, "e": 3}
WORK = {"now": 0, "most": 0}


@tool(effect="idempotent", retry=None)
async def work(name: str) -> str:
    return name


@workflow
async def job(ctx: Context, name: str) -> str:
    WORK["now"] += 1
    WORK["most"] = max(WORK["most"], WORK["now"])
    try:
        await ctx.sleep(1)
        return await ctx.call(work, name)
    finally:
        WORK["now"] -= 1


POINTS: Final = [EntryPoint("one", job, max_concurrent=2), EntryPoint("two", job, max_concurrent=2)]


def box(disk: MemoryDisk) -> Box:
    settings = Settings(max_concurrent_executions=1)
    return Box(disk, TestClock(), workflows=[job], entry_points=POINTS, settings=settings)


async def ask(rt: Runtime) -> None:
    """Ask for everything that is to happen: again after a crash, since nobody knows what came of it."""
    for name in NAMES[:3]:
        await rt.trigger("one", {"name": name}, id=name, priority=PRIORITIES[name])
    for name in NAMES[3:]:
        await rt.entry_points.fire("two", {"name": name}, kind="webhook", key=name)
    await rt.cancel_execution("one", "b")


async def live(disk: MemoryDisk) -> list[Recorded]:
    """Live until everything has ended; return the log."""
    WORK.update(now=0, most=0)
    async with box(disk) as made:
        rt = await made.open()
        await ask(rt)
        for _ in range(8):
            await made.clock.advance(1.1)
        results = {
            name: await rt.get_execution_result(entry, run)
            for name, entry, run in [*((n, "one", n) for n in "abc"), ("d", "two", "two:d"), ("e", "two", "two:e")]
        }
        assert {name: one and (one.status, one.output) for name, one in results.items()} == {
            "a": ("completed", "a"),
            "b": ("cancelled", None),
            "c": ("completed", "c"),
            "d": ("completed", "d"),
            "e": ("completed", "e"),
        }
        figures = await rt.entry_points.statistics()
        assert [(one["total_executions"], one["active_executions"]) for one in figures.values()] == [(3, 0), (2, 0)]
        return await rt.read(Query(limit=10_000))


def told(log: list[Recorded], kind: str) -> list[tuple[str, Any]]:
    """Of events of entry points, or of runs' ends, whom they concern."""
    return sorted((event.stream, data(event).get("run")) for event in log if event.type == kind)


def test_each_trigger_starts_one_run_that_ends_once_wherever_the_process_dies() -> None:
    whole = MarkedDisk()
    log = play(lambda: live(whole))
    assert WORK["most"] == 1
    begun, ended = told(log, "entry-triggered"), told(log, "entry-run-ended")
    first = next(event.position for event in log if event.type == "entry-triggered")

    for position in sorted(one for one in whole.borders if one >= first - 1):
        after = play(partial(live, disk_until(whole, position)))

        assert WORK["most"] <= 1, position
        assert (told(after, "entry-triggered"), told(after, "entry-run-ended")) == (begun, ended), position
        ends = [event for event in after if event.type in ("run-completed", "run-cancelled")]
        assert len({event.stream for event in ends}) == len(ends) == len(NAMES), position
        assert len([event for event in after if event.type == "entry-told"]) == len(NAMES), position
        for entry in ("one", "two"):
            numbers = [data(e)["number"] for e in after if e.type == "entry-run-ended" and e.stream.endswith(entry)]
            assert numbers == list(range(1, len(numbers) + 1)), position


@pytest.mark.row("A3-09")
def test_triggers_that_wait_come_in_the_same_order_after_a_crash() -> None:
    async def scenario() -> list[str]:
        async with box(MemoryDisk()) as made:
            rt = await made.open()
            for name in NAMES:
                await rt.trigger("one", {"name": name}, id=name, priority=PRIORITIES[name])
            await made.clock.advance(0.1)
            rt = await made.crash_and_reopen()
            for _ in range(8):
                await made.clock.advance(1.1)
            resumed = [event.stream.partition("/")[2] for event in await rt.read(Query(types=("run-resumed",)))]
            return list(dict.fromkeys(resumed))

    assert play(scenario) == ["a", "c", "e", "b", "d"]
