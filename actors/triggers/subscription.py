"""The actor of one durable subscription, `subscription/NAME`: how far its handler came, and what it failed at. Pure.

Not here: the handler, and who calls it (`runtime/entries/delivering.py`). Invariant: the cursor never passes an event
that was neither handled nor made a dead letter; a dead letter stays until a re-drive of it succeeded.
"""

from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Effect, Event, Index, Moment
from perdure.actors.triggers.errors import UnknownDeadLetterError
from perdure.actors.workflows.definition import digest
from perdure.store.errors import InternalError
from perdure.store.records import StreamId, stream_id

MAX_LETTERS: Final = 1_000
"""Dead letters that one subscription keeps, the newest ones; older ones stay in the log as events."""
LIVE: Final = "-"
"""Where the dead letters of subscriptions without a name are kept."""


class SubscriptionSet(Event, frozen=True, tag="subscription-set"):
    """Somebody subscribed under the name, for the first time or for other events than before."""

    after: int
    """The position after which it began; it goes on from its cursor when it was there before."""
    wanted: msgspec.Raw
    """What it asks for: `tags`, `stream`, `node`, `run`, `correlation`, `where`, `not_stream`."""


class EventsHandled(Event, frozen=True, tag="events-handled"):
    """The handler is done with everything up to this position; written for many events at once."""

    until: int


class DeliveryFailed(Event, frozen=True, tag="delivery-failed"):
    """The handler failed at an event; it is given it again at `retry_at` (microseconds)."""

    position: int
    attempt: int
    error_type: str
    error: str
    retry_at: int


class EventDeadLettered(Event, frozen=True, omit_defaults=True, tag="event-dead-lettered"):
    """The handler failed at an event for good; the next ones go on."""

    position: int
    event: str
    """What the event is called."""
    attempts: int
    error_type: str
    error: str
    subscription: str | None = None
    """Whose handler it was, where the subscription had no name."""


class RedriveRequested(Event, frozen=True, tag="redrive-requested"):
    """Somebody, the event's principal, wants a dead letter delivered once more."""

    position: int


class DeadLetterRedriven(Event, frozen=True, tag="dead-letter-redriven"):
    """The handler took a dead letter, which is none any more."""

    position: int


class RedriveFailed(Event, frozen=True, tag="redrive-failed"):
    """The handler failed at a dead letter again; it stays one."""

    position: int
    error_type: str
    error: str


class SubscriptionForgotten(Event, frozen=True, tag="subscription-forgotten"):
    """The name, its cursor and its dead letters are no more."""


SUBSCRIPTION_FACTS: Final = (
    SubscriptionSet, EventsHandled, DeliveryFailed, EventDeadLettered, RedriveRequested, DeadLetterRedriven,
    RedriveFailed, SubscriptionForgotten,
)  # fmt: skip


class SetSubscription(Command, frozen=True, tag="set-subscription"):
    """Subscribe under the name; answered with the state."""

    after: int
    wanted: msgspec.Raw


class NoteDelivery(Command, frozen=True, tag="note-delivery"):
    """Note what became of deliveries; what says nothing new is passed over."""

    fact: EventsHandled | DeliveryFailed | EventDeadLettered | DeadLetterRedriven | RedriveFailed


class AskRedrive(Command, frozen=True, tag="ask-redrive"):
    """Have a dead letter delivered once more; answered with whether that was not asked before."""

    position: int


class ForgetSubscription(Command, frozen=True, tag="forget-subscription"):
    """Let go of the cursor and the dead letters; answered with whether there were any."""


class GetSubscription(Command, frozen=True, tag="get-subscription"):
    """Ask how it stands; answered with the state."""


class Redrive(Effect, frozen=True, tag="redrive"):
    """Deliver a dead letter, where the handler is here."""

    position: int


class Trouble(msgspec.Struct, frozen=True):
    """The event that the handler failed at, and is to be given again."""

    position: int
    attempt: int
    retry_at: int


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that a handler failed at for good."""

    position: int
    """The event's place in the log."""
    event: str
    """What the event is called."""
    attempts: int
    error_type: str
    error: str
    subscription: str | None = None
    is_asked_for: bool = False
    """Whether somebody wants it delivered once more."""


class SubscriptionState(msgspec.Struct, frozen=True):
    """How far it is."""

    wanted: str | None = None
    """JSON; None while it is not there."""
    until: int = 0
    """The cursor."""
    trouble: Trouble | None = None
    letters: tuple[DeadLetter, ...] = ()
    """Oldest first."""
    dead: int = 0
    """Events that became dead letters, ever."""


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """What the index of open work says of a subscription, so that thousands are opened with one query."""

    until: int
    made_of: str
    """A digest of what it wants."""
    needs_state: bool
    """Whether there is something to do at once: an event to be given again, a dead letter to be delivered."""
    letters: int = 0


