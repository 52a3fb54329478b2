"""What is wrong with conditions as somebody wrote them, each fault with its path. Pure; it judges no data.

Invariant: conditions without faults can be judged for any data, without an error.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from perdure.actors.workflows.defined.conditions import COMBINATIONS, OPERATORS, is_number, shown
from perdure.actors.workflows.defined.data import segments
from perdure.actors.workflows.defined.errors import Fault
from perdure.actors.workflows.defined.wording import nearest, under

DEEPEST = 32
"""Conditions within conditions: far more than people write, far less than the stack has room for."""


def faults_in(conditions: Any, at: str, predicates: Mapping[str, Any], depth: int = 0) -> Iterator[Fault]:
    """Yield what is wrong with conditions, with the path of each fault."""
    if isinstance(conditions, str):
        yield from _unknown_predicate(conditions, at, predicates)
    elif not isinstance(conditions, dict):
        yield Fault(at, 'conditions are an object such as {"if": "path", "gt": 0}, or the name of a predicate')
    elif depth > DEEPEST:
        yield Fault(at, f"conditions are at most {DEEPEST} deep")
    elif given := cast("dict[str, Any]", conditions):
        yield from _faults_in(given, at, predicates, depth)


def _faults_in(given: dict[Any, Any], at: str, predicates: Mapping[str, Any], depth: int) -> Iterator[Fault]:
    kinds = [word for word in COMBINATIONS if word in given]
    for key in given:
        if key not in COMBINATIONS and (key not in OPERATORS or (kinds and "if" not in kinds)):
            yield Fault(under(at, key), _unknown(str(key), kinds))
    if len(kinds) > 1:
        yield Fault(at, f"{' and '.join(kinds)} stand beside one another: combine them with and, or, not")
    elif not kinds and any(key in OPERATORS for key in given):
        yield Fault(at, 'what is compared is not said: add "if": "path"')
    for key, value in given.items():
        yield from _part_faults(key, value, under(at, key), predicates, depth)


def _part_faults(key: Any, value: Any, at: str, predicates: Mapping[str, Any], depth: int) -> Iterator[Fault]:
    match key:
        case "if":
            yield from path_faults(value, at)
        case "not":
            yield from faults_in(value, at, predicates, depth + 1)
        case "predicate":
            yield from _unknown_predicate(value, at, predicates)
        case "and" | "or":
            yield from _list_faults(value, at, predicates, depth)
        case _:
            yield from _operand_faults(key, value, at)


def _unknown(key: str, kinds: list[str]) -> str:
    if key in OPERATORS:
        return f'{key} compares what "if" names, and stands beside it, not beside {kinds[0]}'
    return f"{key!r} is not an operator; {nearest(key, (*OPERATORS, *COMBINATIONS))}"


def _list_faults(value: Any, at: str, predicates: Mapping[str, Any], depth: int) -> Iterator[Fault]:
    if not isinstance(value, (list, tuple)) or not value:
        yield Fault(at, "it is a list of one condition or more")
        return
    for number, each in enumerate(cast("Sequence[Any]", value)):
        yield from faults_in(each, f"{at}[{number}]", predicates, depth + 1)


def _operand_faults(name: str, operand: Any, at: str) -> Iterator[Fault]:
    match name:
        case "gt" | "ge" | "lt" | "le" if not is_number(operand) and not isinstance(operand, str):
            yield Fault(at, f"{name} compares with a number or a text, not with {shown(operand)}")
        case "in" if not isinstance(operand, (list, tuple, str, dict)):
            yield Fault(at, f"in takes a list (or a text, or an object), not {shown(operand)}")
        case "exists" if not isinstance(operand, bool):
            yield Fault(at, f"exists is true or false, not {shown(operand)}")
        case _:
            pass


def _unknown_predicate(name: Any, at: str, predicates: Mapping[str, Any]) -> Iterator[Fault]:
    if not isinstance(name, str) or name not in predicates:
        yield Fault(at, f"there is no predicate {shown(name)}; {nearest(str(name), predicates)}")


def path_faults(path: Any, at: str) -> Iterator[Fault]:
    """Yield what is wrong with a dotted path."""
    if not isinstance(path, str):
        yield Fault(at, f"a path is a text such as `a.b`, not {shown(path)}")
        return
    try:
        segments(path)
    except ValueError as error:
        yield Fault(at, str(error))
