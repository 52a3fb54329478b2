"""One rule for what counts as a failure, wherever the result comes from."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import ToolFailedError, tool
from perdure.actors.tools.outcome import ERROR_TEXT_LIMIT, describe, recordable, reported_error
from tests.support.runs import box_with, play


def reported(value: Any) -> str | None:
    return reported_error(msgspec.json.encode(value))


@pytest.mark.row("A0-17")
@pytest.mark.parametrize("value", [{"error": None}, {"error": ""}, {"ok": 1}])
@pytest.mark.parametrize("as_text", [False, True])
def test_an_empty_error_is_a_success(value: dict[str, Any], as_text: bool) -> None:
    assert reported(msgspec.json.encode(value).decode() if as_text else value) is None


@pytest.mark.row("A0-18")
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"error": "x"}, "x"),
        ({"error": {"code": 1}}, '{"code":1}'),
        ('{"error" : "x"}', "x"),
        (' \n{"ok": 1, "error": {"code": 1}}', '{"code":1}'),
    ],
)
def test_any_other_error_is_a_failure_as_an_object_and_as_text(value: Any, error: str) -> None:
    assert reported(value) == error


@pytest.mark.row("A0-19")
@pytest.mark.parametrize(
    "value", ['log: "error": 5', "plain", '["error"]', '{"error": "x"', 'x {"error": "x"}', '"error"']
)
def test_text_that_is_no_object_is_not_judged(value: str) -> None:
    assert reported(value) is None


@pytest.mark.parametrize("value", [{"inner": {"error": "x"}}, [{"error": "x"}], {"errors": ["x"]}, 5, None])
def test_only_the_outermost_object_is_judged(value: Any) -> None:
    assert reported(value) is None


names = st.sampled_from(["error", "ok", "a"]) | st.text()
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.booleans())
def test_the_short_cut_changes_nothing(value: Any, as_text: bool) -> None:
    """Bytes without the word are not decoded: the rule written plainly says the same."""
    error = value.get("error") if isinstance(value, dict) else None
    is_failure = bool(error)
    result = msgspec.json.encode(value).decode() if as_text and isinstance(value, dict) else value

    assert (reported(result) is not None) == is_failure


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ({"ok": 1}, {"ok": 1}),
        ({"error": "bad"}, "ToolReportedError: bad"),
        (None, "InvalidResult: returned NoneType"),
        (b"raw", "InvalidResult: returned bytes"),
        (bytearray(b"raw"), "InvalidResult: returned bytearray"),
    ],
)
def test_results_of_every_kind_are_judged_by_the_same_rule(value: Any, outcome: Any) -> None:
    @tool
    async def answers() -> Any:
        return value

    async def scenario() -> Any:
        async with box_with() as box:
            rt = await box.open()
            try:
                return await rt.call(answers)
            except ToolFailedError as error:
                return str(error)

    found = play(scenario)

    assert found == outcome if isinstance(outcome, dict) else outcome in found


def test_none_and_bytes_are_results_where_they_are_declared() -> None:
    @tool
    async def nothing() -> None: ...

    @tool
    async def maybe() -> int | None:
        return None

    @tool
    async def raw() -> bytes:
        return b"\x00raw"

    async def scenario() -> Any:
        async with box_with() as box:
            rt = await box.open()
            return [await rt.call(nothing), await rt.call(maybe), await rt.call(raw)]

    assert play(scenario) == [None, None, b"\x00raw"]


def test_an_error_is_described_by_names_and_text() -> None:
    failure = describe(ConnectionResetError("gone"))

    assert (failure.error_type, failure.message) == ("ConnectionResetError", "gone")
    assert failure.bases == ("ConnectionResetError", "ConnectionError", "OSError")


def test_the_text_of_an_error_is_fit_for_the_log() -> None:
    assert recordable("a\ud800b") == "a\\ud800b"
    assert recordable("x" * ERROR_TEXT_LIMIT) == "x" * ERROR_TEXT_LIMIT
    assert recordable("x" * 5000).endswith("… (5000 characters)")
