"""The facts about slots, and about the trajectories that hold them.

Streams: `slot/NAME` and `trajectory/ID`. A lease is the fencing token of one holder of a slot: it grows by one with
every holder, and whoever speaks with an older one is refused.
"""

from typing import Literal

import msgspec

from perdure.actors.kernel.messages import Event

# Of a slot


class SlotCreated(Event, frozen=True, tag="slot-created"):
    """A slot was added to the pool."""

    slot: str
    number: int
    machine: str = ""
    """Where its workspace is, as `Backend.address` says; empty: not told."""


class SlotAcquired(Event, frozen=True, tag="slot-acquired"):
    """A trajectory holds the slot from now on."""

    slot: str
    trajectory: str
    lease: int
    expires_at: int | None = None
    """When the lease ends unless it is renewed, in microseconds since 1970 UTC; None: never, its holder lives here."""


class SlotLeaseRenewed(Event, frozen=True, tag="slot-lease-renewed"):
    """The holder was heard of; the lease ends later."""

    slot: str
    lease: int
    expires_at: int


class SlotExecutionStarted(Event, frozen=True, tag="slot-execution-started"):
    """A command of the holder is about to run in the slot."""

    slot: str
    lease: int
    execution: str


class SlotExecutionEnded(Event, frozen=True, tag="slot-execution-ended"):
    """The slot's command has ended, or is given up."""

    slot: str
    lease: int
    execution: str


class SlotReleaseBegun(Event, frozen=True, tag="slot-release-begun"):
    """The holder wants to leave; what runs is ended first, then the workspace is emptied where that was asked for."""

    slot: str
    lease: int
    because: str
    """`released`, `lease expired`, `operator`."""
    is_to_be_reset: bool


class SlotResetBegun(Event, frozen=True, tag="slot-reset-begun"):
    """The files that the slot kept are nobody's any more; until `slot-reset` it is given to nobody."""

    slot: str


class SlotReset(Event, frozen=True, tag="slot-reset"):
    """The workspace is empty, and nothing runs in the slot."""

    slot: str


class SlotReleased(Event, frozen=True, tag="slot-released"):
    """Nobody holds the slot any more."""

    slot: str
    lease: int
    keeps_files_of: str | None = None
    """The trajectory whose files are still there: it may have them back; anybody else gets the slot emptied."""


class SlotQuarantined(Event, frozen=True, tag="slot-quarantined"):
    """The slot is not given to anybody until a reset has succeeded; who holds it keeps it no longer."""

    slot: str
    reason: str


class SlotRetired(Event, frozen=True, tag="slot-retired"):
    """The slot and its files are gone."""

    slot: str


# Of a trajectory


class TrajectorySlotAssigned(Event, frozen=True, tag="trajectory-slot-assigned"):
    """The trajectory's commands run in this slot from now on."""

    slot: str
    lease: int


class TrajectorySlotLeft(Event, frozen=True, tag="trajectory-slot-left"):
    """The trajectory has no slot any more."""

    slot: str
    lease: int
    because: str


class ExecutionRequested(Event, frozen=True, tag="execution-requested"):
    """A call is about to be dispatched: the intent."""

    execution: str
    """The call's `uniq_id`."""
    tool: str
    """As it is sent: `terminal` stands here as `bash`."""
    arguments: msgspec.Raw
    effect: Literal["read", "idempotent", "irreversible"]
    timeout_seconds: float
    slot: str | None = None
    """None for a tool on a tool server."""
    lease: int | None = None
    attempt: int = 1


class ExecutionCompleted(Event, frozen=True, tag="execution-completed"):
    """A call ended, well or not; the result is what its caller was told."""

    execution: str
    success: bool
    output: str = ""
    error: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    micros: int = 0
    was_recovered: bool = False
    """Whether it was found after a crash, from what the backend keeps."""


class ExecutionCancelled(Event, frozen=True, tag="execution-cancelled"):
    """A call was given up; `was_begun` says whether its command may have done something."""

    execution: str
    reason: str
    was_begun: bool


class ExecutionInDoubt(Event, frozen=True, tag="execution-in-doubt"):
    """A call was begun, and how it ended is not known; it is not run again by itself."""

    execution: str
    reason: str


class ExecutionSettled(Event, frozen=True, tag="execution-settled"):
    """A person said what became of a call in doubt."""

    execution: str
    success: bool
    output: str
    because: str


class FileRecorded(Event, frozen=True, tag="file-recorded"):
    """A file went into the workspace or out of it."""

    direction: Literal["in", "out"]
    path: str
    """Relative to the workspace; of an archive, the folder."""
    sha256: str
    """Of the whole file, also where only its beginning was read; of an archive, of the archive."""
    bytes: int
    kind: Literal["file", "archive"] = "file"
