"""An executor server, asked from elsewhere: a tool on a tool server reads its trajectory's files this way.

Nothing is repeated here. A call that got no answer can be made again with the same `uniq_id`: the executor executes an
id once, and answers with what it came to.
"""

from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.runtime.serving.client import JsonClient
from perdure.runtime.serving.errors import UnusableReplyError
from perdure.runtime.serving.payloads import (
    ArtifactArchiveRequestPayload,
    ArtifactArchiveResponsePayload,
    ArtifactListRequestPayload,
    ArtifactListResponsePayload,
    ArtifactReadRequestPayload,
    ArtifactReadResponsePayload,
    LenientToolResult,
    ToolCallPayload,
    ToolExecutorExecuteRequest,
    ToolExecutorReleaseRequest,
)

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

MAX_CALL_SECONDS: Final = 600.0
"""The longest that an executor lets a call run."""

QUEUE_SECONDS: Final = 60.0
"""What a call gets beyond its limit: it waits for its slot, and for the calls of its trajectory before it."""

_OK: Final = 200


class ExecutorClient:
    """An executor server by its URL. Close it with `aclose`.

    Every method raises `NotReachedError`, `NoAnswerError` and `UnusableReplyError` for what goes wrong on the way.
    """

    def __init__(
        self, url: str, token: str | None = None, *, transport: "httpx2.AsyncBaseTransport | None" = None
    ) -> None:
        self._client = JsonClient(url, token, transport=transport)

    async def aclose(self) -> None:
        """Close what is open to the server."""
        await self._client.aclose()

    async def execute(self, trajectory_id: str, call: ToolCall, timeout_s: float | None = None) -> ToolResult:
        """Run a call in the trajectory's slot and return what it came to."""
        request = ToolExecutorExecuteRequest(
            trajectory_id=trajectory_id, tool=ToolCallPayload.of(call), timeout_s=timeout_s
        )
        limit = (MAX_CALL_SECONDS if timeout_s is None else min(max(timeout_s, 1.0), MAX_CALL_SECONDS)) + QUEUE_SECONDS
        return (await self._ask("/execute", request, LenientToolResult, limit)).result(call.uniq_id)

    async def release(self, trajectory_id: str, *, reset_workspace: bool = False) -> None:
        """Give the trajectory's slot back."""
        request = ToolExecutorReleaseRequest(trajectory_id=trajectory_id, reset_workspace=reset_workspace)
        await self._ask("/release", request, dict[str, Any], MAX_CALL_SECONDS + QUEUE_SECONDS)

    async def read_artifact(
        self,
        trajectory_id: str,
        path: str,
        *,
        encoding: Literal["text", "base64"] = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> ArtifactReadResponsePayload:
        """Read a file of the trajectory's workspace."""
        request = ArtifactReadRequestPayload(
            trajectory_id=trajectory_id,
            path=path,
            encoding=encoding,
            max_bytes=max_bytes,
            include_sha256=include_sha256,
        )
        return await self._ask("/artifacts/read", request, ArtifactReadResponsePayload)

    async def list_artifacts(
        self, trajectory_id: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> ArtifactListResponsePayload:
        """List a folder of the trajectory's workspace."""
        request = ArtifactListRequestPayload(
            trajectory_id=trajectory_id, path=path, recursive=recursive, max_entries=max_entries
        )
        return await self._ask("/artifacts/list", request, ArtifactListResponsePayload)

    async def archive_artifacts(
        self, trajectory_id: str, path: str = ".", *, max_bytes: int | None = None, max_entries: int | None = None
    ) -> ArtifactArchiveResponsePayload:
        """Return a folder of the trajectory's workspace as a tar.gz in base64."""
        request = ArtifactArchiveRequestPayload(
            trajectory_id=trajectory_id, path=path, max_bytes=max_bytes, max_entries=max_entries
        )
        return await self._ask("/artifacts/archive", request, ArtifactArchiveResponsePayload)

    async def _ask(self, path: str, request: msgspec.Struct, kind: type[T], seconds: float = QUEUE_SECONDS) -> T:
        reply = await self._client.post(path, request, timeout_seconds=seconds)
        if reply.status != _OK:
            detail = f"HTTP {reply.status}: {reply.detail()}"
            raise UnusableReplyError(server=self._client.url, detail=detail, status=reply.status)
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UnusableReplyError(server=self._client.url, detail=str(error), status=reply.status) from error
