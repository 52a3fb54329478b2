"""The actor of one type of events, `topic/TYPE`: what was published, in its order, and how far it was delivered. Pure.

Not here: who listens (`listing.py`, `exchange.py`). Invariant: an event is published once, under an id that no other
event of the type has among the newest ones; the stream is open work as long as sleepers may not have been told.
"""

import re
from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Effect, Event, Index, Moment
from perdure.actors.triggers.errors import PublicationConflictError
from perdure.actors.workflows.definition import digest
from perdure.store.errors import InternalError, UsageError
from perdure.store.records import StreamId

MAX_IDS: Final = 10_000
"""Ids of a type's events that are remembered, the newest ones: within them the same event again is no second one."""
_IDS_A_PAGE: Final = 100
"""Of which one is copied with each event that has an id."""
_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,59}")


class EventPublished(Event, frozen=True, tag="event-published"):
    """Somebody published an event of the stream's type; `id` begins with # when the publisher gave none."""

    id: str
    data: msgspec.Raw
    run: str | None = None
    """The run that published it, if it was one."""


class EventsDelivered(Event, frozen=True, tag="events-delivered"):
    """Every run that slept was told of the first `until` events of the type, where they were for it."""

    until: int


class Publish(Command, frozen=True, tag="publish"):
    """Publish an event; answered with whether it is new."""

    data: msgspec.Raw
    id: str | None = None
    run: str | None = None


class MarkDelivered(Command, frozen=True, tag="mark-delivered"):
    """Take note that the first so many events have been delivered."""

    until: int


class Announce(Effect, frozen=True, tag="announce"):
    """Tell those who listen of an event, which is durable."""

    number: int
    id: str
    data: msgspec.Raw
    run: str | None
    at: int
    position: int = 0

    def placed(self, position: int) -> "Announce":
        """Return it with the position of the event: the last one of its unit."""
        return msgspec.structs.replace(self, position=position)


class TopicState(msgspec.Struct, frozen=True):
    """How many events there were, how many are delivered, and the newest ids with the digests of what they named."""

    published: int = 0
    delivered: int = 0
    ids: tuple[dict[str, str], ...] = ()
    """In pages, the oldest first."""


class TopicBehavior:
    """The rules of a topic."""

    kind = "topic"
    state_type = TopicState
    state_version = 1
    events = (EventPublished, EventsDelivered)

    def initial(self, stream: StreamId) -> TopicState:
        """Return the state of a topic on which nothing was published."""
        del stream
        return TopicState()

    def decide(self, state: TopicState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        match command:
            case Publish():
                return _publish(state, command, moment)
            case MarkDelivered(until=until) if until > state.delivered:
                return Decision((EventsDelivered(until),), None)
            case MarkDelivered():
                return Decision((), None)
            case _:
                raise InternalError(detail=f"a topic does not understand {type(command).__name__}")

    def evolve(self, state: TopicState, event: Event) -> TopicState:
        """Return the state after *event*."""
        match event:
            case EventPublished(id=id, data=data):
                ids = state.ids if id.startswith("#") else _with(state.ids, id, digest("", data))
                return TopicState(state.published + 1, state.delivered, ids)
            case EventsDelivered(until=until):
                return TopicState(state.published, until, state.ids)
            case _:
                return state

    def index(self, state: TopicState) -> Index:
        """Return that the topic is open work while there is somebody left to be told."""
        return Index(is_open=state.delivered < state.published)


def topic_of(type: str) -> StreamId:
    """Return the stream of the events of a type."""
    return StreamId(f"topic/{type}")


def check_type(type: str) -> str:
    """Return the name of a type of events, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not _TYPE.fullmatch(type):
        shape = "1 to 60 letters, digits and the characters . _ : + -, a letter or a digit first"
        raise UsageError(f"the type of an event is {shape}, such as 'order.paid', not {type!r}")
    return type


def check_id(id: str | None) -> None:
    """Check what an event is called; None leaves it to the topic.

    Raises:
        UsageError: it cannot be called that.
    """
    if id is not None and not (0 < len(id) <= 128 and id.isprintable() and id[0] != "#"):  # noqa: PLR2004 - as of a run
        raise UsageError(f"an event's id is 1 to 128 printable characters and does not begin with #, not {id!r}")


def _publish(state: TopicState, command: Publish, moment: Moment) -> Decision[bool]:
    if command.id is not None:
        known = next((page[command.id] for page in state.ids if command.id in page), None)
        if known is not None and known != digest("", command.data):
            raise PublicationConflictError(detail="", event=command.id)
        if known is not None:
            return Decision((), reply=False)
    number = state.published + 1
    published = EventPublished(command.id or f"#{number}", command.data, command.run)
    announce = Announce(number, published.id, command.data, command.run, moment.now)
    return Decision((published,), reply=True, effects=(announce,))


def _with(pages: tuple[dict[str, str], ...], id: str, made_of: str) -> tuple[dict[str, str], ...]:
    if pages and len(pages[-1]) < _IDS_A_PAGE:
        return (*pages[:-1], {**pages[-1], id: made_of})
    return (*pages, {id: made_of})[-(MAX_IDS // _IDS_A_PAGE + 1) :]
