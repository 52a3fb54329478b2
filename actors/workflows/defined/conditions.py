"""Whether conditions, which are data, hold for the data of a workflow. Pure; how they may look: `condition_faults.py`.

Three outcomes, as in SQL: a comparison of what is missing, or of two things that cannot be compared, is neither true
nor false, and what follows from it only is not either (S. C. Kleene's strong logic). So `not (x > 5)` means `x <= 5`,
and neither holds for a text. What is not true does not hold, and the verdict says why.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import msgspec

from perdure.actors.workflows.defined.data import MISSING, copied, look_up
from perdure.actors.workflows.defined.model import Conditions

Predicate: TypeAlias = Callable[[dict[str, Any]], object]
"""A condition as a function over a copy of the data: truthy where it holds. It must depend on nothing else."""

OPERATORS = ("eq", "ne", "gt", "ge", "lt", "le", "in", "contains", "exists")

COMBINATIONS = ("if", "and", "or", "not", "predicate")

_SHOWN = 60
"""Characters of a value in a reason."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether conditions hold, and why or why not."""

    holds: bool
    reason: str
    is_known: bool = True
    """False where they cannot be judged: something is missing, or cannot be compared."""


YES = Verdict(holds=True, reason="there are no conditions")


def evaluate(
    conditions: Conditions, data: Mapping[str, Any], predicates: Mapping[str, Predicate] | None = None
) -> Verdict:
    """Return whether *conditions*, which were checked, hold for *data*. Never raises for what the data are."""
    if isinstance(conditions, str):
        return _ask(conditions, data, predicates or {})
    if not conditions:
        return YES
    if "if" in conditions:
        return _compare(conditions, data)
    if "predicate" in conditions:
        return _ask(conditions["predicate"], data, predicates or {})
    if "not" in conditions:
        inner = evaluate(conditions["not"], data, predicates)
        return Verdict(inner.is_known and not inner.holds, f"not ({inner.reason})", inner.is_known)
    is_and = "and" in conditions
    parts = [evaluate(each, data, predicates) for each in conditions["and" if is_and else "or"]]
    return _all_of(parts) if is_and else _any_of(parts)


def _all_of(parts: list[Verdict]) -> Verdict:
    """Return the verdict on all together: the first that is false decides, then the first that is not known."""
    false = next((each for each in parts if each.is_known and not each.holds), None)
    unknown = next((each for each in parts if not each.is_known), None)
    return false or unknown or Verdict(holds=True, reason=" and ".join(each.reason for each in parts))


def _any_of(parts: list[Verdict]) -> Verdict:
    true = next((each for each in parts if each.holds), None)
    if true is not None:
        return true
    reason = " and ".join(each.reason for each in parts)
    return Verdict(holds=False, reason=reason, is_known=all(each.is_known for each in parts))


def _ask(name: str, data: Mapping[str, Any], predicates: Mapping[str, Predicate]) -> Verdict:
    predicate = predicates.get(name)
    if predicate is None:  # registered when the run started, and no more
        return Verdict(holds=False, reason=f"the predicate {name} is not registered", is_known=False)
    try:
        holds = bool(predicate(copied(dict(data))))
    except Exception as error:  # noqa: BLE001 - it cannot be judged, whatever it raises
        reason = f"the predicate {name} raised {type(error).__name__}: {error}"
        return Verdict(holds=False, reason=reason, is_known=False)
    return Verdict(holds, f"{name} is {'true' if holds else 'false'}")


def _compare(conditions: dict[str, Any], data: Mapping[str, Any]) -> Verdict:
    path: str = conditions["if"]
    value = look_up(dict(data), path)
    checks = [(name, conditions[name]) for name in OPERATORS if name in conditions]
    if checks:
        return _all_of([_apply(path, value, name, operand) for name, operand in checks])
    if value is MISSING:
        return Verdict(holds=False, reason=f"{path} is missing")
    return Verdict(bool(value), f"{path} is {shown(value)}")


def _apply(path: str, value: Any, name: str, operand: Any) -> Verdict:
    if name == "exists":
        is_there = value is not MISSING
        return Verdict(is_there == operand, f"{path} {'exists' if is_there else 'is missing'}")
    if value is MISSING:
        return Verdict(holds=False, reason=f"{path} is missing", is_known=False)
    holds = _OPERATIONS[name](value, operand)
    if holds is None:
        reason = f"{path} is {shown(value)}, which cannot be compared: {name} {shown(operand)}"
        return Verdict(holds=False, reason=reason, is_known=False)
    return Verdict(holds, f"{path} is {shown(value)}{':' if holds else ', not'} {name} {shown(operand)}")


def is_number(value: Any) -> bool:
    """Return whether a value is a number in JSON: true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same(value: Any, other: Any) -> bool:
    """Return whether two values are the same JSON: 1 is 1.0, and true is not 1."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, dict) and isinstance(other, dict):
        one, two = cast("dict[str, Any]", value), cast("dict[str, Any]", other)
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(value, list) and isinstance(other, (list, tuple)):
        these, those = cast("Sequence[Any]", value), cast("Sequence[Any]", other)
        return len(these) == len(those) and all(_same(a, b) for a, b in zip(these, those, strict=True))
    return bool(value == other)


def _ordered(compare: Callable[[Any, Any], bool], value: Any, operand: Any) -> bool | None:
    both_numbers = is_number(value) and is_number(operand)
    return compare(value, operand) if both_numbers or (isinstance(value, str) and isinstance(operand, str)) else None


def _is_in(value: Any, container: Any) -> bool | None:
    if isinstance(container, (list, tuple)):
        return any(_same(value, each) for each in cast("Sequence[Any]", container))
    if isinstance(container, (str, dict)) and isinstance(value, str):
        return value in container
    return None


_OPERATIONS: dict[str, Callable[[Any, Any], bool | None]] = {
    "eq": _same,
    "ne": lambda value, operand: not _same(value, operand),
    "gt": partial(_ordered, lambda a, b: a > b),
    "ge": partial(_ordered, lambda a, b: a >= b),
    "lt": partial(_ordered, lambda a, b: a < b),
    "le": partial(_ordered, lambda a, b: a <= b),
    "in": _is_in,
    "contains": lambda value, operand: _is_in(operand, value),
}


def shown(value: Any) -> str:
    """Return a value as JSON for a sentence, shortened."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
