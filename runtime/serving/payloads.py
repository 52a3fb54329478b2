"""What programs say to the servers of tools, of slots and of the executor, and what they hear. Frozen data.

The names of the fields are wire formats that other programs speak: they are never renamed, and a reply has exactly
these keys. Fields that nobody knows are passed over, so that a newer caller is understood.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from perdure.actors.slots.calls import ToolCall, ToolResult

Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Lease: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


# A call of a tool and what it came to


class ToolCallPayload(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it stands on the wire; unlike in a model's text its id must be there."""

    name: str
    arguments: dict[str, Any] = {}
    uniq_id: str

    @classmethod
    def of(cls, call: ToolCall) -> "ToolCallPayload":
        """Return a call as it is sent."""
        return cls(name=call.name, arguments=call.arguments, uniq_id=call.uniq_id)

    def call(self) -> ToolCall:
        """Return the call."""
        return ToolCall(self.name, self.arguments, "", self.uniq_id)


class ToolResultPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to; always with all five keys."""

    success: bool
    output: str = ""
    error: str = ""
    metadata: dict[str, Any] = {}
    uniq_id: str | None = None

    @classmethod
    def of(cls, result: ToolResult) -> "ToolResultPayload":
        """Return a result as it is sent."""
        return cls(**msgspec.structs.asdict(result))

    def result(self) -> ToolResult:
        """Return the result."""
        return ToolResult(**msgspec.structs.asdict(self))


class LenientToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result as other servers may send it: null in place of nothing."""

    success: bool
    output: str | None = None
    error: str | None = None
    metadata: dict[str, Any] | None = None
    uniq_id: str | None = None

    def result(self, uniq_id: str) -> ToolResult:
        """Return it as the result of the call with this id."""
        return ToolResult(self.success, self.output or "", self.error or "", self.metadata or {}, uniq_id)


class ToolServerExecuteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Executor to tool server, `POST /execute`: the call, and where its trajectory is."""

    trajectory_id: str | None = None
    tool: ToolCallPayload
    timeout_s: Seconds | None = None
    slot_id: str | None = None
    container_addr: str | None = None


class ToolExecutorExecuteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Client to executor server, `POST /execute`."""

    trajectory_id: str
    tool: ToolCallPayload
    timeout_s: float | None = None
    """Out of bounds it is moved to the nearest bound, by the executor."""


class ToolExecutorReleaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Client to executor server, `POST /release`."""

    trajectory_id: str
    reset_workspace: bool = False


# Artifacts


class ArtifactReadRequestPayload(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /artifacts/read`."""

    trajectory_id: str
    path: str
    encoding: Literal["text", "base64"] = "text"
    max_bytes: Count | None = None
    include_sha256: bool = False


class ArtifactReadResponsePayload(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or its beginning."""

    success: bool
    content: str = ""
    error: str = ""
    encoding: str = "text"
    truncated: bool = False
    bytes: int = 0
    file_size: int | None = None
    path: str = ""
    mime: str | None = None
    sha256: str | None = None


class ArtifactListRequestPayload(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /artifacts/list`."""

    trajectory_id: str
    path: str = "."
    recursive: bool = False
    max_entries: Count | None = None


class ArtifactListEntryPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a folder."""

    path: str
    is_dir: bool
    size: int
    mtime: float


class ArtifactListResponsePayload(msgspec.Struct, frozen=True, kw_only=True):
    """A folder."""

    success: bool
    entries: list[ArtifactListEntryPayload] = []
    truncated: bool = False
    error: str = ""


class ArtifactArchiveRequestPayload(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /artifacts/archive`."""

    trajectory_id: str
    path: str = "."
    format: Literal["tar.gz", "tgz"] = "tar.gz"
    max_bytes: Count | None = None
    max_entries: Count | None = None


class ArtifactArchiveResponsePayload(msgspec.Struct, frozen=True, kw_only=True):
    """A folder as an archive, in base64."""

    success: bool
    content: str = ""
    error: str = ""
    encoding: str = "base64"
    format: str = "tar.gz"
    bytes: int = 0
    entry_count: int = 0
    truncated: bool = False
    """Whether entries were left out."""


# The sandbox server: slots on another machine. `lease` and the routes under /slots are ours, the rest is the seed's.


class SandboxRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /execute`, and an item of `POST /batch`."""

    slot_id: str = ""
    tool: str = ""
    args: dict[str, Any] = {}
    execution_id: str | None = None
    timeout: Seconds = 30.0
    lease: Lease | None = None


class SandboxReply(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution, or a reset, ended; always with exactly these keys."""

    success: bool
    output: str = ""
    error: str = ""
    execution_id: str | None = None
    metadata: dict[str, Any] = {}


class SlotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /reset`, and what is asked of a slot by its holder."""

    slot_id: str
    lease: Lease | None = None


class SlotExecutionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /slots/cancel` and `/slots/outcome`."""

    slot_id: str
    execution_id: str
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    """How long an outcome may be waited for while the execution runs."""


class ForgetRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /slots/forget`."""

    slot_id: str
    execution_ids: list[str]


class OutcomeReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an execution."""

    state: Literal["ended", "running", "unfinished", "unknown"]
    """`unfinished`: it was begun, and nobody will ever know. `unknown`: it was never begun, or is forgotten."""
    result: SandboxReply | None = None
    reason: str = ""


class SlotArtifactReadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /artifacts/read` of a slot; an encoding that there is none of is the backend's to refuse."""

    slot_id: str
    path: str
    encoding: str = "text"
    max_bytes: Count | None = None
    include_sha256: bool = False


class SlotArtifactListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /artifacts/list` of a slot."""

    slot_id: str
    path: str = "."
    recursive: bool = False
    max_entries: Count | None = None


class SlotArtifactArchiveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /artifacts/archive` of a slot."""

    slot_id: str
    path: str = "."
    format: str = "tar.gz"
    max_bytes: Count | None = None
    max_entries: Count | None = None


class BackendReply(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /backend`: what a `RemoteBackend` must know of the machine."""

    slots: list[str]
    default_timeout_seconds: float


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error of a slot, so told that it can be raised again on the other side."""

    success: bool = False
    error: str = ""
    kind: str = ""
    data: dict[str, Any] = {}
