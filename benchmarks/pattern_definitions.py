"""The seven patterns as definitions: the twins of what pattern_code.py writes as code."""

from typing import Any

from benchmarks.pattern_code import NAMES
from perdure import Branching, Compensation, Step, Trigger, WorkflowDefinition

X = {"x": "x"}


def definition(pattern: str) -> WorkflowDefinition:
    """Return the definition of a pattern, with nothing in it that the pattern does not need."""
    name: Any = pattern
    return WorkflowDefinition(id=pattern, pattern=name, steps=_steps(pattern))


def _steps(pattern: str) -> tuple[Step, ...]:
    match pattern:
        case "sequential":
            return tuple(_increment(name) for name in NAMES)
        case "parallel":
            return tuple(Step(id=name, tool="increment", input_mapping=X) for name in NAMES)
        case "fan_out_fan_in":
            return tuple(Step(id=name, tool="named", input_mapping=X, arguments={"name": name}) for name in NAMES)
        case "conditional":
            ways = zip(NAMES, (*NAMES[1:], None), strict=True)
            return tuple(_increment(name, next=_onward(following)) for name, following in ways)
        case "saga":
            undo = Compensation(tool="undo", input_mapping={"x": "original_data.x"})
            return tuple(_increment(name, compensation=undo) for name in NAMES)
        case "map_reduce":
            return Step(id="double", tool="double"), Step(id="total", tool="total")
        case _:
            return tuple(_increment(name, on=(Trigger(event=f"tick.{name}"),)) for name in NAMES)


def _increment(name: str, **fields: Any) -> Step:
    return Step(id=name, tool="increment", input_mapping=X, output_mapping={".": "x"}, **fields)


def _onward(following: str | None) -> Branching | None:
    return None if following is None else Branching(condition={"if": "x", "ge": 0}, if_true=following)
