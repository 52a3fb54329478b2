"""The jail that is none: commands run as plain processes of our own user, with our files and our network.

It empties the environment and sets the limits of a process, nothing more: a command can read and change whatever we
can. For machines without bubblewrap, and for tests. `processes` of the limits does not hold here.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.runtime.sandbox.cgroup import SlotGroups
from perdure.runtime.sandbox.jail import ENVIRONMENT, Inside, SlotFolder
from perdure.runtime.sandbox.limits import SlotLimits, shell_limits
from perdure.runtime.sandbox.processes import MARKER, TERMINAL_MARKER, Process


class PlainJail:
    """Runs commands without isolation. A command outlives a kill of this process until `recover` ends it."""

    def __init__(self, limits: SlotLimits, groups: SlotGroups, *, environment: Mapping[str, str] | None = None) -> None:
        self._limits = limits
        self._groups = groups
        self._environment = dict(environment or {})

    @property
    def is_sandbox(self) -> bool:
        """No."""
        return False

    def inside(self, folder: SlotFolder) -> Inside:
        """Return the real paths."""
        return Inside(workspace=str(folder.workspace), tmp=str(folder.tmp), run=str(folder.run))

    def uid_of(self, number: int) -> int | None:  # noqa: ARG002 - the same for every slot
        """Return None: our own user."""
        return None

    def prepare(self, root: Path) -> None:
        """Do nothing: there is nothing that could be missing."""

    def wrap(
        self,
        folder: SlotFolder,
        command: Sequence[str],
        *,
        allow_network: bool,  # noqa: ARG002 - cannot be kept from a plain process; the backend refuses
        environment: Mapping[str, str] | None = None,
        outlives_us: bool = False,
        status: Path | None = None,
    ) -> list[str]:
        """Return the argument vector; see `Jail.wrap`."""
        variables = {
            **ENVIRONMENT,
            "HOME": str(folder.workspace),
            "TMPDIR": str(folder.tmp),
            TERMINAL_MARKER if outlives_us else MARKER: folder.mark,
            **self._environment,
            **(environment or {}),
        }
        lines = [
            self._groups.joining(folder.group),
            shell_limits(self._limits, processes=False),
            "umask 022",
            f"cd {shlex.quote(str(folder.workspace))}",
        ]
        if status is None:
            lines.append('exec "$@"')
        else:
            # A trap, not "ignore", which the command would inherit: the shell lives to write the code down.
            lines += ["trap : TERM INT HUP", '"$@"', f"echo $? >{shlex.quote(str(status))}"]
        emptied = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]
        # The shell too has the emptied environment and the mark, so that what it leaves behind is found by it.
        return ["/usr/bin/env", "-i", f"PATH={variables['PATH']}", *_mark(folder, outlives_us), "/bin/sh", "-c",
                "; ".join(lines), "sh", *emptied]  # fmt: skip

    def exit_code(self, status: Path) -> int | None:
        """Return what the shell wrote down."""
        try:
            return int(status.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def first_process(self, status: Path) -> Process | None:  # noqa: ARG002 - there is no namespace
        """Return None: no process's end is the end of the others."""
        return None


def _mark(folder: SlotFolder, outlives_us: bool) -> list[str]:  # noqa: FBT001 - an inner function
    return [f"{TERMINAL_MARKER if outlives_us else MARKER}={folder.mark}"]
