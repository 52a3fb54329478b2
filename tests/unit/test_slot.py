"""The actor of a slot, without a runtime: who may do what in which state, and what that leads to."""

from datetime import timedelta
from typing import Any

import pytest

from perdure.actors.kernel.messages import Command, Event, Index
from perdure.actors.slots.commands import (
    AcquireSlot,
    BeginRelease,
    BeginReset,
    CreateSlot,
    EndExecution,
    FinishRelease,
    QuarantineSlot,
    RenewLease,
    ResetSlot,
    RetireSlot,
    SlotView,
    StartExecution,
    ViewSlot,
)
from perdure.actors.slots.errors import SlotTransitionError, StaleLeaseError
from perdure.actors.slots.events import (
    SlotAcquired,
    SlotCreated,
    SlotExecutionEnded,
    SlotExecutionStarted,
    SlotLeaseRenewed,
    SlotQuarantined,
    SlotReleaseBegun,
    SlotReleased,
    SlotReset,
    SlotResetBegun,
    SlotRetired,
)
from perdure.actors.slots.slot import SlotBehavior
from perdure.testing import Given, given

BEHAVIOR = SlotBehavior()
BEGIN = 1767225600_000000
SECOND = 1_000_000

created = SlotCreated("s", 3)
acquired = SlotAcquired("s", "t1", 1)
started = SlotExecutionStarted("s", 1, "x1")
ended = SlotExecutionEnded("s", 1, "x1")
leaving = SlotReleaseBegun("s", 1, "released", is_to_be_reset=True)
reset = SlotReset("s")
released = SlotReleased("s", 1)
quarantined = SlotQuarantined("s", "the disk is gone")
retired = SlotRetired("s")

HISTORIES: dict[str, list[Event]] = {
    "new": [],
    "available": [created],
    "acquired": [created, acquired],
    "executing": [created, acquired, started],
    "releasing": [created, acquired, leaving],
    "releasing while a command runs": [created, acquired, started, leaving],
    "error": [created, acquired, quarantined],
    "retired": [created, retired],
}

COMMANDS: dict[str, Command] = {
    "create": CreateSlot(3),
    "acquire": AcquireSlot("t2"),
    "renew": RenewLease(1, SECOND),
    "start": StartExecution(1, "x2"),
    "end": EndExecution(1, "x1"),
    "begin release": BeginRelease(1, "released", reset=True),
    "finish release": FinishRelease(1, was_reset=True),
    "begin reset": BeginReset(),
    "reset": ResetSlot(),
    "quarantine": QuarantineSlot("an operator said so"),
    "retire": RetireSlot(),
}

ALLOWED: dict[tuple[str, str], str] = {
    ("new", "create"): "available",
    ("available", "create"): "available",
    ("available", "acquire"): "acquired",
    ("available", "begin reset"): "available",
    ("available", "reset"): "available",
    ("available", "quarantine"): "error",
    ("available", "retire"): "retired",
    ("acquired", "create"): "acquired",
    ("acquired", "renew"): "acquired",
    ("acquired", "start"): "executing",
    ("acquired", "begin release"): "releasing",
    ("acquired", "quarantine"): "error",
    ("executing", "create"): "executing",
    ("executing", "renew"): "executing",
    ("executing", "end"): "acquired",
    ("executing", "begin release"): "releasing",
    ("executing", "quarantine"): "error",
    ("releasing", "create"): "releasing",
    ("releasing", "finish release"): "available",
    ("releasing", "quarantine"): "error",
    ("releasing while a command runs", "create"): "releasing",
    ("releasing while a command runs", "end"): "releasing",
    ("releasing while a command runs", "quarantine"): "error",
    ("error", "create"): "error",
    ("error", "begin reset"): "error",
    ("error", "reset"): "available",
    ("error", "quarantine"): "error",
    ("retired", "create"): "available",
}


def slot(*events: Event) -> Given[Any]:
    return given(BEHAVIOR, events, stream="slot/s")


def shown(one: Given[Any]) -> SlotView:
    view: SlotView = BEHAVIOR.decide(one.state, ViewSlot(), one._moment).reply
    return view


@pytest.mark.row("A1-44")
@pytest.mark.parametrize(("state", "verb"), sorted(ALLOWED))
def test_what_is_allowed_leads_to_the_state_of_the_table(state: str, verb: str) -> None:
    before = slot(*HISTORIES[state])

    decision = BEHAVIOR.decide(before.state, COMMANDS[verb], before._moment)

    assert shown(before.evolved(decision.events)).state == ALLOWED[state, verb]


