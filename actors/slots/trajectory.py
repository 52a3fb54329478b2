"""The actor of one trajectory: the slot it holds, its calls from intent to outcome, its files. The pure core.

It runs nothing and keeps no results: of a call that ended it knows the version of the event that has the result.
Invariant: a `uniq_id` is requested anew only as a higher attempt of a call whose outcome nobody knows yet; one that is
in doubt is not requested again at all.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
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
from perdure.actors.slots.ended import Ended
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
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

ATTENTION = "attention"
"""What a trajectory waits on that only a person can move; the same word as of a run."""


class TrajectoryState(msgspec.Struct, frozen=True):
    """What the log knows of a trajectory."""

    trajectory: str
    version: int = 0
    """Of the newest event: what `ended` refers to."""
    slot: str | None = None
    lease: int | None = None
    in_flight: dict[str, InFlight] = {}
    """By `uniq_id`, in the order they were requested; those in doubt too."""
    in_doubt: dict[str, str] = {}
    ended: Ended = Ended()
    calls: int = 0
    failures: int = 0
    files: int = 0


class TrajectoryBehavior:
    """The rules of a trajectory's actor."""

    kind = "trajectory"
    state_type = TrajectoryState
    state_version = 1
    events: tuple[type[Event], ...] = (
        TrajectorySlotAssigned, TrajectorySlotLeft, ExecutionRequested, ExecutionCompleted, ExecutionCancelled,
        ExecutionInDoubt, ExecutionSettled, FileRecorded,
    )  # fmt: skip

    def initial(self, stream: StreamId) -> TrajectoryState:
        """Return the state of a trajectory that nobody heard of yet."""
        return TrajectoryState(stream.partition("/")[2])

    def decide(self, state: TrajectoryState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to; those that may write nothing are answered with whether they wrote.

        Raises:
            SlotTransitionError: it has a slot already, or the call is not in doubt.
        """
        del moment  # nothing here depends on the time
        if isinstance(command, ViewTrajectory):
            return Decision((), view(state))
        decide = _DECIDE.get(type(command))
        if decide is None:
            raise InternalError(detail=f"a trajectory does not understand {type(command).__name__}")
        return decide(state, command)

    def evolve(self, state: TrajectoryState, event: Event) -> TrajectoryState:
        """Return the state after *event*."""
        replace, version = msgspec.structs.replace, state.version + 1
        match event:
            case ExecutionRequested():
                return _requested(state, event)
            case ExecutionCompleted(execution=execution, success=success):
                return _ended(state, execution, is_failure=not success)
            case ExecutionSettled(execution=execution, success=success):
                return _ended(state, execution, is_failure=not success)
            case ExecutionCancelled(execution=execution):
                return _ended(state, execution, is_failure=False)
            case ExecutionInDoubt(execution=execution, reason=reason):
                return replace(state, version=version, in_doubt={**state.in_doubt, execution: reason})
            case TrajectorySlotAssigned(slot=slot, lease=lease):
                return replace(state, version=version, slot=slot, lease=lease)
            case TrajectorySlotLeft():
                return replace(state, version=version, slot=None, lease=None)
            case FileRecorded():
                return replace(state, version=version, files=state.files + 1)
            case _:
                raise InternalError(detail=f"a trajectory has no event {type(event).__name__}")

    def index(self, state: TrajectoryState) -> Index:
        """Return that a trajectory is open work while it holds a slot or a call has no outcome."""
        waits = bool(state.in_flight) and len(state.in_doubt) == len(state.in_flight)
        return Index(state.slot is not None or bool(state.in_flight), None, ATTENTION if waits else None)


def view(state: TrajectoryState) -> TrajectoryView:
    """Return how the trajectory stands."""
    return TrajectoryView(
        trajectory=state.trajectory,
        slot=state.slot,
        lease=state.lease,
        in_flight=tuple(state.in_flight.values()),
        in_doubt=dict(state.in_doubt),
        ended=state.ended.to_dict(),
        calls=state.calls,
        failures=state.failures,
        files=state.files,
    )


# Deciding


def _assign(state: TrajectoryState, command: AssignSlot) -> Decision[None]:
    if state.slot is not None:
        verb, because = f"assign trajectory {state.trajectory} to", f" with lease {state.lease} already"
        raise SlotTransitionError(slot=command.slot, verb=verb, state=f"in slot {state.slot}", because=because)
    return Decision((TrajectorySlotAssigned(command.slot, command.lease),), None)


def _leave(state: TrajectoryState, command: LeaveSlot) -> Decision[bool]:
    if (state.slot, state.lease) != (command.slot, command.lease):
        return Decision((), reply=False)
    return Decision((TrajectorySlotLeft(command.slot, command.lease, command.because),), reply=True)


def _request(state: TrajectoryState, command: RequestExecution) -> Decision[bool]:
    flight = state.in_flight.get(command.execution)
    if flight is None:
        is_new = command.execution not in state.ended
    else:
        is_new = command.attempt > flight.attempt and command.execution not in state.in_doubt
    if not is_new:
        return Decision((), reply=False)
    requested = ExecutionRequested(
        execution=command.execution,
        tool=command.tool,
        arguments=command.arguments,
        effect=command.effect,
        timeout_seconds=command.timeout_seconds,
        slot=command.slot,
        lease=command.lease,
        attempt=command.attempt,
    )
    return Decision((requested,), reply=True)


def _complete(state: TrajectoryState, command: CompleteExecution) -> Decision[bool]:
    if command.execution not in state.in_flight:
        return Decision((), reply=False)
    completed = ExecutionCompleted(
        execution=command.execution,
        success=command.success,
        output=command.output,
        error=command.error,
        metadata=command.metadata,
        micros=command.micros,
        was_recovered=command.was_recovered,
    )
    return Decision((completed,), reply=True)


def _cancel(state: TrajectoryState, command: CancelExecution) -> Decision[bool]:
    # Giving up does not tell what became of a call in doubt: that stays in doubt until somebody knows.
    if command.execution not in state.in_flight or command.execution in state.in_doubt:
        return Decision((), reply=False)
    return Decision((ExecutionCancelled(command.execution, command.reason, command.was_begun),), reply=True)


def _doubt(state: TrajectoryState, command: DoubtExecution) -> Decision[bool]:
    if command.execution not in state.in_flight or command.execution in state.in_doubt:
        return Decision((), reply=False)
    return Decision((ExecutionInDoubt(command.execution, command.reason),), reply=True)


def _settle(state: TrajectoryState, command: SettleExecution) -> Decision[None]:
    if command.execution not in state.in_doubt:
        verb, because = f"settle call {command.execution} of", f": in doubt are {', '.join(state.in_doubt) or 'none'}"
        raise SlotTransitionError(slot=state.slot or "(none)", verb=verb, state="not in doubt", because=because)
    return Decision((ExecutionSettled(command.execution, command.success, command.output, command.because),), None)


def _record(_: TrajectoryState, command: RecordFile) -> Decision[None]:
    recorded = FileRecorded(command.direction, command.path, command.sha256, command.bytes, command.kind)
    return Decision((recorded,), None)


_DECIDE: dict[type[Command], Callable[[TrajectoryState, Any], Decision[Any]]] = {
    AssignSlot: _assign,
    LeaveSlot: _leave,
    RequestExecution: _request,
    CompleteExecution: _complete,
    CancelExecution: _cancel,
    DoubtExecution: _doubt,
    SettleExecution: _settle,
    RecordFile: _record,
}


# Evolving


def _requested(state: TrajectoryState, event: ExecutionRequested) -> TrajectoryState:
    flight = InFlight(
        execution=event.execution,
        tool=event.tool,
        arguments=event.arguments,
        effect=event.effect,
        timeout_seconds=event.timeout_seconds,
        slot=event.slot,
        lease=event.lease,
        attempt=event.attempt,
    )
    is_known = event.execution in state.in_flight
    return msgspec.structs.replace(
        state,
        version=state.version + 1,
        in_flight={**state.in_flight, event.execution: flight},
        calls=state.calls + (not is_known),
    )


def _ended(state: TrajectoryState, execution: str, *, is_failure: bool) -> TrajectoryState:
    version = state.version + 1
    return TrajectoryState(
        trajectory=state.trajectory,
        version=version,
        slot=state.slot,
        lease=state.lease,
        in_flight={k: v for k, v in state.in_flight.items() if k != execution},
        in_doubt={k: v for k, v in state.in_doubt.items() if k != execution} if state.in_doubt else state.in_doubt,
        ended=state.ended.with_one(execution, version),
        calls=state.calls,
        failures=state.failures + is_failure,
        files=state.files,
    )
