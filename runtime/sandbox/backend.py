"""The port to the machine that slots are on: what a backend owes to whoever runs commands in slots.

Three implementations pass the same contract tests: bubblewrap, plain processes and a remote sandbox server. A backend
keeps no state that must survive but what is on the disk of the slot itself: who holds a slot, and what was called, is
in the log. Everything here runs on one event loop.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Literal, Protocol

import msgspec

SandboxTool = Literal["bash", "bash_stateful", "read_file", "write_file", "tmux"]
"""The tools that a backend performs in a slot; everything else is made of them."""

DEFAULT_TIMEOUT_SECONDS = 30.0
"""Of a command that says nothing of its own."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call on its way into a slot."""

    slot: str
    lease: int
    """The fencing token of the holder; a backend that saw a higher one for this slot refuses."""
    execution_id: str
    """Chosen by the caller, any text: the same id is never executed twice in one slot's life between resets."""
    tool: str
    arguments: dict[str, Any]
    timeout_seconds: float


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution ended."""

    execution_id: str
    success: bool
    output: str = ""
    error: str = ""
    metadata: dict[str, Any] = {}


class Unfinished(msgspec.Struct, frozen=True):
    """An execution was begun, and how it ended is not known and never will be: its process died with its record."""

    reason: str


class Backend(Protocol):
    """Slots on one machine (or cluster): workspaces, and what runs in them.

    Raises (from every method that takes a lease): `StaleLeaseError` when a higher lease of the slot was seen.
    """

    @property
    def address(self) -> str:
        """Where the slots are, for other processes: `bubblewrap:/path`, `process:/path`, or the URL of a server."""
        ...

    @property
    def default_timeout_seconds(self) -> float:
        """The limit of an execution that names none."""
        ...

    @property
    def max_slots(self) -> int | None:
        """How many slots there can be; None: as many as are asked for."""
        ...

    def slot_name(self, number: int) -> str:
        """Return the name of the slot with this number (from 0), the same in every life."""
        ...

    async def start(self) -> None:
        """Make ready to be asked. Idempotent.

        Raises:
            SandboxUnavailableError: this machine cannot do it; says what is missing.
        """
        ...

    async def stop(self) -> None:
        """Let go: commands that run are ended, workspaces and terminals stay as they are. Idempotent."""
        ...

    async def acquire(self, slot: str, lease: int) -> None:
        """Make the slot's workspace ready for a new holder; what is in it stays. Idempotent."""
        ...

    async def release(self, slot: str, lease: int) -> None:
        """End every process of the holder, terminals too; the files stay. Idempotent."""
        ...

    async def reset(self, slot: str, lease: int) -> None:
        """End every process and empty the workspace, `/tmp`, the shell's state, and remembered outcomes.

        Raises:
            ResetFailedError: something is left; the slot must not be used by anybody else.
        """
        ...

    async def recover(self, slot: str, lease: int) -> None:
        """After a restart: end what is left of the commands of a former life; files and terminals stay."""
        ...

    async def remove(self, slot: str) -> None:
        """End every process and delete the slot with all its files."""
        ...

    def execute_batch(self, executions: Sequence[Execution]) -> AsyncIterator[ExecutionResult]:
        """Perform executions: those of one slot one after another in the order given, those of different slots at once.

        Each result is yielded as soon as it is there, whatever the others do. What goes wrong with one is its own
        result. Closing the iterator, or cancelling who waits for it, ends what still runs (TERM, then KILL of the
        whole group).
        A timeout is a result: `Command timed out after {t}s`, `exit_code` -1, `timeout` true.
        """
        ...

    async def cancel(self, slot: str, execution_id: str) -> None:
        """End one execution of a batch, begun or not; its result says `cancelled` in its metadata.

        Unknown ids are nothing.
        """
        ...

    async def outcome(self, slot: str, execution_id: str) -> ExecutionResult | Unfinished | None:
        """Return how an execution of this or a former life ended; None when it was never begun (or is forgotten)."""
        ...

    async def forget(self, slot: str, execution_ids: Iterable[str]) -> None:
        """Drop what is kept of executions whose outcome the caller has recorded."""
        ...

    async def read_artifact(
        self,
        slot: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> dict[str, Any]:
        """Return a file of the workspace as the artifact reply of the wire format, with `http_status`."""
        ...

    async def list_artifacts(
        self, slot: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> dict[str, Any]:
        """Return what is in a folder of the workspace, in the same way."""
        ...

    async def archive_artifacts(
        self,
        slot: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> dict[str, Any]:
        """Return a folder of the workspace as a base64 tar.gz, in the same way."""
        ...

    async def health(self, slot: str) -> str | None:
        """Return what is wrong with the slot, or None; changes nothing."""
        ...