@pytest.mark.row("A1-44")
@pytest.mark.parametrize(
    ("state", "verb"), [(state, verb) for state in HISTORIES for verb in COMMANDS if (state, verb) not in ALLOWED]
)
def test_everything_else_is_refused_and_leaves_the_state_as_it_was(state: str, verb: str) -> None:
    before = slot(*HISTORIES[state])
    kept = shown(before)
    # Nobody ever held these: a command with a lease of them is stale before it is anything else.
    is_stale = state in ("new", "available", "retired") and hasattr(COMMANDS[verb], "lease")

    refusal = before.when(COMMANDS[verb]).then_refused(StaleLeaseError if is_stale else SlotTransitionError)

    assert shown(before) == kept
    assert vars(refusal)["slot"] == "s"


@pytest.mark.row("A1-44")
def test_a_release_does_not_take_a_slot_out_of_quarantine_but_a_reset_does() -> None:
    broken = slot(created, acquired, quarantined)

    refusal = broken.when(BeginRelease(1, "released", reset=True)).then_refused(SlotTransitionError)
    again = broken.when(ResetSlot()).then([reset])

    assert isinstance(refusal, RuntimeError)
    assert str(refusal) == "Cannot release slot s: it is error, the disk is gone"
    assert (shown(again).state, shown(again).error) == ("available", "")


@pytest.mark.row("A1-45")
@pytest.mark.parametrize(
    "stale",
    [
        BeginRelease(1, "released", reset=True),
        FinishRelease(1, was_reset=True),
        StartExecution(1, "x"),
        EndExecution(1, "x1"),
        RenewLease(1, 60 * SECOND),
    ],
)
@pytest.mark.parametrize("history", [[], [SlotExecutionStarted("s", 2, "x1")]], ids=["acquired", "executing"])
def test_a_holder_of_former_times_can_do_nothing_to_the_slot_of_the_next_one(
    stale: Command, history: list[Event]
) -> None:
    others = slot(created, acquired, leaving, reset, released, SlotAcquired("s", "t2", 2), *history)
    kept = shown(others)

    refusal = others.when(stale).then_refused(StaleLeaseError)

    assert str(refusal) == "lease 1 of slot s is over: lease 2 is the newest. Acquire a slot again"
    assert (shown(others), kept.trajectory) == (kept, "t2")


@pytest.mark.row("A1-45")
def test_a_second_release_of_a_slot_that_nobody_took_since_does_nothing() -> None:
    free = slot(created, acquired, leaving, reset, released)

    free.when(BeginRelease(1, "released", reset=True)).then([], reply=False)


@pytest.mark.row("A1-47")
def test_a_slot_whose_reset_failed_on_release_is_given_to_nobody() -> None:
    going = slot(created, acquired, leaving)

    broken = going.when(QuarantineSlot("reset failed: busy")).then([SlotQuarantined("s", "reset failed: busy")])

    refusal = broken.when(AcquireSlot("t2")).then_refused(SlotTransitionError)
    assert str(refusal) == "Cannot acquire slot s: it is error, reset failed: busy"
    assert shown(broken) == SlotView("s", 3, "error", 1, None, None, None, None, "reset failed: busy")


@pytest.mark.row("A1-47")
def test_a_release_that_was_to_reset_the_slot_cannot_be_finished_without() -> None:
    going = slot(created, acquired, leaving)

    refusal = going.when(FinishRelease(1, was_reset=False)).then_refused(SlotTransitionError)

    assert "was to be reset" in str(refusal)
    going.when(FinishRelease(1, was_reset=True)).then([reset, released])


def test_every_holder_has_a_lease_of_its_own() -> None:
    free = slot(created, acquired, leaving, reset, released)

    held = free.when(AcquireSlot("t1")).then([SlotAcquired("s", "t1", 2)], reply=2)

    assert (shown(held).lease, shown(held).trajectory) == (2, "t1")


def test_a_quarantine_ends_the_lease_but_the_next_one_is_higher_still() -> None:
    again = slot(created, acquired, quarantined, reset)

    again.when(StartExecution(1, "x")).then_refused(SlotTransitionError)
    again.when(AcquireSlot("t2")).then([SlotAcquired("s", "t2", 2)], reply=2)


def test_a_slot_that_is_taken_says_by_whom() -> None:
    refusal = slot(created, acquired).when(AcquireSlot("t2")).then_refused(SlotTransitionError)

    assert str(refusal) == "Cannot acquire slot s: it is acquired, trajectory t1 holds it"


def test_a_second_command_is_not_started_beside_the_first() -> None:
    refusal = slot(created, acquired, started).when(StartExecution(1, "x2")).then_refused(SlotTransitionError)

    assert str(refusal) == "Cannot start x2 in slot s: it is executing, x1 runs"


def test_the_end_of_another_command_does_not_end_the_one_that_runs() -> None:
    refusal = slot(created, acquired, started).when(EndExecution(1, "x0")).then_refused(SlotTransitionError)

    assert str(refusal) == "Cannot end x0 in slot s: it is executing, x1 runs"


