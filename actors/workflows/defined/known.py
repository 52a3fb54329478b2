"""What the names in definitions stand for: agents, tools, workflows, predicates, reducers, events.

It looks names up and judges nothing. The mappings are those of a runtime: what is registered later is known too.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.defined.conditions import Predicate
from perdure.actors.workflows.defined.model import Step
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.errors import UnknownWorkflowError

Reducer: TypeAlias = Callable[[list[Any]], Any]
"""Merges what the steps of a fan-out returned, in the order of the steps. It must depend on nothing else."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What there is for a definition to name."""

    agents: Mapping[str, Agent] = {}
    tools: Mapping[str, Tool[..., Any]] = {}
    workflows: Mapping[str, Workflow[..., Any]] = {}
    predicates: Mapping[str, Predicate] = {}
    reducers: Mapping[str, Reducer] = {}
    events: frozenset[str] | None = None
    """The types of events that there are; None: any."""

    def agent(self, name: str) -> Tool[[AgentMessage], AgentResponse]:
        """Return the tool of an agent.

        Raises:
            UnknownAgentError: there is none of that name any more.
        """
        return self.agents[name].tool

    def tool(self, name: str) -> Tool[..., Any]:
        """Return a tool.

        Raises:
            UnknownToolError: there is none of that name any more.
        """
        return self.tools[name]

    def workflow(self, name: str) -> Workflow[..., Any]:
        """Return a workflow.

        Raises:
            UnknownWorkflowError: there is none of that name any more.
        """
        found = self.workflows.get(name)
        if found is None:
            raise UnknownWorkflowError(workflow=name, known=", ".join(sorted(self.workflows)) or "none")
        return found

    def child(self, step: Step) -> str | None:
        """Return the workflow that a step runs as a child, itself or as its agent; None: it runs none."""
        agent = self.agents.get(step.agent or "")
        return step.workflow if agent is None or agent.workflow is None else agent.workflow.name
