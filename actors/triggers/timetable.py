"""When a schedule is due: intervals and cron lines in a time zone, delays by chance, and which times have passed. Pure.

Not here: what becomes of a time that has passed (`misfires.py`). Invariant: the times after a moment depend on the
schedule, its anchor and the moment alone, are in ascending order and hold none twice.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import chain
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec

from perdure.actors.kernel.clock import SECOND, moment_of
from perdure.actors.triggers.kinds import Schedule
from perdure.store.errors import UsageError

COUNTED: Final = 10_000
"""Times that have passed are counted up to so many: a line for every minute has 525,600 in a year."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_HOUR: Final = 3600 * SECOND
_SHORTEST: Final = timedelta(seconds=1)
"""A due time is a run, some ten events of it durable: more often, the log would hold little else."""
_LONGEST: Final = timedelta(days=366_000)
"""An interval beyond a thousand years is due at no time that a `datetime` can say."""


class Timetable(Protocol):
    """The times at which a schedule is due, in microseconds since 1970 UTC."""

    def walk(self, moment: int) -> Iterator[int]:
        """Yield every time after *moment*, the earliest first."""
        ...


class Passed(msgspec.Struct, frozen=True):
    """Which times have passed."""

    count: int
    """How many; of more than `COUNTED`, so many."""
    newest: tuple[int, ...]
    """The last of them, the oldest first."""
    next: int | None
    """The first that has not; None: there will be none."""


class _Interval:
    """Every so many microseconds from an anchor on; changes of the clocks do not move it."""

    def __init__(self, every: int, anchor: int) -> None:
        self._every, self._anchor = every, anchor

    def walk(self, moment: int) -> Iterator[int]:
        due = self._anchor + (max(0, moment - self._anchor) // self._every + 1) * self._every
        while True:
            yield due
            due += self._every


class _CronLine:
    """A cron expression in a time zone."""

    def __init__(self, line: str, zone: str) -> None:
        self._line, self._zone = line, ZoneInfo(zone)
        check_cron(line)

    def walk(self, moment: int) -> Iterator[int]:
        from cronsim import CronSim  # noqa: PLC0415 - an extra: needed where there is a cron line, and nowhere else

        last = moment
        try:
            for time in CronSim(self._line, moment_of(moment).astimezone(self._zone)):
                due = (time.astimezone(UTC) - _EPOCH) // _MICROSECOND
                # Asked for within the hour that comes twice, it begins with the first of the two, which is over.
                if due > last:
                    last = due
                    yield due
        except OverflowError:
            return  # beyond the year 9999


def timetable(schedule: Schedule, anchor: int) -> Timetable:
    """Return when *schedule* is due; intervals are counted from *anchor* on.

    Raises:
        UsageError: the cron line is none, or the package `cronsim` is missing.
    """
    if schedule.cron is not None:
        return _CronLine(schedule.cron, schedule.time_zone)
    assert schedule.every is not None  # noqa: S101 - a schedule has one of the two
    return _Interval(schedule.every // _MICROSECOND, anchor)


def check_schedule(schedule: Schedule, what: str = "the schedule") -> None:
    """Check that *schedule* can be due.

    Raises:
        UsageError: it cannot; says why, in one line.
    """
    if schedule.misfire_limit > COUNTED:
        raise UsageError(f"{what} makes up for at most {COUNTED} due times, not {schedule.misfire_limit}")
    if schedule.cron is not None:
        check_cron(schedule.cron, what)
    elif schedule.every is not None:
        _check_interval(schedule, schedule.every, what)


def _check_interval(schedule: Schedule, every: timedelta, what: str) -> None:
    if not _SHORTEST <= every <= _LONGEST:
        raise UsageError(f"the interval of {what} is at least a second and at most a thousand years: every={every!r}")
    if schedule.jitter >= every:
        raise UsageError(f"the jitter of {what} is less than its interval of {every}, not {schedule.jitter}")
    if schedule.time_zone != "UTC":
        at = "an interval is time that passes, the same everywhere; a time of the day is cron='0 3 * * *'"
        raise UsageError(f"{what} has an interval, and time_zone={schedule.time_zone!r} means nothing to it: {at}")


def check_cron(line: str, what: str = "the schedule") -> None:
    """Check a cron line.

    Raises:
        UsageError: it is none, no time fits it, or the package `cronsim` is missing.
    """
    try:
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        if error.name != "cronsim":
            raise
        needs = f"{what} has a cron line, which needs cronsim, which is not installed"
        raise UsageError(f"{needs}: pip install 'perdure[schedule]'") from error
    try:
        found = next(CronSim(line, datetime(2000, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        fields = "minute hour day month weekday, such as '0 3 * * MON-FRI'"
        raise UsageError(f"the cron line of {what} is {line!r} ({error}): it has the fields {fields}") from error
    if found is None:
        raise UsageError(f"no time fits the cron line of {what}, {line!r}")


def delay_of(entry: str, due: int, most: timedelta) -> int:
    """Return how much later than due it starts, in microseconds: by chance, and always the same for the same time."""
    span = most // _MICROSECOND
    if not span:
        return 0
    return int.from_bytes(blake2b(f"{entry}\n{due}".encode(), digest_size=8).digest(), "big") % span


def passed(table: Timetable, first: int, now: int, keep: int, delay: Callable[[int], int]) -> Passed:
    """Return which times have passed *now*, each with its delay: *first*, which is one, and those of *table* after it.

    It looks at no more than `COUNTED` times and some multiple of *keep* (of which it gives the newest), however long
    nobody has looked.
    """
    found = _passed(chain((first,), table.walk(first)), now, keep, delay, COUNTED)
    if found.count < COUNTED or found.next is None or found.next + delay(found.next) > now:
        return found
    span = _HOUR
    while True:  # too many to walk along: look for the newest ones from the end
        begin = max(first, now - span)
        newest = _passed(table.walk(begin), now, keep, delay, None)
        if newest.count >= keep or begin == first:
            return Passed(COUNTED, newest.newest, newest.next)
        span *= 4


def _passed(times: Iterable[int], now: int, keep: int, delay: Callable[[int], int], most: int | None) -> Passed:
    count, newest = 0, deque[int](maxlen=keep)
    for due in times:
        if due + delay(due) > now or count == most:
            return Passed(count, tuple(newest), due)
        count += 1
        newest.append(due)
    return Passed(count, tuple(newest), None)


def said(micros: int) -> str:
    """Return a recorded time as text: ISO 8601, UTC."""
    return moment_of(micros).isoformat().replace("+00:00", "Z")
