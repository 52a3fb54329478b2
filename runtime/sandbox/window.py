"""When calls are sent: the first of them waits a short while for others; whoever waited in its lane goes at once.

It knows lanes, not what is in them. Invariant: a lane with calls that is not busy is in the window, or goes in the next
turn of the loop.
"""

import asyncio
from collections.abc import Callable, Sequence

from perdure.actors.kernel.clock import Clock, Timer
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.lane import Lane


class Window:
    """Gathers lanes that are ready."""

    def __init__(self, clock: Clock, config: ExecutorConfig, send: Callable[[Sequence[Lane]], None]) -> None:
        self._clock = clock
        self._micros = max(0, config.batch_window_ms) * 1_000
        self._most = max(1, config.max_batch_size)
        self._send = send
        self._gathered: dict[Lane, None] = {}
        self._calls = 0
        self._timer: Timer | None = None
        self._going: dict[Lane, None] = {}
        self._is_held = False

    def add(self, lane: Lane) -> None:
        """Note that a call waits in a lane that is not busy."""
        self._gathered[lane] = None
        self._calls += 1
        if self._is_held:
            return
        if self._calls >= self._most:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.call_after(self._micros, self.flush)

    def go_on(self, lane: Lane) -> None:
        """Let a lane go in the next turn of the loop: what is in it has waited long enough."""
        if self._is_held:
            self._gathered[lane] = None
            return
        if not self._going:
            asyncio.get_running_loop().call_soon(self._go)
        self._going[lane] = None

    def _go(self) -> None:
        going, self._going = list(self._going), {}
        for lane in going:
            self._gathered.pop(lane, None)
        self._send(going)

    def flush(self) -> None:
        """Send what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered, self._calls = list(self._gathered), {}, 0
        self._send(gathered)

    def hold(self) -> None:
        """Gather, and send nothing before `release`."""
        self._is_held = True

    def release(self) -> None:
        """Send what was gathered, and go on as always."""
        self._is_held = False
        self.flush()

    def close(self) -> None:
        """Send nothing any more."""
        self.hold()
        self._gathered.clear()
        self._going.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
