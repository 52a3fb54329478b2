"""The requests about slots, trajectories and their files. Pure data; see `words.py`."""

from typing import TypeAlias

from perdure.actors.slots.calls import ToolCall
from perdure.actors.tools.definition import EffectClass
from perdure.runtime.control.request import Word


class QuarantineSlot(Word, frozen=True, tag="quarantine-slot"):
    """Give a slot to nobody until it was reset."""

    slot: str
    because: str
    who: str


class ResetSlot(Word, frozen=True, tag="reset-slot"):
    """Empty a slot."""

    slot: str
    who: str
    take_away: bool = False


class ExecuteCall(Word, frozen=True, tag="execute-call"):
    """Run one call of a trajectory."""

    trajectory_id: str
    call: ToolCall
    timeout_s: float | None = None
    effect: EffectClass | None = None
    lease_seconds: float | None = None
    principal: str | None = None


class FindCall(Word, frozen=True, tag="find-call"):
    """Ask what became of a call."""

    uniq_id: str


class ReleaseTrajectory(Word, frozen=True, tag="release-trajectory"):
    """Give a trajectory's slot back."""

    trajectory_id: str
    reset_workspace: bool = False
    cancel: bool = False
    because: str = "released"
    principal: str | None = None


class ReadArtifact(Word, frozen=True, tag="read-artifact"):
    """Read a file of a workspace."""

    trajectory_id: str
    path: str
    encoding: str = "text"
    max_bytes: int | None = None
    include_sha256: bool = False


class ListArtifacts(Word, frozen=True, tag="list-artifacts"):
    """List a folder of a workspace."""

    trajectory_id: str
    path: str = "."
    recursive: bool = False
    max_entries: int | None = None


class ArchiveArtifacts(Word, frozen=True, tag="archive-artifacts"):
    """Pack a folder of a workspace."""

    trajectory_id: str
    path: str = "."
    archive_format: str = "tar.gz"
    max_bytes: int | None = None
    max_entries: int | None = None


SlotWord: TypeAlias = (
    QuarantineSlot | ResetSlot | ExecuteCall | FindCall | ReleaseTrajectory | ReadArtifact | ListArtifacts
    | ArchiveArtifacts
)  # fmt: skip
