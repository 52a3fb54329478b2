"""The endpoints that look at the whole: workflows, figures, circuits, values; and the one that forces a circuit."""

from typing import Any

import msgspec
from starlette.responses import Response

from perdure.actors.workflows.defined.registry import WorkflowInfo
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.web.api import shapes
from perdure.runtime.web.api.endpoint import BYTES, Answer, Call, Endpoint
from perdure.runtime.web.api.problems import Refused


async def _workflows(call: Call) -> Answer:
    return Answer(shapes.WorkflowLines([_line(one) for one in call.rt.workflows.list()]))


async def _workflow(call: Call) -> Answer:
    name = call.rt.workflow(call.path["workflow"]).name
    return Answer(next(_line(one) for one in call.rt.workflows.list() if one.id == name))


def _line(one: WorkflowInfo) -> shapes.WorkflowLine:
    return shapes.WorkflowLine(**msgspec.structs.asdict(one))


async def _statistics(call: Call) -> Answer:
    return Answer(await call.rt.statistics())


async def _workflow_statistics(call: Call) -> Answer:
    return Answer(await call.rt.get_stats())


async def _circuits(call: Call) -> Answer:
    figures = await call.rt.statistics()
    return Answer(
        shapes.Circuits([
            shapes.Circuit(
                circuit=name, state=one.state, forced=one.forced or None, failures=one.failures, calls=one.calls,
                successes=one.successes, rejected=one.rejected, p50_seconds=one.p50, p95_seconds=one.p95,
                last_error=one.last_error or None, retry_after_seconds=one.retry_after_seconds,
            )
            for name, one in figures.tools.items()
        ])
    )  # fmt: skip


async def _force(call: Call) -> Answer:
    body: shapes.ForceBody = call.body
    tool = call.path["tool"]
    _ = call.rt.tools[tool]
    changed = await call.rt.force_circuit(
        tool, body.to, because=body.reason, who=call.caller.name, conversation=body.conversation
    )
    return Answer(shapes.Changed(changed))


async def _waiting(call: Call) -> Answer:
    found = await call.rt.waiting()
    return Answer(
        shapes.WaitingLines(
            [
                shapes.WaitingLine(
                    run=one.id, wake_at=shapes.maybe_moment(one.wake_at), waits_on=one.waits_on, could_not=one.could_not
                )
                for one in found
            ]
        )
    )


async def _blob(call: Call) -> Response:
    data = await call.rt.blob(call.path["sha256"])
    if data is None:
        raise Refused(404, "UnknownBlobError", "the log has no large value of that hash")
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(data, headers=headers, media_type=BYTES)


LOOKING = (
    Endpoint(
        method="GET", path="/v1/workflows", id="listWorkflows", does=_workflows, role="read",
        summary="List the workflows that can be started.",
        answers={200: shapes.WorkflowLines},
    ),
    Endpoint(
        method="GET", path="/v1/workflows/{workflow}", id="getWorkflow", does=_workflow, role="read",
        summary="Say what there is to know of a workflow.",
        answers={200: shapes.WorkflowLine}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path="/v1/waiting", id="listWaiting", does=_waiting, role="read",
        summary="List the open runs that are not in memory, and what each waits for.",
        answers={200: shapes.WaitingLines},
    ),
    Endpoint(
        method="GET", path="/v1/statistics", id="getStatistics", does=_statistics, role="read",
        summary="Return the figures of the runtime.",
        answers={200: RuntimeStatistics},
    ),
    Endpoint(
        method="GET", path="/v1/statistics/workflows", id="getWorkflowStatistics", does=_workflow_statistics,
        role="read", summary="Return the figures of workflows and agents, from the whole log.",
        answers={200: dict[str, Any]},
    ),
    Endpoint(
        method="GET", path="/v1/circuits", id="listCircuits", does=_circuits, role="read",
        summary="List the circuit breakers of tools.",
        answers={200: shapes.Circuits},
    ),
    Endpoint(
        method="POST", path="/v1/circuits/{tool}", id="forceCircuit", does=_force, role="admin",
        summary="Take the circuit of a tool over, or give it back.",
        body=shapes.ForceBody, answers={200: shapes.Changed}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path="/v1/blobs/{sha256}", id="getBlob", does=_blob, role="read",
        summary="Return a large value of the log by its hash.",
        answers={200: bytes}, media_type=BYTES, refusals=(404,),
    ),
)  # fmt: skip
