"""What undoes the steps of a saga that is a definition, and how such a saga ends when one of them fails.

When and in which order steps are undone is the saga's matter (`workflows/saga.py`). Pure, but for the calls that it
describes. Invariant: who undoes a step is told what the step was sent and what it answered.
"""

from functools import partial
from typing import Any, Final

import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.agents.messages import SAGA, AgentMessage, AgentResponse
from perdure.actors.workflows.defined.calling import Data, Way, fitting
from perdure.actors.workflows.defined.data import sent
from perdure.actors.workflows.defined.flow import Flow
from perdure.actors.workflows.defined.model import Compensation, Step
from perdure.actors.workflows.errors import CompensationFailedError, WorkflowFailedError
from perdure.actors.workflows.saga import Saga, Undo

COORDINATOR: Final = "saga_coordinator"
COMPENSATOR: Final = "saga_compensator"


def undoable(flow: Flow, saga: Saga, step: Step, data: Data) -> Way:
    """Return how a step of a saga is called, so that it is undone by what its definition says."""
    undo = step.compensation
    if undo is None:
        return Way(by=saga, sender=COORDINATOR, metadata={SAGA: saga.key})
    given = sent(step.input_mapping, step.arguments, data)
    fallback = None if step.retry is None else step.retry.fallback_agent
    return Way(
        by=_undo(flow, saga, undo, undo.agent or step.agent, given),
        # Nobody else can undo what the fallback did, unless the definition says so.
        instead_by=None if fallback is None else _undo(flow, saga, undo, undo.agent or fallback, given),
        sender=COORDINATOR,
        metadata={SAGA: saga.key},
    )


def _undo(flow: Flow, saga: Saga, undo: Compensation, agent: str | None, given: Data) -> Undo:
    """Return how a call is made that a tool, or otherwise *agent*, undoes, and at last the fallback of the policy."""
    known, retry = flow.known, undo.retry
    tool = known.agent(agent or "") if undo.tool is None else known.tool(undo.tool)
    instead = None
    if retry is not None and retry.fallback_agent is not None:
        last, by_agent = known.agent(retry.fallback_agent), msgspec.structs.replace(undo, tool=None)
        instead = (last, partial(_arguments, last, by_agent, given, saga.key))
    return saga.undo_by(
        tool,
        partial(_arguments, tool, undo, given, saga.key),
        retry=None if retry is None else retry.as_retry(),
        timeout=undo.timeout,
        unsure=undo.unsure,
        instead=instead,
    )


def _arguments(tool: Tool[..., Any], undo: Compensation, given: Data, saga: str, answer: Any) -> Data:
    """Return the arguments of the call that undoes a step which was given these data and answered so."""
    result = answer.data if isinstance(answer, AgentResponse) else answer
    data = {"original_data": given, "step_result": result}
    if undo.tool is not None:
        return sent(undo.input_mapping, {}, fitting(tool, data) if not undo.input_mapping else data)
    message = AgentMessage(
        type=undo.action,
        data=sent(undo.input_mapping, {}, data),
        sender=COMPENSATOR,
        recipient=tool.name.partition(":")[2],
        metadata={SAGA: saga},
    )
    return {"message": message}


def undone(
    flow: Flow, saga: Saga, data: Data, error: WorkflowFailedError | CompensationFailedError
) -> WorkflowFailedError:
    """Return the failure of a saga that was undone, as far as it could be."""
    failure = error if isinstance(error, WorkflowFailedError) else flow.broken(str(error), type(error).__name__)
    shape = {
        "pattern": "saga",
        "saga_id": saga.id,
        "completed": False,
        "failed": True,
        "completed_steps": len(saga.completed),
        "compensated_steps": len(saga.compensated),
        "final_data": data,
    }
    return WorkflowFailedError(
        workflow_id=failure.workflow_id,
        step_id=failure.step_id,
        agent=failure.agent,
        error_type=failure.error_type,
        error=failure.error,
        status="failed" if saga.given_up else "compensated",
        result=shape,
    )
