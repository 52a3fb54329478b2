"""The values of one scope, `state/…`, and the rules by which they change: the pure actor. A run keeps its own by them.

Not here: who sees which scope (`scopes.py`), and how a call is performed (`operations.py`). Invariant: of the changes
that one command asks for all are recorded, or none; a scope never holds more than its bounds.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.state.errors import StateFullError
from perdure.actors.state.scopes import Scope
from perdure.store.codec import OptionalPayload
from perdure.store.errors import InternalError
from perdure.store.records import StreamId


class Bound(msgspec.Struct, frozen=True):
    """How much a scope may hold: it is in memory whole, and in snapshots."""

    keys: int
    bytes: int


BOUNDS: Final[Mapping[Scope, Bound]] = MappingProxyType(
    {
        "execution": Bound(1_000, 1024 * 1024),  # of each of thousands of runs
        "conversation": Bound(10_000, 4 * 1024 * 1024),
        "stream": Bound(10_000, 4 * 1024 * 1024),
        "global": Bound(10_000, 4 * 1024 * 1024),
    }
)
"""Bytes are those of the keys and of the values as JSON."""


class StateChanged(Event, frozen=True, omit_defaults=True, tag="state-changed"):
    """The value of a key was set, or with `deleted` taken away; several of one batch are in one unit.

    It is in the stream of the scope, for the scope `execution` in that of the run. Without `old` there was none.
    """

    key: str
    scope: Scope
    new: msgspec.Raw = msgspec.Raw(b"null")
    old: OptionalPayload = msgspec.UNSET
    deleted: bool = False
    run: str | None = None
    """The run that changed it; null: the application, by the event's principal."""
    entry: str | None = None
    """The entry point of that run."""
    step: str | None = None


class StateDropped(Event, frozen=True, tag="state-dropped"):
    """Somebody had all values of the scope taken away; it had so many keys."""

    keys: int


class StateMoved(Event, frozen=True, tag="state-moved"):
    """The run goes on for another one, or forks it, which held these values: a JSON object."""

    values: msgspec.Raw


STATE_EVENTS: Final = (StateChanged, StateDropped)


class Put(msgspec.Struct, frozen=True):
    """A value, as canonical JSON, for a key; None takes the key away."""

    key: str
    value: msgspec.Raw | None


class ChangeState(Command, frozen=True, tag="change-state"):
    """Set or take away values, all or none."""

    puts: tuple[Put, ...]
    scope: Scope
    place: str
    """What the scope is called, for errors."""
    run: str | None = None
    entry: str | None = None
    step: str | None = None


class DropState(Command, frozen=True, tag="drop-state"):
    """Take all values away; answered with how many keys there were."""


class GetState(Command, frozen=True, tag="get-state"):
    """Ask for the values; answered with a `Shelf`."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One value."""

    value: str
    """Canonical JSON: equal values are equal texts."""
    stamp: int
    """How many changes the scope had seen with this one."""
    run: str | None = None
    """Who set it; None: the application."""


class Shelf(msgspec.Struct, frozen=True):
    """The values of one scope."""

    entries: dict[str, Entry] = {}
    size: int = 0
    """Bytes of the keys and the values."""
    changes: int = 0
    """How many changes there were; it never falls."""

    def after(self, event: Event) -> "Shelf":
        """Return the values after *event*."""
        match event:
            case StateChanged():
                return self._changed(event)
            case StateDropped():
                return Shelf(changes=self.changes + 1)
            case StateMoved(values=values):
                return self._moved(values)
            case _:
                return self

    def _changed(self, event: StateChanged) -> "Shelf":
        key, stamp = event.key, self.changes + 1
        held = self.entries.get(key)
        size = self.size - (0 if held is None else _size(key, held.value))
        if event.deleted:
            entries = dict(self.entries)
            entries.pop(key, None)
            return Shelf(entries, size, stamp)
        value = bytes(event.new).decode()
        return Shelf({**self.entries, key: Entry(value, stamp, event.run)}, size + _size(key, value), stamp)

    def _moved(self, values: msgspec.Raw) -> "Shelf":
        given = msgspec.json.decode(values, type=dict[str, msgspec.Raw])
        entries = {key: Entry(bytes(value).decode(), 1) for key, value in given.items()}
        return Shelf(entries, sum(_size(key, entry.value) for key, entry in entries.items()), 1)

    def moved(self) -> tuple[StateMoved, ...]:
        """Return what hands the values to a run that goes on for this one, or forks it."""
        if not self.entries:
            return ()
        values = {key: msgspec.Raw(entry.value.encode()) for key, entry in self.entries.items()}
        return (StateMoved(msgspec.Raw(msgspec.json.encode(values))),)


EMPTY: Final = Shelf()


def changed(shelf: Shelf, command: ChangeState) -> tuple[StateChanged, ...]:
    """Return the events that a command causes; to take away what is not there causes none.

    Raises:
        StateFullError: the scope would hold more than it may; nothing has happened.
    """
    events: list[StateChanged] = []
    keys, size = len(shelf.entries), shelf.size
    for put in command.puts:
        held = shelf.entries.get(put.key)
        if held is None and put.value is None:
            continue
        old: OptionalPayload = msgspec.UNSET
        if held is not None:
            old = msgspec.Raw(held.value.encode())
            keys, size = keys - 1, size - _size(put.key, held.value)
        event = StateChanged(
            put.key, command.scope, old=old, deleted=put.value is None,
            run=command.run, entry=command.entry, step=command.step,
        )  # fmt: skip
        if put.value is not None:
            keys, size = keys + 1, size + len(put.key.encode()) + len(bytes(put.value))
            event = msgspec.structs.replace(event, new=put.value)
        events.append(event)
    _check(command, shelf, keys, size)
    return tuple(events)


def _check(command: ChangeState, shelf: Shelf, keys: int, size: int) -> None:
    # Only what grows is refused, so that a scope that came to be too large can be cleared.
    bound = BOUNDS[command.scope]
    if keys > max(bound.keys, len(shelf.entries)):
        raise StateFullError(place=command.place, size=keys, unit="keys", bound=bound.keys)
    if size > max(bound.bytes, shelf.size):
        raise StateFullError(place=command.place, size=size, unit="bytes", bound=bound.bytes)


def _size(key: str, value: str) -> int:
    return len(key.encode()) + len(value.encode())


class SharedStateBehavior:
    """The rules of a scope that several runs share."""

    kind = "state"
    state_type = Shelf
    state_version = 1
    events = STATE_EVENTS

    def initial(self, stream: StreamId) -> Shelf:
        """Return a scope without values."""
        del stream
        return EMPTY

    def decide(self, state: Shelf, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case ChangeState():
                return Decision(changed(state, command), None)
            case DropState():
                keys = len(state.entries)
                return Decision((StateDropped(keys),) if keys else (), keys)
            case GetState():
                return Decision((), state)
            case _:
                raise InternalError(detail=f"a scope of the state does not understand {type(command).__name__}")

    def evolve(self, state: Shelf, event: Event) -> Shelf:
        """Return the values after *event*."""
        return state.after(event)

    def index(self, state: Shelf) -> Index:
        """Return that the scope is open as long as it holds anything: nobody has to bring it back for that."""
        return Index(is_open=bool(state.entries))
