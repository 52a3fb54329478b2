"""Where the runs of an entry point begin: the input of its workflow, and of a definition the step that it starts at.

Invariant: a run carries the definition that it starts with, so where it starts is the same in every replay.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.workflows.defined.model import WorkflowDefinition
from perdure.actors.workflows.defined.registry import DefinedWorkflow, Workflows
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.lookup import named_input
from perdure.store.errors import UsageError


class Starts:
    """Makes the inputs of the runs of entry points."""

    def __init__(self, workflows: Workflows, redaction: Redaction) -> None:
        self._workflows = workflows
        self._redaction = redaction
        self._made: dict[str, tuple[DefinedWorkflow, DefinedWorkflow]] = {}
        """By entry point, its workflow as it is registered and as it starts at the step."""

    def check(self, entry: EntryPoint) -> Workflow[..., Any]:
        """Check that the workflow of an entry point, and the step that it starts at, are there; return the workflow.

        Raises:
            UsageError: one of them is not, or the workflow cannot start at that step.
        """
        workflow: Workflow[..., Any] | None = self._workflows.get(entry.workflow_name)
        if workflow is None:
            known = ", ".join(sorted(self._workflows)) or "none"
            text = f"workflow {entry.workflow_name!r} of entry point {entry.id} not found; registered are {known}"
            raise UsageError(text)
        if entry.node is not None:
            _starting_at(entry, workflow)
        return workflow

    def input(self, entry: EntryPoint, workflow: Workflow[..., Any], data: Mapping[str, Any]) -> bytes:
        """Return the encoded input of a run: the data as the one object that it takes, or its arguments by name.

        Raises:
            InvalidArgumentsError, UnencodableError, PayloadTooLargeError: they do not fit, or cannot be recorded.
            UsageError: the data are no mapping, or the workflow was replaced by one that has no such step.
        """
        if not isinstance(cast("Any", data), Mapping):
            given = type(data).__name__
            raise UsageError(f"the data of a trigger are arguments by name, {{'id': 7}}, not of the type {given}")
        if entry.node is not None:
            workflow = self._at_node(entry, workflow)
        if workflow.takes_data:
            return named_input(workflow, (dict(data),), {}, self._redaction)
        return named_input(workflow, (), data, self._redaction)

    def _at_node(self, entry: EntryPoint, workflow: Workflow[..., Any]) -> DefinedWorkflow:
        made = self._made.get(entry.id)
        if made is None or made[0] is not workflow:
            definition = _starting_at(entry, workflow)
            assert isinstance(workflow, DefinedWorkflow)  # noqa: S101 - or it could start at no step
            made = self._made[entry.id] = (workflow, DefinedWorkflow(definition, self._workflows.known))
        return made[1]


def _starting_at(entry: EntryPoint, workflow: Workflow[..., Any]) -> WorkflowDefinition:
    if not isinstance(workflow, DefinedWorkflow):
        detail = f"workflow {workflow.name} is a function: only a definition has steps that an entry point starts at"
        raise UsageError(f"{detail} (node={entry.node!r} of entry point {entry.id})")
    definition, ids = workflow.definition, [step.id for step in workflow.definition.steps]
    if entry.node not in ids:
        known = ", ".join(ids)
        raise UsageError(f"step {entry.node!r} of entry point {entry.id} not found in graph {definition.id}: {known}")
    if definition.pattern == "conditional":
        return msgspec.structs.replace(definition, start=entry.node)
    if definition.pattern == "sequential" or entry.node == ids[0]:
        return msgspec.structs.replace(definition, steps=definition.steps[ids.index(entry.node) :])
    detail = f"{definition.id} is {definition.pattern}: only conditional and sequential workflows start at any step"
    raise UsageError(f"{detail} (node={entry.node!r} of entry point {entry.id})")
