"""TestClock: time that a test moves by hand, and that every timer of the runtimes that it was given to obeys.

It knows nothing of what the timers are for. The invariant: time moves only inside `advance` and `jump_wall`, and a
timer is called at the very moment that it is due, after everything earlier has come to rest.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec

from perdure.actors.kernel.messages import Moment
from perdure.store.errors import UsageError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a clock starts unless told otherwise: the same in every test, so that a failure can be read again."""

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PendingTimer(msgspec.Struct, frozen=True):
    """A timer that has not been called."""

    due: datetime
    callback: str
    """The name of the function that will be called."""


class TestClock:
    """A `Clock` for `Runtime(clock=…)`; several runtimes, one after the other or at once, may share it.

    Like the system's clock it has two hands: `now`, which the system's wall clock drives and which never goes back,
    and `steady`, which nothing but time moves.
    """

    __test__ = False  # pytest would take it for a test, because of its name

    def __init__(self, begin: datetime = BEGIN) -> None:
        """Start at *begin*.

        Raises:
            UsageError: it has no time zone.
        """
        if begin.tzinfo is None:
            raise UsageError("a clock begins at a time with a zone: datetime(2026, 1, 1, tzinfo=UTC)")
        self._steady = (begin - _EPOCH) // _MICROSECOND
        self._wall = self._steady
        self._ahead = 0
        self._timers: list[_Timer] = []
        self._attached: list[Callable[[], Awaitable[bool]]] = []

    # What the runtime asks

    def moment(self) -> Moment:
        """Return the time now."""
        return Moment(self._steady + self._ahead, self._steady)

    def call_at(self, when: int, callback: Callable[[], None]) -> "_Timer":
        """Call *callback* once `now` is *when* (microseconds); by itself, without `advance`, if it is already."""
        return self._add(_Timer(self, when, callback, is_steady=False))

    def call_after(self, micros: int, callback: Callable[[], None]) -> "_Timer":
        """Call *callback* once `steady` has moved by *micros*; by itself, without `advance`, if that is nothing."""
        return self._add(_Timer(self, self._steady + micros, callback, is_steady=True))

    def attach(self, settle: Callable[[], Awaitable[bool]]) -> None:
        """See `HandMoved.attach`."""
        self._attached.append(settle)

    def detach(self, settle: Callable[[], Awaitable[bool]]) -> None:
        """See `HandMoved.detach`; without effect when it is not attached."""
        if settle in self._attached:
            self._attached.remove(settle)

    # What a test asks

    @property
    def now(self) -> datetime:
        """The time now."""
        return _EPOCH + timedelta(microseconds=self.moment().now)

    @property
    def pending(self) -> tuple[PendingTimer, ...]:
        """The timers that have not been called, in the order in which they will be."""
        return tuple(
            PendingTimer(self.now + timedelta(microseconds=timer.left), getattr(timer.callback, "__qualname__", "?"))
            for timer in sorted(self._timers, key=lambda timer: timer.left)
        )

    async def advance(self, duration: timedelta | float, *, wait_for_threads: bool = True) -> None:
        """Let time pass: call the timers that come due, in order, each at its time; return when all is at rest.

        Between two timers, and at the end, everything comes to rest: see `settle`.

        Args:
            duration: a timedelta, or seconds.
            wait_for_threads: False when a sync tool is held on purpose, which would be waited for without end.

        Raises:
            UsageError: the duration is negative.
        """
        micros = _micros(duration)
        if micros < 0:
            raise UsageError("time does not go back; to set the system's clock back, use jump_wall")
        end = self._steady + micros
        await self.settle(wait_for_threads=wait_for_threads)
        while (timer := self._next()) is not None and timer.left <= end - self._steady:
            self._pass(timer.left)
            timer.fire()
            await self.settle(wait_for_threads=wait_for_threads)
        self._pass(end - self._steady)

    async def jump_wall(self, duration: timedelta | float, *, wait_for_threads: bool = True) -> None:
        """Set the system's wall clock forward, or back with a negative duration; no time passes by it.

        As with the real clock, `now` follows a jump forward and not one back, and `steady` follows neither.
        """
        self._wall += _micros(duration)
        self._ahead = max(self._ahead, self._wall - self._steady)
        await self.advance(0, wait_for_threads=wait_for_threads)

    async def settle(self, *, wait_for_threads: bool = True) -> None:
        """Return when nothing goes on any more: no callback is ready, no commit, read or worker thread is under way.

        What waits for a timer is at rest, and so is a tool that waits for anything else: a network, a process, an event
        of the test.

        Raises:
            UsageError: the event loop is not asyncio's own.
        """
        while True:
            await _until_nothing_is_ready()
            if not wait_for_threads or not any([await settle() for settle in tuple(self._attached)]):
                return

    # Inside

    def _add(self, timer: "_Timer") -> "_Timer":
        self._timers.append(timer)
        if timer.left <= 0:
            asyncio.get_running_loop().call_soon(timer.fire)
        return timer

    def remove(self, timer: "_Timer") -> bool:
        """Forget *timer*; return whether it was there."""
        if timer not in self._timers:
            return False
        self._timers.remove(timer)
        return True

    def _next(self) -> "_Timer | None":
        return min(self._timers, key=lambda timer: timer.left, default=None)

    def _pass(self, micros: int) -> None:
        micros = max(0, micros)
        self._steady += micros
        self._wall += micros


class _Timer:
    """A call that is due later."""

    __slots__ = ("_clock", "_is_steady", "_when", "callback")

    def __init__(self, clock: TestClock, when: int, callback: Callable[[], None], *, is_steady: bool) -> None:
        self._clock, self._when, self._is_steady = clock, when, is_steady
        self.callback = callback

    @property
    def left(self) -> int:
        """Microseconds until it is due."""
        moment = self._clock.moment()
        return self._when - (moment.steady if self._is_steady else moment.now)

    def cancel(self) -> None:
        """Do not call; without effect once called."""
        self._clock.remove(self)

    def fire(self) -> None:
        """Call, once."""
        if self._clock.remove(self):
            self.callback()


def _micros(duration: timedelta | float) -> int:
    exact = duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
    return exact // _MICROSECOND


async def _until_nothing_is_ready() -> None:
    # There is no public way to ask: asyncio does not say what is ready, and a fixed number of turns is a guess.
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    if ready is None:
        raise UsageError("TestClock needs asyncio's own event loop: run the test with asyncio.run")
    while True:
        await asyncio.sleep(0)
        if not ready:
            return
