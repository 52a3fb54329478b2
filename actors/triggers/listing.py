"""The actor of one sleeper's entry in the index of a type of events, `listing/PLACE/RUN`. Pure.

A run that waits for events and leaves memory is listed under each of their types; whoever publishes one finds it there,
without reading the run. A place is `TYPE/-`, or, where the wait wants one value of a field, `TYPE/FIELD=DIGEST`: so of
100,000 sleepers that wait for an order each, an event finds its one by name. Invariant: the row in the index of open
work says what the run listens for, or it is closed.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Effect, Event, Index, Moment
from perdure.actors.triggers.wanted import Where
from perdure.actors.workflows.defined.data import MISSING, look_up
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

_LONGEST: Final = 200
"""Of a stream's name."""
_FIELD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,39}")
"""A path into an event's data that may be in a name; under another one, sleepers are not told apart by it."""
_WHATEVER: Final = "-"


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


class LeaveListings(Effect, frozen=True, tag="leave-listings"):
    """Take a run that has ended without its code off these places."""

    run: str
    places: tuple[str, ...]


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


def place_of(type: str, either: Sequence[Where]) -> str:
    """Return where a wait is listed that wants events of a type for which one of the conditions holds."""
    wanted = _wanted_value(either[0]) if len(either) == 1 else None
    return f"{type}/{_WHATEVER}" if wanted is None else _place(type, *wanted)


def place_for(type: str, field: str, data: Any) -> str | None:
    """Return where those are listed that want the value which an event has in a field; None if nobody can."""
    value = look_up(data, field) if isinstance(data, dict) else MISSING
    return _place(type, field, value) if _is_scalar(value) else None


def type_of(place: str) -> str:
    """Return the type of the events that are listened for at a place."""
    return place.partition("/")[0]


def field_of(entry: str) -> str | None:
    """Return the field by whose value an entry's place is named, by the name of its stream."""
    field, is_field, _ = entry.split("/", 3)[2].partition("=")
    return field if is_field else None


def listings_of(place: str) -> str:
    """Return what the names of the entries at a place, or of a type, begin with."""
    return f"listing/{place}/"


def after_field(type: str, field: str) -> str:
    """Return a name between the entries of a field and what follows them."""
    return f"listing/{type}/{field}=~"


def listing_of(place: str, run: str) -> StreamId:
    """Return the stream of a run's entry; its name has a digest of the run's id where that is too long."""
    name = listings_of(place) + run
    if len(name) <= _LONGEST:
        return StreamId(name)
    return StreamId(listings_of(place) + hashlib.blake2b(run.encode(), digest_size=16).hexdigest())


def _wanted_value(where: Any) -> tuple[str, Any] | None:
    """Return a field and the one value that it must have for the conditions to hold, if they say one."""
    if not isinstance(where, dict):
        return None
    said = cast("Where", where)
    if "and" in said:  # all of them must hold: any one will do
        return next((found for part in said["and"] if (found := _wanted_value(part)) is not None), None)
    field = said.get("if")
    if "eq" in said and isinstance(field, str) and _FIELD.fullmatch(field) and _is_scalar(said["eq"]):
        return field, said["eq"]
    return None


def _place(type: str, field: str, value: Any) -> str:
    same = int(value) if isinstance(value, float) and value.is_integer() else value  # 1 is 1.0, as in conditions
    text = f"'{value}" if isinstance(value, str) else str(same)  # and "1" is neither
    return f"{type}/{field}={hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int, float))


def _row(changed: ListingChanged) -> str | None:
    return msgspec.json.encode(Listed(changed.run, changed.waits)).decode() if changed.waits else None


read_row = msgspec.json.Decoder(Listed).decode
"""Return what a row says."""
