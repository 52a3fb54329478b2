"""The endpoints of runs: start, list, look at, wait for, steer. Each asks the runtime and decides nothing itself.

Invariant: what an answer says was durable before it was given; a request that changes something is carried out though
who asked has left.
"""

from datetime import timedelta
from urllib.parse import quote

from perdure.runtime.handle import RunHandle
from perdure.runtime.web.api import shapes
from perdure.runtime.web.api.endpoint import Answer, Call, Endpoint
from perdure.runtime.web.api.listing import list_runs
from perdure.runtime.web.api.pages import page_of_events
from perdure.runtime.web.api.way_shapes import ResumeBody
from perdure.store.records import Query, StreamId


async def _start(call: Call) -> Answer:
    body: shapes.StartBody = call.body
    options = call.rt.with_options(
        id=body.id,
        deadline=_span(body.deadline_seconds),
        conversation=body.conversation,
        principal=call.caller.name,
        queue=body.queue,
        priority=body.priority,
        partition=body.partition,
    )
    handle = await call.rt.start_data(body.workflow, body.input, options.values)
    return started(handle.id)


def started(run: str) -> Answer:
    """Return the answer that a run is durable, and where it is looked at."""
    return Answer(shapes.Started(run), 202, {"Location": f"/v1/runs/{quote(run, safe='')}"})


def _span(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


async def _list(call: Call) -> Answer:
    return Answer(await list_runs(call.rt.path, call.query))


async def _get(call: Call) -> Answer:
    return Answer(shapes.run_of(await handle_of(call).status()))


async def _result(call: Call) -> Answer:
    query: shapes.WaitQuery = call.query
    handle = handle_of(call)
    view = await handle.status()
    if query.wait and not view.is_closed and view.status != "blocked":
        await call.waiting.for_work(call.request, call.rt.ended(handle.id), query.wait)
        view = await handle.status()
    while view.continued_as is not None:
        view = await call.rt.run(view.continued_as).status()
    is_over = view.is_closed or view.status == "blocked"
    return Answer(shapes.run_of(view), 200 if is_over else 202)


async def _events(call: Call) -> Answer:
    query: shapes.RunEventsQuery = call.query
    await handle_of(call).status()  # none of a run that is not there is a mistake, and no empty page
    wanted = Query(stream=StreamId(f"run/{call.path['run']}"), after=query.after, limit=query.limit)
    return Answer(await page_of_events(call.rt, wanted))


async def _cancel(call: Call) -> Answer:
    body: shapes.ReasonBody = call.body
    return Answer(shapes.Changed(await handle_of(call).cancel(_because(call, body.reason), who=call.caller.name)))


def _because(call: Call, reason: str) -> str:
    return reason if call.caller.name is None else f"{reason} ({call.caller.name})"


async def _pause(call: Call) -> Answer:
    body: shapes.ReasonBody = call.body
    return Answer(shapes.Changed(await handle_of(call).pause(body.reason, who=call.caller.name)))


async def _resume(call: Call) -> Answer:
    body: ResumeBody = call.body
    changed = await handle_of(call).resume(body.answer, at=body.at, who=call.caller.name)
    return Answer(shapes.Changed(changed))


async def _retry(call: Call) -> Answer:
    handle = handle_of(call)
    return Answer(shapes.RetriedStep(handle.id, await handle.retry(who=call.caller.name)))


async def _fork(call: Call) -> Answer:
    body: shapes.ForkBody = call.body
    deadline, who = _span(body.deadline_seconds), call.caller.name
    fork = await handle_of(call).fork(
        body.step or "",
        checkpoint=body.checkpoint or "",
        changed=body.changed,
        id=body.id,
        deadline=deadline,
        who=who,
    )
    return started(fork.id)


async def _checkpoints(call: Call) -> Answer:
    return Answer(shapes.Checkpoints(await handle_of(call).checkpoints()))


async def _signal(call: Call) -> Answer:
    body: shapes.SignalBody = call.body
    is_new = await handle_of(call).signal(body.name, body.value, id=body.id, who=call.caller.name)
    return Answer(shapes.Changed(is_new))


async def _settle(call: Call) -> Answer:
    body: shapes.SettleBody = call.body
    handle = handle_of(call)
    await handle.status()
    match body.verdict:
        case "done":
            await handle.settle_done(body.step, body.result, who=call.caller.name)
        case "not_done":
            await handle.settle_not_done(body.step, because=_because(call, body.reason), who=call.caller.name)
        case "failed":
            await handle.settle_failed(body.step, body.reason, who=call.caller.name)
    return Answer(shapes.Done())


def handle_of(call: Call) -> "RunHandle[object]":
    """Return the handle of the run in the path."""
    return call.rt.run(call.path["run"])


_RUN = "/v1/runs/{run}"

RUNS = (
    Endpoint(
        method="POST", path="/v1/runs", id="startRun", does=_start, role="operate",
        summary="Start a run; it is durable when this is answered.",
        body=shapes.StartBody, answers={202: shapes.Started}, refusals=(404, 409),
    ),
    Endpoint(
        method="GET", path="/v1/runs", id="listRuns", does=_list, role="read",
        summary="List runs, the newest first.",
        query=shapes.RunsQuery, answers={200: shapes.Runs}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path=_RUN, id="getRun", does=_get, role="read",
        summary="Say how a run stands.",
        answers={200: shapes.Run}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path=f"{_RUN}/result", id="getResult", does=_result, role="read",
        summary="Say how a run, or the last that it goes on as, ended; wait for it if asked to. 202: it has not.",
        query=shapes.WaitQuery, answers={200: shapes.Run, 202: shapes.Run}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path=f"{_RUN}/events", id="listRunEvents", does=_events, role="read",
        summary="Read the events of a run, in their order.",
        query=shapes.RunEventsQuery, answers={200: shapes.Events}, refusals=(404,),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/cancel", id="cancelRun", does=_cancel, role="operate",
        summary="Ask for a run to be cancelled; false: it had ended.",
        body=shapes.ReasonBody, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/pause", id="pauseRun", does=_pause, role="operate",
        summary="Stop a run where it is, until it is resumed.",
        body=shapes.ReasonBody, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/resume", id="resumeRun", does=_resume, role="operate",
        summary="Let a paused run go on; one that has paused itself with an answer.",
        body=ResumeBody, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/retry", id="retryRun", does=_retry, role="operate",
        summary="Try a failed or blocked run again, from the step that it failed of.",
        body=shapes.Empty, answers={200: shapes.RetriedStep}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/fork", id="forkRun", does=_fork, role="operate",
        summary="Start another run that begins where this one was before a step, or at a checkpoint.",
        body=shapes.ForkBody, answers={202: shapes.Started}, refusals=(404, 409),
    ),
    Endpoint(
        method="GET", path=f"{_RUN}/checkpoints", id="listCheckpoints", does=_checkpoints, role="read",
        summary="List the places at which a run had just finished something; a fork begins at any of them.",
        answers={200: shapes.Checkpoints}, refusals=(404,),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/signals", id="signalRun", does=_signal, role="operate",
        summary="Send a run a signal; false: one with this id was sent before.",
        body=shapes.SignalBody, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_RUN}/settle", id="settleStep", does=_settle, role="operate",
        summary="Say what became of a step in doubt.",
        body=shapes.SettleBody, answers={200: shapes.Done}, refusals=(404, 409),
    ),
)  # fmt: skip
