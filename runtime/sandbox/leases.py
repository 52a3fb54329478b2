"""Leases that end: of holders elsewhere, which may die without a word. Whoever lives in this process has none.

Invariant: an end that was moved is looked at again when it comes; the time that this process was down counts against
nobody.
"""

from collections.abc import Callable

from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.slots.commands import RenewLease
from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox.shelf import Shelf


class Leases:
    """Watches the ends of leases."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._timers: dict[str, Timer] = {}
        self.on_expired: Callable[[str, str, int], None] = lambda _slot, _trajectory, _lease: None
        """Told the slot, its holder and the lease that is over."""

    def close(self) -> None:
        """Watch nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def watch(self, slot: str) -> None:
        """See to it that somebody looks when the lease of *slot* ends."""
        if (timer := self._timers.pop(slot, None)) is not None:
            timer.cancel()
        view = self._shelf.view(self._shelf.shell(slot))
        if view.expires_at is not None and self._shelf.is_open:
            self._timers[slot] = self._shelf.clock.call_at(view.expires_at, lambda: self._due(slot, view.lease))

    def renew(self, slot: str, lease: int, lease_micros: int | None = None) -> None:
        """Move the end of a lease, if it has one and is in force; else nothing happens."""
        micros = lease_micros or int(self._shelf.config.lease_seconds * SECOND)
        try:
            self._shelf.record(slot, RenewLease(lease, micros))
        except SlotError:
            return
        self.watch(slot)

    def _due(self, slot: str, lease: int) -> None:
        self._timers.pop(slot, None)
        shell = self._shelf.slots.get(slot)
        if shell is None or not self._shelf.is_open:
            return
        view = self._shelf.view(shell)
        if view.lease != lease or view.expires_at is None or view.state not in ("acquired", "executing"):
            return
        if view.expires_at > self._shelf.clock.moment().now:
            self.watch(slot)
        elif view.trajectory is not None:
            self.on_expired(slot, view.trajectory, lease)
