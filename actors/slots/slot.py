"""The actor of one slot: who holds it, what runs in it, whose files it keeps. The pure core.

It neither makes nor empties workspaces and starts no command: it says who may, and records what was done. Invariant:
a slot has at most one holder, whose lease is the newest; leases only grow, and an error ends by a reset alone.
"""

from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
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
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

Standing: TypeAlias = Literal["new", "available", "acquired", "executing", "releasing", "error", "retired"]

HELD: frozenset[Standing] = frozenset({"acquired", "executing", "releasing"})
"""Where somebody holds the slot."""

NOBODY = ""
"""In place of a trajectory: the files that the slot keeps are to be deleted, and nobody's."""

RENEWED_PART = 4
"""A lease is renewed on disk when a quarter of it has gone: a heartbeat a second is not an event a second."""


class SlotState(msgspec.Struct, frozen=True):
    """What the log knows of a slot."""

    slot: str
    number: int = 0
    standing: Standing = "new"
    lease: int = 0
    """The newest; it is in force while the slot is held."""
    trajectory: str | None = None
    execution: str | None = None
    expires_at: int | None = None
    is_to_be_reset: bool = False
    """Whether the release that has begun ends with an empty workspace, or not at all."""
    keeps_files_of: str | None = None
    error: str = ""


