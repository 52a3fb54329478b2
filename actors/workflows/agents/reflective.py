"""The reflective loop: an agent that looks at its own answer and tries again until it is good enough.

All rounds are one call: one step of a run, one outcome for the circuit. A crash in the middle begins with the first.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from perdure.actors.tools.context import ToolContext
from perdure.actors.workflows.agents.agent import HOME, Agent
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.store.errors import UsageError
from perdure.store.expected import checked_function


class Reflection(msgspec.Struct, frozen=True):
    """What somebody who looked at an answer thinks of it."""

    quality: float
    """0 to 1."""
    feedback: Any = ""
    """Told to the agent in the next round."""


Judge: TypeAlias = Callable[[AgentMessage, AgentResponse], "Reflection | float | Awaitable[Reflection | float]"]


def own_quality(_: AgentMessage, response: AgentResponse) -> Reflection:
    """Return what the agent itself said of its answer, in its metadata: `quality`, and `feedback` if it likes.

    Raises:
        UsageError: it said nothing.
    """
    quality = response.metadata.get("quality")
    if not isinstance(quality, (int, float)):
        raise UsageError("a reflective agent says metadata={'quality': 0.8}, or is given quality=… to judge it")
    return Reflection(quality, response.metadata.get("feedback", ""))


@checked_function
def reflective(
    agent: Agent,
    *,
    quality: Judge = own_quality,
    threshold: float = 0.7,
    max_loops: int = 3,
    name: str | None = None,
    **options: Any,
) -> Agent:
    """Return an agent that asks *agent* again until its answer is good enough.

    From the second round on the data of the message have `reflection_feedback` and `reflection_iteration` (1, 2 …).
    The answer's metadata say `quality` and `reflection_iterations`, and `max_reflections_reached` where the last answer
    was not good enough either. An answer that failed is returned at once.

    Args:
        agent: who is asked; it need not be registered itself.
        quality: judges an answer, with a number or a `Reflection`; what the agent itself says in its metadata if left
            out.
        threshold: an answer of this quality, or a better one, is accepted.
        max_loops: rounds at the most.
        name: of the new agent; that of *agent* if left out.
        options: as those of `Agent`.

    Raises:
        UsageError: the agent is a workflow, or fewer than one round is allowed.
    """
    if max_loops < 1:
        raise UsageError("max_loops is at least 1")
    if agent.workflow is not None:
        raise UsageError(f"agent {agent.name} is a workflow: write the loop in the workflow, where each round is kept")

    async def reflect(message: AgentMessage, context: ToolContext) -> AgentResponse:
        return await _reflect(agent, quality, threshold, max_loops, message, context)

    defaults: dict[str, Any] = {
        "capabilities": agent.capabilities,
        "description": agent.description,
        "priority": agent.priority,
    }
    return Agent(name or agent.name, reflect, **{**defaults, **options})


async def _reflect(
    agent: Agent, judge: Judge, threshold: float, max_loops: int, message: AgentMessage, context: ToolContext
) -> AgentResponse:
    home, asked, iteration = HOME.get(), message, 1
    while True:
        response = await home.process(agent, asked, context)
        if not response.success:
            return response
        judged = judge(asked, response)
        opinion = await judged if isinstance(judged, Awaitable) else judged
        seen = opinion if isinstance(opinion, Reflection) else Reflection(float(opinion))
        told = {**response.metadata, "quality": seen.quality, "reflection_iterations": iteration}
        if seen.quality >= threshold:
            return msgspec.structs.replace(response, metadata=told)
        if iteration == max_loops:
            return msgspec.structs.replace(response, metadata={**told, "max_reflections_reached": True})
        more = {"reflection_feedback": seen.feedback, "reflection_iteration": iteration}
        asked = msgspec.structs.replace(message, data={**message.data, **more})
        iteration += 1
