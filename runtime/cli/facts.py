"""What the command line reads from an event's payload, as raw JSON: it needs no application code and no codec.

Unknown events and unknown fields are nothing special: a log of a newer or another application is listed as well.
"""

import contextlib
import re
from typing import Any, Final

import msgspec

from perdure.store.records import Recorded

RUN_PREFIX: Final = "run/"
_NO_PLACE: Final = re.compile(r"\d+ calls run and \d+ wait")
ENDS: Final = frozenset({"run-completed", "run-failed", "run-cancelled", "run-continued"})


class ForkedFrom(msgspec.Struct, frozen=True):
    """Of a fork: the run that it takes over from."""

    run: str


class StartedBy(msgspec.Struct, frozen=True):
    """Of a child: the run and the step that started it."""

    run: str
    step: str = ""


class GoesOnFor(msgspec.Struct, frozen=True):
    """Of a run in a chain: the one before it."""

    before: str


class Facts(msgspec.Struct, frozen=True):
    """The fields that some event or other has; what an event lacks keeps its default."""

    step: str = ""
    branch: str = ""
    kind: str = ""
    tool: str = ""
    effect: str = ""
    name: str = ""
    text: str = ""
    workflow: str = ""
    attempt: int = 1
    micros: int = 0
    error_type: str = ""
    error: str = ""
    where: str = ""
    reason: str = ""
    account: str = ""
    source: str = ""
    what: str = ""
    goal: str = ""
    call: str = ""
    stopped: bool = True
    retry_at: int | None = None
    retry_after: int = 0
    by: str = ""
    """Who refused a call; events from before there was this field do not say it."""
    to: str = ""
    because: str = ""
    at: int = 0
    generation: int = 0
    counts: bool = True
    due: int | None = None
    until: int | None = None
    wake_at: int | None = None
    waits_on: str | None = None
    deadline: int | None = None
    forked_from: ForkedFrom | None = None
    parent: StartedBy | None = None
    chain: GoesOnFor | None = None
    run: str = ""
    events: str = ""
    event: str = ""
    id: str = ""
    listens: tuple[str, ...] = ()
    next: str = ""
    version: int = 0
    given_up: tuple[str, ...] = ()
    action: str = ""
    key: str = ""
    keys: tuple[str, ...] = ()
    scope: str = ""
    found: bool = True
    status: str = ""
    is_awaited: bool = True
    count: int = 0
    failed: int = 0
    winner: int = 0
    left: int = 0
    life: int = 0
    after_crash: bool = False
    is_alone: bool = False
    in_flight: tuple[str, ...] = ()
    input: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    value: msgspec.Raw = msgspec.Raw(b"null")
    answer: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(Facts).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
NONE: Final = Facts()


def facts_of(event: Recorded) -> Facts:
    """Return what *event* says; nothing when it is erased. A field of another type, null for one, has its default."""
    if event.data is None:
        return NONE
    try:
        return _decode(event.data)
    except msgspec.MsgspecError:
        return _what_fits(event.data)


def _what_fits(data: str) -> Facts:
    known: dict[str, Any] = {}
    try:
        for name, value in _fields(data).items():
            with contextlib.suppress(msgspec.MsgspecError):
                if name in Facts.__struct_fields__:
                    known[name] = getattr(_decode(b"{%s:%s}" % (msgspec.json.encode(name), bytes(value))), name)
    except msgspec.MsgspecError:
        return NONE
    return Facts(**known)


def at_place(facts: Facts) -> str:
    """Return in words the line of the application that an error came from, to follow the error."""
    return f", at {facts.where}" if facts.where else ""


def refuser(facts: Facts) -> str:
    """Return in words who refused an attempt."""
    match facts.by or _told_by(facts.reason):
        case "rate":
            return "refused"  # the reason says the rest
        case "bulkhead":
            return "refused, no place at the tool"
        case "circuit":
            return "refused by the circuit breaker"
        case other:
            return f"refused by the {other}"


def _told_by(reason: str) -> str:
    """Return who refused an attempt by the text of the reason, for old events."""
    if reason.startswith("the rate limit"):
        return "rate"
    return "bulkhead" if _NO_PLACE.fullmatch(reason) else "circuit"


def run_of(event: Recorded) -> str | None:
    """Return the id of the run that *event* belongs to, None if it belongs to none."""
    if event.stream.startswith(RUN_PREFIX):
        return event.stream[len(RUN_PREFIX) :]
    return event.correlation
