"""The ways through a definition: where each step may lead, which steps none leads to, and rounds without an end.

Pure; how the steps are performed is in `patterns.py`. Invariant: a fault holds whatever the data are: a step that is
reached for some data is never told to be out of reach, and a round that some data end is never told to be endless.
"""

from collections.abc import Callable, Iterator

import msgspec

from perdure.actors.workflows.defined.errors import Fault
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Branching, Step, WorkflowDefinition
from perdure.actors.workflows.defined.pausing import after_pause


class _Ways(msgspec.Struct, frozen=True):
    """Of a definition whose steps are performed one after the other."""

    begin: str
    following: dict[str, list[str]]
    """Of each step, those that may come next."""
    ending: set[str]
    """The steps after which it may be over."""


def named(definition: WorkflowDefinition, step: Step, at: str) -> Iterator[tuple[str, str]]:
    """Yield the steps that may follow one of a conditional workflow, each with the path of where it is named."""
    if (resumed := after_pause(definition, step)) is not None:
        yield at, resumed.id
    elif isinstance(step.next, str):
        yield at, step.next
    elif step.next is not None:
        turn = step.next
        ways = (("true", turn.if_true), ("false", turn.if_false), ("default", turn.default))
        yield from ((f"{at}.{word}", target) for word, target in ways if target is not None)


def way_faults(definition: WorkflowDefinition, known: Known) -> Iterator[Fault]:
    """Yield the steps to which no way leads, and those from which none leads to an end."""
    ways = _ways(definition)
    if ways is not None:
        yield from _within(definition, ways)
    for number, step in enumerate(definition.steps):
        child = known.child(step)
        if child is not None and _is_certain(definition, step, ways):
            way = _way_back(child, definition, known)
            if way:
                at = f"steps[{number}].{'agent' if step.workflow is None else 'workflow'}"
                text = f"it goes round for ever: {definition.id} runs {', which runs '.join(way)}"
                yield Fault(at, f"{text}; give one of these steps conditions, or take it out")


def _ways(definition: WorkflowDefinition) -> _Ways | None:
    """Return the ways through a definition; None where it has none, or names what is not there."""
    ids = [step.id for step in definition.steps]
    if not ids or len(set(ids)) != len(ids):
        return None
    match definition.pattern:
        case "conditional":
            ways = _by_name(definition)
        case "sequential" | "saga":
            ways = _in_order(definition)
        case _:
            return None
    wanted = {ways.begin, *definition.entry_steps, *(each for targets in ways.following.values() for each in targets)}
    return ways if wanted <= set(ids) else None


def _by_name(definition: WorkflowDefinition) -> _Ways:
    following = {step.id: [target for _, target in named(definition, step, "")] for step in definition.steps}
    ending = {step.id for step in definition.steps if _may_end(definition, step)}
    return _Ways(definition.start or definition.steps[0].id, following, ending)


def _may_end(definition: WorkflowDefinition, step: Step) -> bool:
    if after_pause(definition, step) is not None:
        return bool(step.conditions)  # skipped, it does not pause either
    if isinstance(step.next, Branching):
        turn = step.next
        return turn.default is None and (turn.if_true is None or turn.if_false is None)
    return step.next is None


def _in_order(definition: WorkflowDefinition) -> _Ways:
    following: dict[str, list[str]] = {}
    for number, step in enumerate(definition.steps):
        resumed = after_pause(definition, step)
        targets = [] if resumed is None else [resumed.id]
        if resumed is None or step.conditions:  # skipped, it does not pause
            targets += [each.id for each in definition.steps[number + 1 : number + 2]]
        following[step.id] = targets
    return _Ways(definition.steps[0].id, following, {definition.steps[-1].id})


def _within(definition: WorkflowDefinition, ways: _Ways) -> Iterator[Fault]:
    reached = _reached({ways.begin, *definition.entry_steps}, lambda id: ways.following[id])
    before: dict[str, list[str]] = {id: [] for id in ways.following}
    for id, targets in ways.following.items():
        for target in targets:
            before[target].append(id)
    ending = _reached(ways.ending, lambda id: before[id])
    is_named = definition.pattern == "conditional"
    how = "name it in a next or in entry_steps" if is_named else "a run that was paused goes on after it: move it"
    for number, step in enumerate(definition.steps):
        if step.id not in reached:
            yield Fault(f"steps[{number}]", f"no way from {ways.begin} leads to {step.id}: {how}, or take it out")
        elif step.id not in ending and is_named:
            yield Fault(f"steps[{number}].next", f"it goes round for ever: no way from {step.id} leads to an end")


def _is_certain(definition: WorkflowDefinition, step: Step, ways: _Ways | None) -> bool:
    """Return whether each run that completes has performed a step, and whatever that calls has completed before."""
    if step.conditions or step.on_failure == "continue" or (step.retry is not None and step.retry.fallback_agent):
        return False
    match definition.pattern:
        case "map_reduce":
            return step not in definition.steps[-2:-1]  # there may be no items
        case "event_driven":
            resumed = {each.id for each in (after_pause(definition, one) for one in definition.steps) if each}
            return not step.on and step.id not in resumed
        case "parallel" | "fan_out_fan_in":
            return True
        case _:
            return ways is not None and not _reached({ways.begin} - {step.id}, _without(step.id, ways)) & ways.ending


def _without(id: str, ways: _Ways) -> Callable[[str], list[str]]:
    return lambda at: [target for target in ways.following[at] if target != id]


def _way_back(child: str, definition: WorkflowDefinition, known: Known) -> list[str]:
    """Return the workflows by way of which one runs *definition* whatever the data are; empty: it does not."""
    waiting, seen = [[child]], {child}
    while waiting:
        way = waiting.pop(0)
        if way[-1] == definition.id:
            return way
        inner: WorkflowDefinition | None = getattr(known.workflows.get(way[-1]), "definition", None)
        if inner is None:
            continue
        ways = _ways(inner)
        certain = [known.child(step) for step in inner.steps if _is_certain(inner, step, ways)]
        new = [each for each in dict.fromkeys(certain) if each is not None and each not in seen]
        seen.update(new)
        waiting.extend([*way, each] for each in new)
    return []


def _reached(begin: set[str], following: Callable[[str], list[str]]) -> set[str]:
    seen, waiting = set(begin), list(begin)
    while waiting:
        new = [id for id in following(waiting.pop()) if id not in seen]
        seen.update(new)
        waiting.extend(new)
    return seen
