"""Files of trajectories on their way out: read, listed, archived through the slot, and recorded by content hash.

Nothing that goes wrong raises: it is in the reply. A backend's reply that cannot be understood is said to be invalid.
"""

import base64
import hashlib
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec

from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.commands import RecordFile
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.lane import Lane
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)

NO_SLOT = "No active slot for trajectory (run a sandbox tool first)"

T = TypeVar("T", ArtifactReadResponsePayload, ArtifactListResponsePayload, ArtifactArchiveResponsePayload)


class Files:
    """What can be had of the workspaces that trajectories hold."""

    def __init__(self, system: ActorSystem, backend: Backend) -> None:
        self._system = system
        self._backend = backend

    async def read(
        self, lane: Lane, path: str, *, encoding: str, max_bytes: int | None, include_sha256: bool
    ) -> ArtifactReadResponsePayload:
        """Return a file, or its beginning; that it was read is durable on return."""
        slot = lane.state.slot
        if slot is None:
            return ArtifactReadResponsePayload(success=False, error=NO_SLOT)
        # Always with its hash: what left the workspace is recorded by content.
        asked = self._backend.read_artifact(slot, path, encoding=encoding, max_bytes=max_bytes, include_sha256=True)
        reply = await _reply("read", asked, ArtifactReadResponsePayload)
        if reply.success and reply.sha256 is not None:
            size = reply.bytes if reply.file_size is None else reply.file_size
            await self._record(lane, RecordFile("out", reply.path or path, reply.sha256, size))
        return reply if include_sha256 else msgspec.structs.replace(reply, sha256=None)

    async def list(
        self, lane: Lane, path: str, *, recursive: bool, max_entries: int | None
    ) -> ArtifactListResponsePayload:
        """Return what is in a folder."""
        slot = lane.state.slot
        if slot is None:
            return ArtifactListResponsePayload(success=False, error=NO_SLOT)
        asked = self._backend.list_artifacts(slot, path, recursive=recursive, max_entries=max_entries)
        return await _reply("list", asked, ArtifactListResponsePayload)

    async def archive(
        self, lane: Lane, path: str, *, archive_format: str, max_bytes: int | None, max_entries: int | None
    ) -> ArtifactArchiveResponsePayload:
        """Return a folder as a tar.gz in base64; that it was taken is durable on return."""
        slot = lane.state.slot
        if slot is None:
            return ArtifactArchiveResponsePayload(success=False, error=NO_SLOT)
        asked = self._backend.archive_artifacts(
            slot, path, archive_format=archive_format, max_bytes=max_bytes, max_entries=max_entries
        )
        reply = await _reply("archive", asked, ArtifactArchiveResponsePayload)
        if reply.success:
            try:
                data = base64.b64decode(reply.content, validate=True)
            except ValueError as error:
                text = f"Invalid artifact archive response: {error}"
                return ArtifactArchiveResponsePayload(success=False, error=text)
            await self._record(lane, RecordFile("out", path, hashlib.sha256(data).hexdigest(), len(data), "archive"))
        return reply

    async def _record(self, lane: Lane, fact: RecordFile) -> None:
        ticket = self._system.transact(((lane.shell, fact),), correlation=lane.trajectory, is_refusable=False).ticket
        if ticket is not None:
            await ticket


async def _reply(verb: str, asked: Awaitable[dict[str, Any]], kind: type[T]) -> T:
    try:
        said = dict(await asked)
    except Exception as error:  # noqa: BLE001 - whatever the machine says is the reply
        return kind(success=False, error=str(error) or type(error).__name__)
    said.pop("http_status", None)
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        return kind(success=False, error=f"Invalid artifact {verb} response: {error}")
