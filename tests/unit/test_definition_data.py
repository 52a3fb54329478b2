"""Paths and mappings of definitions: what is taken, what is put where, and that nothing is shared."""

from typing import Any

import pytest

from perdure.actors.workflows.defined.data import MISSING, look_up, segments, sent, taken, with_results
from perdure.actors.workflows.defined.errors import DataPathError

DATA: dict[str, Any] = {"a": {"b": [{"c": 1}, 2]}, "n": None, "x.y": 5, "text": "t"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.b.0.c", 1), ("a.b.1", 2), ("n", None), ("x\\.y", 5), (".", DATA),
        ("a.z", MISSING), ("a.b.2", MISSING), ("a.b.-1", MISSING), ("text.0", MISSING), ("n.x", MISSING),
        ("x.y", MISSING),
    ],
)  # fmt: skip
def test_a_path_leads_to_a_value_or_to_nothing(path: str, expected: Any) -> None:
    assert look_up(DATA, path) == expected


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a" * 201])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"empty key|at most 200"):
        segments(path)


@pytest.mark.row("A2-04")
def test_a_mapping_whose_keys_are_all_missing_sends_nothing_and_never_all_data() -> None:
    assert sent({"in": "gone", "other": "a.gone"}, {}, DATA) == {}


def test_without_a_mapping_all_data_are_sent() -> None:
    assert sent({}, {}, DATA) == DATA


def test_what_is_mapped_comes_over_the_constants() -> None:
    assert sent({"c": "a.b.0.c", "gone": "gone"}, {"c": 0, "gone": "kept"}, DATA) == {"c": 1, "gone": "kept"}


@pytest.mark.row("A2-52")
def test_who_is_sent_data_cannot_change_them() -> None:
    data = {"inner": {"list": [1]}}
    constants = {"fixed": {"list": [1]}}

    for mapping in ({}, {"inner": "inner"}):
        message = sent(mapping, constants, data)
        message["inner"]["list"].append("mine")
        message["fixed"]["list"].append("mine")

    assert (data, constants) == ({"inner": {"list": [1]}}, {"fixed": {"list": [1]}})


@pytest.mark.row("A2-52")
def test_data_that_took_a_result_share_nothing_with_it_or_with_the_data_before() -> None:
    before: dict[str, Any] = {"kept": {"list": [1]}}
    result = {"found": {"list": [2]}}

    after = with_results(before, {"found": "new.place"}, result)
    after["kept"]["list"].append("mine")
    after["new"]["place"]["list"].append("mine")

    assert (before, result) == ({"kept": {"list": [1]}}, {"found": {"list": [2]}})


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"v": "x"}, {"a": {"b": [1, 2]}, "x": 9}),
        ({"v": "a.b.0"}, {"a": {"b": [9, 2]}}),
        ({"v": "a.c.d"}, {"a": {"b": [1, 2], "c": {"d": 9}}}),
        ({"v": "a"}, {"a": 9}),
        ({"gone": "x"}, {"a": {"b": [1, 2]}}),
        ({".": "all"}, {"a": {"b": [1, 2]}, "all": {"v": 9}}),
        ({".": "."}, {"v": 9}),
    ],
)
def test_a_result_is_put_where_the_mapping_says(mapping: dict[str, str], expected: dict[str, Any]) -> None:
    assert with_results({"a": {"b": [1, 2]}}, mapping, {"v": 9}) == expected


@pytest.mark.parametrize(
    ("target", "reason"),
    [("text.x", "a text is before 'x'"), ("n.x", "null is before 'x'"), ("a.b.2", "has 2 items"), (".", "a number")],
)
def test_a_result_that_has_no_place_is_an_error_that_says_why(target: str, reason: str) -> None:
    with pytest.raises(DataPathError, match=reason):
        with_results(DATA, {"v": target}, {"v": 9})


def test_what_is_taken_leaves_out_what_is_missing_and_keeps_null() -> None:
    assert taken({"one": "n", "two": "gone"}, DATA) == {"one": None}
