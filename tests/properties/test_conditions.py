"""Conditions against a naive model of three-valued logic, over random data and random conditions."""

import operator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.actors.workflows.defined.condition_faults import faults_in
from perdure.actors.workflows.defined.conditions import evaluate

KEYS = ("a", "b", "c")
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["", "a", "ab"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
    max_leaves=4,
)
DATA = st.dictionaries(st.sampled_from(KEYS), VALUES)
PATHS = st.lists(st.sampled_from((*KEYS, "0", "1")), min_size=1, max_size=3).map(".".join)
OPERANDS = {
    "eq": VALUES, "ne": VALUES, "contains": VALUES,
    "gt": st.integers(-3, 3) | st.sampled_from(["", "a", "ab"]), "ge": st.integers(-3, 3) | st.sampled_from(["a"]),
    "lt": st.integers(-3, 3) | st.sampled_from(["a"]), "le": st.integers(-3, 3) | st.sampled_from(["a"]),
    "in": st.lists(SCALARS, max_size=3) | st.sampled_from(["", "abc"]), "exists": st.booleans(),
}  # fmt: skip
LEAVES = st.fixed_dictionaries({"if": PATHS}, optional=OPERANDS)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"and": parts})
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"or": parts})
        | inner.map(lambda part: {"not": part})
    ),
    max_leaves=5,
)


def kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(type(value))
    return "number" if isinstance(value, (int, float)) else str(type(value))


def equal(one: Any, two: Any) -> bool:
    if kind(one) != kind(two):
        return False
    if isinstance(one, dict):
        return sorted(one) == sorted(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(equal, one, two))
    return bool(one == two)


def member(value: Any, container: Any) -> bool | None:
    if isinstance(container, list):
        return any(equal(value, each) for each in container)
    if isinstance(container, (str, dict)):
        return value in container if isinstance(value, str) else None
    return None


def compared(name: str, value: Any, operand: Any) -> bool | None:
    if name in ("eq", "ne"):
        return equal(value, operand) == (name == "eq")
    if name in ("in", "contains"):
        return member(value, operand) if name == "in" else member(operand, value)
    if kind(value) != kind(operand) or kind(value) not in ("number", str(str)):
        return None
    return bool(getattr(operator, name)(value, operand))


def naive(condition: dict[str, Any], data: Any) -> bool | None:
    """True, false, or None where nobody can say."""
    if "not" in condition:
        inner = naive(condition["not"], data)
        return None if inner is None else not inner
    if "and" in condition or "or" in condition:
        is_and = "and" in condition
        results = [naive(part, data) for part in condition["and" if is_and else "or"]]
        decisive = not is_and
        return decisive if decisive in results else None if None in results else is_and
    found = True
    value = data
    for key in condition["if"].split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key] if isinstance(value, dict) else {}[key]
        except (KeyError, IndexError, ValueError):
            found = False
            break
    checks = {name: operand for name, operand in condition.items() if name != "if"}
    if not checks:
        return found and bool(value)
    results = [
        operand == found if name == "exists" else compared(name, value, operand) if found else None
        for name, operand in checks.items()
    ]
    return False if False in results else None if None in results else True


@given(CONDITIONS, DATA)
def test_the_verdict_is_that_of_the_naive_model(condition: dict[str, Any], data: dict[str, Any]) -> None:
    verdict = evaluate(condition, data)

    assert list(faults_in(condition, "conditions", {})) == []
    assert (verdict.holds if verdict.is_known else None) == naive(condition, data)
    assert not (verdict.holds and not verdict.is_known)
    assert verdict.reason


@given(PATHS, st.integers(-3, 3) | st.sampled_from(["a", "ab"]), DATA)
def test_a_negated_comparison_is_the_opposite_comparison(path: str, operand: Any, data: dict[str, Any]) -> None:
    for name, opposite in (("gt", "le"), ("lt", "ge"), ("eq", "ne")):
        negated = evaluate({"not": {"if": path, name: operand}}, data)

        assert negated.holds == evaluate({"if": path, opposite: operand}, data).holds


@given(
    st.recursive(
        SCALARS,
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(
                st.sampled_from([*KEYS, "if", "and", "or", "not", "gt", "in", "predicate", ""]), i, max_size=3
            )
        ),
    ),
    DATA,
)
def test_whatever_somebody_writes_is_a_fault_or_can_be_judged(written: Any, data: dict[str, Any]) -> None:
    if not list(faults_in(written, "conditions", {})):
        assert evaluate(written, data).reason
