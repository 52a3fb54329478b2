"""Schedules whose process dies after any event: every due time still leads to one run, or is passed over once."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from perdure import Context, EntryPoint, Recorded, Runtime, Schedule, workflow
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import HOUR, MINUTE, Box, disk_until, play
from tests.support.schedules import Fired, every_event, expected, moment, noted, started, utc

BEGIN = utc("2026-01-01 00:00")
END = BEGIN + 5 * HOUR + 30 * MINUTE
DUES = [BEGIN + n * HOUR for n in range(1, 12)]


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> str:
    del ctx
    return str(event["due"])


@workflow
async def sleep_long(ctx: Context, event: dict[str, Any]) -> str:
    await ctx.sleep(timedelta(minutes=90))
    return str(event["due"])


def points(flow: Any, schedule: Schedule) -> list[EntryPoint]:
    return [EntryPoint("nightly", flow, schedule)]


async def told(rt: Runtime) -> list[Any]:
    """What is the same however often the process died: the runs and their ends, and what was passed over."""
    events = await every_event(rt)
    runs = [(one.due, one.missed, (await rt.run(one.run).status()).status) for one in started(events, "nightly")]
    skipped = [(n["first"], n["last"], n["why"]) for n in noted(events, "nightly", "firings-skipped")]
    fired = [n["run"] for n in noted(events, "nightly", "schedule-fired")]
    return [runs, skipped, fired]


async def undisturbed(flow: Any, schedule: Schedule, disk: MemoryDisk) -> tuple[list[Any], list[Recorded]]:
    async with Box(disk, TestClock(BEGIN), entry_points=points(flow, schedule)) as box:
        rt = await box.open()
        await box.clock.advance(END - BEGIN)
        return await told(rt), await every_event(rt)


def deaths(disk: MemoryDisk, events: list[Recorded]) -> Iterator[tuple[int, MemoryDisk, TestClock]]:
    """Every event as the last one on the disk, with a clock that shows its time."""
    for event in events[2:-1]:  # the first two are those of the opening
        yield event.position, disk_until(disk, event.position), TestClock(moment(event.at))


@pytest.mark.parametrize("overlap", ["queue", "skip", "cancel_previous"])
def test_a_process_that_dies_and_is_back_at_once_changes_nothing(overlap: Any) -> None:
    schedule = Schedule(every=timedelta(hours=1), overlap=overlap)

    async def scenario() -> int:
        disk = MemoryDisk()
        before, events = await undisturbed(sleep_long, schedule, disk)
        assert len(before[0]) > 2
        for position, left, clock in deaths(disk, events):
            async with Box(left, clock, entry_points=points(sleep_long, schedule)) as box:
                rt = await box.open()
                await clock.advance(END - clock.now)
                assert await told(rt) == before, position
        return len(events)

    assert play(scenario) > 20


def is_within_a_unit(event: Recorded, following: Recorded) -> bool:
    """Whether no process can die between the two: they are committed together."""
    return (event.type, following.type) in (("entry-triggered", "run-started"), ("run-started", "schedule-fired"))


@pytest.mark.parametrize("misfire", ["one", "skip", "all"])
def test_a_process_that_dies_and_is_back_after_hours_makes_up_for_what_is_not_done(misfire: Any) -> None:
    schedule = Schedule(every=timedelta(hours=1), misfire=misfire, misfire_limit=2)

    async def scenario() -> int:
        disk = MemoryDisk()
        _, events = await undisturbed(note, schedule, disk)
        following = {event.position: after for event, after in pairwise(events)}
        worlds = 0
        for position, left, clock in deaths(disk, events):
            if is_within_a_unit(events[position - 1], following[position]):
                continue
            died = clock.now
            await clock.advance(timedelta(hours=2, minutes=40))
            lives = [(BEGIN, died), (clock.now, max(clock.now, END))]
            async with Box(left, clock, entry_points=points(note, schedule)) as box:
                rt = await box.open()
                await clock.advance(max(END - clock.now, timedelta(0)))
                found = await every_event(rt)
            fired, skipped = expected(DUES, lives, misfire, 2)
            assert [Fired(one.due, one.at, one.missed) for one in started(found, "nightly")] == fired, position
            assert sum(n["count"] for n in noted(found, "nightly", "firings-skipped")) == len(skipped), position
            worlds += 1
        return worlds

    assert play(scenario) > 10
