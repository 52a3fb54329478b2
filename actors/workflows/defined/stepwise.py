"""A saga whose steps somebody else asks for, one after the other, over any time: a run that waits for them as signals.

Not here: the caller's side (`runtime/sagas.py`). Invariant: it is a saga like any other, so what it did is undone once,
whatever happens between two steps.
"""

from typing import Any, Final

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.workflows.context import Context
from perdure.actors.workflows.defined.calling import Data
from perdure.actors.workflows.defined.flow import Flow
from perdure.actors.workflows.defined.hiding import redacted_step
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Step, WorkflowDefinition
from perdure.actors.workflows.defined.undoing import undoable, undone
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.errors import CompensationFailedError, WorkflowFailedError

NAME: Final = "perdure:saga"
"""Of the workflow in the log."""

STEP: Final = "step"
"""The signal that brings a step."""


def step_key(number: int) -> str:
    """Return the key of a saga's step in the log; the first one has the number 1."""
    return f"step-{number}"


def sent_step(step: Step, redaction: Redaction) -> str:
    """Return a step as its signal brings it: JSON as a text, in which no key is taken for that of a secret.

    What it sends as constants is redacted like data; its paths and ids are not, whatever they are called.
    """
    return msgspec.json.encode(redacted_step(msgspec.to_builtins(step), redaction), order="deterministic").decode()


def read_step(text: str) -> Step:
    """Return a step from what its signal brought."""
    return msgspec.json.decode(text, type=Step)


def stepwise_saga(known: Known) -> Workflow[..., Any]:
    """Return the workflow that performs the steps of a saga as they are asked for."""

    async def perform_steps(ctx: Context, name: str, total_steps: int, data: dict[str, Any]) -> Data:
        flow = Flow(ctx, WorkflowDefinition(id=name, pattern="saga", steps=()), data, known)
        saga = ctx.saga()
        try:
            async with saga:
                for number in range(1, total_steps + 1):
                    step = read_step(await ctx.signal(STEP, of=str))
                    way = undoable(flow, saga, step, data)
                    result = await flow.perform(step, data, msgspec.structs.replace(way, key=step_key(number)))
                    data = flow.put(step, data, result)
                    if step.pivot:
                        saga.pivot()
        except (WorkflowFailedError, CompensationFailedError) as error:
            raise undone(flow, saga, data, error) from error
        return {"pattern": "saga", "saga_id": saga.id, "completed_steps": len(saga.completed), "final_data": data}

    return Workflow(perform_steps, NAME)
