"""Where shared values are kept, and which of these places somebody sees. Pure.

Not here: the values (`shared_state.py`). Invariant: the order of the places is the order in which a key is looked for;
whoever is isolated sees, and writes, only the run itself.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import quote

import msgspec

from perdure.actors.workflows.entrance import Isolation
from perdure.store.errors import UsageError
from perdure.store.records import StreamId, stream_id

Scope: TypeAlias = Literal["execution", "conversation", "stream", "global"]
"""How far a value is seen: by one run, by the runs of a conversation, of an entry point, or by all."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
GLOBAL: Final = StreamId("state/global")

_SAFE: Final = "".join(chr(code) for code in range(ord("!"), ord("~") + 1) if chr(code) != "%")
_NAME_LENGTH: Final = 150
"""Of the part of a stream's name that an id makes: one that is longer goes by its digest."""


class Place(msgspec.Struct, frozen=True):
    """One scope of somebody."""

    scope: Scope
    stream: StreamId

    @property
    def name(self) -> str:
        """What it is called: `execution/RUN`, `conversation/ID`, `stream/ENTRY` or `global`."""
        kind, _, rest = self.stream.partition("/")
        return f"execution/{rest}" if kind == "run" else rest


def place_of(scope: Scope, stream: str) -> Place:
    """Return the place whose values a stream holds."""
    return Place(scope, StreamId(stream))


class Sight(msgspec.Struct, frozen=True):
    """Whose eyes the state is seen with; None: there is no such scope."""

    run: str | None = None
    conversation: str | None = None
    stream: str | None = None
    """The id of an entry point or, for a run that came by none, the name of its workflow."""
    isolation: Isolation = "shared"

    @property
    def places(self) -> tuple[Place, ...]:
        """The places in which a key is looked for, in that order."""
        ids: Mapping[Scope, str | None] = {
            "execution": self.run, "conversation": self.conversation, "stream": self.stream, "global": "",
        }  # fmt: skip
        wanted = SCOPES[:1] if self.isolation == "isolated" else SCOPES
        return tuple(Place(scope, stream_of(scope, id)) for scope in wanted if (id := ids[scope]) is not None)

    def place(self, scope: Scope | None) -> Place:
        """Return where a write goes: for one that is isolated always the run; None is the innermost scope.

        Raises:
            UsageError: there is no such scope here.
        """
        places = self.places
        if scope is not None and scope not in SCOPES:
            raise UsageError(f"a scope is one of {', '.join(SCOPES)}, not {scope!r}")
        if not places:
            raise UsageError("an isolated view sees nothing but a run: say which, view(run=…)")
        if scope is None or self.isolation == "isolated":
            return places[0]
        found = next((place for place in places if place.scope == scope), None)
        if found is None:
            has = ", ".join(place.scope for place in places)
            raise UsageError(f"there is no scope {scope!r} here, there are: {has}")
        return found


def stream_of(scope: Scope, id: str) -> StreamId:
    """Return the stream that holds a scope's values: of a run, its own."""
    if scope == "global":
        return GLOBAL
    if scope == "execution":
        return stream_id(f"run/{id}")
    name = quote(id, safe=_SAFE)
    if len(name) > _NAME_LENGTH:
        name = blake2b(id.encode(), digest_size=16).hexdigest()
    return stream_id(f"state/{scope}/{name}")


class Permissions(msgspec.Struct, frozen=True):
    """Which keys may be read and written; None: all of them, empty: none."""

    read: frozenset[str] | None = None
    write: frozenset[str] | None = None

    def narrowed(self, read: Iterable[str] | None, write: Iterable[str] | None) -> "Permissions":
        """Return these, less what is not named; what was not allowed before is not allowed after."""
        return Permissions(_narrow(self.read, read), _narrow(self.write, write))

    def may_read(self, key: str) -> bool:
        """Return whether the key may be read."""
        return self.read is None or key in self.read

    def may_write(self, key: str) -> bool:
        """Return whether the key may be written."""
        return self.write is None or key in self.write


def _narrow(held: frozenset[str] | None, wanted: Iterable[str] | None) -> frozenset[str] | None:
    if wanted is None:
        return held
    if isinstance(wanted, str):
        raise UsageError(f"permissions are a list of keys: [{wanted!r}]")
    return frozenset(wanted) if held is None else held.intersection(wanted)