class SlotBehavior:
    """The rules of a slot's actor."""

    kind = "slot"
    state_type = SlotState
    state_version = 1
    events: tuple[type[Event], ...] = (
        SlotCreated, SlotAcquired, SlotLeaseRenewed, SlotExecutionStarted, SlotExecutionEnded,
        SlotReleaseBegun, SlotResetBegun, SlotReset, SlotReleased, SlotQuarantined, SlotRetired,
    )  # fmt: skip

    def initial(self, stream: StreamId) -> SlotState:
        """Return the state of a slot that nobody created yet."""
        return SlotState(stream.partition("/")[2])

    def decide(self, state: SlotState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to.

        Raises:
            StaleLeaseError: it speaks with a lease that is not the newest.
            SlotTransitionError: the slot is not in a state that it can be done in.
        """
        if isinstance(command, ViewSlot):
            return Decision((), view(state))
        decide = _DECIDE.get(type(command))
        if decide is None:
            raise InternalError(detail=f"a slot does not understand {type(command).__name__}")
        return decide(state, command, moment)

    def evolve(self, state: SlotState, event: Event) -> SlotState:
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case SlotExecutionStarted(execution=execution):
                return replace(state, standing="executing", execution=execution)
            case SlotExecutionEnded():
                standing: Standing = "acquired" if state.standing == "executing" else state.standing
                return replace(state, standing=standing, execution=None)
            case SlotAcquired():
                return _acquired(state, event)
            case SlotLeaseRenewed(expires_at=expires_at):
                return replace(state, expires_at=expires_at)
            case SlotReleaseBegun(is_to_be_reset=is_to_be_reset):
                return replace(state, standing="releasing", is_to_be_reset=is_to_be_reset)
            case SlotReset() | SlotReleased() | SlotQuarantined() | SlotRetired():
                return _left(state, event)
            case SlotResetBegun():
                return replace(state, keeps_files_of=NOBODY)
            case SlotCreated(number=number):
                return replace(state, standing="available", number=number)
            case _:
                raise InternalError(detail=f"a slot has no event {type(event).__name__}")

    def index(self, state: SlotState) -> Index:
        """Return that a slot is open work until it is retired, and when a lease is over."""
        is_held = state.standing in ("acquired", "executing")
        return Index(state.standing not in ("new", "retired"), state.expires_at if is_held else None)


def view(state: SlotState) -> SlotView:
    """Return how the slot stands."""
    return SlotView(
        slot=state.slot,
        number=state.number,
        state=state.standing,
        lease=state.lease,
        trajectory=state.trajectory,
        execution=state.execution,
        expires_at=state.expires_at,
        keeps_files_of=state.keeps_files_of,
        error=state.error,
    )


# Deciding


def _refuse(state: SlotState, verb: str, because: str = "") -> NoReturn:
    because = f", {because}" if because else ""
    raise SlotTransitionError(slot=state.slot, verb=verb, state=state.standing, because=because)


def _holder(state: SlotState) -> str:
    return f"trajectory {state.trajectory} holds it" if state.trajectory is not None else ""


def _check_lease(state: SlotState, lease: int) -> None:
    if lease != state.lease:
        raise StaleLeaseError(slot=state.slot, lease=lease, current=state.lease)


def _create(state: SlotState, command: CreateSlot, _: Moment) -> Decision[None]:
    created = SlotCreated(state.slot, command.number, command.machine)
    return Decision((created,) if state.standing in ("new", "retired") else (), None)


def _acquire(state: SlotState, command: AcquireSlot, moment: Moment) -> Decision[int]:
    if state.standing != "available":
        _refuse(state, "acquire", state.error or _holder(state))
    if state.keeps_files_of not in (None, command.trajectory):
        whose = f"trajectory {state.keeps_files_of}" if state.keeps_files_of else "somebody who gave them up"
        _refuse(state, "acquire", f"but keeps the files of {whose}: reset it first")
    lease = state.lease + 1
    expires_at = None if command.lease_micros is None else moment.now + command.lease_micros
    return Decision((SlotAcquired(state.slot, command.trajectory, lease, expires_at),), lease)


def _renew(state: SlotState, command: RenewLease, moment: Moment) -> Decision[int | None]:
    _check_lease(state, command.lease)
    if state.standing not in ("acquired", "executing"):
        _refuse(state, "renew the lease of")
    if state.expires_at is None:
        return Decision((), None)
    expires_at = moment.now + command.lease_micros
    if expires_at <= state.expires_at or (expires_at - state.expires_at) * RENEWED_PART < command.lease_micros:
        return Decision((), state.expires_at)
    return Decision((SlotLeaseRenewed(state.slot, state.lease, expires_at),), expires_at)


def _start(state: SlotState, command: StartExecution, _: Moment) -> Decision[None]:
    _check_lease(state, command.lease)
    if state.standing != "acquired":
        _refuse(state, f"start {command.execution} in", f"{state.execution} runs" if state.execution else "")
    return Decision((SlotExecutionStarted(state.slot, state.lease, command.execution),), None)


def _end(state: SlotState, command: EndExecution, _: Moment) -> Decision[None]:
    _check_lease(state, command.lease)
    if state.execution is None or state.execution != command.execution:
        _refuse(state, f"end {command.execution} in", f"{state.execution or 'nothing'} runs")
    return Decision((SlotExecutionEnded(state.slot, state.lease, command.execution),), None)


def _begin_release(state: SlotState, command: BeginRelease, _: Moment) -> Decision[bool]:
    _check_lease(state, command.lease)
    if state.standing == "available":
        return Decision((), reply=False)
    if state.standing not in ("acquired", "executing"):
        _refuse(state, "release", state.error)
    begun = SlotReleaseBegun(state.slot, state.lease, command.because, command.reset)
    return Decision((begun,), reply=state.execution is not None)


def _finish_release(state: SlotState, command: FinishRelease, _: Moment) -> Decision[None]:
    _check_lease(state, command.lease)
    if state.standing != "releasing":
        _refuse(state, "finish the release of", state.error)
    if state.execution is not None:
        _refuse(state, "finish the release of", f"{state.execution} runs")
    if command.was_reset:
        return Decision((SlotReset(state.slot), SlotReleased(state.slot, state.lease)), None)
    if state.is_to_be_reset:
        _refuse(state, "finish the release of", "and was to be reset: reset it, or quarantine it")
    return Decision((SlotReleased(state.slot, state.lease, state.trajectory),), None)


def _begin_reset(state: SlotState, _command: BeginReset, _: Moment) -> Decision[None]:
    if state.standing not in ("available", "error"):
        _refuse(state, "reset", _holder(state))
    has_files = state.keeps_files_of not in (None, NOBODY)
    return Decision((SlotResetBegun(state.slot),) if has_files else (), None)


def _reset(state: SlotState, _command: ResetSlot, _: Moment) -> Decision[None]:
    if state.standing not in ("available", "error"):
        _refuse(state, "reset", _holder(state))
    return Decision((SlotReset(state.slot),), None)


def _quarantine(state: SlotState, command: QuarantineSlot, _: Moment) -> Decision[None]:
    if state.standing in ("new", "retired"):
        _refuse(state, "quarantine")
    is_known = state.standing == "error" and state.error == command.reason
    return Decision(() if is_known else (SlotQuarantined(state.slot, command.reason),), None)


def _retire(state: SlotState, _command: RetireSlot, _: Moment) -> Decision[None]:
    if state.standing != "available":
        _refuse(state, "retire", state.error)
    return Decision((SlotRetired(state.slot),), None)


_DECIDE: dict[type[Command], Callable[[SlotState, Any, Moment], Decision[Any]]] = {
    CreateSlot: _create,
    AcquireSlot: _acquire,
    RenewLease: _renew,
    StartExecution: _start,
    EndExecution: _end,
    BeginRelease: _begin_release,
    FinishRelease: _finish_release,
    BeginReset: _begin_reset,
    ResetSlot: _reset,
    QuarantineSlot: _quarantine,
    RetireSlot: _retire,
}


# Evolving


def _acquired(state: SlotState, event: SlotAcquired) -> SlotState:
    return msgspec.structs.replace(
        state,
        standing="acquired",
        lease=event.lease,
        trajectory=event.trajectory,
        expires_at=event.expires_at,
        keeps_files_of=None,
    )


def _left(state: SlotState, event: SlotReset | SlotReleased | SlotQuarantined | SlotRetired) -> SlotState:
    if isinstance(event, SlotReset) and state.standing == "releasing":
        return msgspec.structs.replace(state, is_to_be_reset=False)  # its holder's until `slot-released` says otherwise
    free = SlotState(state.slot, state.number, "available", state.lease)
    match event:
        case SlotReset():
            return free
        case SlotReleased(keeps_files_of=keeps_files_of):
            return msgspec.structs.replace(free, keeps_files_of=keeps_files_of)
        case SlotQuarantined(reason=reason):
            return msgspec.structs.replace(free, standing="error", error=reason)
        case SlotRetired():
            return msgspec.structs.replace(free, standing="retired")
