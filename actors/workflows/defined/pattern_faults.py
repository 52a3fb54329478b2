"""What is wrong with a definition for the pattern that it is in: what follows, what undoes it, what starts it.

Pure. The general checks are in `checking.py`, the ways through it in `ways.py`; all run, so that somebody who writes a
definition is told everything at once.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from perdure.actors.workflows.defined.condition_faults import faults_in, path_faults
from perdure.actors.workflows.defined.errors import Fault
from perdure.actors.workflows.defined.items import MAP_AND_REDUCE
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import MERGES, Branching, Pattern, Step, WorkflowDefinition
from perdure.actors.workflows.defined.pausing import PAUSING, pause_faults
from perdure.actors.workflows.defined.ways import named, way_faults
from perdure.actors.workflows.defined.wording import nearest

LONGEST_SECONDS: Final = 10 * 366 * 24 * 3600.0
"""Ten years: no limit of a step or a workflow is longer."""

EVENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,59}")
"""What a type of events may be called."""

OWN: Final[dict[str, tuple[Pattern, ...]]] = {
    "start": ("conditional",),
    "entry_steps": ("conditional",),
    "max_visits": ("conditional",),
    "items": ("map_reduce",),
    "on_item_failure": ("map_reduce",),
    "page_size": ("map_reduce",),
    "reduce": ("map_reduce",),
    "concurrency": ("map_reduce", "parallel", "fan_out_fan_in"),
    "merge": ("fan_out_fan_in",),
    "until": ("event_driven",),
}
"""Fields of a definition that only some patterns have."""

OWN_OF_STEPS: Final[dict[str, tuple[Pattern, ...]]] = {
    "compensation": ("saga",),
    "pivot": ("saga",),
    "next": ("conditional",),
    "on": ("event_driven",),
    "pause": PAUSING,
    "answer": PAUSING,
    "output_mapping": ("sequential", "conditional", "saga", "event_driven", "fan_out_fan_in"),
}
"""The same of a step's fields: docs/definitions.md has all of them."""


def pattern_faults(definition: WorkflowDefinition, known: Known) -> Iterator[Fault]:
    """Yield what is wrong with a definition for its pattern."""
    yield from _strangers(definition)
    if definition.pattern in PAUSING:
        yield from pause_faults(definition)
    if definition.steps and (check := _CHECKS.get(definition.pattern)) is not None:
        yield from check(definition, known)
    yield from way_faults(definition, known)


def _strangers(definition: WorkflowDefinition) -> Iterator[Fault]:
    """Yield fields that say something which the pattern passes over: whoever wrote them expects more of it."""
    defaults = _defaults(WorkflowDefinition)
    for name, patterns in OWN.items():
        if getattr(definition, name) != defaults[name] and definition.pattern not in patterns:
            yield Fault(name, f"only {_listed(patterns)} has it, and this is {definition.pattern}")
    defaults = _defaults(Step)
    for number, step in enumerate(definition.steps):
        for name, patterns in OWN_OF_STEPS.items():
            if getattr(step, name) != defaults[name] and definition.pattern not in patterns:
                text = f"only a step of {_listed(patterns)} has it, and this is {definition.pattern}"
                yield Fault(f"steps[{number}].{name}", text)


def _listed(patterns: tuple[Pattern, ...]) -> str:
    *others, last = patterns
    return f"{', '.join(others)} or {last}" if others else last


def _defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    fields = msgspec.structs.fields(struct)
    return {f.name: f.default if f.default_factory is msgspec.NODEFAULT else f.default_factory() for f in fields}


def _saga(definition: WorkflowDefinition, _: Known) -> Iterator[Fault]:
    pivot: int | None = None
    for number, step in enumerate(definition.steps):
        if step.pivot and pivot is not None:
            yield Fault(f"steps[{number}].pivot", f"steps[{pivot}] is the pivot: a saga has one at most")
        if step.pivot and pivot is None:
            pivot = number
        if pivot is not None and step.compensation is not None:
            text = f"nothing is undone from the pivot, steps[{pivot}], on: it would never be called"
            yield Fault(f"steps[{number}].compensation", text)


