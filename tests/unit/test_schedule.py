"""The pure core of a schedule: what is recorded of it, what becomes of its due times, what a change of it does."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from perdure.actors.kernel.messages import Index
from perdure.actors.triggers.errors import NotDueError
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.misfires import Plan, plan
from perdure.actors.triggers.schedule import (
    FireByHand,
    FiringsSkipped,
    NoteCancelled,
    PassDue,
    PauseSchedule,
    PreviousRunsCancelled,
    ResumeSchedule,
    ScheduleBehavior,
    ScheduleFired,
    ScheduleFiredByHand,
    SchedulePaused,
    ScheduleResumed,
    ScheduleSet,
    SetSchedule,
    Turn,
    turn_of,
)
from perdure.actors.triggers.timetable import timetable
from perdure.testing import given
from perdure.testing.given import Given
from tests.support.schedules import micros, utc

NOON = micros(utc("2026-01-01 12:00"))
HOUR = 3_600_000_000
HOURLY = Schedule(every=timedelta(hours=1))
BEHAVIOR = ScheduleBehavior()


def turn(hour: int) -> Turn:
    """The due time so many hours after noon, without a delay."""
    return Turn(NOON + hour * HOUR, NOON + hour * HOUR)


def scheduled(*events: Any, definition: Schedule = HOURLY) -> Given[Any]:
    """A schedule that was set at noon and is due at one."""
    return given(BEHAVIOR, [ScheduleSet(definition, NOON, turn(1)), *events]).at(utc("2026-01-01 12:30"))


def planned(definition: Schedule, now: str, due: Turn | None = None) -> Plan | None:
    """What is done at a time of the day about an hourly schedule that is due at one."""
    state = given(BEHAVIOR, [ScheduleSet(definition, NOON, due or turn(1))]).state
    return plan(state, definition, timetable(definition, NOON), micros(datetime.fromisoformat(f"2026-01-01T{now}Z")))


# Being set


def test_a_new_schedule_waits_for_its_first_time() -> None:
    after = given(BEHAVIOR).when(SetSchedule(HOURLY, NOON, turn(1))).then([ScheduleSet(HOURLY, NOON, turn(1))])

    assert after.index == Index(wake_at=turn(1).at)


def test_a_new_schedule_that_runs_immediately_is_due_at_once() -> None:
    definition = Schedule(every=timedelta(hours=1), run_immediately=True)
    now = given(BEHAVIOR).at(utc("2026-01-01 12:00"))

    now.when(SetSchedule(definition, NOON, turn(1))).then([ScheduleSet(definition, NOON, turn(0))])


def test_a_new_schedule_may_begin_paused() -> None:
    definition = Schedule(every=timedelta(hours=1), paused=True)

    after = given(BEHAVIOR).when(SetSchedule(definition, NOON, turn(1))).then(
        [ScheduleSet(definition, NOON, turn(1), is_paused=True)]
    )  # fmt: skip

    assert after.index == Index(waits_on="resume")


def test_the_same_schedule_again_changes_nothing() -> None:
    scheduled().when(SetSchedule(HOURLY, NOON + HOUR, turn(5))).then([])


def test_another_policy_leaves_the_next_time_as_it_is() -> None:
    definition = Schedule(every=timedelta(hours=1), misfire="skip", overlap="skip")

    scheduled().when(SetSchedule(definition, NOON + HOUR, turn(5))).then([ScheduleSet(definition, NOON, turn(1))])


def test_a_jitter_moves_when_it_acts_and_not_what_is_due() -> None:
    definition = Schedule(every=timedelta(hours=1), jitter=timedelta(minutes=10))

    scheduled().when(SetSchedule(definition, NOON + HOUR, turn(5))).then(
        [ScheduleSet(definition, NOON, turn_of("test", turn(1).due, definition))]
    )


def test_another_interval_has_another_next_time_and_anchor() -> None:
    definition = Schedule(every=timedelta(hours=2))

    scheduled().when(SetSchedule(definition, NOON + HOUR, turn(3))).then(
        [ScheduleSet(definition, NOON + HOUR, turn(3))]
    )


def test_a_time_that_passed_before_the_schedule_was_changed_is_passed_over() -> None:
    definition = Schedule(every=timedelta(hours=2))
    late = scheduled().at(utc("2026-01-01 15:30"))

    late.when(SetSchedule(definition, NOON, turn(4))).then(
        [
            FiringsSkipped(
                turn(1).due, turn(1).due, 1, "changed", None, "it had passed when the schedule was changed"
            ),
            ScheduleSet(definition, NOON, turn(4)),
        ]
    )  # fmt: skip


def test_an_operators_pause_outlives_a_change_of_the_schedule() -> None:
    definition = Schedule(every=timedelta(hours=2))

    scheduled(SchedulePaused("holidays")).when(SetSchedule(definition, NOON, turn(2))).then(
        [ScheduleSet(definition, NOON, turn(2), is_paused=True)]
    )


def test_code_that_pauses_a_schedule_or_no_longer_does_is_obeyed() -> None:
    paused = Schedule(every=timedelta(hours=1), paused=True)

    after = (
        scheduled().when(SetSchedule(paused, NOON, turn(5))).then([ScheduleSet(paused, NOON, turn(1), is_paused=True)])
    )

    after.when(SetSchedule(HOURLY, NOON, turn(5))).then([ScheduleSet(HOURLY, NOON, turn(5))])


# Due times


def test_a_due_time_is_fired_once() -> None:
    fired = ScheduleFired(turn(1).due, "test:1", turn(2))

    after = scheduled().when(PassDue(turn(1).due, (fired,))).then([fired])

    assert (after.state.fired, after.state.last_run, after.index.wake_at) == (1, "test:1", turn(2).at)
    after.when(PassDue(turn(1).due, (fired,))).then_refused(NotDueError)


def test_a_paused_schedule_fires_nothing() -> None:
    fired = ScheduleFired(turn(1).due, "test:1", turn(2))

    scheduled(SchedulePaused()).when(PassDue(turn(1).due, (fired,))).then_refused(NotDueError)


def test_times_that_are_passed_over_are_counted() -> None:
    skipped = FiringsSkipped(turn(1).due, turn(3).due, 3, "missed", turn(4))

    after = scheduled().when(PassDue(turn(1).due, (skipped,))).then([skipped])

    assert (after.state.skipped, after.state.fired, after.index.wake_at) == (3, 0, turn(4).at)


def test_a_schedule_without_a_next_time_is_no_open_work() -> None:
    fired = ScheduleFired(turn(1).due, "test:1", None)

    assert scheduled(fired).index == Index(is_open=False)


def test_the_runs_that_are_not_over_are_remembered_with_the_new_one() -> None:
    fired = ScheduleFired(turn(1).due, "test:3", turn(2), beside=("test:1", "test:2"))

    assert scheduled(fired).state.runs == ("test:1", "test:2", "test:3")


def test_runs_that_are_to_be_cancelled_are_remembered_until_they_were_told() -> None:
    fired = ScheduleFired(turn(1).due, "test:2", turn(2), beside=("test:1",), cancels=True)
    after = scheduled(fired)
    assert after.state.cancelling == ("test:1",)

    told = after.when(NoteCancelled()).then([PreviousRunsCancelled(("test:1",))])

    told.when(NoteCancelled()).then([])


# By hand


def test_a_run_by_hand_leaves_the_next_time_as_it_is() -> None:
    fact = ScheduleFiredByHand(1, "test:by-hand-1")

    after = scheduled().when(FireByHand(fact)).then([fact])

    assert (after.state.fired, after.state.by_hand, after.state.next) == (1, 1, turn(1))


def test_a_run_by_hand_is_counted_once() -> None:
    fact = ScheduleFiredByHand(1, "test:by-hand-1")

    scheduled(fact).when(FireByHand(fact)).then_refused(NotDueError)


# Pauses


def test_a_schedule_is_paused_once_and_resumed_once() -> None:
    paused = scheduled().when(PauseSchedule("holidays")).then([SchedulePaused("holidays")], reply=True)
    paused.when(PauseSchedule("again")).then([], reply=False)

    resumed = paused.when(ResumeSchedule(turn(7))).then([ScheduleResumed(turn(7))], reply=True)

    assert resumed.index == Index(wake_at=turn(7).at)
    resumed.when(ResumeSchedule(turn(9))).then([], reply=False)


# What becomes of times that have passed


@pytest.mark.parametrize("misfire", ["one", "skip", "all"])
def test_nothing_is_done_before_the_time_comes(misfire: Any) -> None:
    assert planned(Schedule(every=timedelta(hours=1), misfire=misfire), "12:59:59") is None


@pytest.mark.parametrize("misfire", ["one", "skip", "all"])
@pytest.mark.parametrize("now", ["13:00:00", "13:01:00"])
def test_a_time_that_is_up_to_a_minute_late_is_fired_whatever_the_policy(misfire: Any, now: str) -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire=misfire), now)

    assert found == Plan(None, turn(1).due, turn(2))


def test_one_run_is_for_all_that_was_missed() -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire="one"), "16:10:00")

    assert found == Plan(None, turn(4).due, turn(5), missed=3, since=turn(1).due)


def test_a_single_missed_time_is_made_up_for() -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire="one"), "13:10:00")

    assert found == Plan(None, turn(1).due, turn(2))


def test_what_was_missed_is_passed_over() -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire="skip"), "16:10:00")

    assert found == Plan(FiringsSkipped(turn(1).due, turn(4).due, 4, "missed", turn(5)), None, turn(5))


def test_the_newest_is_fired_in_time_though_those_before_it_are_passed_over() -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire="skip"), "16:00:30")

    assert found == Plan(FiringsSkipped(turn(1).due, turn(3).due, 3, "missed", turn(4)), turn(4).due, turn(5))


def test_all_that_were_missed_are_fired_the_oldest_first() -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire="all"), "16:10:00")

    assert found == Plan(None, turn(1).due, turn(2))


def test_of_all_that_were_missed_the_newest_are_fired_up_to_a_limit() -> None:
    found = planned(Schedule(every=timedelta(hours=1), misfire="all", misfire_limit=2), "16:10:00")

    assert found == Plan(FiringsSkipped(turn(1).due, turn(2).due, 2, "missed", turn(3)), turn(3).due, turn(4))


def test_a_delay_that_is_not_over_is_waited_for() -> None:
    definition = Schedule(every=timedelta(hours=1), jitter=timedelta(minutes=30))
    late = turn_of("test", turn(1).due, definition)
    assert late is not None
    assert turn(1).due + 60_000_000 < late.at

    assert planned(definition, "13:00:01", late) is None
