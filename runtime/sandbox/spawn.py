"""One command from its start to the end of its last process, on the event loop and on no other thread.

The parent is the loop's thread, because bubblewrap's die-with-parent follows the *thread*. Output goes through pipes
that are read here: unlike files they behave as programs expect (`>/dev/stderr` truncates nothing), and a flood is
stopped at the byte. It does not decide what an end means. Invariant: when `run` returns or raises, no process of the
command is left (of a plain one: none of its process group).
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from perdure.runtime.sandbox.jail import ENVIRONMENT, Jail, SlotFolder
from perdure.runtime.sandbox.limits import SlotLimits
from perdure.runtime.sandbox.processes import Process, descendants, identify, in_sessions, is_alive, send

Why = Literal["exited", "timeout", "cancelled", "output", "workspace"]
"""Why a command ended: by itself, or by whom it was stopped."""

READ_BYTES = 1 << 16
"""What a pipe holds."""
POLL_SECONDS = 0.02
"""Between two looks at a process where there is no descriptor for it."""
GIVE_UP_SECONDS = 10.0
"""A process that survives KILL this long hangs in the kernel (a dead network disk); nobody can end it."""


class Ended(msgspec.Struct, frozen=True):
    """How a command ended, and what it said."""

    why: Why
    exit_code: int | None
    """What the jail recorded; None when the command never began, or was killed."""
    stdout: bytes
    stderr: bytes
    """The beginnings; as much as is ever shown."""


class Command:
    """A command that runs; made once, `run` once."""

    def __init__(self, jail: Jail, folder: SlotFolder, limits: SlotLimits, status: Path) -> None:
        self._jail, self._folder, self._limits, self._status = jail, folder, limits, status
        self._loop = asyncio.get_running_loop()
        self._why: asyncio.Future[Why] = self._loop.create_future()
        self._exit: asyncio.Future[None] = self._loop.create_future()
        self._pipes: dict[int, bytearray] = {}
        self._heard = 0

    def stop(self, why: Why) -> None:
        """Have it ended; `run` says why. Nothing happens when it is about to end already."""
        if not self._why.done():
            self._why.set_result(why)

    async def run(
        self,
        command: Sequence[str],
        *,
        allow_network: bool,
        timeout_seconds: float,
        started: Callable[[Process | None], None] = lambda _: None,
    ) -> Ended:
        """Run to the end; *started* is told the outermost process. Cancelling ends the command first.

        Raises:
            OSError: it could not be started, such as for a command that is too long for the system.
            ValueError: it holds a NUL character.
        """
        vector = self._jail.wrap(self._folder, command, allow_network=allow_network, status=self._status)
        process, output = self._start(vector)
        try:
            started(identify(process.pid))
            timer = self._loop.call_later(timeout_seconds, self.stop, "timeout")
            try:
                why = await asyncio.shield(self._why)  # a cancellation ends our waiting, not the future
            finally:
                timer.cancel()
                await to_the_end(self._finish(process))
            # Drained after the last writer is gone, so nothing that was said is missing.
            stdout, stderr = (bytes(self._drained(pipe)) for pipe in output)
            return Ended(why, self._jail.exit_code(self._status), stdout, stderr)
        finally:
            self._close()

    def _start(self, vector: list[str]) -> tuple[subprocess.Popen[bytes], list[int]]:
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for _ in range(2):
                reading, writing = os.pipe()
                ours.append(reading)
                theirs.append(writing)
                os.set_blocking(reading, False)
                if self._folder.uid is not None:
                    os.fchown(writing, self._folder.uid, -1)  # or /dev/stderr could not be opened again
            process = subprocess.Popen(  # noqa: S603 - running commands is what a slot is for
                vector,
                stdin=subprocess.DEVNULL,
                stdout=theirs[0],
                stderr=theirs[1],
                env={"PATH": os.environ.get("PATH", ENVIRONMENT["PATH"])},
                start_new_session=True,
            )
        except BaseException:
            for pipe in ours:
                os.close(pipe)
            raise
        finally:
            for pipe in theirs:
                os.close(pipe)
        for pipe in ours:
            self._pipes[pipe] = bytearray()
            self._loop.add_reader(pipe, self._read, pipe)
        self._watch(process)
        return process, ours

    def _read(self, pipe: int) -> bool:
        """Take what is there; return whether there may be more."""
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(pipe)
            return False
        kept = self._pipes[pipe]
        # A character has four bytes at most; one more than is shown tells that there was more.
        kept += data[: max(0, 4 * (self._limits.output_characters + 1) - len(kept))]
        self._heard += len(data)
        if self._heard > self._limits.output_bytes:
            self.stop("output")
            return False
        return True

    def _drained(self, pipe: int) -> bytearray:
        while self._read(pipe):
            pass
        return self._pipes[pipe]

    def _close(self) -> None:
        for pipe in self._pipes:
            self._loop.remove_reader(pipe)
            os.close(pipe)
        self._pipes = {}

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        def exited() -> None:
            if not self._exit.done():
                self._exit.set_result(None)
            self.stop("exited")

        watch(self._loop, process.pid, exited, lambda: process.poll() is not None)

    async def _finish(self, process: subprocess.Popen[bytes]) -> None:
        """End what still runs, and wait until all of it is gone."""
        if not self._exit.done():
            if self._why.done() and self._why.result() in ("output", "workspace"):
                self._kill(process)  # with a grace it would go on filling the disk
            else:
                await self._terminate(process)
        await asyncio.wait([self._exit], timeout=GIVE_UP_SECONDS)
        first = self._jail.first_process(self._status)
        if first is not None:
            # bubblewrap's end kills the namespace a moment later; here that moment is over on return.
            send(first, signal.SIGKILL)
            await gone(first)
        if process.returncode is None:
            # Not waited for yet, so the number of the group is still this one's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if self._exit.done():
            process.wait()
            await _group_gone(process.pid)

    async def _terminate(self, process: subprocess.Popen[bytes]) -> None:
        first = self._jail.first_process(self._status)
        if first is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
        else:
            # Not to bubblewrap itself: it would die, and with it everybody at once.
            for member in descendants([first.pid]):
                send(member, signal.SIGTERM)
        await asyncio.wait([self._exit], timeout=self._limits.grace_seconds)
        if not self._exit.done():
            self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        first = self._jail.first_process(self._status)
        if first is not None:
            send(first, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def watch(
    loop: asyncio.AbstractEventLoop, pid: int, callback: Callable[[], None], has_ended: Callable[[], bool]
) -> None:
    """Call *callback* once, when the process ends: by its descriptor, or by asking *has_ended* where there is none."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):

        def look() -> None:
            callback() if has_ended() else loop.call_later(POLL_SECONDS, look)

        look()
        return

    def readable() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        callback()

    loop.add_reader(handle, readable)


async def gone(process: Process, limit_seconds: float = GIVE_UP_SECONDS) -> bool:
    """Wait until a process has ended, or the limit is over; return whether it has."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_seconds
    pause = 0.0005  # the end of a namespace takes about a millisecond
    while is_alive(process):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS)
    return True


async def _group_gone(group: int) -> None:
    """Wait until the killed rest of a process group is gone; as long as there is one, the number is nobody else's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 0)
        for left in in_sessions([group]):
            await gone(left)


async def to_the_end(work: Awaitable[None]) -> None:
    """Await *work* to its end also when this task is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