def test_a_release_is_told_whether_something_runs_and_waits_for_its_end() -> None:
    running = slot(created, acquired, started)

    going = running.when(BeginRelease(1, "operator", reset=False)).then(
        [SlotReleaseBegun("s", 1, "operator", is_to_be_reset=False)], reply=True
    )
    going.when(FinishRelease(1, was_reset=False)).then_refused(SlotTransitionError)
    done = going.when(EndExecution(1, "x1")).then([ended])

    done.when(FinishRelease(1, was_reset=False)).then([SlotReleased("s", 1, keeps_files_of="t1")])
    slot(created, acquired).when(BeginRelease(1, "operator", reset=True)).then(
        [SlotReleaseBegun("s", 1, "operator", is_to_be_reset=True)], reply=False
    )


def test_files_that_are_given_up_are_nobodys_until_they_are_gone() -> None:
    kept = slot(created, acquired, leaving, SlotReleased("s", 1, keeps_files_of="t1"))

    begun = kept.when(BeginReset()).then([SlotResetBegun("s")])

    begun.when(AcquireSlot("t1")).then_refused(SlotTransitionError)
    begun.when(BeginReset()).then([])
    begun.when(ResetSlot()).then([reset]).when(AcquireSlot("t1")).then([SlotAcquired("s", "t1", 2)])
    slot(created).when(BeginReset()).then([])


def test_files_that_were_kept_are_for_their_trajectory_alone_until_a_reset() -> None:
    kept = slot(created, acquired, leaving, SlotReleased("s", 1, keeps_files_of="t1"))

    refusal = kept.when(AcquireSlot("t2")).then_refused(SlotTransitionError)
    back = kept.when(AcquireSlot("t1")).then([SlotAcquired("s", "t1", 2)])
    empty = kept.when(ResetSlot()).then([reset])

    assert (
        str(refusal) == "Cannot acquire slot s: it is available, but keeps the files of trajectory t1: reset it first"
    )
    assert shown(kept).keeps_files_of == "t1"
    assert shown(back).keeps_files_of is None
    empty.when(AcquireSlot("t2")).then([SlotAcquired("s", "t2", 2)])


def test_a_lease_wakes_somebody_when_it_is_over_unless_it_never_is() -> None:
    free = slot(created)

    timed = free.when(AcquireSlot("t1", 60 * SECOND)).then([SlotAcquired("s", "t1", 1, BEGIN + 60 * SECOND)])

    assert timed.index == Index(is_open=True, wake_at=BEGIN + 60 * SECOND)
    assert timed.evolved([started]).index == timed.index
    assert timed.evolved([leaving]).index == Index(is_open=True)
    assert free.when(AcquireSlot("t1")).then([acquired]).index == Index(is_open=True)


@pytest.mark.parametrize(
    ("seconds", "renewed"), [(0, False), (14, False), (15, True), (59, True), (61, True)], ids="after {} s".format
)
def test_a_lease_is_renewed_on_disk_when_a_quarter_of_it_has_gone(seconds: int, renewed: bool) -> None:
    timed = slot(created, SlotAcquired("s", "t1", 1, BEGIN + 60 * SECOND)).after(timedelta(seconds=seconds))
    end = BEGIN + (60 + seconds) * SECOND

    told = timed.when(RenewLease(1, 60 * SECOND))

    if renewed:
        after = told.then([SlotLeaseRenewed("s", 1, end)], reply=end)
        assert after.index.wake_at == end
    else:
        told.then([], reply=BEGIN + 60 * SECOND)


def test_a_renewal_never_shortens_a_lease_nor_gives_an_end_to_one_that_has_none() -> None:
    timed = slot(created, SlotAcquired("s", "t1", 1, BEGIN + 60 * SECOND))

    timed.when(RenewLease(1, SECOND)).then([], reply=BEGIN + 60 * SECOND)
    slot(created, acquired).when(RenewLease(1, SECOND)).then([], reply=None)


def test_a_retired_slot_that_is_created_again_goes_on_with_its_leases() -> None:
    was = slot(created, acquired, SlotReleased("s", 1, "t1"), retired)

    decision = BEHAVIOR.decide(was.state, CreateSlot(3), was._moment)

    again = was.evolved(decision.events)
    assert decision.events == (created,)
    assert (shown(again).state, shown(again).lease) == ("available", 1)
    assert shown(again).keeps_files_of is None


def test_the_stream_of_a_slot_is_open_from_its_creation_until_it_is_retired() -> None:
    standing = [slot(*events).index.is_open for events in HISTORIES.values()]

    assert dict(zip(HISTORIES, standing, strict=True)) == {name: name not in ("new", "retired") for name in HISTORIES}


def test_a_reason_for_quarantine_that_is_known_is_not_written_again_but_another_is() -> None:
    broken = slot(created, quarantined)

    broken.when(QuarantineSlot("the disk is gone")).then([])
    worse = broken.when(QuarantineSlot("it burns")).then([SlotQuarantined("s", "it burns")])

    assert shown(worse).error == "it burns"


def test_a_slot_is_created_once() -> None:
    slot().when(CreateSlot(3)).then([created])
    slot(created).when(CreateSlot(4)).then([])
