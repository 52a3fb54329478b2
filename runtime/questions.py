"""The open questions of all runs: a fold of events, for the runtime and for the command line alike.

Pure: it is told pages of events. The invariant: its size is bounded by the open questions, not by those answered.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.actors.workflows.asking import argument_digest
from perdure.store.records import Query, Recorded, StreamId

_TYPES = (
    "question-asked", "question-answered", "call-approved", "call-rejected", "question-expired", "question-withdrawn",
)  # fmt: skip


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
    tool: str = ""
    """The tool of the call that is to be approved; empty for a question."""
    arguments: dict[str, Any] | None = None
    """Of that call, as they stand: somebody may have changed them."""
    digest: str = ""
    """What an approval is bound to: the tool and these arguments."""
    several: int = 1
    """How many different people are wanted."""
    by: tuple[str, ...] = ()
    """Who has answered, or approved these arguments, so far."""
    is_edited: bool = False
    """Whether somebody changed the arguments that the run asked for."""


class _Facts(msgspec.Struct, frozen=True):
    """Of the events of questions, what is read."""

    id: str
    text: str = ""
    schema: dict[str, Any] = {}
    choices: list[Any] | None = None
    asked_of: tuple[str, ...] = ()
    several: int = 1
    tool: str = ""
    arguments: dict[str, Any] | None = None
    by: str = ""
    left: int = 0
    until: int | None = None


_decode = msgspec.json.Decoder(_Facts).decode


class Questions:
    """What is open after the events so far."""

    def __init__(self, stream: StreamId | None = None) -> None:
        """Fold the questions of all runs, or of the one at *stream*."""
        self._stream = stream
        self._open: dict[str, OpenQuestion] = {}
        self._after = 0

    @property
    def next_page(self) -> Query:
        """Which events to add next; none of them left is the end."""
        return Query(stream=self._stream, types=_TYPES, after=self._after)

    def add(self, page: Sequence[Recorded]) -> None:
        """Take in the next events, in their order."""
        for event in page:
            self._after = event.position
            if event.data is None:
                continue  # erased
            facts = _decode(event.data)
            if event.type != "question-asked":
                known = self._open.pop(facts.id, None)
                if known is not None and facts.left:
                    self._open[facts.id] = _heard(known, facts)
                continue
            run = event.stream.partition("/")[2]
            self._open[facts.id] = OpenQuestion(
                facts.id, run, facts.text, facts.schema, facts.choices, facts.asked_of, event.at, facts.until,
                facts.tool, facts.arguments, _digest(facts.tool, facts.arguments), facts.several,
            )  # fmt: skip

    def open(self, now: int) -> list[OpenQuestion]:
        """Return those that may be answered, oldest first; not those whose time has passed."""
        found = (one for one in self._open.values() if one.until is None or one.until > now)
        return sorted(found, key=lambda one: one.asked_at)


def _heard(known: OpenQuestion, facts: _Facts) -> OpenQuestion:
    """Return the question after somebody said something that was not the last word."""
    if facts.arguments is None:
        return msgspec.structs.replace(known, by=(*known.by, facts.by))
    changed = _digest(known.tool, facts.arguments)
    return msgspec.structs.replace(known, by=(facts.by,), arguments=facts.arguments, digest=changed, is_edited=True)


def _digest(tool: str, arguments: dict[str, Any] | None) -> str:
    return argument_digest(tool, msgspec.json.encode(arguments)) if tool else ""
