"""Finding processes that somebody left behind, and ending them: `/proc`, read with care for numbers that are reused.

A process is known by its number *and* the time that it started. Invariant: no signal is sent to a process that was
not looked at through a descriptor of its own (pidfd), so never to one that merely has the number of another.
Where there is no `/proc` (macOS) nothing is found.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

MARKER = "PERDURE_SLOT"
"""In the environment of the outermost process of a command: the slot's mark."""
TERMINAL_MARKER = "PERDURE_TERMINAL"
"""The same for what outlives its owner: a slot's terminal."""
PROC = Path("/proc")


class Process(msgspec.Struct, frozen=True):
    """One process in one life of the machine."""

    pid: int
    started: int
    """Field 22 of `/proc/PID/stat`, in clock ticks since the machine started."""
    boot: str
    """Which life of the machine."""


def boot_id() -> str:
    """Return what names this life of the machine; empty where the system does not say."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def identify(pid: int) -> Process | None:
    """Return the process with this number, or None when there is none (any more)."""
    facts = _stat(pid)
    return None if facts is None else Process(pid, facts[1], boot_id())


def is_alive(process: Process) -> bool:
    """Whether this very process still runs; one that is only not yet waited for does not."""
    facts = _stat(process.pid)
    return facts is not None and facts[1] == process.started and facts[2] not in "ZX" and boot_id() == process.boot


def send(process: Process, number: int) -> bool:
    """Send a signal to this very process; return False when it is gone or not ours to signal."""
    try:
        handle = os.pidfd_open(process.pid)
    except AttributeError:  # not Linux: the narrow race between look and kill is all there is
        return is_alive(process) and _kill(process.pid, number)
    except OSError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def everyone() -> Iterator[int]:
    """Yield the numbers of all processes that can be seen."""
    try:
        names = os.listdir(PROC)  # noqa: PTH208 - names are all that is wanted of thousands
    except OSError:
        return
    for name in names:
        if name.isdigit():
            yield int(name)


def marked(marker: str, value: str) -> list[Process]:
    """Return every process whose environment has *marker* with this *value*."""
    return known(pid for pid, found in marks().items() if found == (marker, value))


def marks() -> dict[int, tuple[str, str]]:
    """Return marker and mark of every process that has one."""
    found: dict[int, tuple[str, str]] = {}
    names = (MARKER.encode(), TERMINAL_MARKER.encode())
    for pid in everyone():
        for variable in _environment(pid):
            name, _, value = variable.partition(b"=")
            if name in names:
                found[pid] = (name.decode(), value.decode("ascii", "replace"))
    return found


def descendants(roots: Iterable[int]) -> list[Process]:
    """Return every process below those given, not they themselves; children after their parents."""
    children: dict[int, list[int]] = {}
    for pid in everyone():
        facts = _stat(pid)
        if facts is not None:
            children.setdefault(facts[0], []).append(pid)
    found: list[int] = []
    ahead = list(roots)
    while ahead:
        below = children.pop(ahead.pop(0), [])
        found += below
        ahead += below
    return known(found)


def in_sessions(leaders: Iterable[int]) -> list[Process]:
    """Return every process of the sessions that these processes lead; they must live, or the numbers mean nothing."""
    wanted = set(leaders)
    return known(pid for pid in everyone() if _session(pid) in wanted) if wanted else []


def owned_by(uid: int) -> list[Process]:
    """Return every process of this user."""
    return known(pid for pid in everyone() if _owner(pid) == uid)


def pid_namespace(pid: int) -> str | None:
    """Return what names the process's pid namespace, or None when it may not be seen."""
    try:
        return str((PROC / str(pid) / "ns/pid").readlink())
    except OSError:
        return None


def known(pids: Iterable[int]) -> list[Process]:
    """Return those of these processes that there are."""
    return [process for process in map(identify, pids) if process is not None]


def _stat(pid: int) -> tuple[int, int, str] | None:
    """Return parent, start time and state. The name in parentheses may hold anything, so what follows it is read."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[1]), int(fields[19]), fields[0].decode()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _owner(pid: int) -> int | None:
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True
