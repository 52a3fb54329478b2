"""Events survive the way to the log and back: every type of the runtime, with any content, through blobs, upcasted."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.actors.tools.tool import ToolBehavior
from perdure.actors.workflows.run import RunBehavior
from perdure.runtime.life import LifeBehavior
from perdure.store.codec import Codec, Event, OptionalPayload, Upcaster, blob_hashes
from perdure.store.errors import (
    PayloadTooLargeError,
    UndecodableEventError,
    UnencodableError,
    UnknownTagError,
    UsageError,
)
from perdure.store.records import Blob, NewEvent, Recorded, StreamId

KINDS: tuple[type[Event], ...] = (*ToolBehavior.events, *RunBehavior.events, *LifeBehavior.events)
CODEC = Codec(KINDS)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
raws = json_values.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
st.register_type_strategy(msgspec.Raw, raws)
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))


def strategy_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    fields = {f.name: text if f.type is str else st.from_type(f.type) for f in msgspec.structs.fields(kind)}
    return st.builds(kind, **fields)


def recorded(new: NewEvent, **changes: Any) -> Recorded:
    blobs = None if new.blobs is None else new.blobs.decode()
    row = Recorded(1, StreamId("a/b"), 1, new.type, new.type_version, 0, new.data.decode(), blobs)
    return msgspec.structs.replace(row, **changes)


def contents(blobs: tuple[Blob, ...]) -> Mapping[str, bytes]:
    return {blob.sha256: blob.data for blob in blobs}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__struct_config__.tag)
@settings(max_examples=30)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(strategy_of(kind))
    for codec in (CODEC, Codec(KINDS, blob_threshold_bytes=8)):
        new, blobs = codec.encode(event)

        back = codec.decode(recorded(new), contents(blobs))

        assert comparable(back) == comparable(event)
        assert isinstance(json.loads(new.data), dict)
        assert "type" not in json.loads(new.data)


def comparable(event: Event) -> tuple[Any, ...]:
    values = (getattr(event, field.name) for field in msgspec.structs.fields(event))
    return (type(event), *(bytes(v) if isinstance(v, msgspec.Raw) else v for v in values))


def test_no_two_events_share_a_tag_and_every_tag_is_registered() -> None:
    tags = [kind.__struct_config__.tag for kind in KINDS]

    assert len(set(tags)) == len(tags)
    assert CODEC.tags == set(tags)


class Noted(Event, frozen=True, tag="noted"):
    title: str
    body: msgspec.Raw
    more: msgspec.Raw = msgspec.Raw(b"null")


def test_large_payloads_go_to_the_blobs_and_small_ones_stay() -> None:
    codec = Codec([Noted], blob_threshold_bytes=100)
    large = msgspec.Raw(msgspec.json.encode("x" * 200))

    new, blobs = codec.encode(Noted("t", large, msgspec.Raw(b"[1,2]")))

    assert json.loads(new.data) == {"title": "t", "body": None, "more": [1, 2]}
    [blob] = blobs
    assert blob.data == bytes(large)
    assert blob_hashes([recorded(new)]) == {blob.sha256}
    assert len(new.data) < 100


class Shown(Event, frozen=True, tag="shown"):
    title: str
    body: OptionalPayload = msgspec.UNSET


def test_an_optional_payload_that_is_unset_is_left_out() -> None:
    codec = Codec([Shown], blob_threshold_bytes=10)

    new, blobs = codec.encode(Shown("a title over the threshold"))

    assert json.loads(new.data) == {"title": "a title over the threshold"}
    assert (new.blobs, blobs) == (None, ())
    assert codec.decode(recorded(new)) == Shown("a title over the threshold")


def test_a_large_optional_payload_is_read_where_its_blob_is_at_hand_and_unset_elsewhere() -> None:
    codec = Codec([Shown, Noted], blob_threshold_bytes=100)
    large = msgspec.Raw(msgspec.json.encode("x" * 200))

    new, blobs = codec.encode(Shown("t", large))

    [blob] = blobs
    assert codec.decode(recorded(new)) == Shown("t")
    assert comparable(codec.decode(recorded(new), contents(blobs))) == comparable(Shown("t", large))
    assert blob_hashes([recorded(new)]) == {blob.sha256}
    assert codec.needed_blobs([recorded(new)]) == set()
    assert codec.needed_blobs([recorded(codec.encode(Noted("t", large))[0])]) == {blob.sha256}


def test_equal_payloads_are_one_blob() -> None:
    codec = Codec([Noted], blob_threshold_bytes=10)
    large = msgspec.Raw(msgspec.json.encode("x" * 200))

    new, blobs = codec.encode(Noted("t", large, large))

    assert len(blob_hashes([recorded(new)])) == len({blob.sha256 for blob in blobs}) == 1
    assert comparable(codec.decode(recorded(new), contents(blobs))) == comparable(Noted("t", large, large))


@given(json_values)
def test_no_payload_can_pass_for_a_reference_to_a_blob(value: Any) -> None:
    forged = {"body": "0" * 64, "blobs": {"body": "0" * 64}, "$blob": "0" * 64, "value": value}
    codec = Codec([Noted])

    new, blobs = codec.encode(Noted("t", msgspec.Raw(msgspec.json.encode(forged))))

    assert new.blobs is None
    assert blobs == ()
    back = codec.decode(recorded(new), {"0" * 64: b'"forged"'})
    assert isinstance(back, Noted)
    assert msgspec.json.decode(back.body) == forged


def test_an_event_over_the_limit_is_refused() -> None:
    codec = Codec([Noted], blob_threshold_bytes=100, limit_bytes=1000)

    with pytest.raises(PayloadTooLargeError, match="event noted is 10"):
        codec.encode(Noted("t", msgspec.Raw(msgspec.json.encode("x" * 1000))))


def test_text_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(UnencodableError, match="event noted"):
        Codec([Noted]).encode(Noted("\ud800", msgspec.Raw(b"1")))


def test_a_tag_that_nobody_claims_is_unknown_and_so_is_a_version_from_the_future() -> None:
    codec = Codec([Noted])
    new, _ = codec.encode(Noted("t", msgspec.Raw(b"1")))

    with pytest.raises(UnknownTagError, match="'other'"):
        codec.decode(recorded(new, type="other"))
    with pytest.raises(UnknownTagError, match="'noted'"):
        codec.decode(recorded(new, type_version=2))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": None}, "erased"),
        ({"data": '{"title":5,"body":1}'}, "str"),
        ({"data": "{}"}, "title"),
        ({"data": "not json"}, "malformed"),
        ({"blobs": '{"body":"' + "0" * 64 + '"}'}, "0000"),
        ({"blobs": '{"gone":"' + "1" * 64 + '"}'}, "gone"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(changes: dict[str, Any], reason: str) -> None:
    codec = Codec([Noted])
    new, _ = codec.encode(Noted("t", msgspec.Raw(b"1")))

    with pytest.raises(UndecodableEventError, match=reason) as caught:
        codec.decode(recorded(new, position=7, **changes), {"1" * 64: b"1"})

    assert (caught.value.position, caught.value.tag) == (7, "noted")


class Moved(Event, frozen=True, tag="moved"):
    """At its third version: `x` became `place`, then got a unit."""

    type_version: ClassVar[int] = 3
    upcasters: ClassVar[Mapping[int, Upcaster]] = {
        1: lambda old: {"place": old["x"], "note": old["note"]},
        2: lambda old: {**old, "unit": "m"},
    }
    place: int
    unit: Literal["m", "ft"]
    note: msgspec.Raw


@given(st.integers(-(2**53), 2**53), json_values)
def test_old_versions_are_lifted(x: int, note: Any) -> None:
    codec = Codec([Moved])
    rows = [(1, {"x": x, "note": note}), (2, {"place": x, "note": note}), (3, {"place": x, "unit": "m", "note": note})]
    for version, old in rows:
        row = recorded(NewEvent("moved", version, msgspec.json.encode(old)))

        back = codec.decode(row)

        assert isinstance(back, Moved)
        assert (back.place, back.unit, msgspec.json.decode(back.note)) == (x, "m", note)


def test_an_old_event_with_a_blob_is_lifted_too() -> None:
    codec = Codec([Moved])
    row = recorded(NewEvent("moved", 1, b'{"x":1,"note":null}', b'{"note":"' + b"1" * 64 + b'"}'))

    back = codec.decode(row, {"1" * 64: b'"large"'})

    assert isinstance(back, Moved)
    assert (back.place, bytes(back.note)) == (1, b'"large"')


def test_an_upcaster_that_fails_blocks_its_stream_only() -> None:
    row = recorded(NewEvent("moved", 1, b'{"unexpected":1}'))

    with pytest.raises(UndecodableEventError, match="'x'"):
        Codec([Moved]).decode(row)


def test_types_that_could_not_be_read_back_are_refused() -> None:
    class Nameless(Event, frozen=True):
        pass

    class Same(Event, frozen=True, tag="noted"):
        pass

    class Leap(Event, frozen=True, tag="leap"):
        type_version: ClassVar[int] = 2

    with pytest.raises(UsageError, match="has no tag"):
        Codec([Nameless])
    with pytest.raises(UsageError, match="belongs to Noted"):
        Codec([Noted, Same])
    with pytest.raises(UsageError, match="no upcaster from version 1"):
        Codec([Leap])
    with pytest.raises(UsageError, match="not a registered"):
        Codec([Noted]).encode(Leap())
