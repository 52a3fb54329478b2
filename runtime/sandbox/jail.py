"""The folders of a slot on disk, and the port to what confines a command to them.

Inside a jail the workspace is `/workspace`, the slot's own `/tmp` is `/tmp`, and `/run/perdure` holds what lives longer
than a command: the terminal's socket, the stateful shell's state. A plain process sees the same folders by their
real paths.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from perdure.runtime.sandbox.processes import Process


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
    def mark(self) -> str:
        """What the processes of this slot are known by; says nothing about where it is."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:32]

    @property
    def group(self) -> str:
        """The name of its control group."""
        return f"perdure-{self.mark[:16]}"

    @property
    def calls(self) -> Path:
        """What is kept of executions until their outcome is recorded; no command can see it."""
        return self.path / "calls"


ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    # Nothing may wait for a person: no pager, no editor, no question.
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "MANPAGER": "cat",
    "EDITOR": "true",
    "VISUAL": "true",
    "GIT_EDITOR": "true",
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
}
"""The environment of a command, but for the paths of its slot; nothing of ours comes through."""


class Inside(msgspec.Struct, frozen=True):
    """How a command sees its slot's folders."""

    workspace: str
    tmp: str
    run: str


def make_folders(folder: SlotFolder) -> None:
    """Make the folders of a slot and give those that commands write to their user. Idempotent."""
    folder.path.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.path.chmod(0o711)  # the slot's user passes through; nobody lists it
    for path in (folder.workspace, folder.tmp, folder.run, folder.calls):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()  # only a plain process can have put it there
        path.mkdir(exist_ok=True)
        path.chmod(0o700)
        if folder.uid is not None and path != folder.calls:
            os.chown(path, folder.uid, folder.uid)


def unlock_folders(folder: SlotFolder) -> None:
    """Give the slot's user back what a command may have taken from it: the way into its own folders."""
    for path in (folder.workspace, folder.tmp, folder.run):
        if not path.is_symlink():
            path.chmod(0o700)


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
        status: Path | None = None,
    ) -> list[str]:
        """Return the argument vector that runs *command* in the slot, limits and all.

        *environment* is added to the few variables that are allowed. With *outlives_us* the command does not die with
        this process (the terminal's server): otherwise it does, as far as this jail can bring that about. The exit code
        is written to *status*, by a process outside of the jail; `exit_code` reads it.

        The vector stands on its own: it needs no open descriptors and none of our environment. It carries a mark that
        `processes.marked` finds: `MARKER`, or `TERMINAL_MARKER` with *outlives_us*.
        """
        ...

    def prepare(self, root: Path) -> None:
        """Make ready what commands of the slots below *root* need. Idempotent.

        Raises:
            SandboxUnavailableError: this machine cannot do it; says what is missing.
        """
        ...

    def uid_of(self, number: int) -> int | None:
        """Return the user of the slot with this number; None: the user that we are."""
        ...

    def exit_code(self, status: Path) -> int | None:
        """Return what was written there, or None: the command did not end, or its record died with it."""
        ...

    def first_process(self, status: Path) -> Process | None:
        """Return the process whose end is the end of all others of the command, where the jail has such a one."""
        ...
