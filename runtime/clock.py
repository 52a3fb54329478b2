"""The real clock: wall time that never goes back, and a steady count for durations.

`now` is the system's time, or, after that was set back, what it would be: it follows jumps forward (a laptop that
slept) and never one backward. `steady` follows neither.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.kernel.messages import Moment

CHECK_EVERY = 60 * SECOND
"""A timer looks at the time at least this often (microseconds), in case the clock jumped forward."""


@runtime_checkable
class HandMoved(Protocol):
    """A clock that a test moves: it must know when the runtimes that it serves have come to rest."""

    def attach(self, settle: Callable[[], Awaitable[bool]]) -> None:
        """Remember *settle*, which waits until no other thread works for a runtime, and says whether one did."""
        ...

    def detach(self, settle: Callable[[], Awaitable[bool]]) -> None:
        """Forget *settle*; the runtime is closed."""
        ...


class SystemClock:
    """Tells the system's time; `start` binds it to a loop and to what the log last saw."""

    def __init__(self) -> None:
        self._origin = _wall() - _monotonic()
        self._ahead = 0
        """How far the wall clock was ahead of the steady count at most: what keeps `now` from going back."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop, last_at: int) -> None:
        """Bind to *loop*; never tell a time before *last_at* (microseconds), which the log has recorded."""
        self._loop = loop
        self._origin = max(_wall(), last_at) - _monotonic()
        self._ahead = 0

    def moment(self) -> Moment:
        """Return the time now."""
        steady = self._origin + time.monotonic_ns() // 1000
        ahead = time.time_ns() // 1000 - steady
        if ahead > self._ahead:  # noqa: PLR1730 - asked for several times a step: no calls but these two
            self._ahead = ahead
        return Moment(steady + self._ahead, steady)

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Call *callback* on the loop once `now` is *when* or later."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return _Timer(self, self._loop, when, callback)

    def call_after(self, micros: int, callback: Callable[[], None]) -> Timer:
        """Call *callback* on the loop once `steady` has moved by *micros*."""
        return asyncio.get_running_loop().call_later(max(0, micros) / SECOND, callback)


class _Timer:
    """A call that is due later, looked at again every minute."""

    __slots__ = ("_callback", "_clock", "_handle", "_loop", "_when")

    def __init__(
        self, clock: SystemClock, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], None]
    ) -> None:
        self._clock, self._loop, self._when, self._callback = clock, loop, when, callback
        self._handle = self._arm()

    def _arm(self) -> asyncio.TimerHandle:
        left = self._when - self._clock.moment().now
        return self._loop.call_later(max(0, min(left, CHECK_EVERY)) / SECOND, self._look)

    def _look(self) -> None:
        if self._clock.moment().now < self._when:
            self._handle = self._arm()
        else:
            self._callback()

    def cancel(self) -> None:
        """Do not call."""
        self._handle.cancel()


def _wall() -> int:
    return time.time_ns() // 1000


def _monotonic() -> int:
    return time.monotonic_ns() // 1000
