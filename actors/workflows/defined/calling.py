"""One step of a definition: what it sends to whom, and what came of it, its fallback included.

Not here: whether and when it is performed (`flow.py`). Invariant: a step is performed under its own id as its key, so
that a resumed run finds what it came to.
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeAlias

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.errors import ToolError
from perdure.actors.tools.retry import NO_RETRY, Retry
from perdure.actors.workflows.agents.messages import AgentMessage
from perdure.actors.workflows.branch import CURRENT
from perdure.actors.workflows.context import Context
from perdure.actors.workflows.defined.data import sent
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Step
from perdure.actors.workflows.defined.results import StepResult
from perdure.actors.workflows.definition import Workflow
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
    instead_by: Any = None
    """The same for the call of the fallback."""
    sender: str = ORCHESTRATOR
    metadata: Data = {}


USUAL: Final = Way()


async def call_step(ctx: Context, known: Known, step: Step, data: Data, way: Way = USUAL) -> Answer:
    """Call whom a step names, or at last its fallback, and return what came of it."""
    policy = step.retry
    if policy is None:
        return await _Call(ctx, known, step, data, way).answer()
    if policy.fallback_agent is None:
        return await _Call(ctx, known, step, data, way, policy.as_retry()).answer()
    # Somebody stands by, so nobody waits for an open circuit.
    retry = msgspec.structs.replace(policy.as_retry(), on_refusal="fail")
    with _somebody_stands_by():
        answer = await _Call(ctx, known, step, data, way, retry).answer()
    if answer[0].success:
        return answer
    instead = msgspec.structs.replace(step, agent=policy.fallback_agent, tool=None, workflow=None)
    at_last = msgspec.structs.replace(way, key=f"{way.key or step.id}~", by=way.instead_by or way.by)
    return await _Call(ctx, known, instead, data, at_last, NO_RETRY).answer()


@contextmanager
def _somebody_stands_by() -> Generator[None]:
    """Raise a final failure past a saga's pivot too, so that the fallback is tried before a person is asked."""
    branch = CURRENT.get()
    assert branch is not None  # noqa: S101 - the code of a run runs in one
    pivots, branch.pivots = branch.pivots, 0
    try:
        yield
    finally:
        branch.pivots = pivots


class _Call:
    """One call for a step, with the policy that it is tried again by."""

    def __init__(
        self, ctx: Context, known: Known, step: Step, data: Data, way: Way, retry: Retry | None = None
    ) -> None:
        self._ctx = ctx
        self._known = known
        self._step = step
        self._data = data
        self._way = way
        self._retry = retry
        self._key = way.key or step.id

    async def answer(self) -> Answer:
        """Make it and return what came of it."""
        step, branch = self._step, CURRENT.get()
        assert branch is not None  # noqa: S101 - the code of a run runs in one
        branch.took = 0
        answer, failure = None, None
        try:
            answer = await self._ask()
        except StepFailedError as error:
            failure = error
        except (ToolError, UnencodableError, PayloadTooLargeError) as error:
            # What is sent does not fit: nobody was called, and a replay finds the same.
            failure = StepFailedError(
                step=self._key, error_type=type(error).__name__, error=str(error), retryable=False
            )
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

    async def _ask(self) -> Any:
        """Call an agent, a tool or a workflow with what the step sends, and return what it answers."""
        step, known = self._step, self._known
        if step.tool is not None:
            tool = known.tool(step.tool)
            return await self._made_by.call(tool, **sent(step.input_mapping, step.arguments, fitting(tool, self._data)))
        if step.workflow is not None:
            return await self._child(known.workflow(step.workflow))
        agent = known.agents[step.agent or ""]
        if agent.workflow is not None:
            return await self._child(agent.workflow)
        return (await self._made_by.call(agent.tool, message(step, self._data, self._way))).data

    @property
    def _made_by(self) -> Any:
        step, by = self._step, self._way.by or self._ctx
        return by.with_options(key=self._key, retry=self._retry, timeout=step.timeout, effect=step.effect)

    async def _child(self, workflow: Workflow[..., Any]) -> Any:
        """Run a workflow as a child: a definition over what is sent, a function with it as its arguments."""
        step = self._step
        limit = None if step.timeout is None else timedelta(seconds=step.timeout)
        ctx = self._ctx.with_options(key=self._key, deadline=limit)
        given = sent(step.input_mapping, step.arguments, self._data)
        part = ctx.run(workflow, given) if workflow.takes_data else ctx.run(workflow, **given)
        return await (part if self._way.by is None else self._way.by.with_options().around(part))


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
    is_over = failure.timed_out or (step.workflow is not None and failure.error_type == "DeadlineExceededError")
    if is_over and step.timeout is not None:
        return f"Step {step.id} timed out after {step.timeout:g}s"
    return f"Step {step.id} failed: {failure.error}"
