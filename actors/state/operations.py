"""The calls on shared values as data, and what each comes to on the values as they are. Pure, but for `update`.

Not here: the actors, and what is recorded of a call. Invariant: what a call comes to is JSON, read back by whoever made
it, so that nobody shares an object with anybody.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.state.scopes import Permissions, Place
from perdure.actors.state.seen import Sighting, sighting
from perdure.actors.state.shared_state import EMPTY, Entry, Put, Shelf
from perdure.store.errors import PayloadTooLargeError, UsageError

Looking: TypeAlias = Literal["read", "has", "read_all", "changes"]
Changing: TypeAlias = Literal["write", "write_batch", "delete", "update", "compare_and_set"]

MAX_KEY: Final = 200
"""Characters of a key."""
MAX_VALUE_BYTES: Final = 1024 * 1024
"""Of one value: each change is an event that has the old value as well."""
MAX_BATCH: Final = 1_000
"""Keys of one batch, each of them an event."""
MAX_CHANGES: Final = 1_000
"""Changes that can be asked for."""

NULL: Final = msgspec.Raw(b"null")
TRUE: Final = msgspec.Raw(b"true")
FALSE: Final = msgspec.Raw(b"false")

Shelves: TypeAlias = Mapping[str, Shelf]
"""The values of scopes, by the stream."""


class Look(msgspec.Struct, frozen=True):
    """A call that changes nothing."""

    action: Looking
    key: str = ""
    limit: int = 0


class Looked(msgspec.Struct, frozen=True):
    """What a look comes to."""

    value: msgspec.Raw
    found: bool = True
    seen: tuple[Sighting, ...] = ()


def look_at(
    look: Look, places: Sequence[Place], shelves: Shelves, permissions: Permissions, *, is_synchronized: bool
) -> Looked:
    """Return what a look comes to at these places; with *is_synchronized*, what was seen of those that are shared."""
    if look.action == "read_all":
        values = _merged(places, shelves, permissions)
        found, value = True, msgspec.Raw(msgspec.json.encode(values))
        seen = [sighting(place, shelves[place.stream], None) for place in places if place.scope != "execution"]
    else:
        entry, passed = _first(look.key, places, shelves)
        found = entry is not None
        value = NULL if entry is None else msgspec.Raw(entry.value.encode())
        keys = (look.key,)
        seen = [sighting(place, shelves[place.stream], keys) for place in passed if place.scope != "execution"]
    return Looked(value if look.action != "has" else NULL, found, tuple(seen) if is_synchronized else ())


def _first(key: str, places: Sequence[Place], shelves: Shelves) -> tuple[Entry | None, Sequence[Place]]:
    """Return the value that counts, and the places that were looked at for it."""
    for number, place in enumerate(places, 1):
        if (entry := shelves[place.stream].entries.get(key)) is not None:
            return entry, places[:number]
    return None, places


def _merged(places: Sequence[Place], shelves: Shelves, permissions: Permissions) -> dict[str, msgspec.Raw]:
    values: dict[str, msgspec.Raw] = {}
    for place in reversed(places):
        for key, entry in shelves[place.stream].entries.items():
            if permissions.may_read(key):
                values[key] = msgspec.Raw(entry.value.encode())
    return values


class Wish(msgspec.Struct, frozen=True, eq=False):
    """A call that changes something, or may."""

    action: Changing
    keys: tuple[str, ...]
    puts: tuple[Put, ...] = ()
    expected: msgspec.Raw | None = None
    """Of `compare_and_set`: canonical JSON; None: the key is not there."""
    function: Callable[[Any], Any] | None = None
    default: Any = None

    @property
    def rests_on_what_was_seen(self) -> bool:
        """Whether it would overwrite, unseen, what others have changed: the others look at the value themselves."""
        return self.action in ("write", "write_batch", "delete")

    @property
    def data(self) -> bytes:
        """What tells it from another call of the same kind on the same scope."""
        made_of = [self.keys, [put.value for put in self.puts], self.expected]
        return msgspec.json.encode(made_of)

    def outcome(self, shelf: Shelf, redaction: Redaction) -> tuple[tuple[Put, ...], msgspec.Raw]:
        """Return what is to be changed, and what the caller is told (JSON).

        Raises:
            Whatever the function of `update` raises, and what is said of its result.
        """
        match self.action:
            case "update":
                return self._updated(shelf, redaction)
            case "compare_and_set":
                held = shelf.entries.get(self.keys[0])
                is_met = (None if held is None else held.value.encode()) == _bytes(self.expected)
                return (self.puts, TRUE) if is_met else ((), FALSE)
            case "delete":
                is_there = self.keys[0] in shelf.entries
                return (self.puts, TRUE) if is_there else ((), FALSE)
            case _:
                return self.puts, NULL

    def _updated(self, shelf: Shelf, redaction: Redaction) -> tuple[tuple[Put, ...], msgspec.Raw]:
        key = self.keys[0]
        held = shelf.entries.get(key)
        if held is not None:
            before = msgspec.json.decode(held.value)
        else:
            before = msgspec.json.decode(encoded({key: self.default}, redaction)[0].value or b"null")
        assert self.function is not None  # noqa: S101 - an update has one
        after = self.function(before)
        if inspect.isawaitable(after):
            if inspect.iscoroutine(after):
                after.close()
            raise UsageError("the function of update must not be async: nothing may come in between")
        puts = encoded({key: after}, redaction)
        return puts, puts[0].value or NULL


def _bytes(value: msgspec.Raw | None) -> bytes | None:
    return None if value is None else bytes(value)


def encoded(values: Mapping[str, Any], redaction: Redaction) -> tuple[Put, ...]:
    """Return values as canonical JSON, redacted by the names of their keys too.

    Raises:
        UnencodableError, PayloadTooLargeError: one cannot be recorded.
        UsageError: there are too many, or a key cannot be one.
    """
    if len(values) > MAX_BATCH:
        raise UsageError(f"a batch is at most {MAX_BATCH} keys, not {len(values)}: write it in several")
    for key in values:
        check_key(key)
    data = encode_payload(values, where="the state", redaction=redaction, stable=True)
    raws = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    for key, raw in raws.items():
        if len(size := bytes(raw)) > MAX_VALUE_BYTES:
            raise PayloadTooLargeError(where=f"the state's {key}", size=len(size), limit=MAX_VALUE_BYTES)
    return tuple(Put(key, msgspec.Raw(bytes(raw))) for key, raw in raws.items())


def check_key(key: object) -> str:
    """Return the key, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not (isinstance(key, str) and 0 < len(key) <= MAX_KEY and key.isprintable()):
        raise UsageError(f"a key of the state is 1 to {MAX_KEY} printable characters, not {key!r}")
    return key


def check_limit(limit: int) -> int:
    """Return how many changes are asked for, if so many can be.

    Raises:
        UsageError: they cannot.
    """
    if not 0 < limit <= MAX_CHANGES:
        raise UsageError(f"limit is 1 to {MAX_CHANGES}, not {limit!r}")
    return limit


def shelf_or_empty(shelf: Shelf | None) -> Shelf:
    """Return the values of a run, which keeps none until it has one."""
    return EMPTY if shelf is None else shelf
