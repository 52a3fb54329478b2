"""What a definition names, by kind, and whether all of it is registered: what a run of it needs to go on.

Pure. That a definition names only what there is, is a matter of its registration (`checking.py`); here it is asked of
the definition that a run has kept, in a later life. Invariant: nothing in a run is decided by what is not registered.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from perdure.actors.workflows.agents.errors import UnknownAgentError
from perdure.actors.workflows.defined.errors import UnknownNameError
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import MERGES, Branching, Compensation, Step, WorkflowDefinition
from perdure.store.errors import PerdureError


def lacking(definition: WorkflowDefinition, known: Known) -> PerdureError | None:
    """Return what says that something which a definition names is not registered; None: all of it is."""
    for kind, name in _names(definition):
        there: Mapping[str, Any] = getattr(known, f"{kind}s")
        if name not in there:
            names = ", ".join(sorted(there)) or "none"
            if kind == "agent":
                return UnknownAgentError(detail="", agent=name, known=names)
            return UnknownNameError(workflow_id=definition.id, kind=kind, name=name, known=names)
    return None


def _names(definition: WorkflowDefinition) -> Iterator[tuple[str, str]]:
    callers: list[Step | Compensation] = [*definition.steps]
    callers += [step.compensation for step in definition.steps if step.compensation is not None]
    for caller in callers:
        fallback = None if caller.retry is None else caller.retry.fallback_agent
        called = (("agent", caller.agent), ("tool", caller.tool), ("agent", fallback))
        yield from ((kind, name) for kind, name in called if name is not None)
    yield from (("workflow", step.workflow) for step in definition.steps if step.workflow is not None)
    yield from (("predicate", name) for conditions in _conditions(definition) for name in _predicates(conditions))
    if definition.pattern == "fan_out_fan_in" and definition.merge not in MERGES:
        yield "reducer", definition.merge


def _conditions(definition: WorkflowDefinition) -> Iterator[Any]:
    yield definition.until
    for step in definition.steps:
        yield step.conditions
        yield from (trigger.filter for trigger in step.on)
        if isinstance(step.next, Branching):
            yield step.next.condition


def _predicates(conditions: Any) -> Iterator[str]:
    if isinstance(conditions, str):
        yield conditions
    elif isinstance(conditions, dict):
        given = cast("dict[str, Any]", conditions)
        if "predicate" in given:
            yield given["predicate"]
        for inner in (*given.get("and", ()), *given.get("or", ()), given.get("not")):
            yield from _predicates(inner)
