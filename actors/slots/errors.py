"""What can go wrong with slots, by what a caller does about it."""

from perdure.store.errors import PerdureError, Rejected


class SlotError(PerdureError):
    """Base of the errors of slots and of the machine that they are on."""


class SlotTransitionError(SlotError, Rejected, RuntimeError):
    """The slot is in a state that this cannot be done in; nothing was written."""

    message = "Cannot {verb} slot {slot}: it is {state}{because}"
    slot: str
    verb: str
    state: str
    because: str
    """Empty, or `, ` and the reason."""


class StaleLeaseError(SlotError, Rejected):
    """The slot has been given to somebody else since; nothing was written or done. Ask for a slot again."""

    message = "lease {lease} of slot {slot} is over: lease {current} is the newest. Acquire a slot again"
    slot: str
    lease: int
    current: int


class NoSlotError(SlotError, TimeoutError):
    """No slot became free in time, and there may not be more of them."""

    message = "no slot became free within {timeout_seconds:g} s: {detail}"
    timeout_seconds: float
    detail: str


class ResetFailedError(SlotError):
    """A slot's workspace could not be emptied; the slot is quarantined until a reset succeeds."""

    message = "slot {slot} could not be reset: {reason}. Find the cause, then `perdure slots reset {slot}`"
    slot: str
    reason: str


class SandboxUnavailableError(SlotError):
    """This machine cannot isolate commands as asked; says what is missing."""

    message = "{detail}"
    detail: str


class ExecutionInDoubtError(SlotError):
    """A command was begun before a crash, and whether it ended is not known; it is not run again by itself."""

    message = "{uniq_id} of trajectory {trajectory} is in doubt: {reason}"
    trajectory: str
    uniq_id: str
    reason: str
