"""A year of schedules, with clocks that are changed in the north and in the south, and times without a runtime.

Every run and every time that was passed over is compared with what looking at the clocks on the wall gives
(`tests/support/schedules.py`).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from perdure import Context, EntryPoint, Runtime, Schedule, workflow
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import DAY, HOUR, Box, play
from tests.support.schedules import (
    Fired,
    Life,
    daily,
    every_event,
    expected,
    hourly,
    moment,
    noted,
    started,
    utc,
)

BEGIN, END = utc("2026-01-01 00:00"), utc("2027-01-01 00:00")
BERLIN, SYDNEY = "Europe/Berlin", "Australia/Sydney"
CHANGES = ("2026-03-29 01:00", "2026-04-04 16:00", "2026-10-03 16:00", "2026-10-25 01:00")
"""When the clocks of Berlin or Sydney are changed."""
LIMIT = 2


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> str:
    del ctx
    return str(event["due"])


@workflow
async def sleep_as_due(ctx: Context, event: dict[str, Any]) -> None:
    await ctx.sleep(length(datetime.fromisoformat(event["due"])))


def length(due: datetime) -> timedelta:
    """How long a run takes: sometimes until after the next one is due, sometimes after the next but one."""
    return timedelta(hours={0: 40, 1: 64}.get(due.day % 5, 1), minutes=due.day % 2)


def lives(random: Random, *, down_at_changes: bool) -> list[Life]:
    """A year with twenty times without a runtime, up to six days; when clocks are changed there is one, or not."""
    changes = [utc(change) for change in CHANGES if down_at_changes]
    downs = [
        (change - timedelta(minutes=random.randint(5, 400)), change + timedelta(minutes=random.randint(5, 3000)))
        for change in changes
    ]
    while len(downs) < 20:
        begin = BEGIN + timedelta(seconds=random.randint(0, 364 * 86_400))
        down = (begin, begin + timedelta(seconds=random.choice([30, 3_600, 100_000, 500_000]) * random.uniform(0.5, 1)))
        near = [down, *((utc(change), utc(change)) for change in CHANGES)]
        if all(down[1] + HOUR < a or b + HOUR < down[0] for a, b in downs + near[1:]):
            downs.append(down)
    edges = [BEGIN, *(edge for down in sorted(downs) for edge in down), END]
    return list(zip(edges[::2], edges[1::2], strict=True))


async def lived(box: Box, spans: list[Life], random: Random) -> Runtime:
    """Live through the lives, each ended by a crash or in good order; return the runtime of the last one."""
    for number, (begin, end) in enumerate(spans):
        await box.clock.advance(begin - box.clock.now)
        await box.open()
        await box.clock.advance(end - begin)
        if number < len(spans) - 1:
            await (box.crash() if random.random() < 0.5 else box.close())
    return box.runtime


def schedules() -> Iterator[tuple[str, Schedule, list[datetime]]]:
    """Schedules with each policy, and when each of them is due in the year."""
    for zone in (BERLIN, SYDNEY):
        days = list(daily(zone, 2, 30, BEGIN, END))
        for misfire in ("one", "skip", "all"):
            schedule = Schedule(cron="30 2 * * *", time_zone=zone, misfire=misfire, misfire_limit=LIMIT)
            yield f"{zone.partition('/')[2]}.{misfire}", schedule, days
    every = [BEGIN + n * timedelta(hours=37) for n in range(1, 300)]
    yield "interval", Schedule(every=timedelta(hours=37)), [due for due in every if due <= END]


@pytest.mark.row("A3-24")
@pytest.mark.parametrize("down_at_changes", [False, True])
def test_a_year_of_schedules_starts_what_it_is_to_start_when_it_is_to(*, down_at_changes: bool) -> None:
    random = Random(down_at_changes)
    spans, table = lives(random, down_at_changes=down_at_changes), list(schedules())
    if not down_at_changes:  # where little is missed, the policies differ little
        table = [each for each in table if each[0] in ("Berlin.one", "Sydney.all", "interval")]
    points = [EntryPoint(name, note, schedule) for name, schedule, _ in table]

    async def scenario() -> list[Any]:
        async with Box(MemoryDisk(), TestClock(BEGIN), entry_points=points) as box:
            return await every_event(await lived(box, spans, random))

    events = play(scenario)

    for name, schedule, dues in table:
        fired, skipped = expected(dues, spans, schedule.misfire, LIMIT)
        assert [Fired(one.due, one.at, one.missed) for one in started(events, name)] == fired, name
        gone = noted(events, name, "firings-skipped")
        assert [d for n in gone for d in dues if moment(n["first"]) <= d <= moment(n["last"])] == skipped, name
        assert sum(n["count"] for n in gone) == len(skipped), name
        assert sum(1 + one.missed for one in fired) + len(skipped) == len(dues), name


@pytest.mark.parametrize(("zone", "change"), [(BERLIN, 0), (SYDNEY, 1), (SYDNEY, 2), (BERLIN, 3)])
def test_every_hour_about_a_change_of_the_clocks_starts_one_run(zone: str, change: int) -> None:
    begin = utc(CHANGES[change]) - timedelta(hours=30, minutes=10)
    end = begin + 3 * DAY

    async def scenario() -> list[datetime]:
        points = [EntryPoint("hourly", note, Schedule(cron="0 * * * *", time_zone=zone))]
        async with Box(MemoryDisk(), TestClock(begin), entry_points=points) as box:
            rt = await lived(box, [(begin, end)], Random(0))
            return [one.at for one in started(await every_event(rt), "hourly")]

    assert play(scenario) == list(hourly(zone, begin, end))


def one_by_one(dues: list[datetime]) -> list[tuple[datetime, datetime]]:
    """When runs that wait for one another begin and end."""
    found: list[tuple[datetime, datetime]] = []
    for due in dues:
        begin = max(due, found[-1][1]) if found else due
        found.append((begin, begin + length(due)))
    return found


def unless_busy(dues: list[datetime]) -> list[tuple[datetime, datetime]]:
    """When the runs begin and end that no earlier one is in the way of."""
    found: list[tuple[datetime, datetime]] = []
    for due in dues:
        if not found or found[-1][1] <= due:
            found.append((due, due + length(due)))
    return found


def nights(busy: list[tuple[datetime, datetime]], random: Random) -> list[Life]:
    """A year with some evenings without a runtime, on which no run would have ended."""
    evenings = [BEGIN + n * DAY + timedelta(hours=20) for n in range(364)]
    quiet = [e for e in evenings if not any(e - HOUR <= end <= e + 5 * HOUR for _, end in busy)]
    downs = [(e, e + timedelta(hours=4, minutes=30)) for e in sorted(random.sample(quiet, 25))]
    edges = [BEGIN, *(edge for down in downs for edge in down), END]
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_a_year_of_runs_that_are_not_over_when_the_next_one_is_due() -> None:
    random = Random(3)
    dues = list(daily(BERLIN, 2, 30, BEGIN, END))
    queued, undisturbed = one_by_one(dues), unless_busy(dues)
    spans = nights([*queued, *undisturbed], random)
    policies: list[Any] = ["queue", "skip", "cancel_previous"]
    points = [
        EntryPoint(name, sleep_as_due, Schedule(cron="30 2 * * *", time_zone=BERLIN, overlap=name)) for name in policies
    ]

    async def scenario() -> tuple[list[Any], list[str]]:
        async with Box(MemoryDisk(), TestClock(BEGIN), entry_points=points) as box:
            rt = await lived(box, spans, random)
            events = await every_event(rt)
            runs = started(events, "cancel_previous")
            return events, [(await rt.run(one.run).status()).status for one in runs]

    events, statuses = play(scenario)

    assert [(one.due, one.at) for one in started(events, "queue")] == [
        (due, begin) for due, (begin, _) in zip(dues, queued, strict=True) if begin <= END
    ]
    assert [one.at for one in started(events, "skip")] == [begin for begin, _ in undisturbed]
    assert sum(n["count"] for n in noted(events, "skip", "firings-skipped")) == len(dues) - len(undisturbed)
    assert [one.at for one in started(events, "cancel_previous")] == dues
    assert [status == "cancelled" for status in statuses[:-1]] == [
        due + length(due) > following for due, following in pairwise(dues)
    ]
