"""The pure cores behind published events: the topic of a type, an entry of the index of sleepers, and its places."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import On, PublicationConflictError, UsageError
from perdure.actors.kernel.messages import Index, Moment
from perdure.actors.triggers import topic
from perdure.actors.triggers.listing import (
    LeaveListings,
    Listed,
    ListedWait,
    Listen,
    ListingBehavior,
    ListingChanged,
    ListingState,
    StopListening,
    after_field,
    field_of,
    listing_of,
    listings_of,
    place_for,
    place_of,
    read_row,
)
from perdure.actors.triggers.topic import (
    Announce,
    EventPublished,
    EventsDelivered,
    MarkDelivered,
    Publish,
    TopicBehavior,
    TopicState,
    topic_of,
)
from perdure.actors.triggers.wanted import Wanted, holds
from perdure.actors.workflows.commands import GetRun
from perdure.actors.workflows.subscriptions import Subscriptions
from perdure.store.errors import InternalError

PAID = topic_of("paid")
WAIT = ListedWait("event#1", ({},), 7)
NOW = Moment(now=1_000, steady=0)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def state_of(*events: Any) -> TopicState:
    state = TopicState()
    for event in events:
        state = TopicBehavior().evolve(state, event)
    return state


def decide(state: TopicState, command: Any) -> Any:
    return TopicBehavior().decide(state, command, NOW)


# The topic


def test_an_event_is_published_with_a_number_for_an_id_and_is_announced() -> None:
    decision = decide(state_of(EventPublished("x", raw(0))), Publish(raw(7), None, "r"))

    assert decision.events == (EventPublished("#2", raw(7), "r"),)
    assert decision.reply is True
    assert decision.effects == (Announce(2, "#2", raw(7), "r", NOW.now),)


def test_an_event_that_is_known_by_its_id_is_not_published_again() -> None:
    decision = decide(state_of(EventPublished("x", raw(7))), Publish(raw(7), "x"))

    assert (decision.events, decision.reply, decision.effects) == ((), False, ())


def test_an_id_is_for_one_event() -> None:
    with pytest.raises(PublicationConflictError, match="'x'"):
        decide(state_of(EventPublished("x", raw(7))), Publish(raw(8), "x"))


def test_the_ids_that_are_remembered_are_the_newest_ones_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "MAX_IDS", 300)

    state = state_of(*(EventPublished(f"id-{number}", raw(number)) for number in range(1_000)))

    kept = [id for page in state.ids for id in page]
    assert 300 <= len(kept) <= 400
    assert kept == [f"id-{number}" for number in range(1_000 - len(kept), 1_000)]
    assert decide(state, Publish(raw(999), "id-999")).reply is False
    assert decide(state, Publish(raw(0), "id-0")).reply is True


def test_a_topic_is_open_work_until_all_that_was_published_is_delivered() -> None:
    one = EventPublished("#1", raw(1))

    indexes = [
        TopicBehavior().index(state_of(*events))
        for events in ((), (one,), (one, one, EventsDelivered(1)), (one, one, EventsDelivered(2)))
    ]

    assert [index.is_open for index in indexes] == [False, True, True, False]


def test_what_is_delivered_never_becomes_less() -> None:
    state = state_of(EventPublished("#1", raw(1)), EventPublished("#2", raw(1)), EventsDelivered(2))

    assert decide(state, MarkDelivered(1)).events == ()
    assert decide(state, MarkDelivered(3)).events == (EventsDelivered(3),)


@pytest.mark.parametrize("type", ["", " paid", ".paid", "paid!", "paid/7", "p" * 61, "bezahlt\u00e4"])
def test_a_type_is_a_short_plain_name(type: str) -> None:
    with pytest.raises(UsageError, match="the type of an event"):
        topic.check_type(type)


@pytest.mark.parametrize("id", ["", "#1", "a\nb", "x" * 129])
def test_an_id_of_an_event_is_printable_and_does_not_look_like_a_number_of_the_topic(id: str) -> None:
    with pytest.raises(UsageError, match="an event's id"):
        topic.check_id(id)


@pytest.mark.parametrize("behavior", [TopicBehavior(), ListingBehavior()], ids=lambda one: one.kind)
def test_a_message_for_another_actor_is_our_bug(behavior: Any) -> None:
    with pytest.raises(InternalError, match="does not understand GetRun"):
        behavior.decide(behavior.initial(PAID), GetRun(), NOW)


# An entry of the index of sleepers


def test_an_entry_says_in_its_row_who_listens_for_what_until_it_stops() -> None:
    behavior = ListingBehavior()

    listed = behavior.evolve(ListingState(), ListingChanged("r", (WAIT,)))
    gone = behavior.evolve(listed, ListingChanged(""))

    index = behavior.index(listed)
    assert (index.is_open, read_row(index.waits_on or "")) == (True, Listed("r", (WAIT,)))
    assert behavior.index(gone) == Index(is_open=False, wake_at=None, waits_on=None)


def test_being_listed_as_before_is_no_news() -> None:
    state = ListingBehavior().evolve(ListingState(), ListingChanged("r", (WAIT,)))

    assert ListingBehavior().decide(state, Listen("r", (WAIT,)), NOW).events == ()
    assert ListingBehavior().decide(state, Listen("r", (WAIT, WAIT)), NOW).events != ()


def test_a_row_that_has_changed_meanwhile_is_not_closed() -> None:
    behavior = ListingBehavior()
    state = behavior.evolve(ListingState(), ListingChanged("r", (WAIT,)))

    assert behavior.decide(state, StopListening("another row"), NOW).events == ()
    assert behavior.decide(state, StopListening(state.row), NOW).events == (ListingChanged(""),)
    assert behavior.decide(state, StopListening(), NOW).events == (ListingChanged(""),)
    assert behavior.decide(ListingState(), StopListening(), NOW).events == ()


def test_a_run_that_ends_without_its_code_leaves_the_places_where_it_is_listed() -> None:
    assert Subscriptions().leave("r") == ()
    assert Subscriptions(listed=("paid/-", "b/-")).leave("r") == (LeaveListings("r", ("paid/-", "b/-")),)


# Places


@pytest.mark.parametrize(
    ("either", "field"),
    [
        (({},), None),
        (({"if": "order", "eq": "o-1"},), "order"),
        (({"if": "order", "eq": "o-1", "ne": 3},), "order"),
        (({"if": "order.id", "eq": None},), "order.id"),
        (({"and": [{"if": "a", "gt": 1}, {"if": "b", "eq": 2}]},), "b"),
        (({"or": [{"if": "a", "eq": 1}, {"if": "b", "eq": 2}]},), None),
        (({"not": {"if": "a", "eq": 1}},), None),
        (({"if": "a", "eq": [1]},), None),
        (({"if": "a/b", "eq": 1},), None),
        (({"if": "a" * 41, "eq": 1},), None),
        (({"if": "a", "eq": 1}, {"if": "b", "eq": 2}), None),
    ],
)
def test_a_place_is_named_by_the_one_value_that_a_field_must_have(either: Any, field: str | None) -> None:
    place = place_of("paid", either)

    assert field_of(listing_of(place, "r")) == field
    assert place.startswith("paid/-" if field is None else f"paid/{field}=")


@given(wanted=SCALARS, value=SCALARS)
def test_an_event_that_fits_is_looked_for_where_the_sleeper_is_listed(wanted: Any, value: Any) -> None:
    wanted, value = (msgspec.json.decode(msgspec.json.encode(one)) for one in (wanted, value))
    where, data = {"if": "x", "eq": wanted}, {"x": value}

    is_there = place_of("paid", [where]) == place_for("paid", "x", data)

    assert is_there == holds([where], data)


@pytest.mark.parametrize("data", [None, 7, [1], {}, {"x": [1]}, {"x": {}}, {"y": 1}])
def test_an_event_without_a_plain_value_in_the_field_is_for_nobody_there(data: Any) -> None:
    assert place_for("paid", "x", data) is None


def test_the_name_of_an_entry_fits_however_long_its_parts_are() -> None:
    type, run = "t" * 60, "r" * 128
    place = place_of(type, [{"if": "f" * 40, "eq": 1}])

    one, two = listing_of(place, run), listing_of(place, run[:-1] + "s")

    assert len(one) <= 200
    assert one != two
    assert one.startswith(listings_of(place))


def test_the_entries_of_a_field_are_together_and_can_be_passed_over() -> None:
    fields = ["a", "a.b", "ab", "b", "_"]
    places = [place_of("paid", [{"if": field, "eq": value}]) for field in fields for value in range(20)]
    names = sorted(listing_of(place, "r") for place in [*places, "paid/-"])

    for field in fields:
        inside = [name for name in names if field_of(name) == field]
        start = names.index(inside[0])
        assert names[start : start + len(inside)] == inside
        assert [name for name in names if name > after_field("paid", field)] == names[start + len(inside) :]


def test_what_is_wanted_is_checked_when_it_is_made() -> None:
    with pytest.raises(UsageError, match="say which events"):
        Wanted.of([])
    with pytest.raises(UsageError, match="at most 16384 bytes"):
        Wanted.of([On("paid", where={"if": "a", "eq": "x" * 20_000})])
