"""Lanes that go to the machine together: those whose slots are there in a moment. Nobody waits long for the others.

Invariant: each lane that arrives goes exactly once, with the others or, when it is late, by itself.
"""

from collections.abc import Callable, Sequence

from perdure.actors.kernel.clock import Clock
from perdure.runtime.sandbox.batch import Part

PATIENCE_MICROS = 20_000
"""As long as a window: making a slot's folders takes a few milliseconds, a machine in trouble any time."""


class Together:
    """A batch to be."""

    def __init__(self, expected: int, clock: Clock, send: Callable[[Sequence[Part]], None]) -> None:
        self._expected = expected
        self._send = send
        self._arrived: list[Part] = []
        self._is_gone = False
        self._timer = clock.call_after(PATIENCE_MICROS, self._go) if expected else None

    def arrive(self, part: Part | None) -> None:
        """Let a lane join; None: one that was expected will not come."""
        self._expected -= 1
        if part is not None:
            self._arrived.append(part)
        if self._is_gone or not self._expected:
            self._go()

    def _go(self) -> None:
        self._is_gone = True
        if self._timer is not None:
            self._timer.cancel()
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._send(arrived)
