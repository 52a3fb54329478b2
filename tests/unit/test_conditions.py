"""Conditions of definitions: what holds, what does not and why, and what is refused when a workflow is registered."""

from typing import Any

import pytest

from perdure.actors.workflows.defined.condition_faults import faults_in
from perdure.actors.workflows.defined.conditions import evaluate

DATA: dict[str, Any] = {
    "count": 3, "zero": 0, "level": "high", "none": None, "yes": True, "no": False,
    "tags": ["a", "b"], "inner": {"deep": {"n": 7}, "list": [{"x": 1}]}, "dotted.key": 1,
}  # fmt: skip


def holds(conditions: Any) -> bool:
    return evaluate(conditions, DATA).holds


def why(conditions: Any) -> str:
    return evaluate(conditions, DATA).reason


@pytest.mark.row("A2-06")
@pytest.mark.parametrize(
    ("operator", "operand", "expected"),
    [
        ("eq", 3, True), ("eq", 3.0, True), ("eq", 4, False), ("eq", "3", False),
        ("ne", 4, True), ("ne", 3, False), ("ne", "3", True),
        ("gt", 2, True), ("gt", 3, False), ("ge", 3, True), ("ge", 4, False),
        ("lt", 4, True), ("lt", 3, False), ("le", 3, True), ("le", 2, False),
        ("in", [1, 3], True), ("in", [1, 2], False), ("in", [], False),
    ],
)  # fmt: skip
def test_each_operator_is_evaluated(operator: str, operand: Any, expected: bool) -> None:
    assert holds({"if": "count", operator: operand}) is expected


@pytest.mark.row("A2-06")
@pytest.mark.parametrize(("least", "most", "expected"), [(1, 5, True), (1, 2, False), (4, 5, False)])
def test_operators_beside_one_another_are_anded(least: int, most: int, expected: bool) -> None:
    assert holds({"if": "count", "gt": least, "lt": most}) is expected


@pytest.mark.row("A2-06")
@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"if": "none", "gt": 0}, "none is null, which cannot be compared: gt 0"),
        ({"if": "level", "gt": 0}, 'level is "high", which cannot be compared: gt 0'),
        ({"if": "count", "lt": "9"}, 'count is 3, which cannot be compared: lt "9"'),
        ({"if": "yes", "ge": 0}, "yes is true, which cannot be compared: ge 0"),
        ({"if": "count", "in": "abc"}, 'count is 3, which cannot be compared: in "abc"'),
        ({"if": "count", "contains": 3}, "count is 3, which cannot be compared: contains 3"),
        ({"if": "gone", "eq": 1}, "gone is missing"),
    ],
)
def test_what_cannot_be_compared_does_not_hold_and_says_why(condition: dict[str, Any], reason: str) -> None:
    verdict = evaluate(condition, DATA)

    assert (verdict.holds, verdict.is_known, verdict.reason) == (False, False, reason)


@pytest.mark.row("A2-06")
def test_the_negation_of_what_cannot_be_compared_does_not_hold_either() -> None:
    assert not holds({"not": {"if": "level", "gt": 0}})
    assert not holds({"not": {"if": "gone", "eq": 1}})


@pytest.mark.row("A2-07")
@pytest.mark.parametrize("path", ["no", "zero", "none", "gone", "inner.gone", "tags.2"])
def test_what_is_false_or_missing_does_not_hold_without_an_operator(path: str) -> None:
    assert not holds({"if": path})


@pytest.mark.row("A2-07")
@pytest.mark.parametrize(
    "path", ["yes", "count", "level", "tags", "inner.deep.n", "inner.list.0.x", "dotted\\.key", "."]
)
def test_what_is_there_and_true_holds(path: str) -> None:
    assert holds({"if": path})


