"""Ctrl-C and SIGTERM: the first asks for a stop in good order, the second ends the process at once.

Ending at once is safe: the log is made for it, and the next life finds the runs as after any crash.
"""

import asyncio
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self

import click

from perdure.runtime.cli.exits import Exit

_SIGNALS: Final = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


class Stop:
    """While entered, turns the signals into a request that the loop can wait for."""

    def __init__(self) -> None:
        self.code: Exit | None = None
        """The exit code once a stop was asked for."""
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # signal.signal and not loop.add_signal_handler: a second Ctrl-C must work also when code blocks the loop.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._former[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    async def asked(self) -> None:
        """Return once a stop was asked for."""
        await self._asked.wait()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        code = _SIGNALS[signal.Signals(number)]
        if self.code is not None:
            # os.write and not click.echo: the signal may have come in the middle of a write to the same buffer.
            os.write(2, b"\nstopped at once; what was acknowledged is in the log\n")
            os._exit(code)
        self.code = code
        self._loop.call_soon_threadsafe(self._asked.set)


def say_stopping(in_flight: int, drain_seconds: float) -> None:
    """Say that a stop was asked for, and how long it may take."""
    if in_flight:
        steps = "the step" if in_flight == 1 else f"{in_flight} steps"
        wait = f"{steps} in flight may end within {drain_seconds:g} s"
        click.echo(f"stopping: {wait}; Ctrl-C again stops at once", err=True)
