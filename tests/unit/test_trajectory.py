"""The actor of a trajectory, without a runtime: calls from intent to outcome, its slot, what it remembers."""

from typing import Any

import msgspec
import pytest

from perdure.actors.kernel.messages import Command, Event, Index
from perdure.actors.kernel.replay import replay
from perdure.actors.slots.commands import (
    AssignSlot,
    CancelExecution,
    CompleteExecution,
    DoubtExecution,
    InFlight,
    LeaveSlot,
    RecordFile,
    RequestExecution,
    SettleExecution,
    TrajectoryView,
    ViewTrajectory,
)
from perdure.actors.slots.ended import CHUNK, REMEMBERED, Ended
from perdure.actors.slots.errors import SlotTransitionError
from perdure.actors.slots.events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionInDoubt,
    ExecutionRequested,
    ExecutionSettled,
    FileRecorded,
    TrajectorySlotAssigned,
    TrajectorySlotLeft,
)
from perdure.actors.slots.trajectory import ATTENTION, TrajectoryBehavior, TrajectoryState
from perdure.testing import Given, given

BEHAVIOR = TrajectoryBehavior()
ARGUMENTS = msgspec.Raw(b'{"command":"make"}')

assigned = TrajectorySlotAssigned("s1", 4)
left = TrajectorySlotLeft("s1", 4, "released")
completed = ExecutionCompleted("c1", success=True, output="done")
doubted = ExecutionInDoubt("c1", "the process died")
settled = ExecutionSettled("c1", success=False, output="", because="looked")


def requested(execution: str = "c1", attempt: int = 1) -> ExecutionRequested:
    return ExecutionRequested(execution, "bash", ARGUMENTS, "irreversible", 30.0, "s1", 4, attempt)


def request(execution: str = "c1", attempt: int = 1) -> RequestExecution:
    return RequestExecution(execution, "bash", ARGUMENTS, "irreversible", 30.0, "s1", 4, attempt)


def complete(execution: str = "c1", *, success: bool = True) -> CompleteExecution:
    return CompleteExecution(execution, success=success, output="done")


def trajectory(*events: Event) -> Given[TrajectoryState]:
    return given(BEHAVIOR, events, stream="trajectory/t")


def shown(one: Given[Any]) -> TrajectoryView:
    view: TrajectoryView = BEHAVIOR.decide(one.state, ViewTrajectory(), one._moment).reply
    return view


def test_a_call_goes_from_its_intent_to_its_outcome() -> None:
    begun = trajectory(assigned).when(request()).then([requested()], reply=True)
    between = shown(begun)
    done = begun.when(complete()).then([completed], reply=True)

    flight = InFlight("c1", "bash", ARGUMENTS, "irreversible", 30.0, "s1", 4, 1)
    assert between == TrajectoryView("t", "s1", 4, (flight,), {}, {}, calls=1, failures=0, files=0)
    assert shown(done) == TrajectoryView("t", "s1", 4, (), {}, {"c1": 3}, calls=1, failures=0, files=0)


@pytest.mark.parametrize(
    "history",
    [
        [requested()],
        [requested(), completed],
        [requested(), ExecutionCancelled("c1", "enough", was_begun=False)],
        [requested(), doubted],
        [requested(), doubted, settled],
    ],
    ids=["in flight", "completed", "cancelled", "in doubt", "settled"],
)
def test_a_call_that_is_known_is_not_requested_again(history: list[Event]) -> None:
    trajectory(*history).when(request()).then([], reply=False)


def test_a_call_in_flight_is_requested_again_as_a_higher_attempt_alone() -> None:
    first = trajectory(requested())

    second = first.when(request(attempt=2)).then([requested(attempt=2)], reply=True)

    second.when(request(attempt=2)).then([], reply=False)
    assert [(flight.execution, flight.attempt) for flight in shown(second).in_flight] == [("c1", 2)]
    assert shown(second).calls == 1


@pytest.mark.parametrize("history", [[requested(), doubted], [requested(), completed]], ids=["in doubt", "ended"])
def test_no_attempt_is_high_enough_for_a_call_in_doubt_or_one_that_ended(history: list[Event]) -> None:
    trajectory(*history).when(request(attempt=9)).then([], reply=False)


@pytest.mark.parametrize("outcome", [complete(), CancelExecution("c1", "x", was_begun=True), DoubtExecution("c1", "x")])
@pytest.mark.parametrize("history", [[], [requested(), completed]], ids=["unknown", "ended"])
def test_an_outcome_of_a_call_that_is_not_in_flight_is_not_written(outcome: Command, history: list[Event]) -> None:
    trajectory(*history).when(outcome).then([], reply=False)


def test_a_call_that_was_cancelled_is_no_failure() -> None:
    cancelled = trajectory(requested()).when(CancelExecution("c1", "enough", was_begun=True))

    after = shown(cancelled.then([ExecutionCancelled("c1", "enough", was_begun=True)], reply=True))

    assert (after.in_flight, after.ended, after.failures) == ((), {"c1": 2}, 0)


def test_a_call_in_doubt_stays_until_somebody_knows() -> None:
    doubtful = trajectory(requested()).when(DoubtExecution("c1", "the process died")).then([doubted], reply=True)

    doubtful.when(DoubtExecution("c1", "again")).then([], reply=False)
    doubtful.when(CancelExecution("c1", "enough", was_begun=True)).then([], reply=False)

    assert shown(doubtful).in_doubt == {"c1": "the process died"}
    assert [flight.execution for flight in shown(doubtful).in_flight] == ["c1"]


