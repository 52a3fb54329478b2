"""The actor of one sleeper's entry in the index of a type of events, `listing/TYPE/…`. Pure.

A run that waits for events and leaves memory is listed under each of their types; whoever publishes one finds it there,
without reading the run. Invariant: the row in the index of open work says what the run listens for, or it is closed.
"""

import hashlib
from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.triggers.wanted import Where
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

_LONGEST: Final = 200
"""Of a stream's name."""


class ListedWait(msgspec.Struct, frozen=True, array_like=True):
    """One wait of a run, as far as the type goes."""

    step: str
    either: tuple[Where, ...]
    """Conditions of which one must hold."""
    after: int
    """The position up to which the run has looked itself."""


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """What the row says."""

    run: str
    waits: tuple[ListedWait, ...]


class ListingChanged(Event, frozen=True, tag="listing-changed"):
    """A run that sleeps listens for events of the stream's type, in these waits; in none: no more."""

    run: str
    waits: tuple[ListedWait, ...] = ()


class Listen(Command, frozen=True, tag="listen"):
    """Have a run listed with these waits."""

    run: str
    waits: tuple[ListedWait, ...]


class StopListening(Command, frozen=True, tag="stop-listening"):
    """Take a run off the list; with *row*, only if that is still what it is listed with."""

    row: str | None = None


class ListingState(msgspec.Struct, frozen=True):
    """The row."""

    row: str | None = None


class ListingBehavior:
    """The rules of an entry."""

    kind = "listing"
    state_type = ListingState
    state_version = 1
    events = (ListingChanged,)

    def initial(self, stream: StreamId) -> ListingState:
        """Return the state of an entry that was never made."""
        del stream
        return ListingState()

    def decide(self, state: ListingState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case Listen(run=run, waits=waits):
                changed = ListingChanged(run, waits)
                return Decision(() if _row(changed) == state.row else (changed,), None)
            case StopListening(row=row):
                is_listed = state.row is not None and row in (None, state.row)
                return Decision((ListingChanged(""),) if is_listed else (), None)
            case _:
                raise InternalError(detail=f"a listing does not understand {type(command).__name__}")

    def evolve(self, state: ListingState, event: Event) -> ListingState:
        """Return the state after *event*."""
        return ListingState(_row(event)) if isinstance(event, ListingChanged) else state

    def index(self, state: ListingState) -> Index:
        """Return what whoever publishes an event has to know."""
        return Index(state.row is not None, None, state.row)


def listings_of(type: str) -> str:
    """Return what the names of the entries of a type begin with."""
    return f"listing/{type}/"


def listing_of(type: str, run: str) -> StreamId:
    """Return the stream of a run's entry; its name has a digest of the run's id where that is too long."""
    name = listings_of(type) + run
    if len(name) <= _LONGEST:
        return StreamId(name)
    return StreamId(listings_of(type) + hashlib.blake2b(run.encode(), digest_size=16).hexdigest())


def _row(changed: ListingChanged) -> str | None:
    return msgspec.json.encode(Listed(changed.run, changed.waits)).decode() if changed.waits else None


read_row = msgspec.json.Decoder(Listed).decode
"""Return what a row says."""
