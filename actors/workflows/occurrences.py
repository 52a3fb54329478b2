"""The facts of a run about published events: those that it sends, and those that it waits for and takes.

Tags are for ever. Not here: the events of the topics themselves (`triggers/topic.py`).
"""

import msgspec

from perdure.store.codec import Event


class EventSent(Event, frozen=True, tag="event-sent"):
    """The workflow published an event of a type, which is in the same unit."""

    step: str
    branch: str
    event: str
    digest: str


class EventAwaited(Event, frozen=True, tag="event-awaited"):
    """The workflow waits for the next event that it wants after a position, at most until `until` (microseconds)."""

    step: str
    branch: str
    events: str
    """The types, with commas between them."""
    wanted: msgspec.Raw
    """An array of [type, conditions]."""
    reader: str
    digest: str
    after: int
    until: int | None = None


class EventFound(Event, frozen=True, tag="event-found"):
    """An event that fits was published at this position while the run slept; nothing before it fits."""

    step: str
    position: int


class EventTaken(Event, frozen=True, tag="event-taken"):
    """The wait got this event, published at `position` and `at` (microseconds)."""

    step: str
    event: str
    id: str
    position: int
    at: int
    data: msgspec.Raw
    run: str | None = None


class EventExpired(Event, frozen=True, tag="event-expired"):
    """No event that fits was published in time; the workflow was told. Nothing up to `seen` fits."""

    step: str
    seen: int


class EventWaitWithdrawn(Event, frozen=True, tag="event-wait-withdrawn"):
    """The wait was cancelled: an event that comes now is for others. Nothing up to `seen` fits."""

    step: str
    seen: int


class EventPlacesMoved(Event, frozen=True, tag="event-places-moved"):
    """The run goes on for another one, or forks it, which had come so far; the rest it has since `since`."""

    since: int
    cursors: dict[str, int]
    floor: int = 0


SUBSCRIPTION_EVENTS = (EventAwaited, EventFound, EventTaken, EventExpired, EventWaitWithdrawn, EventPlacesMoved)


def taken_json(fact: EventTaken) -> msgspec.Raw:
    """Return an event that was taken, as the code reads it."""
    fields = {"type": fact.event, "data": fact.data, "id": fact.id, "position": fact.position, "at": fact.at}
    return msgspec.Raw(msgspec.json.encode({**fields, "run": fact.run}))
