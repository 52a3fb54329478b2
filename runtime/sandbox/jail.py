"""The folders of a slot on disk, and the port to what confines a command to them.

Inside a jail the workspace is `/workspace`, the slot's own `/tmp` is `/tmp`, and `/run/perdure` holds what lives longer
than a command: the terminal's socket, the stateful shell's state. A plain process sees the same folders by their
real paths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class SlotFolder(msgspec.Struct, frozen=True):
    """Where a slot is on disk."""

    slot: str
    path: Path
    uid: int | None = None
    """The user that the slot's commands run as; None: the user that we are."""

    @property
    def workspace(self) -> Path:
        """What commands work on; emptied by a reset."""
        return self.path / "workspace"

    @property
    def tmp(self) -> Path:
        """The slot's own `/tmp`: kept between commands, emptied by a reset."""
        return self.path / "tmp"

    @property
    def run(self) -> Path:
        """Socket of the terminal, state of the shell; emptied by a reset."""
        return self.path / "run"

    @property
    def calls(self) -> Path:
        """What is kept of executions until their outcome is recorded; no command can see it."""
        return self.path / "calls"


class Inside(msgspec.Struct, frozen=True):
    """How a command sees its slot's folders."""

    workspace: str
    tmp: str
    run: str


class Jail(Protocol):
    """Confines commands to a slot."""

    @property
    def is_sandbox(self) -> bool:
        """Whether it isolates at all; `metadata.sandboxed`."""
        ...

    def inside(self, folder: SlotFolder) -> Inside:
        """Return the paths that a command sees."""
        ...

    def wrap(
        self,
        folder: SlotFolder,
        command: Sequence[str],
        *,
        allow_network: bool,
        environment: Mapping[str, str] | None = None,
        outlives_us: bool = False,
    ) -> list[str]:
        """Return the argument vector that runs *command* in the slot, limits and all.

        *environment* is added to the few variables that are allowed. With *outlives_us* the command does not die with
        this process (the terminal's server): otherwise it does.
        """
        ...
