"""What slots and trajectories are asked for. Commands that name a lease are refused when it is not the newest."""

from typing import Literal, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command

# Of a slot


class CreateSlot(Command, frozen=True, tag="create-slot"):
    """Add the slot to the pool, also one that was retired: its leases go on where they ended.

    Nothing happens if it is there.
    """

    number: int
    machine: str = ""
    """Where its workspace is, as `Backend.address` says."""


class AcquireSlot(Command, frozen=True, tag="acquire-slot"):
    """Take an available slot; answered with the lease (int).

    Raises `SlotTransitionError` unless available. A slot that keeps another trajectory's files must be reset first
    (`ResetSlot` while available): also `SlotTransitionError`.
    """

    trajectory: str
    lease_micros: int | None = None
    """How long the lease holds unless it is renewed; None: as long as this log says."""


class RenewLease(Command, frozen=True, tag="renew-lease"):
    """Move the end of a lease that has one; nothing is written when it would move by less than a quarter of it.

    Answered with the end of the lease, None when it has none. Refused once its release has begun.
    """

    lease: int
    lease_micros: int


class StartExecution(Command, frozen=True, tag="start-execution"):
    """acquired -> executing."""

    lease: int
    execution: str


class EndExecution(Command, frozen=True, tag="end-execution"):
    """executing -> acquired; releasing stays releasing, with nothing running."""

    lease: int
    execution: str


class BeginRelease(Command, frozen=True, tag="begin-release"):
    """acquired or executing -> releasing. Nobody else gets the slot before `FinishRelease`.

    Answered with whether something runs that must end first. Of an available slot, with its last lease: nothing.
    """

    lease: int
    because: str
    reset: bool


class FinishRelease(Command, frozen=True, tag="finish-release"):
    """releasing, with nothing running -> available (with `slot-reset` before it where *was_reset*).

    Without a reset the slot keeps the holder's files, for the holder alone; refused if a reset was asked for.
    """

    lease: int
    was_reset: bool


class BeginReset(Command, frozen=True, tag="begin-reset"):
    """Record that the files of a free slot are given up; before they are touched, so that nobody gets half of them.

    Nothing is written of an empty slot, or of one in quarantine. Refused while somebody holds the slot.
    """


class ResetSlot(Command, frozen=True, tag="reset-slot"):
    """Record that the workspace was emptied: error or available -> available, holding nobody's files.

    The only way out of quarantine. Refused while somebody holds the slot.
    """


class QuarantineSlot(Command, frozen=True, tag="quarantine-slot"):
    """Any state -> error; the holder, if there is one, loses the slot.

    Nothing is written when it is quarantined for this very reason; refused of a slot that does not exist.
    """

    reason: str


class RetireSlot(Command, frozen=True, tag="retire-slot"):
    """available -> retired, which closes the stream."""


class ViewSlot(Command, frozen=True, tag="view-slot"):
    """Ask for the state; answered with a `SlotView`."""


SlotCommands: TypeAlias = (
    CreateSlot | AcquireSlot | RenewLease | StartExecution | EndExecution | BeginRelease | FinishRelease
    | BeginReset | ResetSlot | QuarantineSlot | RetireSlot | ViewSlot
)  # fmt: skip


class SlotView(msgspec.Struct, frozen=True):
    """A slot as it is shown."""

    slot: str
    number: int
    state: Literal["new", "available", "acquired", "executing", "releasing", "error", "retired"]
    lease: int
    """The newest; 0 when nobody ever held it."""
    trajectory: str | None
    execution: str | None
    expires_at: int | None
    keeps_files_of: str | None
    """None: it is empty; an empty text: files that are nobody's any more are still there."""
    error: str
    """Why it is quarantined; kept until a reset succeeded."""


# Of a trajectory


class AssignSlot(Command, frozen=True, tag="assign-slot"):
    """Record which slot the trajectory holds. Refused while it holds one (`SlotTransitionError`)."""

    slot: str
    lease: int


class LeaveSlot(Command, frozen=True, tag="leave-slot"):
    """Record that the slot is gone; nothing happens unless this very lease is held."""

    slot: str
    lease: int
    because: str


class RequestExecution(Command, frozen=True, tag="request-execution"):
    """Record the intent of a call; answered with True, or False when the `uniq_id` is known (nothing is written).

    Of a call in flight whose `attempt` is higher, the new attempt is recorded: it runs again after a crash.
    """

    execution: str
    tool: str
    arguments: msgspec.Raw
    effect: Literal["read", "idempotent", "irreversible"]
    timeout_seconds: float
    slot: str | None = None
    lease: int | None = None
    attempt: int = 1


class CompleteExecution(Command, frozen=True, tag="complete-execution"):
    """Record how a call ended; nothing is written when it has ended already. Also ends a doubt.

    Answered with whether it was written; so are leaving a slot, cancelling and doubting.
    """

    execution: str
    success: bool
    output: str = ""
    error: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    micros: int = 0
    was_recovered: bool = False


class CancelExecution(Command, frozen=True, tag="cancel-execution"):
    """Record that a call was given up; nothing is written when it has ended already, or is in doubt."""

    execution: str
    reason: str
    was_begun: bool


class DoubtExecution(Command, frozen=True, tag="doubt-execution"):
    """Record that nobody knows how a call ended; nothing is written unless it is in flight."""

    execution: str
    reason: str


class SettleExecution(Command, frozen=True, tag="settle-execution"):
    """Say what became of a call in doubt. Refused (`SlotTransitionError`) when it is not in doubt."""

    execution: str
    success: bool
    output: str
    because: str


class RecordFile(Command, frozen=True, tag="record-file"):
    """Record that a file went in or out."""

    direction: Literal["in", "out"]
    path: str
    sha256: str
    bytes: int
    kind: Literal["file", "archive"] = "file"


class ViewTrajectory(Command, frozen=True, tag="view-trajectory"):
    """Ask for the state; answered with a `TrajectoryView`."""


TrajectoryCommands: TypeAlias = (
    AssignSlot | LeaveSlot | RequestExecution | CompleteExecution | CancelExecution | DoubtExecution
    | SettleExecution | RecordFile | ViewTrajectory
)  # fmt: skip


class InFlight(msgspec.Struct, frozen=True):
    """A call that was requested and has not ended."""

    execution: str
    tool: str
    arguments: msgspec.Raw
    effect: Literal["read", "idempotent", "irreversible"]
    timeout_seconds: float
    slot: str | None
    lease: int | None
    attempt: int


class TrajectoryView(msgspec.Struct, frozen=True):
    """A trajectory as it is shown."""

    trajectory: str
    slot: str | None
    lease: int | None
    in_flight: tuple[InFlight, ...]
    """In the order they were requested; those in doubt too."""
    in_doubt: dict[str, str]
    """Of calls whose outcome is not known, the reasons."""
    ended: dict[str, int]
    """Of the last ended calls, 10,000 at least, the version of the event that has the result."""
    calls: int
    """Requested, however often."""
    failures: int
    """Completed or settled without success; a call that was cancelled is none."""
    files: int
    """Recorded, in and out."""
