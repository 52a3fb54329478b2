"""The requests about what runs use: tools, agents and workflows. Pure data; see `words.py`."""

from typing import TypeAlias

from perdure.actors.tools.breaker import Command as Forcing
from perdure.runtime.control.request import Names, Word


class ForceCircuit(Word, frozen=True, tag="force-circuit"):
    """Take a tool's circuit over."""

    tool: str
    to: Forcing
    because: str
    who: str | None = None
    conversation: str | None = None


class SelectTool(Word, frozen=True, tag="select"):
    """Ask which tool has capabilities."""

    required: Names
    partial: bool = False


class ToolDefinitions(Word, frozen=True, tag="tool-definitions"):
    """Ask for the tools that can be offered to a model."""

    names: Names | None = None


class McpDefinitions(Word, frozen=True, tag="mcp-definitions"):
    """Ask for the same in the form of the Model Context Protocol."""

    names: Names | None = None


class FindAgents(Word, frozen=True, tag="find-agents"):
    """Ask which agents have a capability."""

    capability: str


class SelectAgent(Word, frozen=True, tag="select-agent"):
    """Ask which agent has capabilities."""

    required: Names
    partial: bool = False


class DiscoverAgents(Word, frozen=True, tag="agents"):
    """List the agents."""


class AgentFigures(Word, frozen=True, tag="agent-statistics"):
    """Ask for the figures of the agents."""


class LoadAgent(Word, frozen=True, tag="load-agent"):
    """Bring an agent into memory."""

    name: str


class UnloadAgent(Word, frozen=True, tag="unload-agent"):
    """Take an agent out of memory."""

    name: str


class ListWorkflows(Word, frozen=True, tag="workflows"):
    """List the workflows."""


ToolWord: TypeAlias = (
    ForceCircuit | SelectTool | ToolDefinitions | McpDefinitions | FindAgents | SelectAgent | DiscoverAgents
    | AgentFigures | LoadAgent | UnloadAgent | ListWorkflows
)  # fmt: skip