def test_an_outcome_that_was_found_ends_a_doubt() -> None:
    found = CompleteExecution("c1", success=True, output="done", was_recovered=True)
    recovered = ExecutionCompleted("c1", success=True, output="done", was_recovered=True)

    after = trajectory(requested(), doubted).when(found).then([recovered], reply=True)

    assert (shown(after).in_doubt, shown(after).in_flight, shown(after).ended) == ({}, (), {"c1": 3})


def test_a_person_ends_a_doubt_and_nothing_but_a_doubt() -> None:
    doubtful = trajectory(assigned, requested(), requested("c2"), ExecutionInDoubt("c2", "?"), doubted)
    settle = SettleExecution("c1", success=False, output="", because="looked")

    after = doubtful.when(settle).then([settled])
    refusal = after.when(settle).then_refused(SlotTransitionError)

    assert str(refusal) == "Cannot settle call c1 of slot s1: it is not in doubt: in doubt are c2"
    assert (shown(after).ended, shown(after).failures) == ({"c1": 6}, 1)


def test_failures_are_counted() -> None:
    failed = trajectory(requested()).when(complete(success=False))

    assert shown(failed.then([ExecutionCompleted("c1", success=False, output="done")])).failures == 1


def test_a_trajectory_has_one_slot_at_a_time() -> None:
    held = trajectory().when(AssignSlot("s1", 4)).then([assigned])

    refusal = held.when(AssignSlot("s2", 1)).then_refused(SlotTransitionError)

    assert str(refusal) == "Cannot assign trajectory t to slot s2: it is in slot s1 with lease 4 already"
    free = held.when(LeaveSlot("s1", 4, "released")).then([left], reply=True)
    free.when(AssignSlot("s2", 1)).then([TrajectorySlotAssigned("s2", 1)])


@pytest.mark.parametrize("other", [LeaveSlot("s1", 3, "released"), LeaveSlot("s2", 4, "released")])
def test_leaving_another_slot_or_lease_than_the_one_held_does_nothing(other: LeaveSlot) -> None:
    trajectory(assigned).when(other).then([], reply=False)
    trajectory().when(other).then([], reply=False)


def test_files_are_recorded_and_counted() -> None:
    after = trajectory().when(RecordFile("out", "report.md", "ab" * 32, 7))

    assert shown(after.then([FileRecorded("out", "report.md", "ab" * 32, 7)])).files == 1


@pytest.mark.parametrize(
    ("history", "index"),
    [
        ([], Index(is_open=False)),
        ([assigned], Index()),
        ([assigned, left], Index(is_open=False)),
        ([requested()], Index()),
        ([requested(), completed], Index(is_open=False)),
        ([requested(), doubted], Index(waits_on=ATTENTION)),
        ([assigned, requested(), doubted], Index(waits_on=ATTENTION)),
        ([requested(), requested("c2"), doubted], Index()),
        ([requested(), doubted, settled], Index(is_open=False)),
    ],
)
def test_a_trajectory_is_open_work_while_it_has_a_slot_or_a_call_without_an_outcome(
    history: list[Event], index: Index
) -> None:
    assert trajectory(*history).index == index


# What it remembers


def long_life(calls: int) -> TrajectoryState:
    names = [f"c{number}" for number in range(calls)]
    pairs = [(requested(name), ExecutionCompleted(name, success=True)) for name in names]
    return replay(BEHAVIOR, [event for pair in pairs for event in pair])


def test_the_last_ten_thousand_calls_are_known_with_the_place_of_their_results() -> None:
    state = long_life(REMEMBERED + 3 * CHUNK + 7)
    ended = state.ended.to_dict()
    last = REMEMBERED + 3 * CHUNK + 6

    assert list(ended)[-REMEMBERED:] == [f"c{number}" for number in range(last + 1 - REMEMBERED, last + 1)]
    assert {(name, state.ended.get(name)) for name in ended} == set(ended.items())
    assert ended[f"c{last}"] == state.version == 2 * (last + 1)
    assert ended[f"c{last - 1}"] == state.version - 2


def test_what_is_remembered_is_bounded() -> None:
    lengths = {len(long_life(calls).ended) for calls in (REMEMBERED, REMEMBERED + CHUNK - 1, REMEMBERED + 10 * CHUNK)}

    assert max(lengths) < REMEMBERED + CHUNK
    assert "c0" not in long_life(REMEMBERED + CHUNK).ended


def test_a_state_stays_as_it_was_when_another_grows_out_of_it() -> None:
    state = long_life(CHUNK - 1)
    kept = msgspec.json.encode(state)

    grown = BEHAVIOR.evolve(BEHAVIOR.evolve(state, requested("x")), ExecutionCompleted("x", success=True))
    other = BEHAVIOR.evolve(BEHAVIOR.evolve(state, requested("y")), ExecutionCompleted("y", success=True))

    assert msgspec.json.encode(state) == kept
    assert ("x" in grown.ended, "y" in grown.ended) == (True, False)
    assert ("x" in other.ended, "y" in other.ended) == (False, True)


def test_adding_one_copies_no_more_than_the_newest_chunk() -> None:
    ended = long_life(REMEMBERED + 5).ended

    grown = ended.with_one("x", 1)

    assert all(a is b for a, b in zip(ended.older, grown.older, strict=True))


def test_a_snapshot_is_the_state() -> None:
    state = long_life(2 * CHUNK + 1)
    for event in (
        assigned,
        requested("x"),
        requested("y"),
        ExecutionInDoubt("y", "?"),
        FileRecorded("in", "a", "b", 1),
    ):
        state = BEHAVIOR.evolve(state, event)

    revived = msgspec.json.decode(msgspec.json.encode(state), type=TrajectoryState)

    assert revived == state
    assert list(revived.in_flight) == ["x", "y"]


def test_nothing_is_remembered_at_first() -> None:
    assert (len(Ended()), Ended().get("x"), Ended().to_dict()) == (0, None, {})
