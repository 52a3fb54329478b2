"""What may enter the log as a value: JSON, finite, without secrets, within bounds."""

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import PayloadTooLargeError, Secret, UnencodableError, UsageError
from perdure.actors.kernel.payloads import MAX_DEPTH, Redaction, SecretScope, encode_payload, payload_decoder

PLAIN = Redaction()


def encoded(value: Any, **options: Any) -> Any:
    return msgspec.json.decode(encode_payload(value, where="it", redaction=PLAIN, **options))


@dataclass
class Reading:
    values: list[float]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda x: x, "it"),
        (lambda x: [1.0, None, x], r"it\[2\]"),
        (lambda x: {"a": {"b": [x]}}, r"it\.a\.b\[0\]"),
        (lambda x: Reading([0.5, x]), r"it\.values\[1\]"),
        (lambda x: (x,), r"it\[0\]"),
    ],
)
def test_numbers_that_json_does_not_know_are_refused_with_their_path(bad: float, wrap: Any, path: str) -> None:
    with pytest.raises(UnencodableError, match=path):
        encoded(wrap(bad))


@pytest.mark.parametrize("value", [None, [None], {"a": None}, "null", Reading([1.0])])
def test_none_is_no_such_number(value: Any) -> None:
    assert encoded(value) == msgspec.to_builtins(value)


@pytest.mark.parametrize(
    "value", ["\ud800", ["a", "\udfff"], {"\ud800": 1}, object(), {1: object()}, {(1, 2): 3}, lambda: 1, 1j]
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(UnencodableError, match="it cannot be recorded"):
        encoded(value)


def test_a_value_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(UnencodableError):
        encoded(endless)


def nested(levels: int, *, objects: bool = False) -> Any:
    value: Any = {} if objects else []
    for _ in range(levels - 1):
        value = {"a": value} if objects else [value]
    return value


@pytest.mark.parametrize("objects", [False, True])
def test_a_value_that_is_nested_too_deeply_to_be_read_back_is_refused(objects: bool) -> None:
    assert encoded(nested(MAX_DEPTH, objects=objects)) == nested(MAX_DEPTH, objects=objects)

    with pytest.raises(UnencodableError, match="it cannot be recorded: it is nested more than 250 levels deep"):
        encoded(nested(MAX_DEPTH + 1, objects=objects))


def test_brackets_in_texts_nest_nothing() -> None:
    value = ["[{" * 300, ["]}" * 300, '"\\[' * 300], {"[": {"\\": ["]"] * 300}}]

    assert encoded(value) == value


def test_a_deep_value_with_a_secret_name_is_redacted() -> None:
    deep: Any = nested(MAX_DEPTH - 1, objects=True)

    assert encoded({"password": "p", "x": deep}) == {"password": "[redacted]", "x": deep}


def test_a_value_over_the_limit_is_refused_with_the_path_of_its_largest_text() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"it\.pages\[1\] is \d+ bytes, the limit is 1000") as caught:
        encoded({"title": "t" * 10, "pages": ["x" * 100, "y" * 2000]}, limit=1000)

    assert caught.value.limit == 1000


@pytest.mark.parametrize(
    "key", ["password", "PASSWORD", "Api-Key", "api_key", "Authorization", "set-cookie", "ACCESS_TOKEN"]
)
@pytest.mark.parametrize("value", ["secret", 5, ["secret"], {"deep": "secret"}, True, ""])
def test_values_under_secret_names_are_hidden(key: str, value: Any) -> None:
    assert encoded({"a": [{key: value}], "b": "password"}) == {"a": [{key: "[redacted]"}], "b": "password"}


@pytest.mark.parametrize("key", ["passwords", "my_password", "tokens", "secretary", "token_count"])
def test_other_names_are_not(key: str) -> None:
    assert encoded({key: "open"}) == {key: "open"}


def test_a_reference_to_a_secret_and_nothing_stay() -> None:
    assert encoded({"token": Secret("API"), "password": None}) == {"token": {"$secret": "API"}, "password": None}


def test_text_that_was_encoded_by_hand_is_redacted_too() -> None:
    raw = msgspec.Raw(b'{ "password" : "secret", "PassWord"\n:\t"secret" }')

    assert encoded({"inner": raw}) == {"inner": {"password": "[redacted]", "PassWord": "[redacted]"}}


def test_names_to_hide_can_be_chosen() -> None:
    redaction = Redaction(["Card-Number"])

    data = encode_payload({"card_number": "1", "password": "2"}, where="it", redaction=redaction)

    assert msgspec.json.decode(data) == {"card_number": "[redacted]", "password": "2"}
    assert encode_payload({"token": "1"}, where="it", redaction=Redaction([])) == b'{"token":"1"}'


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["password", "Token", "a", "$secret"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def hidden(value: Any) -> Any:
    """The rule once more, without the short cut."""
    if isinstance(value, list):
        return [hidden(item) for item in value]
    return {k: _hidden_item(k, v) for k, v in value.items()} if isinstance(value, dict) else value


def _hidden_item(key: str, value: Any) -> Any:
    if not _is_secret(key):
        return hidden(value)
    return value if value is None or _is_reference(value) else "[redacted]"


def _is_secret(key: str) -> bool:
    return key.lower().replace("-", "_") in {"password", "token"}


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"$secret"}


@given(json_values)
def test_redaction_is_the_rule_and_nothing_else(value: Any) -> None:
    data = encode_payload(value, where="it", redaction=Redaction(["password", "token"]))

    assert msgspec.json.decode(data) == hidden(value)


@given(json_values)
def test_equal_values_give_equal_bytes_when_asked_for(value: Any) -> None:
    shuffled = msgspec.json.decode(msgspec.json.encode(value, order="sorted"))

    one, other = (encode_payload(v, where="it", redaction=PLAIN, stable=True) for v in (value, shuffled))

    assert one == other


@given(json_values)
def test_what_goes_in_comes_out(value: Any) -> None:
    data = encode_payload(value, where="it", redaction=Redaction([]))

    assert payload_decoder(Any, "it").decode(data, "it") == value


def test_a_type_that_cannot_be_read_back_is_refused_where_it_is_declared() -> None:
    class Custom:
        pass

    with pytest.raises(UsageError, match="cannot be read back from JSON"):
        payload_decoder(Custom, "the result of f")


def test_secrets_are_revealed_inside_of_a_scope_only_and_scrubbed_from_every_text() -> None:
    scope = SecretScope({"A": "alpha", "EMPTY": ""}.get)

    with scope:
        assert Secret("A").reveal() == "alpha"
        assert Secret("EMPTY").reveal() == ""
        with pytest.raises(UsageError, match="no secret named 'B'"):
            Secret("B").reveal()
    with pytest.raises(UsageError, match="only inside a tool"):
        Secret("A").reveal()

    assert scope.scrub("say alpha, alphabet") == "say [secret A], [secret A]bet"
    assert msgspec.json.decode(scope.scrub_json(b'{"alpha":["x alpha",{"k":"alpha"}],"n":1}')) == {
        "[secret A]": ["x [secret A]", {"k": "[secret A]"}], "n": 1,
    }  # fmt: skip


def test_a_secret_never_shows_its_value() -> None:
    assert repr(Secret("A")) == "Secret(name='A')"
    assert msgspec.json.encode(Secret("A")) == b'{"$secret":"A"}'
