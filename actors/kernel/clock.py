"""The port to time: whoever needs it is handed a clock, so that tests can move it by hand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from perdure.actors.kernel.messages import Moment

SECOND = 1_000_000
"""Microseconds in a second, the unit of every recorded time."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not call; without effect once called."""
        ...


class Clock(Protocol):
    """Tells the time and calls back; on the event loop's thread only."""

    def moment(self) -> Moment:
        """Return the time now."""
        ...

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Call *callback* on the loop once `now` is *when* (microseconds) or later; never inside this call."""
        ...

    def call_after(self, micros: int, callback: Callable[[], None]) -> Timer:
        """Call *callback* on the loop once `steady` has moved by *micros*; never inside this call.

        For limits on what is going on in this process: setting the system's clock must not end them.
        """
        ...


def moment_of(micros: int) -> datetime:
    """Return a recorded time as one with a zone, UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def micros_of(moment: datetime) -> int:
    """Return a time with a zone as it is recorded."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
