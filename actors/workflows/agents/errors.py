"""What can go wrong with an agent before it is asked anything."""

from perdure.actors.tools.errors import ToolError


class AgentError(ToolError):
    """Base of the errors of agents; they count against the agent's circuit like those of its calls."""


class UnknownAgentError(AgentError, LookupError):
    """No agent of that name is registered."""

    message = "unknown agent: {agent}; registered are {known}"
    agent: str
    known: str


class UnknownActionError(AgentError, LookupError):
    """The agent has handlers for some actions, and none for this one."""

    message = "{agent} has no action {action!r}; it has {known}"
    agent: str
    action: str
    known: str


class AgentLoadError(AgentError):
    """The agent cannot be brought into memory: there is no such module or name, or it is not what an agent can be."""

    message = "agent {agent} cannot be loaded from {path}: {reason}"
    agent: str
    path: str
    reason: str
