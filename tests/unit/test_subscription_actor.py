"""The rules of a subscription's actor, and the table of names: pure, without a runtime."""

import json

import msgspec
import pytest

from perdure.actors.kernel.messages import Event, Moment
from perdure.actors.kernel.replay import check_behaviors
from perdure.actors.triggers.errors import UnknownDeadLetterError
from perdure.actors.triggers.event_names import NAMES, all_tags, document_data, document_name, tags_of
from perdure.actors.triggers.matching import EventFilter
from perdure.actors.triggers.subscription import (
    MAX_LETTERS,
    AskRedrive,
    DeadLetterRedriven,
    DeliveryFailed,
    EventDeadLettered,
    EventsHandled,
    ForgetSubscription,
    NoteDelivery,
    Redrive,
    RedriveFailed,
    RedriveRequested,
    SetSubscription,
    SubscriptionBehavior,
    SubscriptionForgotten,
    SubscriptionSet,
    SubscriptionState,
    Trouble,
    read_standing,
    subscription_stream,
)

RULES = SubscriptionBehavior()
NOW = Moment(1_000, 1_000)
PAID = msgspec.Raw(b'{"tags":["paid"]}')
SET = SubscriptionSet(5, PAID)


def state_of(*events: Event) -> SubscriptionState:
    state = RULES.initial(subscription_stream("books"))
    for event in events:
        state = RULES.evolve(state, event)
    return state


def letter(position: int, attempts: int = 1) -> EventDeadLettered:
    return EventDeadLettered(position, "paid", attempts, "ValueError", "no")


def test_a_name_is_set_once_and_again_when_it_asks_for_something_else() -> None:
    state = state_of(SET, EventsHandled(9))
    other = msgspec.Raw(b'{"tags":["shipped"]}')

    assert RULES.decide(state_of(), SetSubscription(5, PAID), NOW).events == (SET,)
    assert RULES.decide(state, SetSubscription(77, PAID), NOW).events == ()
    assert RULES.decide(state, SetSubscription(77, other), NOW).events == (SubscriptionSet(9, other),)


def test_the_cursor_only_moves_on() -> None:
    state = state_of(SET, EventsHandled(9))

    assert RULES.decide(state, NoteDelivery(EventsHandled(10)), NOW).events == (EventsHandled(10),)
    assert RULES.decide(state, NoteDelivery(EventsHandled(9)), NOW).events == ()
    assert RULES.decide(state, NoteDelivery(letter(9)), NOW).events == ()


def test_what_is_told_of_a_name_that_was_forgotten_is_passed_over() -> None:
    state = state_of(SET, letter(9), SubscriptionForgotten())

    assert state == SubscriptionState()
    assert RULES.decide(state, NoteDelivery(EventsHandled(10)), NOW).events == ()
    assert RULES.decide(state, ForgetSubscription(), NOW).reply is False
    assert not RULES.index(state).is_open


def test_an_attempt_that_failed_is_kept_until_the_cursor_passes_it() -> None:
    failed = state_of(SET, EventsHandled(8), DeliveryFailed(9, 2, "ValueError", "no", 5_000))

    assert failed.trouble == Trouble(9, 2, 5_000)
    assert RULES.evolve(failed, EventsHandled(8)).trouble == failed.trouble
    assert RULES.evolve(failed, EventsHandled(9)).trouble is None
    assert RULES.evolve(failed, letter(9, 3)).trouble is None


def test_a_dead_letter_is_passed_by_the_cursor_and_stays_until_it_is_taken() -> None:
    state = state_of(SET, letter(9), letter(12))

    assert (state.until, [one.position for one in state.letters], state.dead) == (12, [9, 12], 2)
    after = RULES.evolve(state, DeadLetterRedriven(9))
    assert ([one.position for one in after.letters], after.dead) == ([12], 2)


def test_a_redrive_is_asked_for_once_and_performed_each_time() -> None:
    state = state_of(SET, letter(9))
    asked = RULES.evolve(state, RedriveRequested(9))

    first = RULES.decide(state, AskRedrive(9), NOW)
    second = RULES.decide(asked, AskRedrive(9), NOW)

    assert (first.events, first.reply, first.effects) == ((RedriveRequested(9),), True, (Redrive(9),))
    assert (second.events, second.reply, second.effects) == ((), False, (Redrive(9),))


def test_a_redrive_that_failed_may_be_asked_for_again() -> None:
    state = state_of(SET, letter(9), RedriveRequested(9), RedriveFailed(9, "OSError", "still"))

    [left] = state.letters
    assert (left.attempts, left.error_type, left.error, left.is_asked_for) == (2, "OSError", "still", False)
    assert RULES.decide(state, AskRedrive(9), NOW).reply is True


def test_a_letter_that_is_not_there_cannot_be_asked_for() -> None:
    with pytest.raises(UnknownDeadLetterError, match="event 8"):
        RULES.decide(state_of(SET, letter(9)), AskRedrive(8), NOW)


def test_the_newest_dead_letters_are_kept() -> None:
    state = state_of(SET, *(letter(position) for position in range(6, 6 + MAX_LETTERS + 3)))

    assert (len(state.letters), state.letters[0].position, state.dead) == (MAX_LETTERS, 9, MAX_LETTERS + 3)


def test_the_index_says_what_opening_has_to_know() -> None:
    quiet = RULES.index(state_of(SET, EventsHandled(9), letter(12)))
    troubled = RULES.index(state_of(SET, DeliveryFailed(9, 1, "ValueError", "no", 5)))
    asked = RULES.index(state_of(SET, letter(9), RedriveRequested(9)))

    found = [read_standing(one.waits_on or "") for one in (quiet, troubled, asked)]
    assert [(one.until, one.needs_state, one.letters) for one in found] == [(12, False, 1), (5, True, 0), (9, True, 1)]
    assert len({one.made_of for one in found}) == 1
    assert quiet.is_open


def test_the_state_survives_a_snapshot() -> None:
    check_behaviors((RULES,))
    state = state_of(SET, letter(9), DeliveryFailed(11, 1, "ValueError", "no", 5))

    assert msgspec.json.decode(msgspec.json.encode(state), type=SubscriptionState) == state


@pytest.mark.parametrize(("name", "tags"), NAMES)
def test_every_name_of_document_003_stands_for_tags_and_back(name: str, tags: tuple[str, ...]) -> None:
    assert tags_of(name) == tags
    assert {document_name(tag) for tag in tags} == {name}
    assert all_tags([name, *tags]) == tags


def test_a_name_that_is_in_no_table_is_itself() -> None:
    assert (tags_of("custom"), document_name("timer-set")) == (("custom",), "timer-set")
    assert document_data("timer-set", {"due": 1}) == {"due": 1}


def test_either_name_asks_for_the_same() -> None:
    assert EventFilter.of("execution_completed") == EventFilter.of("run-completed")
    assert EventFilter.of(("paid", "*")).tags == ("*",)
    assert json.loads(msgspec.json.encode(EventFilter.of("paid", stream=""))) == {"tags": ["paid"]}
