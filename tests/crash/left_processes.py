"""Finding what a killed process has left running, by traces that are not the product's own. No test.

The traces are the folder of the slots and a tag in command lines, and the users of the slots. Invariant: nothing is
signalled here but by a descriptor of its own, so never a process that merely has the number of another.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import NamedTuple

LOOKS = 3
"""A process that ends between two reads of `/proc` looks like an orphan for a moment."""
LOOK_SECONDS = 0.02
USERS = 100
"""As many as there can be slots."""
TERMINAL = b"tmux\0-D\0"


class Seen(NamedTuple):
    """A process, as it was seen."""

    pid: int
    started: int
    parent: int
    uid: int
    command: bytes

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started


def everybody() -> dict[int, Seen]:
    """Return all processes that run."""
    found: dict[int, Seen] = {}
    for name in (path.name for path in Path("/proc").iterdir()):
        if not name.isdigit():
            continue
        folder = Path("/proc", name)
        try:
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            seen = Seen(
                pid=int(name),
                started=int(fields[19]),
                parent=int(fields[1]),
                uid=folder.stat().st_uid,
                command=(folder / "cmdline").read_bytes(),
            )
        except OSError:
            continue
        if fields[0] not in {b"Z", b"X"}:
            found[seen.pid] = seen
    return found


def of_slots(slots: Path, tag: str, first_uid: int) -> list[list[Seen]]:
    """Return every process of these slots, each with its line of ancestors."""
    everyone = everybody()
    lines = [_line(everyone, seen) for seen in everyone.values()]
    return [line for line in lines if any(_belongs(seen, slots, tag, first_uid) for seen in line)]


def is_of_terminal(line: list[Seen]) -> bool:
    return any(TERMINAL in seen.command for seen in line)


def terminals_of(slots: Path) -> dict[str, tuple[int, int]]:
    """Return, of every slot that has a terminal, the outermost process of it."""
    servers = [seen for seen in everybody().values() if TERMINAL in seen.command]
    outermost = [seen for seen in servers if seen.parent not in {server.pid for server in servers}]
    return {
        slot.name: seen.identity
        for slot in slots.glob("slot_*")
        for seen in outermost
        if os.fsencode(slot) + b"/" in seen.command
    }


async def strangers(slots: Path, tag: str, first_uid: int) -> list[str]:
    """Return which processes of the slots, terminals apart, have not come from this one."""
    left: dict[tuple[int, int], Seen] = {}
    for look in range(LOOKS):
        lines = [line for line in of_slots(slots, tag, first_uid) if not is_of_terminal(line)]
        orphans = {line[0].identity: line[0] for line in lines if all(seen.pid != os.getpid() for seen in line)}
        left = {identity: orphans[identity] for identity in orphans if look == 0 or identity in left}
        if not left:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return [f"{seen.pid}: {seen.command!r}" for seen in left.values()]


def end_all(slots: Path, tag: str, first_uid: int) -> None:
    """Kill every process of the slots, when a test has failed."""
    for line in of_slots(slots, tag, first_uid):
        _kill(line[0])


def _kill(seen: Seen) -> None:
    try:
        handle = os.pidfd_open(seen.pid)
    except OSError:
        return
    try:
        now = everybody().get(seen.pid)
        if now is not None and now.started == seen.started and seen.pid != os.getpid():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(handle)


def _line(everyone: dict[int, Seen], seen: Seen) -> list[Seen]:
    line = [seen]
    while (parent := everyone.get(line[-1].parent)) is not None and parent not in line:
        line.append(parent)
    return line


def _belongs(seen: Seen, slots: Path, tag: str, first_uid: int) -> bool:
    is_user = os.geteuid() == 0 and first_uid <= seen.uid < first_uid + USERS
    return is_user or os.fsencode(slots) + b"/slot_" in seen.command or tag.encode() in seen.command
