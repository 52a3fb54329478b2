"""The seven patterns as definitions: the twins of what pattern_code.py writes as code."""

from typing import Any

from benchmarks.pattern_code import ITEMS, NAMES
from perdure import Branching, Compensation, Step, Trigger, WorkflowDefinition

X = {"x": "x"}
INTO_X = {".": "x"}


def definition(pattern: str) -> WorkflowDefinition:
    """Return the definition of a pattern; everything that it does not need is as it is when left out."""
    given: Any = pattern
    return WorkflowDefinition(id=pattern, pattern=given, steps=_steps(pattern), **_OTHERWISE.get(pattern, {}))


_OTHERWISE: dict[str, dict[str, Any]] = {
    "map_reduce": {"page_size": ITEMS},
    "event_driven": {"until": {"if": "x", "ge": "never"}},
}


def _steps(pattern: str) -> tuple[Step, ...]:
    match pattern:
        case "sequential":
            return tuple(_increment(name) for name in NAMES)
        case "parallel":
            return tuple(Step(id=name, tool="increment", input_mapping=X) for name in NAMES)
        case "fan_out_fan_in":
            return tuple(Step(id=n, tool="named", input_mapping=X, arguments={"name": n}) for n in NAMES)
        case "conditional":
            return tuple(
                _increment(name, next=_onward(following)) for name, following in zip(NAMES, (*NAMES[1:], None))
            )
        case "saga":
            undo = Compensation(tool="undo", input_mapping={"x": "original_data.x"})
            return tuple(_increment(name, compensation=undo) for name in NAMES)
        case "map_reduce":
            return Step(id="double", tool="double"), Step(id="total", tool="total")
        case _:
            return tuple(_increment(name, on=(Trigger(event="tick"),)) for name in NAMES)
