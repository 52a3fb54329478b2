"""One step of a definition: what it sends to whom, and what came of it, its fallback included.

Not here: whether and when it is performed (`flow.py`). Invariant: a step is performed under its own id as its key, so
that a resumed run finds what it came to.
"""

from typing import Any, Final, TypeAlias

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.errors import ToolError
from perdure.actors.tools.retry import NO_RETRY, Retry
from perdure.actors.workflows.agents.messages import AgentMessage
from perdure.actors.workflows.branch import CURRENT
from perdure.actors.workflows.defined.data import sent
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Step
from perdure.actors.workflows.defined.results import StepResult
from perdure.actors.workflows.errors import StepFailedError
from perdure.store.errors import PayloadTooLargeError, UnencodableError

Data: TypeAlias = dict[str, Any]

ORCHESTRATOR: Final = "orchestrator"
"""Who sends a step's message."""

Answer: TypeAlias = tuple[StepResult, StepFailedError | None]
"""What came of a step, and of one that failed the failure, which has its cause live."""


class Way(msgspec.Struct, frozen=True):
    """How a step is called: the usual way, unless it says otherwise."""

    key: str | None = None
    """Where a step is performed more than once; its id when left out."""
    by: Any = None
    """What makes the call in place of the context: a saga, or a call of one that can be undone."""
    sender: str = ORCHESTRATOR
    metadata: Data = {}


USUAL: Final = Way()


async def call_step(ctx: Any, known: Known, step: Step, data: Data, way: Way = USUAL) -> Answer:
    """Call whom a step names, or at last its fallback, and return what came of it."""
    by, key, policy = way.by or ctx, way.key or step.id, step.retry
    if policy is None:
        return await _call(by, known, step, data, way, key)
    if policy.fallback_agent is None:
        return await _call(by, known, step, data, way, key, policy.as_retry())
    # Somebody stands by, so nobody waits for an open circuit.
    retry = msgspec.structs.replace(policy.as_retry(), on_refusal="fail")
    answer = await _call(by, known, step, data, way, key, retry)
    if answer[0].success:
        return answer
    instead = msgspec.structs.replace(step, agent=policy.fallback_agent, tool=None, workflow=None)
    return await _call(by, known, instead, data, way, f"{key}~", NO_RETRY)


async def _call(
    by: Any, known: Known, step: Step, data: Data, way: Way, key: str, retry: Retry | None = None
) -> Answer:
    branch = CURRENT.get()
    assert branch is not None  # noqa: S101 - the code of a run runs in one
    branch.took = 0
    answer, failure = None, None
    try:
        options = by.with_options(key=key, retry=retry, timeout=step.timeout, effect=step.effect)
        answer = await _ask(options, known, step, data, way)
    except StepFailedError as error:
        failure = error
    except (ToolError, UnencodableError, PayloadTooLargeError) as error:
        # What is sent does not fit: nobody was called, and a replay finds the same.
        failure = StepFailedError(step=key, error_type=type(error).__name__, error=str(error), retryable=False)
        failure.__cause__ = error
    result = StepResult(
        step_id=step.id,
        agent=step.agent or step.tool or step.workflow or "",
        success=failure is None,
        data=answer,
        duration=branch.took / SECOND,
        error=None if failure is None else _text(step, failure),
        error_type=None if failure is None else failure.error_type,
    )
    return result, failure


async def _ask(ctx: Any, known: Known, step: Step, data: Data, way: Way) -> Any:
    """Call an agent, a tool or a workflow with what the step sends, and return what it answers."""
    if step.agent is not None:
        agent = known.agents[step.agent]
        if agent.workflow is None:
            return (await ctx.call(agent.tool, message(step, data, way))).data
        return await ctx.run(agent.workflow, **sent(step.input_mapping, step.arguments, data))
    if step.tool is not None:
        tool = known.tool(step.tool)
        return await ctx.call(tool, **sent(step.input_mapping, step.arguments, fitting(tool, data)))
    workflow = known.workflow(step.workflow or "")
    given = sent(step.input_mapping, step.arguments, data)
    return await (ctx.run(workflow, given) if hasattr(workflow, "definition") else ctx.run(workflow, **given))


def message(step: Step, data: Data, way: Way) -> AgentMessage:
    """Return what the agent of a step is sent."""
    return AgentMessage(
        type=step.action,
        data=sent(step.input_mapping, step.arguments, data),
        sender=way.sender,
        recipient=step.agent or "",
        metadata={"workflow_step": step.id, **way.metadata},
    )


def fitting(tool: Tool[..., Any], data: Data) -> Data:
    """Return those of the data that a tool has parameters for: without a mapping, it is sent these."""
    return {name: data[name] for name in tool.parameters if name in data}


def _text(step: Step, failure: StepFailedError) -> str:
    if failure.timed_out and step.timeout is not None:
        return f"Step {step.id} timed out after {step.timeout:g}s"
    return f"Step {step.id} failed: {failure.error}"