class SubscriptionBehavior:
    """The rules of a subscription."""

    kind = "subscription"
    state_type = SubscriptionState
    state_version = 1
    events = SUBSCRIPTION_FACTS

    def initial(self, stream: StreamId) -> SubscriptionState:
        """Return the state of a name under which nobody subscribed."""
        del stream
        return SubscriptionState()

    def decide(self, state: SubscriptionState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case SetSubscription(after=after, wanted=wanted):
                is_news = state.wanted is None or state.wanted.encode() != bytes(wanted)
                after = after if state.wanted is None else state.until
                return Decision((SubscriptionSet(after, wanted),) if is_news else (), state)
            case NoteDelivery(fact=fact):
                return Decision((fact,) if _is_news(state, fact) else (), None)
            case AskRedrive(position=position):
                return _ask_redrive(state, position)
            case ForgetSubscription():
                is_there = state != SubscriptionState()
                return Decision((SubscriptionForgotten(),) if is_there else (), is_there)
            case GetSubscription():
                return Decision((), state)
            case _:
                raise InternalError(detail=f"a subscription does not understand {type(command).__name__}")

    def evolve(self, state: SubscriptionState, event: Event) -> SubscriptionState:
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case SubscriptionSet(after=after, wanted=wanted):
                return replace(state, wanted=bytes(wanted).decode(), until=after)
            case EventsHandled(until=until):
                return replace(state, until=until, trouble=_after(state.trouble, until))
            case DeliveryFailed(position=position, attempt=attempt, retry_at=retry_at):
                return replace(state, trouble=Trouble(position, attempt, retry_at))
            case EventDeadLettered():
                return _with_letter(state, event)
            case RedriveRequested(position=position):
                return _with_asked(state, position, is_asked_for=True)
            case DeadLetterRedriven(position=position):
                return replace(state, letters=tuple(one for one in state.letters if one.position != position))
            case RedriveFailed(position=position, error_type=error_type, error=error):
                return _with_asked(state, position, is_asked_for=False, error_type=error_type, error=error)
            case SubscriptionForgotten():
                return SubscriptionState()
            case _:
                return state

    def index(self, state: SubscriptionState) -> Index:
        """Return what opening a runtime has to know; a name stays open until it is forgotten."""
        if state == SubscriptionState():
            return Index(is_open=False)
        needs_state = state.trouble is not None or any(one.is_asked_for for one in state.letters)
        made_of = "" if state.wanted is None else digest_of(state.wanted.encode())
        standing = Standing(state.until, made_of, needs_state, len(state.letters))
        return Index(is_open=True, waits_on=msgspec.json.encode(standing).decode())


read_standing = msgspec.json.Decoder(Standing).decode
"""Return what a row of the index says of a subscription."""


def digest_of(wanted: bytes) -> str:
    """Return what tells what one subscription wants from what another does."""
    return digest("", wanted)


def subscription_stream(name: str) -> StreamId:
    """Return the stream of a subscription.

    Raises:
        UsageError: it cannot be called that.
    """
    return stream_id(f"subscription/{name}")


def _ask_redrive(state: SubscriptionState, position: int) -> Decision[bool]:
    letter = next((one for one in state.letters if one.position == position), None)
    if letter is None or letter.subscription is not None:
        raise UnknownDeadLetterError(position=position)
    asked = () if letter.is_asked_for else (RedriveRequested(position),)
    return Decision(asked, not letter.is_asked_for, (Redrive(position),))


def _is_news(state: SubscriptionState, fact: Event) -> bool:
    match fact:
        case EventDeadLettered(subscription=str()):
            return True  # of a subscription without a name, which has no cursor
        case _ if state.wanted is None:
            return False  # it was forgotten meanwhile
        case EventsHandled(until=place) | DeliveryFailed(position=place) | EventDeadLettered(position=place):
            return place > state.until
        case DeadLetterRedriven(position=place) | RedriveFailed(position=place):
            return any(one.position == place for one in state.letters)
        case _:
            return False


def _after(trouble: Trouble | None, until: int) -> Trouble | None:
    return None if trouble is None or trouble.position <= until else trouble


def _with_letter(state: SubscriptionState, event: EventDeadLettered) -> SubscriptionState:
    letter = DeadLetter(event.position, event.event, event.attempts, event.error_type, event.error, event.subscription)
    letters = (*state.letters, letter)[-MAX_LETTERS:]
    until = state.until if event.subscription is not None else event.position
    return SubscriptionState(state.wanted, until, _after(state.trouble, until), letters, state.dead + 1)


def _with_asked(
    state: SubscriptionState, position: int, *, is_asked_for: bool, error_type: str | None = None, error: str = ""
) -> SubscriptionState:
    def changed(one: DeadLetter) -> DeadLetter:
        if one.position != position:
            return one
        if error_type is None:
            return msgspec.structs.replace(one, is_asked_for=is_asked_for)
        return msgspec.structs.replace(
            one, is_asked_for=is_asked_for, attempts=one.attempts + 1, error_type=error_type, error=error
        )

    return msgspec.structs.replace(state, letters=tuple(changed(one) for one in state.letters))
