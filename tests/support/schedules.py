"""What the tests of schedules compare with: due times and policies, worked out the slow and plain way.

Nothing here is told by the code under test: due times come from looking at the clocks on the wall every quarter of an
hour, what becomes of them from going through them one by one.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from perdure import Query, Recorded, Runtime

QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Return a time as it is recorded."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def utc(text: str) -> datetime:
    """Return a time that is written as UTC, without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def daily(zone: str, hour: int, minute: int, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Yield, for each day of a place, when its clocks first say that hour and minute, or a later one."""
    place, day = ZoneInfo(zone), begin.date() - DAY
    while day <= end.date() + DAY:
        found = _first(place, day, hour, minute)
        if begin < found <= end:
            yield found
        day += DAY


def _first(place: ZoneInfo, day: date, hour: int, minute: int) -> datetime:
    wanted = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - as the clocks on the wall say it
    moment = wanted.replace(tzinfo=UTC) - timedelta(hours=15)
    while moment.astimezone(place).replace(tzinfo=None) < wanted:
        moment += QUARTER
    return moment


def hourly(zone: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Yield whenever the clocks of a place say a full hour, also twice on the day that has one twice."""
    place, moment = ZoneInfo(zone), begin.replace(minute=0, second=0, microsecond=0)
    while moment <= end:
        if moment > begin and not moment.astimezone(place).minute:
            yield moment
        moment += QUARTER


class Fired(msgspec.Struct, frozen=True):
    """A run that a schedule is to have started."""

    due: datetime
    at: datetime
    missed: int = 0


Life: TypeAlias = tuple[datetime, datetime]
"""From when to when a runtime is there."""


def expected(  # the policies, one due time after the other
    dues: list[datetime], lives: list[Life], misfire: str, limit: int, late: timedelta = timedelta(minutes=1)
) -> tuple[list[Fired], list[datetime]]:
    """Return which runs a schedule starts over some lives of a runtime, and which due times it passes over."""
    fired: list[Fired] = []
    skipped: list[datetime] = []
    waiting = list(dues)
    for begin, end in lives:
        past = [due for due in waiting if due <= begin]
        runs, passed = _made_up_for(past, begin, misfire, limit, late)
        fired += runs
        skipped += passed
        fired += [Fired(due, due) for due in waiting if begin < due <= end]
        waiting = [due for due in waiting if due > end]
    return fired, skipped


def _made_up_for(
    past: list[datetime], now: datetime, misfire: str, limit: int, late: timedelta
) -> tuple[list[Fired], list[datetime]]:
    if not past:
        return [], []
    match misfire:
        case "one":
            return [Fired(past[-1], now, len(past) - 1)], []
        case "all":
            return [Fired(due, now) for due in past[-limit:]], past[:-limit]
        case _ if now - past[-1] <= late:
            return [Fired(past[-1], now)], past[:-1]
        case _:
            return [], past


# What was really started


class Started(msgspec.Struct, frozen=True):
    """A run that the log says a schedule started: what for, and when."""

    due: datetime
    at: datetime
    missed: int
    run: str


async def every_event(rt: Runtime) -> list[Recorded]:
    """Return the whole log."""
    found: list[Recorded] = []
    while page := await rt.read(Query(after=found[-1].position if found else 0, limit=10_000)):
        found += page
    return found


def moment(at: int) -> datetime:
    """Return a recorded time."""
    return EPOCH + timedelta(microseconds=at)


def started(events: Iterable[Recorded], entry: str) -> list[Started]:
    """Return the runs of an entry point, by what they were started with."""
    found: list[Started] = []
    for event in events:
        if event.type == "run-started" and event.stream.startswith(f"run/{entry}:"):
            told = json.loads(event.data or "{}")["input"]["event"]
            due = datetime.fromisoformat(told["due"])
            found.append(Started(due, moment(event.at), told["missed"], event.stream.partition("/")[2]))
    return found


def noted(events: Iterable[Recorded], entry: str, kind: str) -> list[dict[str, Any]]:
    """Return the data of the events of one type in an entry point's schedule."""
    return [json.loads(e.data or "{}") for e in events if e.stream == f"schedule/{entry}" and e.type == kind]
