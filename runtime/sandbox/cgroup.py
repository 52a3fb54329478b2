"""A control group for each slot, where one can be written: bounds what all processes of a slot use together.

Not needed: without one, the limits of single processes hold. Version 2 wants the memory and pids controllers enabled
in a group that we may write (systemd's `Delegate=yes`); version 1 wants writable controllers. Nothing is mounted or
moved, and no group but the slots' own is changed, except that version 2's controllers are enabled for our children.
"""

import contextlib
import os
import shlex
from pathlib import Path

import msgspec

from perdure.runtime.sandbox.limits import SlotLimits

MOUNTS = Path("/proc/self/mountinfo")
GROUPS = Path("/proc/self/cgroup")


class SlotGroups(msgspec.Struct, frozen=True):
    """The folders under which slots get groups of their own: none, one (version 2) or one for each controller."""

    parents: dict[str, str]
    """Of `memory` and `pids` in version 1, of `unified` in version 2."""

    def make(self, name: str, limits: SlotLimits) -> list[Path]:
        """Make the slot's groups and set their limits; return those that exist. Idempotent."""
        made: list[Path] = []
        for controller, parent in self.parents.items():
            group = Path(parent) / name
            with contextlib.suppress(OSError):
                group.mkdir(exist_ok=True)
                _set(group, controller, limits)
                made.append(group)
        return made

    def find(self, name: str) -> list[Path]:
        """Return the groups of the slot that exist."""
        return [group for parent in self.parents.values() if (group := Path(parent) / name).is_dir()]

    def joining(self, name: str) -> str:
        """Return what a shell does to be in the slot's groups, with all that it starts."""
        files = (shlex.quote(str(group / "cgroup.procs")) for group in self.find(name))
        return "; ".join([":", *(f"{{ echo $$ >{file}; }} 2>/dev/null" for file in files)])

    def members(self, name: str) -> set[int]:
        """Return the numbers of all processes in the slot's groups."""
        pids: set[int] = set()
        for group in self.find(name):
            with contextlib.suppress(OSError):
                pids.update(int(line) for line in (group / "cgroup.procs").read_text(encoding="ascii").split())
        return pids

    def remove(self, name: str) -> None:
        """Remove the slot's groups; one that still has a process stays."""
        for group in self.find(name):
            with contextlib.suppress(OSError):
                group.rmdir()


def find_groups() -> SlotGroups:
    """Return where groups can be made on this machine, found out by making one."""
    mounts, own = _mounts(), _own_groups()
    parents = {
        controller: _below(*mounts[controller], own[controller])
        for controller in ("memory",)  # moving a process costs 6 ms a controller, and RLIMIT_NPROC bounds processes
        if controller in mounts and controller in own
    }
    if "unified" in mounts and "" in own and not parents:
        parents = {"unified": _below(*mounts["unified"], own[""])}
    return SlotGroups({controller: parent for controller, parent in parents.items() if _works(controller, parent)})


def _set(group: Path, controller: str, limits: SlotLimits) -> None:
    if controller == "memory":
        # Lowering goes memory first, raising goes both first: writing it twice is right either way.
        for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError):  # without swap accounting there is no memsw
                _write(group / file, limits.memory_bytes)
    elif controller == "pids":
        _write(group / "pids.max", limits.processes)
    else:
        _write(group / "memory.max", limits.memory_bytes)
        _write(group / "pids.max", limits.processes)
        with contextlib.suppress(OSError):
            _write(group / "memory.swap.max", 0)


def _works(controller: str, parent: str) -> bool:
    if controller == "unified":
        with contextlib.suppress(OSError):  # refused where the group has processes of its own, or is not ours
            _write(Path(parent) / "cgroup.subtree_control", "+memory +pids")
    probe = Path(parent) / f"perdure-probe-{os.getpid()}"
    needed = {"memory": "memory.limit_in_bytes", "pids": "pids.max", "unified": "memory.max"}[controller]
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        return os.access(probe / needed, os.W_OK) and os.access(probe / "cgroup.procs", os.W_OK)
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


def _below(point: str, root: str, group: str) -> str:
    """Return where *group* is seen: in a container, the mount point shows the tree from *root* on only."""
    inner = group.removeprefix(root.rstrip("/")) if group.startswith(root) else group
    return (point + "/" + inner.strip("/")).rstrip("/")


def _mounts() -> dict[str, tuple[str, str]]:
    """Return mount point and root of each controller of version 1, and of version 2 as `unified`."""
    points: dict[str, tuple[str, str]] = {}
    for line in _lines(MOUNTS):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, path = before.split(" ")[3:5]
        point = (path, root)
        if kind == "cgroup2":
            points["unified"] = point
        elif kind == "cgroup":
            points.update(dict.fromkeys(options.split(","), point))
    return points


def _own_groups() -> dict[str, str]:
    """Return the group that we are in, of each controller; of version 2 under the empty name."""
    own: dict[str, str] = {}
    for line in _lines(GROUPS):
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return own


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _write(path: Path, value: int | str) -> None:
    path.write_text(str(value), encoding="ascii")
