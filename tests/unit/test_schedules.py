"""Schedules of a runtime: when runs start, what is made up for when nothing ran, and what operators say."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from perdure import Context, EntryPoint, Runtime, Schedule, UsageError, connect, workflow
from perdure.runtime.entries.firing import Firing
from perdure.store.records import Unit
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import DAY, HOUR, MINUTE, Box, data, play
from tests.support.schedules import every_event, micros, moment, noted, started, utc

BEGIN = utc("2026-01-01 00:00")


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> str:
    del ctx
    return str(event["due"])


@workflow
async def sleep_long(ctx: Context, event: dict[str, Any]) -> str:
    await ctx.sleep(timedelta(minutes=90))
    return str(event["due"])


@workflow
async def work_until_told(ctx: Context, event: dict[str, Any]) -> str:
    del event
    return await ctx.signal("done", of=str)


@workflow
async def unfit(ctx: Context, event: int) -> int:
    del ctx
    return event


def box_of(
    schedule: Schedule, flow: Any = note, *, begin: datetime = BEGIN, disk: MemoryDisk | None = None, **options: Any
) -> Box:
    """Runtimes with one schedule, of the entry point `nightly`."""
    points = [EntryPoint("nightly", flow, schedule)]
    return Box(disk or MemoryDisk(), TestClock(begin), entry_points=points, **options)


async def dues(rt: Runtime) -> list[str]:
    """The due times that runs were started for, and when if that was another time."""
    found = started(await every_event(rt), "nightly")
    return [f"{one.due:%d %H:%M}" + ("" if one.due == one.at else f" at {one.at:%d %H:%M}") for one in found]


async def skipped(rt: Runtime) -> list[tuple[str, str, int, str]]:
    """What was passed over: from, until, how many, why."""
    found = noted(await every_event(rt), "nightly", "firings-skipped")
    return [(f"{moment(n['first']):%d %H:%M}", f"{moment(n['last']):%d %H:%M}", n["count"], n["why"]) for n in found]


async def runs_of(rt: Runtime) -> list[str]:
    return [one.run for one in started(await every_event(rt), "nightly")]


# When runs start


@pytest.mark.row("A3-23")
def test_an_interval_starts_a_run_each_time_it_is_over() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(minutes=20))) as box:
            rt = await box.open()
            await box.clock.advance(HOUR)
            return await dues(rt)

    assert play(scenario) == ["01 00:20", "01 00:40", "01 01:00"]


@pytest.mark.row("A3-23")
def test_a_cron_line_starts_a_run_whenever_it_says_so_where_the_clocks_are() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(cron="30 2 * * *", time_zone="Asia/Tokyo")) as box:
            rt = await box.open()
            await box.clock.advance(2 * DAY)
            return await dues(rt)

    assert play(scenario) == ["01 17:30", "02 17:30"]


@pytest.mark.row("A3-23")
def test_a_schedule_that_runs_immediately_does_so_once_and_not_on_every_start() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1), run_immediately=True)) as box:
            rt = await box.open()
            await box.clock.advance(30 * MINUTE)
            rt = await box.crash_and_reopen()
            await box.clock.advance(40 * MINUTE)
            return await dues(rt)

    assert play(scenario) == ["01 00:00", "01 01:00"]


@pytest.mark.row("A3-23")
def test_a_schedule_that_runs_immediately_fires_that_time_once_also_with_a_jitter() -> None:
    async def scenario() -> None:
        given: dict[str, Any] = {"overlap": "cancel_previous", "run_immediately": True}
        jittery = Schedule(every=timedelta(hours=1), jitter=timedelta(minutes=30), **given)
        async with box_of(jittery, work_until_told) as box:
            rt = await box.open()
            await box.clock.advance(40 * MINUTE)

            assert (await rt.schedules.get("nightly")).fired == 1
            [run] = await runs_of(rt)
            assert (await rt.run(run).status()).cancel_reason is None

    play(scenario)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "one of the two"),
        ({"every": timedelta(minutes=5), "cron": "* * * * *"}, "one of the two"),
        ({"every": timedelta(0)}, "more than 0"),
        ({"cron": "nonsense"}, "cron line of the schedule of entry point nightly"),
        ({"cron": "0 0 31 2 *"}, "cron line of the schedule of entry point nightly"),
        ({"cron": "0 3 * * *", "time_zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"every": timedelta(minutes=5), "jitter": timedelta(minutes=5)}, "jitter"),
        ({"every": timedelta(minutes=5), "misfire": "all", "misfire_limit": 0}, "misfire_limit"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_refused_where_it_is_registered(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Runtime("unused", entry_points=[EntryPoint("nightly", note, Schedule(**given))])


SPEC = {"id": "nightly", "name": "Nightly", "entry_node": None, "trigger_type": "timer"}


@pytest.mark.row("A3-23")
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"interval_minutes": 20}, ["01 00:20", "01 00:40", "01 01:00", "01 01:20"]),
        ({"interval_minutes": 0.5 * 60}, ["01 00:30", "01 01:00", "01 01:30"]),
        ({"cron": "15 * * * *"}, ["01 00:15", "01 01:15"]),
        ({"cron": "15 * * * *", "interval_minutes": 20}, ["01 00:15", "01 01:15"]),
        ({"interval_minutes": 60, "run_immediately": True}, ["01 00:00", "01 01:00"]),
    ],
)
def test_a_timer_in_the_words_of_document_003_fires_as_it_does_there(config: Any, expected: list[str]) -> None:
    points = [EntryPoint.from_spec({**SPEC, "trigger_config": config}, note)]

    async def scenario() -> list[str]:
        async with Box(MemoryDisk(), TestClock(BEGIN), entry_points=points) as box:
            rt = await box.open()
            await box.clock.advance(90 * MINUTE)
            return await dues(rt)

    assert play(scenario) == expected


@pytest.mark.row("A3-23")
@pytest.mark.parametrize("config", [{}, {"interval_minutes": 0}, {"interval_minutes": -5}, {"cron": "not a cron"}])
def test_a_timer_in_the_words_of_document_003_that_cannot_be_is_warned_of_and_passed_over(config: Any) -> None:
    with structlog.testing.capture_logs() as logged:
        points = [EntryPoint.from_spec({**SPEC, "trigger_config": config}, note)]

    async def scenario() -> tuple[list[str], int, str]:
        async with Box(MemoryDisk(), TestClock(BEGIN), entry_points=points) as box:
            rt = await box.open()
            await box.clock.advance(DAY)
            there = len(await rt.schedules.list())
            run = await rt.entry_points.trigger("nightly", {"event": {"due": "by hand"}})
            return await dues(rt), there, str(await rt.run(run).result())

    assert play(scenario) == ([], 0, "by hand")
    assert [line["log_level"] for line in logged] == ["warning"]


def test_a_run_is_told_what_it_is_for() -> None:
    async def scenario() -> Any:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            await box.clock.advance(HOUR)
            run = (await rt.schedules.get("nightly")).last_run
            begun = (await rt.run(run or "").history())[0]
            return run, data(begun)["input"], data(begun)["entrance"]

    run, told, entrance = play(scenario)

    assert run == "nightly:2026-01-01T01:00:00Z"
    assert told == {"event": {"source": "timer", "reason": "scheduled", "due": "2026-01-01T01:00:00Z", "missed": 0}}
    assert entrance == {"entry": "nightly", "kind": "schedule"}


def test_a_due_time_is_done_with_in_the_unit_that_starts_its_run() -> None:
    units: list[list[str]] = []

    async def scenario() -> None:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            append = rt._log.append

            def watched(unit: Unit, **options: Any) -> Any:
                units.append([one.stream for one in unit.appends])
                return append(unit, **options)

            rt._log.append = watched  # type: ignore[method-assign]
            await box.clock.advance(HOUR)
            await rt.schedules.fire_now("nightly")

    play(scenario)

    assert [unit for unit in units if "schedule/nightly" in unit] == [
        ["entry-point/nightly", "run/nightly:2026-01-01T01:00:00Z", "schedule/nightly"],
        ["entry-point/nightly", "run/nightly:by-hand-1", "schedule/nightly"],
    ]


def test_a_jitter_delays_a_run_by_the_same_on_every_try() -> None:
    schedule = Schedule(every=timedelta(hours=1), jitter=timedelta(minutes=10))

    async def scenario() -> list[timedelta]:
        async with box_of(schedule) as box:
            rt = await box.open()
            await box.clock.advance(timedelta(hours=5, minutes=30))
            view = await rt.schedules.get("nightly")
            assert view.next_due is not None
            assert view.next_at is not None
            assert view.next_due < view.next_at
            return [one.at - one.due for one in started(await every_event(rt), "nightly")]

    delays = play(scenario)

    assert delays == play(scenario)
    assert len(set(delays)) == 5
    assert all(timedelta(0) <= delay < timedelta(minutes=10) for delay in delays)


def test_a_schedule_whose_run_is_not_over_holds_no_other_one_up() -> None:
    points = [
        EntryPoint("nightly", work_until_told, Schedule(every=timedelta(hours=1))),
        EntryPoint("hourly", note, Schedule(every=timedelta(minutes=20))),
    ]

    async def scenario() -> tuple[int, int]:
        async with Box(MemoryDisk(), TestClock(BEGIN), entry_points=points) as box:
            rt = await box.open()
            await box.clock.advance(2 * HOUR)
            events = await every_event(rt)
            return len(started(events, "nightly")), len(started(events, "hourly"))

    assert play(scenario) == (1, 6)


def test_a_runtime_that_resumes_nothing_fires_nothing() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1)), resume=False) as box:
            rt = await box.open()
            await box.clock.advance(3 * HOUR)
            assert await rt.schedules.next("nightly") == BEGIN + HOUR
            return await dues(rt)

    assert play(scenario) == []


def test_a_run_that_cannot_be_started_is_noted_and_the_next_one_is_tried() -> None:
    async def scenario() -> list[tuple[str, str, int, str]]:
        async with box_of(Schedule(every=timedelta(hours=1)), unfit) as box:
            rt = await box.open()
            with structlog.testing.capture_logs() as logged:
                await box.clock.advance(2 * HOUR)
            assert [line["event"] for line in logged] == ["a schedule's run was not started"] * 2
            assert await rt.schedules.next("nightly") == BEGIN + 3 * HOUR
            return await skipped(rt)

    assert play(scenario) == [("01 01:00", "01 01:00", 1, "refused"), ("01 02:00", "01 02:00", 1, "refused")]


# Times without a runtime


@pytest.mark.row("A3-24")
@pytest.mark.parametrize("ends", ["crash", "close"])
def test_what_was_missed_is_made_up_for_by_one_run_unless_told_otherwise(ends: str) -> None:
    async def scenario() -> list[Any]:
        async with box_of(Schedule(cron="0 3 * * *")) as box:
            await box.open()
            await box.clock.advance(DAY)
            await (box.crash() if ends == "crash" else box.close())
            await box.clock.advance(timedelta(days=3, hours=6))
            rt = await box.open()
            await box.clock.advance(DAY)
            return [(one.due, one.at, one.missed) for one in started(await every_event(rt), "nightly")]

    assert play(scenario) == [
        (utc("2026-01-01 03:00"), utc("2026-01-01 03:00"), 0),
        (utc("2026-01-05 03:00"), utc("2026-01-05 06:00"), 3),
        (utc("2026-01-06 03:00"), utc("2026-01-06 03:00"), 0),
    ]


@pytest.mark.row("A3-24")
def test_what_was_missed_is_passed_over_if_told_so() -> None:
    async def scenario() -> tuple[list[str], list[Any]]:
        async with box_of(Schedule(cron="0 3 * * *", misfire="skip")) as box:
            await box.open()
            await box.clock.advance(DAY)
            await box.crash()
            await box.clock.advance(timedelta(days=3, hours=6))
            rt = await box.open()
            await box.clock.advance(DAY)
            return await dues(rt), await skipped(rt)

    assert play(scenario) == (["01 03:00", "06 03:00"], [("02 03:00", "05 03:00", 4, "missed")])


@pytest.mark.row("A3-24")
def test_each_that_was_missed_is_made_up_for_up_to_a_limit_if_told_so() -> None:
    async def scenario() -> tuple[list[str], list[Any]]:
        async with box_of(Schedule(cron="0 3 * * *", misfire="all", misfire_limit=3)) as box:
            await box.open()
            await box.clock.advance(DAY)
            await box.crash()
            await box.clock.advance(timedelta(days=3, hours=6))
            rt = await box.open()
            await box.clock.advance(DAY)
            return await dues(rt), await skipped(rt)

    assert play(scenario) == (
        ["01 03:00", "03 03:00 at 05 06:00", "04 03:00 at 05 06:00", "05 03:00 at 05 06:00", "06 03:00"],
        [("02 03:00", "02 03:00", 1, "missed")],
    )


@pytest.mark.parametrize("misfire", ["one", "skip", "all"])
def test_a_restart_at_the_due_time_costs_no_run(misfire: Any) -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(cron="0 3 * * *", misfire=misfire)) as box:
            await box.open()
            await box.clock.advance(3 * HOUR - timedelta(seconds=20))
            await box.close()
            await box.clock.advance(45)
            rt = await box.open()
            await box.clock.advance(0)
            return await dues(rt)

    assert play(scenario) == ["01 03:00 at 01 03:00"]


def test_a_clock_that_jumps_is_a_time_without_a_runtime() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(cron="0 * * * *")) as box:
            rt = await box.open()
            await box.clock.advance(90 * MINUTE)
            await box.clock.jump_wall(timedelta(hours=5))  # the laptop was closed
            await box.clock.advance(30 * MINUTE)
            return await dues(rt)

    assert play(scenario) == ["01 01:00", "01 06:00 at 01 06:30", "01 07:00"]


def test_a_clock_that_is_set_back_starts_no_run_twice() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(cron="0 * * * *")) as box:
            rt = await box.open()
            await box.clock.advance(90 * MINUTE)
            await box.clock.jump_wall(-timedelta(hours=1))
            rt = await box.crash_and_reopen()
            await box.clock.advance(HOUR)
            return await dues(rt)

    assert play(scenario) == ["01 01:00", "01 02:00"]


# Runs that are not over


@pytest.mark.parametrize("dies", [False, True])
def test_runs_wait_for_one_another_and_none_is_lost(dies: bool) -> None:
    async def scenario() -> list[list[str]]:
        async with box_of(Schedule(every=timedelta(hours=1)), work_until_told) as box:
            rt = await box.open()
            await box.clock.advance(timedelta(hours=3, minutes=30))
            there = [await dues(rt)]
            for _ in range(3):
                if dies:
                    rt = await box.crash_and_reopen()
                    await box.clock.advance(0)
                await rt.run((await runs_of(rt))[-1]).signal("done", "")
                await box.clock.advance(1)
                there.append(await dues(rt))
            assert [one["due"] for one in noted(await every_event(rt), "nightly", "firing-held")] == [
                micros(BEGIN + 2 * HOUR),
                micros(BEGIN + 3 * HOUR),
            ]
            return there

    there = play(scenario)

    assert [len(each) for each in there] == [1, 2, 3, 3]
    assert [due.partition(" at ")[0] for due in there[-1]] == ["01 01:00", "01 02:00", "01 03:00"]


def test_a_run_that_waits_is_made_up_for_once_and_says_what_for() -> None:
    async def scenario() -> list[tuple[datetime, int]]:
        async with box_of(Schedule(every=timedelta(hours=1)), work_until_told) as box:
            await box.open()
            await box.clock.advance(90 * MINUTE)
            await box.close()
            await box.clock.advance(3 * HOUR)
            rt = await box.open()
            await box.clock.advance(0)
            await rt.run("nightly:2026-01-01T01:00:00Z").signal("done", "")
            await box.clock.advance(0)
            return [(one.due, one.missed) for one in started(await every_event(rt), "nightly")]

    assert play(scenario) == [(BEGIN + HOUR, 0), (BEGIN + 4 * HOUR, 2)]


def test_a_paused_schedule_starts_no_run_that_waited() -> None:
    async def scenario() -> list[list[str]]:
        async with box_of(Schedule(every=timedelta(hours=1)), work_until_told) as box:
            rt = await box.open()
            await box.clock.advance(timedelta(hours=2, minutes=30))
            await rt.schedules.pause("nightly")
            await rt.run("nightly:2026-01-01T01:00:00Z").signal("done", "")
            await box.clock.advance(HOUR)
            there = [await dues(rt)]
            await rt.schedules.resume("nightly")
            await box.clock.advance(0)
            return [*there, await dues(rt)]

    assert play(scenario) == [["01 01:00"], ["01 01:00", "01 02:00 at 01 03:30"]]


def test_a_run_that_waited_and_cannot_be_started_is_noted_and_the_next_one_is_tried() -> None:
    async def scenario() -> list[tuple[str, str, int, str]]:
        async with box_of(Schedule(every=timedelta(hours=1)), work_until_told) as box:
            rt = await box.open()
            await box.clock.advance(timedelta(hours=3, minutes=30))
            rt = await box.close_and_reopen(
                workflows=[work_until_told], entry_points=[EntryPoint("nightly", unfit, Schedule(every=HOUR))]
            )
            await rt.run("nightly:2026-01-01T01:00:00Z").signal("done", "")
            with structlog.testing.capture_logs():
                await box.clock.advance(0)
            return await skipped(rt)

    assert play(scenario) == [("01 02:00", "01 02:00", 1, "refused"), ("01 03:00", "01 03:00", 1, "refused")]


def test_a_time_is_passed_over_while_the_run_before_is_not_over_if_told_so() -> None:
    async def scenario() -> tuple[list[str], list[Any]]:
        async with box_of(Schedule(every=timedelta(hours=1), overlap="skip"), sleep_long) as box:
            rt = await box.open()
            await box.clock.advance(5 * HOUR)
            return await dues(rt), await skipped(rt)

    # A run takes an hour and a half: every other time comes while it sleeps, in memory or not.
    assert play(scenario) == (
        ["01 01:00", "01 03:00", "01 05:00"],
        [("01 02:00", "01 02:00", 1, "overlap"), ("01 04:00", "01 04:00", 1, "overlap")],
    )


def test_the_run_that_is_in_the_way_is_named() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1), overlap="skip"), sleep_long) as box:
            rt = await box.open()
            await box.clock.advance(2 * HOUR)
            return [one["detail"] for one in noted(await every_event(rt), "nightly", "firings-skipped")]

    assert play(scenario) == ["nightly:2026-01-01T01:00:00Z: not over"]


def test_the_run_before_is_cancelled_for_the_next_one_if_told_so() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1), overlap="cancel_previous"), sleep_long) as box:
            rt = await box.open()
            await box.clock.advance(4 * HOUR)
            runs = [one.run for one in started(await every_event(rt), "nightly")]
            return [(await rt.run(run).status()).status for run in runs]

    assert play(scenario) == ["cancelled", "cancelled", "cancelled", "waiting"]


def test_a_run_that_goes_on_as_another_one_is_not_over() -> None:
    @workflow
    async def in_parts(ctx: Context, event: dict[str, Any], part: int = 0) -> str:
        await ctx.sleep(timedelta(minutes=50))
        if part < 2:
            ctx.continue_as_new(event, part + 1)
        return "done"

    async def scenario() -> list[Any]:
        async with box_of(Schedule(every=timedelta(hours=1), overlap="skip"), in_parts) as box:
            rt = await box.open()
            await box.clock.advance(4 * HOUR)
            return await skipped(rt)

    assert play(scenario) == [("01 02:00", "01 02:00", 1, "overlap"), ("01 03:00", "01 03:00", 1, "overlap")]


def test_a_run_that_is_to_be_cancelled_is_told_so_after_a_crash_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    schedule = Schedule(every=timedelta(hours=1), overlap="cancel_previous")

    async def dies_here(*_: object) -> None:
        raise ConnectionError("the process dies here")

    async def scenario() -> list[str]:
        async with box_of(schedule, sleep_long, disk=disk) as box:
            rt = await box.open()
            await box.clock.advance(2 * HOUR - timedelta(seconds=1))
            with monkeypatch.context() as broken, structlog.testing.capture_logs():
                broken.setattr(Firing, "cancel", dies_here)
                await box.clock.advance(2)
            assert (await rt.run("nightly:2026-01-01T01:00:00Z").status()).status != "cancelled"
            rt = await box.crash_and_reopen()
            await box.clock.advance(1)
            return [(await rt.run(one.run).status()).status for one in started(await every_event(rt), "nightly")]

    assert play(scenario)[0] == "cancelled"


# What operators say


def test_a_paused_schedule_starts_nothing_also_after_a_restart_and_makes_up_for_nothing() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            await box.clock.advance(90 * MINUTE)
            assert await rt.schedules.pause("nightly", "holidays", who="ada") is True
            assert await rt.schedules.pause("nightly") is False
            await box.clock.advance(HOUR)
            rt = await box.crash_and_reopen()
            await box.clock.advance(HOUR)
            view = await rt.schedules.get("nightly")
            assert (view.is_paused, view.because, view.next_at) == (True, "holidays", None)
            assert await rt.schedules.resume("nightly", who="ada") is True
            assert await rt.schedules.resume("nightly") is False
            assert await rt.schedules.next("nightly") == BEGIN + 4 * HOUR
            await box.clock.advance(HOUR)
            return await dues(rt)

    assert play(scenario) == ["01 01:00", "01 04:00"]


def test_who_paused_is_in_the_log() -> None:
    async def scenario() -> list[tuple[str, str | None]]:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            await rt.schedules.pause("nightly", who="ada")
            await rt.schedules.resume("nightly", who="eve")
            return [(e.type, e.principal) for e in await every_event(rt) if e.stream == "schedule/nightly"][1:]

    assert play(scenario) == [("schedule-paused", "ada"), ("schedule-resumed", "eve")]


def test_a_schedule_may_begin_paused() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1), paused=True)) as box:
            rt = await box.open()
            await box.clock.advance(2 * HOUR)
            await rt.schedules.resume("nightly")
            await box.clock.advance(HOUR)
            return await dues(rt)

    assert play(scenario) == ["01 03:00"]


def test_a_run_by_hand_is_one_more_and_leaves_the_next_time_as_it_is() -> None:
    async def scenario() -> tuple[list[str], Any]:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            await box.clock.advance(10 * MINUTE)
            runs = [await rt.schedules.fire_now("nightly", who="ada"), await rt.schedules.fire_now("nightly")]
            rt = await box.crash_and_reopen()
            runs.append(await rt.schedules.fire_now("nightly"))
            assert [await rt.run(run).result() for run in runs] == ["2026-01-01T00:10:00Z"] * 3
            view = await rt.schedules.get("nightly")
            return runs, (view.next_at, view.fired)

    assert play(scenario) == (["nightly:by-hand-1", "nightly:by-hand-2", "nightly:by-hand-3"], (BEGIN + HOUR, 3))


def test_runs_by_hand_at_the_same_moment_are_different_runs() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            return sorted(await asyncio.gather(*(rt.schedules.fire_now("nightly") for _ in range(5))))

    assert play(scenario) == [f"nightly:by-hand-{n}" for n in range(1, 6)]


def test_a_paused_schedule_starts_a_run_by_hand() -> None:
    async def scenario() -> str:
        async with box_of(Schedule(every=timedelta(hours=1), paused=True)) as box:
            rt = await box.open()
            return str(await rt.run(await rt.schedules.fire_now("nightly")).result())

    assert play(scenario) == "2026-01-01T00:00:00Z"


def test_a_schedule_that_is_not_there_is_refused() -> None:
    async def scenario() -> None:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            for ask in (rt.schedules.get, rt.schedules.next, rt.schedules.pause, rt.schedules.resume):
                with pytest.raises(UsageError, match="entry point 'other' has no schedule"):
                    await ask("other")
            with pytest.raises(UsageError, match="entry point 'other' has no schedule"):
                await rt.schedules.fire_now("other")

    play(scenario)


def test_asking_for_a_schedule_that_is_not_there_records_nothing() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            rt = await box.open()
            with pytest.raises(UsageError):
                await rt.schedules.pause("other")
            return [e.stream for e in await every_event(rt) if e.stream.startswith("schedule/")]

    assert play(scenario) == ["schedule/nightly"]


def test_schedules_are_steered_from_another_program(tmp_path: Path) -> None:
    point = EntryPoint("nightly", note, Schedule(every=timedelta(hours=1)))

    async def scenario() -> None:
        async with Runtime(tmp_path / "a.db", entry_points=[point]) as rt, connect(tmp_path / "a.db") as there:
            assert await there.schedules.list() == await rt.schedules.list()
            assert await there.schedules.next("nightly") == await rt.schedules.next("nightly")
            assert await there.schedules.pause("nightly", "holidays", who="ada") is True
            assert (await there.schedules.get("nightly")).because == "holidays"
            assert await there.schedules.resume("nightly", who="ada") is True
            assert await there.schedules.fire_now("nightly", who="ada") == "nightly:by-hand-1"
            with pytest.raises(UsageError, match="entry point 'other' has no schedule"):
                await there.schedules.get("other")
            with pytest.raises(UsageError, match="entry point 'other' has no schedule"):
                await there.schedules.pause("other")

    play(scenario)


# Changed code


def test_another_definition_has_another_next_time_and_what_it_was_due_before_is_passed_over() -> None:
    changed = [EntryPoint("nightly", note, Schedule(cron="0 6 * * *"))]

    async def scenario() -> tuple[list[str], list[Any]]:
        async with box_of(Schedule(cron="0 3 * * *")) as box:
            await box.open()
            await box.clock.advance(DAY)
            await box.close()
            await box.clock.advance(4 * HOUR)
            rt = await box.open(entry_points=changed)
            assert await rt.schedules.next("nightly") == utc("2026-01-02 06:00")
            await box.clock.advance(3 * HOUR)
            return await dues(rt), await skipped(rt)

    assert play(scenario) == (["01 03:00", "02 06:00"], [("02 03:00", "02 03:00", 1, "changed")])


def test_another_policy_makes_up_for_what_the_same_times_missed() -> None:
    changed = [EntryPoint("nightly", note, Schedule(cron="0 3 * * *", misfire="all"))]

    async def scenario() -> list[str]:
        async with box_of(Schedule(cron="0 3 * * *", misfire="skip")) as box:
            await box.open()
            await box.close()
            await box.clock.advance(timedelta(days=1, hours=4))
            rt = await box.open(entry_points=changed)
            await box.clock.advance(0)
            return await dues(rt)

    assert play(scenario) == ["01 03:00 at 02 04:00", "02 03:00 at 02 04:00"]


def test_a_schedule_whose_entry_point_is_gone_is_listed_and_goes_on_when_it_is_back() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(cron="0 3 * * *")) as box:
            await box.open()
            await box.close()
            rt = await box.open(entry_points=[], workflows=[note])
            await box.clock.advance(DAY)
            view = (await rt.schedules.list())[0]
            assert (view.entry, view.is_registered, view.next_at) == ("nightly", False, utc("2026-01-01 03:00"))
            with pytest.raises(UsageError, match="entry point nightly is not registered here"):
                await rt.schedules.fire_now("nightly")
            rt = await box.close_and_reopen()
            await box.clock.advance(0)
            return await dues(rt)

    assert play(scenario) == ["01 03:00 at 02 00:00"]


def test_a_schedule_whose_entry_point_is_taken_out_between_two_openings_is_attended_to_no_more() -> None:
    async def scenario() -> list[tuple[str, str, int, str]]:
        point, clock = EntryPoint("nightly", note, Schedule(every=timedelta(hours=1))), TestClock(BEGIN)
        rt = Runtime("memory", log=MemoryDisk().open, clock=clock, entry_points=[point])
        async with rt:
            await clock.advance(HOUR)
        rt.entry_points.unregister("nightly")
        async with rt:
            await clock.advance(3 * HOUR)
            assert [view.is_registered for view in await rt.schedules.list()] == [False]
            assert await dues(rt) == ["01 01:00"]
            return await skipped(rt)

    assert play(scenario) == []


def test_an_interval_goes_on_counting_from_where_it_began() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=7)), begin=utc("2026-01-01 00:10")) as box:
            await box.open()
            await box.clock.advance(8 * HOUR)
            rt = await box.close_and_reopen()
            await box.clock.advance(14 * HOUR)
            return await dues(rt)

    assert play(scenario) == ["01 07:10", "01 14:10", "01 21:10"]


# The end of a runtime


def test_a_runtime_that_is_closed_has_no_timer_of_a_schedule_left() -> None:
    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1))) as box:
            await box.open()
            await box.clock.advance(HOUR)
            await box.close()
            return [timer.callback for timer in box.clock.pending]

    assert play(scenario) == []


def test_a_log_that_takes_no_more_writes_ends_the_schedule_quietly() -> None:
    disk = MemoryDisk()

    async def scenario() -> list[str]:
        async with box_of(Schedule(every=timedelta(hours=1)), disk=disk) as box:
            await box.open()
            disk.fail_next(OSError("the disk is gone"))
            with structlog.testing.capture_logs():
                await box.clock.advance(3 * HOUR)
            await box.crash()
            rt = await box.open()
            await box.clock.advance(0)
            assert [one.missed for one in started(await every_event(rt), "nightly")] == [2]
            return await dues(rt)

    assert play(scenario) == ["01 03:00"]