def _map_reduce(definition: WorkflowDefinition, _: Known) -> Iterator[Fault]:
    if len(definition.steps) not in (2, 3):
        text = "map_reduce has a step for each item and one for all results (and before them one that gives the items)"
        yield Fault("steps", f"{text}, not {len(definition.steps)}")
    last = len(definition.steps) - 1
    if len(definition.steps) > MAP_AND_REDUCE and definition.page_size != _defaults(WorkflowDefinition)["page_size"]:
        yield Fault("page_size", "the first step says how many items it gives at once: leave page_size out")
    if last > 0 and definition.steps[last - 1].on_failure == "continue":
        text = "on_item_failure says what becomes of an item that failed"
        yield Fault(f"steps[{last - 1}].on_failure", text)
    if definition.reduce == "fold" and definition.steps[last].on_failure == "continue":
        text = "with reduce = fold it cannot be passed over: the results of a page would be lost"
        yield Fault(f"steps[{last}].on_failure", text)
    yield from path_faults(definition.items, "items")


def _fan_out(definition: WorkflowDefinition, known: Known) -> Iterator[Fault]:
    if definition.merge not in MERGES and definition.merge not in known.reducers:
        ways = [*MERGES, *known.reducers]
        yield Fault("merge", f"there is no reducer {definition.merge!r}; {nearest(definition.merge, ways)}")


def event_faults(event: str, at: str, known: Known) -> Iterator[Fault]:
    """Yield what is wrong with the type of an event."""
    if not EVENT.fullmatch(event):
        yield Fault(at, f"a type of events is 1 to 60 letters, digits and the characters . _ : + -, not {event!r}")
    elif known.events is not None and event not in known.events:
        yield Fault(at, f"there is no event {event!r}; {nearest(event, known.events)}")


def _event_driven(definition: WorkflowDefinition, known: Known) -> Iterator[Fault]:
    if not any(step.on for step in definition.steps):
        yield Fault("steps", "no step waits for an event: give one of them `on`, or choose another pattern")
    for number, step in enumerate(definition.steps):
        for n, trigger in enumerate(step.on):
            at = f"steps[{number}].on[{n}]"
            yield from event_faults(trigger.event, f"{at}.event", known)
            yield from faults_in(trigger.filter, f"{at}.filter", known.predicates)
            if trigger.within != step.on[0].within:
                text = f"a step waits for all its events equally long: as steps[{number}].on[0] says"
                yield Fault(f"{at}.within", text)
            elif trigger.within is not None and not 0 < trigger.within <= LONGEST_SECONDS:
                text = f"it is seconds, more than 0 and at most ten years, not {trigger.within:g}"
                yield Fault(f"{at}.within", text)
    if definition.until is not None:
        yield from faults_in(definition.until, "until", known.predicates)


def _conditional(definition: WorkflowDefinition, known: Known) -> Iterator[Fault]:
    ids = {step.id for step in definition.steps}
    if definition.start is not None and definition.start not in ids:
        yield Fault("start", f"there is no step {definition.start!r}; {nearest(definition.start, ids)}")
    for number, id in enumerate(definition.entry_steps):
        if id not in ids:
            yield Fault(f"entry_steps[{number}]", f"there is no step {id!r}; {nearest(id, ids)}")
    for number, step in enumerate(definition.steps):
        at = f"steps[{number}].next"
        for where, target in named(definition, step, at):
            if target not in ids:
                yield Fault(where, f"there is no step {target!r}; {nearest(target, ids)}")
        if isinstance(step.next, Branching):
            yield from faults_in(step.next.condition, f"{at}.condition", known.predicates)
            if not list(named(definition, step, at)):
                yield Fault(at, "it names no step: say where to go, or leave next out")


_CHECKS: dict[str, Callable[[WorkflowDefinition, Known], Iterator[Fault]]] = {
    "saga": _saga,
    "map_reduce": _map_reduce,
    "fan_out_fan_in": _fan_out,
    "event_driven": _event_driven,
    "conditional": _conditional,
}
