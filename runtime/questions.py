"""The open questions of all runs: a fold of events, for the runtime and for the command line alike.

Pure: it is told pages of events. The invariant: its size is bounded by the open questions, not by those answered.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.store.records import Query, Recorded

_TYPES = ("question-asked", "question-answered", "question-expired", "question-withdrawn")


class OpenQuestion(msgspec.Struct, frozen=True):
    """A question that somebody may answer."""

    id: str
    run: str
    text: str
    schema: dict[str, Any]
    """The JSON Schema that an answer must fit."""
    choices: list[Any] | None
    """The only answers that are taken; None: whatever fits."""
    to: tuple[str, ...]
    """Who is asked."""
    asked_at: int
    """Microseconds since 1970 UTC."""
    until: int | None
    """When it expires."""


class _Facts(msgspec.Struct, frozen=True):
    """Of the events of questions, what is read."""

    id: str
    text: str = ""
    schema: dict[str, Any] = {}
    choices: list[Any] | None = None
    asked_of: tuple[str, ...] = ()
    until: int | None = None


_decode = msgspec.json.Decoder(_Facts).decode


class Questions:
    """What is open after the events so far."""

    def __init__(self) -> None:
        self._open: dict[str, OpenQuestion] = {}
        self._after = 0

    @property
    def next_page(self) -> Query:
        """Which events to add next; none of them left is the end."""
        return Query(types=_TYPES, after=self._after)

    def add(self, page: Sequence[Recorded]) -> None:
        """Take in the next events, in their order."""
        for event in page:
            self._after = event.position
            if event.data is None:
                continue  # erased
            facts = _decode(event.data)
            if event.type != "question-asked":
                self._open.pop(facts.id, None)
                continue
            run = event.stream.partition("/")[2]
            self._open[facts.id] = OpenQuestion(
                facts.id, run, facts.text, facts.schema, facts.choices, facts.asked_of, event.at, facts.until
            )

    def open(self, now: int) -> list[OpenQuestion]:
        """Return those that may be answered, oldest first; not those whose time has passed."""
        return [one for one in self._open.values() if one.until is None or one.until > now]
