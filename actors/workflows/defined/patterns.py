"""The seven patterns: each a short workflow over a `Flow`, which performs one step, or several beside one another.

Nothing here touches the log. What a step came to, what was skipped and which way was taken is recorded by what the
patterns call, so each of them goes through a crash, a cancel and a deadline as any other workflow does.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from perdure.actors.workflows.context import Context
from perdure.actors.workflows.defined.calling import Data
from perdure.actors.workflows.defined.flow import Flow
from perdure.actors.workflows.defined.items import Items
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.listening import Triggers
from perdure.actors.workflows.defined.model import Pattern, WorkflowDefinition
from perdure.actors.workflows.defined.pausing import InOrder
from perdure.actors.workflows.defined.reducing import Reduction
from perdure.actors.workflows.defined.results import ItemError, PathEntry, StepResult, item_errors, step_errors
from perdure.actors.workflows.defined.undoing import undoable, undone
from perdure.actors.workflows.errors import CompensationFailedError, WorkflowFailedError


async def sequential(flow: Flow) -> Data:
    """One step after another; each sees what those before it put into the data. The first one to fail ends it."""
    data, results, steps = flow.data, list[StepResult](), InOrder(flow.definition)
    for step in steps:
        if flow.applies(step, data):
            result = await flow.perform(step, data)
            data = flow.put(step, data, result)
            results.append(result)
            data, following = await flow.pause(step, data)
            steps.go_on_at(following)
    return {"pattern": "sequential", "steps_executed": len(results), "final_data": data, "step_results": results}


async def parallel(flow: Flow) -> Data:
    """All steps beside one another over the same data. It fails when all of them do."""
    results = await flow.beside(flow.applying(), flow.data)
    answers = [result for result in results if result.success]
    shape = {"pattern": "parallel", "steps_executed": len(results), "results": answers, "errors": step_errors(results)}
    return flow.unless_all_failed(shape, results)


async def fan_out_fan_in(flow: Flow) -> Data:
    """All steps beside one another, and what they returned merged, in the order of the definition."""
    results = await flow.beside(flow.applying(), flow.data)
    shape = {"pattern": "fan_out_fan_in", "fan_out_results": results, "aggregated_data": flow.merged(results)}
    return flow.unless_all_failed(shape, results)


async def conditional(flow: Flow) -> Data:
    """From step to step, wherever the data lead; a step that is reached too often ends it."""
    data, path, step = flow.data, list[PathEntry](), flow.begin()
    while step is not None:
        way = flow.visit(step)
        if flow.applies(step, data, way.key):
            result = await flow.perform(step, data, way)
            data = flow.accumulated(step, data, result)
            path.append(PathEntry(step=step.id, agent=result.agent, success=result.success, data=result.data))
            data, following = await flow.pause(step, data, way)
        else:
            following = None
        step = following or flow.follow(step, data)
    return {"pattern": "conditional", "steps_executed": len(path), "path": path, "final_data": data}


async def saga(flow: Flow) -> Data:
    """One step after another; when one fails, what was done is undone, last first, and the workflow has failed."""
    data, saga, steps = flow.data, flow.ctx.saga(), InOrder(flow.definition)
    try:
        async with saga:
            for step in steps:
                if flow.applies(step, data):
                    result = await flow.perform(step, data, undoable(flow, saga, step, data))
                    data = flow.put(step, data, result)
                    if step.pivot:
                        saga.pivot()
                    data, following = await flow.pause(step, data)
                    steps.go_on_at(following)
    except (WorkflowFailedError, CompensationFailedError) as error:
        raise undone(flow, saga, data, error) from error
    return {
        "pattern": "saga",
        "saga_id": saga.id,
        "completed": True,
        "failed": False,
        "completed_steps": len(saga.completed),
        "compensated_steps": 0,
        "final_data": data,
    }


async def map_reduce(flow: Flow) -> Data:
    """One step over each item, page by page, and one over what came of all of them, in the order of the items."""
    mapper, reducer = flow.definition.steps[-2:]
    items, reduction = Items(flow), Reduction(flow, reducer)
    count, failed = 0, list[ItemError]()
    while page := await items.next_page():
        mapped = await flow.map(mapper, page, start=count)
        await reduction.add([each.data for each in mapped if each is not None and each.success])
        failed += item_errors(mapped, start=count)
        count += len(mapped)
    reduced = await reduction.result()
    return {"pattern": "map_reduce", "map_count": count, "reduce_result": reduced, "failed_items": failed}


async def event_driven(flow: Flow) -> Data:
    """Each step when its event comes, in the order of the log; over when `until` holds, or each step has run."""
    data, results, triggers = flow.data, list[StepResult](), Triggers(flow)
    while (step := await triggers.next_step(data)) is not None:
        way, given = flow.visit(step), triggers.with_event(data)
        if flow.applies(step, given, way.key):
            result = await flow.perform(step, given, way)
            data = flow.put(step, data, result)
            results.append(result)
            data, following = await flow.pause(step, data, way)
            triggers.go_on_at(following)
    return {"pattern": "event_driven", "steps_executed": len(results), "final_data": data, "step_results": results}


PATTERNS: Final[dict[Pattern, Callable[[Flow], Awaitable[Data]]]] = {
    "sequential": sequential,
    "parallel": parallel,
    "fan_out_fan_in": fan_out_fan_in,
    "conditional": conditional,
    "saga": saga,
    "map_reduce": map_reduce,
    "event_driven": event_driven,
}


async def perform(ctx: Context, definition: WorkflowDefinition, data: Data, known: Known) -> Data:
    """Perform a definition over *data* in the run of *ctx*; return the result in the shape of its pattern.

    Raises:
        WorkflowFailedError: it ended without success.
    """
    return await PATTERNS[definition.pattern](Flow(ctx, definition, data, known))
