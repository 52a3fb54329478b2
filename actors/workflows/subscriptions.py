"""What a run knows of the events that it waits for: its open waits, and how far it has come with each kind. Pure.

Not here: who tells it of them (`triggers/exchange.py`), and the code that waits (`listening.py`). Invariant: a cursor
never goes back, so that of all waits for the same events each event is taken by one at most.
"""

from typing import Final

import msgspec

from perdure.actors.kernel.messages import Decision, Event, Moment
from perdure.actors.triggers.listing import LeaveListings
from perdure.actors.workflows.commands import Arrived, FindEvent
from perdure.actors.workflows.events import RunParked
from perdure.actors.workflows.occurrences import (
    EventAwaited,
    EventExpired,
    EventFound,
    EventPlacesMoved,
    EventTaken,
    EventWaitWithdrawn,
)

MAX_CURSORS: Final = 1000
"""Kinds of waits whose place a run remembers, the newest ones; one that is older begins where the oldest of them is."""

EVENT: Final = "event"
"""What a run waits on that a published event moves."""


class OpenWait(msgspec.Struct, frozen=True):
    """A place in the code that waits for an event."""

    wanted: str
    """JSON, see `Wanted`."""
    cursor: str
    """The digest of what is wanted: waits for the same share their place."""
    after: int
    """Nothing up to this position fits."""
    is_found: bool = False
    """Whether an event that fits woke the run."""


class Subscriptions(msgspec.Struct, frozen=True):
    """The waits by step, and the places reached by what was wanted."""

    waits: dict[str, OpenWait] = {}
    cursors: dict[str, int] = {}
    floor: int = 0
    """Where a wait begins at the earliest whose cursor is not known."""
    since: int | None = None
    """Where the first run of a chain, or the origin of a fork, began, if the run goes on for another."""
    listed: tuple[str, ...] = ()
    """The places of the index of sleepers at which the run was listed when it left memory last."""

    def place(self, cursor: str, began_at: int) -> int:
        """Return the position after which a new wait looks."""
        return self.cursors.get(cursor, max(began_at if self.since is None else self.since, self.floor))

    def after(self, event: Event) -> "Subscriptions":
        """Return the subscriptions after *event*."""
        replace = msgspec.structs.replace
        match event:
            case EventAwaited(step=step):
                wait = OpenWait(bytes(event.wanted).decode(), event.digest, event.after)
                return replace(self, waits={**self.waits, step: wait})
            case EventFound(step=step, position=position):
                wait = self.waits[step]
                wait = replace(wait, after=max(wait.after, position - 1), is_found=True)
                return replace(self, waits={**self.waits, step: wait})
            case EventTaken(step=step, position=place) | EventExpired(step=step, seen=place):
                return self._ended(step, place)
            case EventWaitWithdrawn(step=step, seen=place):
                return self._ended(step, place)
            case EventPlacesMoved(since=since, cursors=cursors, floor=floor):
                return replace(self, since=since, cursors=cursors, floor=floor)
            case _:
                return self

    def moved(self, began_at: int, *, always: bool = False) -> tuple[EventPlacesMoved, ...]:
        """Return what tells a run that goes on for this one, or a fork of it, how far it has come."""
        since = began_at if self.since is None else self.since
        has_come = always or bool(self.cursors) or self.since is not None
        return (EventPlacesMoved(since, self.cursors, self.floor),) if has_come else ()

    def parked(self, listens: tuple[str, ...] | None) -> "Subscriptions":
        """Return the subscriptions of a run that left memory, listed at these places; None: as before."""
        return self if listens is None else msgspec.structs.replace(self, listed=listens)

    def leave(self, run: str) -> tuple[LeaveListings, ...]:
        """Return what takes a run off the index that ends without its code."""
        return (LeaveListings(run, self.listed),) if self.listed else ()

    def closed(self) -> "Subscriptions":
        """Return the subscriptions of a run that has ended: it waits for nothing, and may be tried again."""
        return msgspec.structs.replace(self, waits={}, listed=())

    def _ended(self, step: str, place: int) -> "Subscriptions":
        cursor = self.waits[step].cursor
        cursors = {**self.cursors}
        cursors[cursor] = max(cursors.pop(cursor, 0), place)  # popped, so that it is the newest
        floor = self.floor
        if len(cursors) > MAX_CURSORS:
            floor = max(floor, cursors.pop(next(iter(cursors))))
        waits = {key: wait for key, wait in self.waits.items() if key != step}
        return msgspec.structs.replace(self, waits=waits, cursors=cursors, floor=floor)


def find(status: str, held: Subscriptions, command: FindEvent, moment: Moment) -> Decision[bool]:
    """Wake a run that sleeps, since an event that it listens for was published; answered with whether it does.

    One that is awake looks by itself, before it sleeps again.
    """
    wait = held.waits.get(command.step)
    if status != "waiting" or wait is None:
        return Decision((), reply=False)
    if wait.is_found:
        return Decision((), reply=True)
    # It is due at once, so that the next life wakes it too, should this one end before the effect.
    found = EventFound(command.step, command.position)
    return Decision((RunParked(moment.now, None), found), reply=True, effects=(Arrived(),))
