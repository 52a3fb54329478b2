"""What runs in a slot, whoever started it and in whichever life: found by its traces, ended, and waited for.

The traces are the mark in the environment of a command's outermost process, its number and start time as they were
recorded, its session and descendants, the slot's control group, and, where a slot has a user of its own, that user. A
terminal is known by a mark of its own and may be spared.
"""

import asyncio
import os
import signal
from collections.abc import Iterable

import msgspec

from perdure.runtime.sandbox.cgroup import SlotGroups
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.outcomes import recorded_processes
from perdure.runtime.sandbox.processes import (
    MARKER,
    TERMINAL_MARKER,
    Process,
    descendants,
    in_sessions,
    is_alive,
    known,
    marks,
    owned_by,
    pid_namespace,
    send,
)
from perdure.runtime.sandbox.spawn import gone
from perdure.runtime.threads import WorkerThreads

ROUNDS = 20
"""A fork bomb makes processes while they are counted; with the limit on their number a few rounds end it."""
WAIT_SECONDS = 0.25
"""For killed processes to be gone, each round."""


class Running(msgspec.Struct, frozen=True):
    """What runs in a slot."""

    commands: tuple[Process, ...]
    terminal: tuple[Process, ...]


def find(folder: SlotFolder, groups: SlotGroups) -> Running:
    """Return every process of the slot; those of its terminal apart. Blocks for some milliseconds."""
    # The user's processes first: whatever is among them has its mark by the time that marks are read.
    of_user = [] if folder.uid is None else owned_by(folder.uid)
    every = marks()
    terminal = _with_descendants(known(pid for pid, found in every.items() if found == (TERMINAL_MARKER, folder.mark)))
    recorded = [process for process in recorded_processes(folder) if is_alive(process)]
    commands = _with_descendants(
        [
            *known(pid for pid, found in every.items() if found == (MARKER, folder.mark)),
            *recorded,
            *in_sessions(process.pid for process in recorded),
        ]
    )
    strangers = {pid for pid, (_, mark) in every.items() if mark != folder.mark}
    for process in [*known(groups.members(folder.group)), *_without(of_user, strangers)]:
        if process.pid not in terminal:
            is_terminal = pid_namespace(process.pid) in _namespaces(terminal)
            (terminal if is_terminal else commands)[process.pid] = process
    # One that is dead and not yet waited for, by whoever its parent is now, is nobody any more.
    return Running(tuple(filter(is_alive, commands.values())), tuple(filter(is_alive, terminal.values())))


def _without(processes: list[Process], strangers: set[int]) -> list[Process]:
    """Leave out what is in another slot's jail: another application may have given its slots the same users."""
    theirs = _namespaces(strangers)
    return [each for each in processes if each.pid not in strangers and pid_namespace(each.pid) not in theirs]


def _namespaces(pids: Iterable[int]) -> set[str]:
    """Return the pid namespaces of these processes, but for our own."""
    return {name for name in map(pid_namespace, pids) if name is not None} - {pid_namespace(os.getpid()) or ""}


async def end(threads: WorkerThreads, folder: SlotFolder, groups: SlotGroups, *, spare_terminal: bool) -> list[Process]:
    """Kill what runs in the slot and wait until it is gone; return what would not die."""
    left: list[Process] = []
    for _ in range(ROUNDS):
        running: Running = await threads.run(lambda: find(folder, groups))
        left = [*running.commands, *(() if spare_terminal else running.terminal)]
        if not left:
            return []
        for process in left:
            send(process, signal.SIGKILL)
        await asyncio.gather(*(gone(process, WAIT_SECONDS) for process in left))
    return [process for process in left if is_alive(process)]


def _with_descendants(roots: list[Process]) -> dict[int, Process]:
    found = {process.pid: process for process in roots}
    if found:
        found.update({process.pid: process for process in descendants(found)})
    return found
