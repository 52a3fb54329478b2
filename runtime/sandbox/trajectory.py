"""The handle of a trajectory: a sequence of calls that shares one slot. It keeps nothing alive, and no state."""

import base64
from typing import TYPE_CHECKING, Any

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.commands import SettleExecution, TrajectoryView, ViewTrajectory
from perdure.actors.slots.errors import SlotError
from perdure.actors.tools.definition import EffectClass
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListEntryPayload,
    ArtifactReadResponsePayload,
)
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but
from perdure.store.records import stream_id

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach


class ArtifactError(SlotError):
    """A file of a workspace could not be had; `detail` says why."""

    message = "{path}: {detail}"
    path: str
    detail: str


@checked_but("__init__")
class Trajectory:
    """Calls that run one after another, all in one slot: what one leaves in the workspace, the next one finds.

    The slot is taken with the first call that needs one and kept until `release`, over restarts too. Trajectories run
    beside each other; handles with the same id are the same trajectory.
    """

    def __init__(self, runtime: "Reach", trajectory: str) -> None:
        self._runtime = runtime
        self.id = trajectory

    def __repr__(self) -> str:
        return f"<Trajectory {self.id}>"

    async def call(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        uniq_id: str | None = None,
        timeout_seconds: float | None = None,
        effect: EffectClass | None = None,
    ) -> ToolResult:
        """Run a tool, after the calls made before; see `ToolExecutor.execute`. Its result is durable on return.

        With a *uniq_id* of your own the call can be asked for again, after a crash too: it is executed once, and the
        result comes from the log.
        """
        call = ToolCall(name, arguments or {}) if uniq_id is None else ToolCall(name, arguments or {}, "", uniq_id)
        return await self._runtime.executor.execute(self.id, call, timeout_seconds, effect=effect)

    async def run(
        self,
        command: str,
        *,
        uniq_id: str | None = None,
        timeout_seconds: float | None = None,
        effect: EffectClass | None = None,
        stateful: bool = False,
    ) -> ToolResult:
        """Run a shell command in the slot; with *stateful* in a shell that keeps its directory and variables."""
        name = "bash_stateful" if stateful else "bash"
        return await self.call(
            name, {"command": command}, uniq_id=uniq_id, timeout_seconds=timeout_seconds, effect=effect
        )

    async def write_file(self, path: str, content: str) -> None:
        """Write a text file into the workspace; by when, and by which hash, is in the log.

        Raises:
            ArtifactError: it could not be written.
        """
        result = await self.call("write_file", {"path": path, "content": content})
        if not result.success:
            raise ArtifactError(path=path, detail=result.error)

    async def read_file(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return a file of the workspace; that it was read, and its hash, is in the log.

        Raises:
            ArtifactError: there is no such file, or it is larger than the machine's limit.
        """
        reply: ArtifactReadResponsePayload = await self._runtime.executor.read_artifact(
            self.id, path, encoding="base64", max_bytes=max_bytes
        )
        if not reply.success:
            raise ArtifactError(path=path, detail=reply.error)
        if reply.truncated and max_bytes is None:
            raise ArtifactError(path=path, detail=f"it has {reply.file_size} bytes: say max_bytes to get its beginning")
        return base64.b64decode(reply.content)

    async def list_files(self, path: str = ".", *, recursive: bool = False) -> list[ArtifactListEntryPayload]:
        """Return what is in a folder of the workspace.

        Raises:
            ArtifactError: there is no such folder, or more in it than can be listed at once.
        """
        reply = await self._runtime.executor.list_artifacts(self.id, path, recursive=recursive)
        if not reply.success or reply.truncated:
            detail = reply.error or f"more than {len(reply.entries)} entries: list its folders one by one"
            raise ArtifactError(path=path, detail=detail)
        return reply.entries

    async def archive(self, path: str = ".") -> bytes:
        """Return a folder of the workspace as a tar.gz.

        Raises:
            ArtifactError: there is no such folder, or it is too large.
        """
        reply: ArtifactArchiveResponsePayload = await self._runtime.executor.archive_artifacts(self.id, path)
        if not reply.success or reply.truncated:
            detail = reply.error or f"more than {reply.entry_count} entries: archive its folders one by one"
            raise ArtifactError(path=path, detail=detail)
        return base64.b64decode(reply.content)

    async def view(self) -> TrajectoryView:
        """Return how it stands: its slot, what runs, what is in doubt."""
        view: TrajectoryView = await self._runtime.ask(stream_id(f"trajectory/{self.id}"), ViewTrajectory())
        return view

    async def settle(
        self, uniq_id: str, *, success: bool, because: str, output: str = "", who: str | None = None
    ) -> None:
        """Say what became of a call in doubt; durable on return, with who and why.

        Raises:
            SlotTransitionError: it is not in doubt.
            UsageError: what is said is no text; it would be in the log, where nobody could read it.
        """
        said: tuple[Any, ...] = (success, output, because)
        if list(map(type, said)) != [bool, str, str]:
            raise UsageError("success is True or False, because and output are texts")
        command = SettleExecution(uniq_id, success, output, because)
        await self._runtime.ask(stream_id(f"trajectory/{self.id}"), command, principal=who)

    async def release(self, *, reset_workspace: bool = False, cancel: bool = False) -> None:
        """Give the slot back once the calls made before have ended; with *cancel*, end them. Durable on return.

        Without *reset_workspace* the files stay, for this trajectory alone, until somebody else needs the slot.

        Raises:
            ResetFailedError: the workspace could not be emptied; the slot is quarantined.
        """
        await self._runtime.executor.release_trajectory(self.id, reset_workspace=reset_workspace, cancel=cancel)
