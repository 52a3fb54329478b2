"""The requests about events: waits, history, dead letters. Pure data; see `words.py`."""

from typing import Any, TypeAlias

from perdure.runtime.control.request import Names, Word


class WaitForEvent(Word, frozen=True, tag="wait-for-event"):
    """Wait for the first event that fits."""

    types: Names
    stream: str | None = None
    node: str | None = None
    run: str | None = None
    correlation: str | None = None
    where: dict[str, Any] | None = None
    after: int | str = "now"
    timeout: float | None = None


class EventHistory(Word, frozen=True, tag="event-history"):
    """Look back at the newest events that fit."""

    type: Names | None = None
    stream: str | None = None
    run: str | None = None
    limit: int = 100


class ListDeadLetters(Word, frozen=True, tag="dead-letters"):
    """List the dead letters."""

    name: str | None = None


class RedriveLetter(Word, frozen=True, tag="redrive"):
    """Have a dead letter delivered once more."""

    name: str
    position: int
    who: str | None = None


class ForgetSubscription(Word, frozen=True, tag="forget-subscription"):
    """Delete the cursor and the dead letters of a name."""

    name: str


class EventStatistics(Word, frozen=True, tag="event-statistics"):
    """Ask for the figures of the subscriptions."""


EventWord: TypeAlias = (
    WaitForEvent | EventHistory | ListDeadLetters | RedriveLetter | ForgetSubscription | EventStatistics
)  # fmt: skip