def test_no_conditions_always_hold() -> None:
    assert holds({})


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"if": "tags", "contains": "a"}, True),
        ({"if": "tags", "contains": "z"}, False),
        ({"if": "level", "contains": "ig"}, True),
        ({"if": "inner", "contains": "deep"}, True),
        ({"if": "gone", "exists": False}, True),
        ({"if": "none", "exists": True}, True),
        ({"if": "yes", "eq": 1}, False),
        ({"if": "inner.list", "eq": [{"x": 1.0}]}, True),
        ({"and": [{"if": "yes"}, {"if": "count", "gt": 2}]}, True),
        ({"and": [{"if": "yes"}, {"if": "no"}]}, False),
        ({"or": [{"if": "no"}, {"if": "level", "gt": 1}, {"if": "yes"}]}, True),
        ({"or": [{"if": "no"}, {"if": "zero"}]}, False),
        ({"not": {"if": "no"}}, True),
    ],
)
def test_containers_existence_and_combinations(condition: dict[str, Any], expected: bool) -> None:
    assert holds(condition) is expected


def test_a_predicate_is_asked_by_name_and_cannot_change_the_data() -> None:
    def greedy(data: dict[str, Any]) -> bool:
        data["tags"].append("mine")
        return bool(data["count"] == 3)

    verdict = evaluate("greedy", DATA, {"greedy": greedy})

    assert (verdict.holds, verdict.reason) == (True, "greedy is true")
    assert DATA["tags"] == ["a", "b"]
    assert evaluate({"not": {"predicate": "greedy"}}, DATA, {"greedy": greedy}).holds is False


def test_a_predicate_that_raises_does_not_hold_and_says_what_it_raised() -> None:
    verdict = evaluate({"not": "broken"}, DATA, {"broken": lambda data: data["gone"]})

    assert not verdict.holds
    assert verdict.reason == "not (the predicate broken raised KeyError: 'gone')"


def test_the_reason_of_a_combination_names_what_decided() -> None:
    both = {"and": [{"if": "yes"}, {"if": "count", "gt": 5}, {"if": "gone", "gt": 1}]}

    assert why(both) == "count is 3, not gt 5"


@pytest.mark.row("A2-08")
@pytest.mark.parametrize(
    ("condition", "path", "hint"),
    [
        ({"if": "k", "gtt": 1}, "c.gtt", "did you mean gt?"),
        ({"iff": "k"}, "c.iff", "did you mean if?"),
        ({"gt": 1}, "c", 'add "if": "path"'),
        ({"if": "k", "gt": None}, "c.gt", "a number or a text, not with null"),
        ({"if": "k", "gt": True}, "c.gt", "not with true"),
        ({"if": "k", "in": 3}, "c.in", "takes a list"),
        ({"if": "k", "exists": "yes"}, "c.exists", "true or false"),
        ({"if": "a..b"}, "c.if", "empty key"),
        ({"if": 3}, "c.if", "a path is a text"),
        ({"and": []}, "c.and", "a list of one condition or more"),
        ({"and": [{"if": "k"}, {"or": [{"if": "k", "equals": 1}]}]}, "c.and[1].or[0].equals", "is not an operator"),
        ({"not": []}, "c.not", "conditions are an object"),
        ({"if": "k", "not": {}}, "c", "stand beside one another"),
        ({"and": [{}], "gt": 1}, "c.gt", "not beside and"),
        ({"predicate": "riskky"}, "c.predicate", "did you mean risky?"),
        ("other", "c", "there is no predicate"),
        (7, "c", "conditions are an object"),
    ],
)
def test_what_is_no_condition_is_a_fault_with_its_path(condition: Any, path: str, hint: str) -> None:
    (fault,) = faults_in(condition, "c", {"risky": bool})

    assert fault.path == path
    assert hint in fault.text


def test_conditions_too_deep_for_the_stack_are_a_fault() -> None:
    deep: Any = {"if": "k"}
    for _ in range(10_000):
        deep = {"not": deep}

    assert [fault.text for fault in faults_in(deep, "c", {})] == ["conditions are at most 32 deep"]
