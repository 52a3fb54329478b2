"""Which events somebody waits for: types, and conditions on the data of each. Pure.

Invariant: what is wanted is plain JSON, checked when it is made, so that it can be recorded and judged without the code
that asked for it.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec

from perdure.actors.triggers.topic import check_type
from perdure.actors.workflows.defined.condition_faults import faults_in
from perdure.actors.workflows.defined.conditions import evaluate
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

MAX_FILTER_BYTES: Final = 16 * 1024
"""Of all that one wait wants, as JSON: it is in the index of sleepers."""

Where: TypeAlias = dict[str, Any]
"""Conditions on an event's data: `{"if": "amount", "gt": 100}`, `{"and": […]}`, `{"or": […]}`, `{"not": …}`."""


class On(msgspec.Struct, frozen=True):
    """Events of one type; with *where*, only those whose data are so."""

    type: str
    where: Where = {}

    def __post_init__(self) -> None:
        check_fields(self)


class PublishedEvent(msgspec.Struct, frozen=True):
    """An event, as one who waited for it gets it."""

    type: str
    data: Any
    id: str
    """Which event of the type it is: given by the publisher, or beginning with #."""
    position: int
    """Its place in the log: of two events the earlier has the smaller one."""
    at: int
    """When it was published, in microseconds since 1970 UTC."""
    run: str | None = None
    """The run that published it, if it was one."""


class Occurrence(msgspec.Struct, frozen=True):
    """An event on its way to those who listen; `data` is JSON."""

    type: str
    number: int
    id: str
    data: msgspec.Raw
    run: str | None
    at: int
    position: int


class Wanted:
    """What one wait wants, checked and ready to be judged."""

    __slots__ = ("_by_type", "encoded", "names")

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        """A JSON array of [type, conditions]."""
        pairs: list[tuple[str, Where]] = msgspec.json.decode(encoded, type=list[tuple[str, Where]])
        self._by_type: dict[str, list[Where]] = {}
        for type, where in pairs:
            self._by_type.setdefault(type, []).append(where)
        self.names = ",".join(self._by_type)
        """For people, and to compare the code with the recording."""

    @classmethod
    def of(cls, wanted: Sequence[str | On]) -> "Wanted":
        """Return what is wanted, as the code says it.

        Raises:
            UsageError: a type cannot be one, a condition has a fault, or it is nothing, or too much.
        """
        if isinstance(wanted, str) or not wanted:
            raise UsageError("say which events: a list of types, or of On('type', where={…})")
        each = [On(one) if isinstance(one, str) else one for one in wanted]
        for one in each:
            _check(one)
        encoded = msgspec.json.encode([(one.type, one.where) for one in each])
        if len(encoded) > MAX_FILTER_BYTES:
            raise UsageError(f"the conditions of one wait are at most {MAX_FILTER_BYTES} bytes of JSON")
        return cls(encoded)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of events, each once."""
        return tuple(self._by_type)

    def where(self, type: str) -> list[Where]:
        """Return the conditions on a type, of which one must hold."""
        return self._by_type[type]

    def fits(self, type: str, data: Any) -> bool:
        """Return whether an event is wanted."""
        return holds(self._by_type.get(type, ()), data)


def holds(either: Sequence[Where], data: Any) -> bool:
    """Return whether one of the conditions holds for the data of an event."""
    subject = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    return any(not where or evaluate(where, subject).holds for where in either)


def _check(one: On) -> None:
    check_type(one.type)
    checked_where(one.where, one.type)


def checked_where(where: Where, what: str) -> None:
    """Check conditions on the data of an event.

    Raises:
        UsageError: they are no JSON object, or have a fault.
    """
    try:
        plain = msgspec.json.decode(msgspec.json.encode(where))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise UsageError(f"the conditions on {what} are not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise UsageError(f'the conditions on {what} are an object such as {{"if": "amount", "gt": 100}}')
    if faults := list(faults_in(plain, "where", {})):
        raise UsageError(f"the conditions on {what} have faults: {'; '.join(f'{f.path}: {f.text}' for f in faults)}")
