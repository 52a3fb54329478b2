"""When a schedule is due: intervals, cron lines, clocks that are changed, delays, and what has passed."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

import pytest

from perdure import UsageError
from perdure.actors.kernel.clock import moment_of
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.timetable import COUNTED, check_schedule, delay_of, passed, said, timetable
from tests.support.schedules import daily, hourly, micros, utc

BERLIN, SYDNEY, LORD_HOWE = "Europe/Berlin", "Australia/Sydney", "Australia/Lord_Howe"
BEGIN = utc("2026-01-01 00:00")
YEAR_END = utc("2027-01-01 00:00")


def times(schedule: Schedule, begin: datetime, count: int) -> list[str]:
    """The next times of a schedule whose anchor is *begin*, as UTC."""
    walk = timetable(schedule, micros(begin)).walk(micros(begin))
    return [moment_of(due).strftime("%m-%d %H:%M") for due in islice(walk, count)]


def until(schedule: Schedule, begin: datetime, end: datetime) -> list[datetime]:
    walk = timetable(schedule, micros(begin)).walk(micros(begin))
    return list(takewhile(lambda due: due <= end, map(moment_of, walk)))


def no_delay(due: int) -> int:
    del due
    return 0


# Intervals


def test_an_interval_is_counted_from_its_anchor_wherever_one_asks_from() -> None:
    table = timetable(Schedule(every=timedelta(minutes=7)), micros(BEGIN))

    later = next(table.walk(micros(BEGIN + timedelta(minutes=20))))

    assert moment_of(later) == BEGIN + timedelta(minutes=21)


def test_the_time_that_one_asks_from_is_not_among_those_after_it() -> None:
    table = timetable(Schedule(every=timedelta(minutes=7)), micros(BEGIN))

    assert moment_of(next(table.walk(micros(BEGIN + timedelta(minutes=21))))) == BEGIN + timedelta(minutes=28)


def test_an_interval_of_a_day_does_not_follow_the_clocks_that_are_changed() -> None:
    schedule = Schedule(every=timedelta(days=1))

    assert times(schedule, utc("2026-03-27 03:00"), 3) == ["03-28 03:00", "03-29 03:00", "03-30 03:00"]


# Cron lines where clocks are changed


def test_a_time_that_the_clocks_jump_over_is_due_when_they_have_jumped() -> None:
    schedule = Schedule(cron="30 2 * * *", time_zone=BERLIN)

    # On 29 March 01:59 CET is followed by 03:00 CEST, which is 01:00 UTC.
    assert times(schedule, utc("2026-03-27 12:00"), 3) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_a_time_that_the_clocks_say_twice_is_due_the_first_time() -> None:
    schedule = Schedule(cron="30 2 * * *", time_zone=BERLIN)

    # On 25 October 02:30 comes at 00:30 UTC in summer time, and at 01:30 UTC once more.
    assert times(schedule, utc("2026-10-23 12:00"), 3) == ["10-24 00:30", "10-25 00:30", "10-26 01:30"]


def test_asked_in_the_hour_that_comes_twice_a_time_of_the_first_is_over() -> None:
    schedule = Schedule(cron="45 2 * * *", time_zone=BERLIN)

    # 01:20 UTC is 02:20 for the second time.
    assert times(schedule, utc("2026-10-25 01:20"), 1) == ["10-26 01:45"]


def test_two_times_that_the_clocks_jump_over_are_due_once() -> None:
    schedule = Schedule(cron="0,30 2,3 * * *", time_zone=BERLIN)

    assert times(schedule, utc("2026-03-28 12:00"), 3) == ["03-29 01:00", "03-29 01:30", "03-30 00:00"]


def test_every_hour_is_every_hour_that_passes_whatever_the_clocks_say() -> None:
    schedule = Schedule(cron="0 * * * *", time_zone=BERLIN)

    spring, autumn = utc("2026-03-29 00:30"), utc("2026-10-24 23:30")

    assert times(schedule, spring, 3) == ["03-29 01:00", "03-29 02:00", "03-29 03:00"]
    assert times(schedule, autumn, 3) == ["10-25 00:00", "10-25 01:00", "10-25 02:00"]


def test_clocks_that_are_changed_by_half_an_hour_are_followed() -> None:
    schedule = Schedule(cron="15 2 * * *", time_zone=LORD_HOWE)

    # On 4 October the clocks of Lord Howe Island go from 02:00 to 02:30, which is 15:30 UTC of the day before.
    assert times(schedule, utc("2026-10-02 12:00"), 2) == ["10-02 15:45", "10-03 15:30"]


@pytest.mark.parametrize("zone", ["UTC", BERLIN, SYDNEY, LORD_HOWE, "America/Santiago", "Asia/Kathmandu"])
@pytest.mark.parametrize(("hour", "minute"), [(0, 0), (1, 30), (2, 0), (2, 30), (3, 0), (23, 45)])
def test_a_year_of_days_is_what_the_clocks_on_the_wall_say(zone: str, hour: int, minute: int) -> None:
    schedule = Schedule(cron=f"{minute} {hour} * * *", time_zone=zone)

    found = until(schedule, BEGIN, YEAR_END)

    assert found == list(daily(zone, hour, minute, BEGIN, YEAR_END))


@pytest.mark.parametrize("zone", ["UTC", BERLIN, SYDNEY, LORD_HOWE])
def test_a_year_of_hours_is_what_the_clocks_on_the_wall_say(zone: str) -> None:
    found = until(Schedule(cron="0 * * * *", time_zone=zone), BEGIN, YEAR_END)

    assert found == list(hourly(zone, BEGIN, YEAR_END))


@pytest.mark.parametrize("zone", [BERLIN, SYDNEY, LORD_HOWE])
@pytest.mark.parametrize("line", ["30 2 * * *", "0,45 1,2,3 * * *", "*/20 * * * *", "0 */2 * * *", "15 2 * * SUN"])
def test_the_times_after_a_moment_are_the_same_wherever_one_begins_to_walk(zone: str, line: str) -> None:
    table = timetable(Schedule(cron=line, time_zone=zone), 0)
    for change in (utc("2026-03-28 20:00"), utc("2026-04-04 10:00"), utc("2026-10-03 10:00"), utc("2026-10-24 20:00")):
        end = micros(change + timedelta(days=2))
        walked = list(takewhile(lambda due: due <= end, table.walk(micros(change))))  # noqa: B023 - used at once

        again = micros(change)
        for due in walked:
            assert next(table.walk(again)) == due
            assert next(table.walk(due - 1)) == due
            again = due


# What has passed


def test_what_has_passed_is_counted_and_the_newest_are_named() -> None:
    table = timetable(Schedule(cron="0 * * * *"), 0)

    found = passed(table, micros(utc("2026-01-01 01:00")), micros(utc("2026-01-01 05:30")), 2, no_delay)

    assert (found.count, [said(due) for due in found.newest], said(found.next or 0)) == (
        5,
        ["2026-01-01T04:00:00Z", "2026-01-01T05:00:00Z"],
        "2026-01-01T06:00:00Z",
    )


def test_years_of_minutes_are_not_walked_through_and_the_newest_are_right() -> None:
    looked: list[int] = []

    class Watched:
        def walk(self, moment: int) -> Iterable[int]:
            for due in table.walk(moment):
                looked.append(due)
                yield due

    table = timetable(Schedule(cron="* * * * *", time_zone=BERLIN), 0)
    now = utc("2026-10-25 01:30")

    found = passed(Watched(), micros(utc("2020-01-01 00:00")), micros(now), 100, no_delay)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # an iterable will do

    assert found.count == COUNTED
    assert [moment_of(due) for due in found.newest] == [now - timedelta(minutes=99 - n) for n in range(100)]
    assert moment_of(found.next or 0) == now + timedelta(minutes=1)
    assert len(looked) < 2 * COUNTED


def test_a_time_whose_delay_is_not_over_has_not_passed() -> None:
    table = timetable(Schedule(cron="0 * * * *"), 0)
    delay = micros(utc("1970-01-01 00:10"))

    found = passed(table, micros(utc("2026-01-01 01:00")), micros(utc("2026-01-01 02:05")), 5, lambda _: delay)

    assert (found.count, said(found.next or 0)) == (1, "2026-01-01T02:00:00Z")


def test_a_delay_is_the_same_on_every_try_and_others_for_other_times_and_entry_points() -> None:
    most = timedelta(minutes=10)
    delays = [delay_of("nightly", due, most) for due in range(50)]

    assert delays == [delay_of("nightly", due, most) for due in range(50)]
    assert delays != [delay_of("weekly", due, most) for due in range(50)]
    assert len(set(delays)) == 50
    assert all(0 <= delay < most // timedelta(microseconds=1) for delay in delays)


# What is refused


@pytest.mark.parametrize(
    "line", ["x", "* * * *", "61 * * * *", "0 0 * * FOO", "0 0 30 2 *", "", "@daily", "0 0 0 0 0 0 0"]
)
def test_a_cron_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="the cron line of nightly is"):
        check_schedule(Schedule(cron=line), "nightly")


def test_a_jitter_that_is_not_less_than_the_interval_is_refused() -> None:
    schedule = Schedule(every=timedelta(minutes=1), jitter=timedelta(minutes=1))

    with pytest.raises(UsageError, match="the jitter of nightly is less than its interval"):
        check_schedule(schedule, "nightly")


@pytest.mark.parametrize("every", [timedelta(microseconds=1), timedelta(milliseconds=999), timedelta.max])
def test_an_interval_that_would_fill_the_log_or_is_no_date_is_refused(every: timedelta) -> None:
    with pytest.raises(UsageError, match="the interval of nightly is at least a second and at most a thousand years"):
        check_schedule(Schedule(every=every), "nightly")


def test_an_interval_refuses_a_time_zone_which_would_mean_nothing() -> None:
    with pytest.raises(UsageError, match=r"nightly has an interval, and time_zone='Europe/Berlin' means nothing to it"):
        check_schedule(Schedule(every=timedelta(hours=1), time_zone=BERLIN), "nightly")

    check_schedule(Schedule(every=timedelta(seconds=1)), "nightly")


def test_more_missed_times_than_can_be_counted_are_refused() -> None:
    with pytest.raises(UsageError, match="makes up for at most 10000 due times"):
        check_schedule(Schedule(every=timedelta(1), misfire="all", misfire_limit=10_001), "nightly")


def test_a_cron_line_without_the_package_says_in_one_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)

    with pytest.raises(UsageError) as refused:
        check_schedule(Schedule(cron="0 3 * * *"), "the schedule of nightly")

    assert str(refused.value) == (
        "the schedule of nightly has a cron line, which needs cronsim, which is not installed: "
        "pip install 'perdure[schedule]'"
    )


def test_an_interval_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)

    check_schedule(Schedule(every=timedelta(minutes=1)))

    assert times(Schedule(every=timedelta(hours=1)), datetime(2026, 1, 1, tzinfo=UTC), 1) == ["01-01 01:00"]
