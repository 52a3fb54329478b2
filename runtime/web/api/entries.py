"""The endpoints of the ways in: entry points, schedules, and the handlers of events. Each asks the runtime."""

from typing import Any

from perdure.actors.triggers.errors import UnknownEntryPointError
from perdure.runtime.web.api import shapes
from perdure.runtime.web.api import way_shapes as ways
from perdure.runtime.web.api.endpoint import Answer, Call, Endpoint
from perdure.runtime.web.api.problems import Refused
from perdure.runtime.web.api.runs import started


async def _entries(call: Call) -> Answer:
    return Answer(ways.EntryLines([ways.entry_of(one) for one in call.rt.entry_points.list()]))


async def _entry(call: Call) -> Answer:
    id = call.path["entry"]
    found = call.rt.entry_points.get(id)
    if found is None:
        known = ", ".join(sorted(one.id for one in call.rt.entry_points.list())) or "none"
        raise UnknownEntryPointError(detail="", entry=id, known=known)
    return Answer(ways.entry_of(found))


async def _trigger(call: Call) -> Answer:
    body: ways.TriggerBody = call.body
    run = await call.rt.entry_points.trigger(
        call.path["entry"],
        body.data,
        correlation_id=body.correlation_id,
        id=body.id,
        conversation=body.conversation,
        priority=body.priority,
        who=call.caller.name,
    )
    return started(run)


async def _result(call: Call) -> Answer:
    found = await call.rt.entry_points.result(call.path["entry"], call.path["run"])
    if found is None:
        raise Refused(
            404, "NoResultError", "the run has not ended, is none of the entry point's, or its result is gone"
        )
    return Answer(
        ways.Result(
            run=found.run,
            entry=found.entry,
            status=found.status,
            success=found.success,
            output=found.output,
            error_type=found.error_type or None,
            error=found.error or None,
            correlation=found.correlation or None,
            started_at=found.started_at,
            ended_at=found.ended_at,
        )
    )


async def _figures(call: Call) -> Answer:
    return Answer(await call.rt.entry_points.statistics())


async def _schedules(call: Call) -> Answer:
    return Answer(ways.ScheduleLines([ways.schedule_of(one) for one in await call.rt.schedules.list()]))


async def _pause(call: Call) -> Answer:
    body: ways.SchedulePauseBody = call.body
    changed = await call.rt.schedules.pause(call.path["entry"], body.reason, who=call.caller.name)
    return Answer(shapes.Changed(changed))


async def _resume(call: Call) -> Answer:
    return Answer(shapes.Changed(await call.rt.schedules.resume(call.path["entry"], who=call.caller.name)))


async def _fire(call: Call) -> Answer:
    return started(await call.rt.schedules.fire_now(call.path["entry"], who=call.caller.name))


async def _history(call: Call) -> Answer:
    query: ways.HistoryQuery = call.query
    found = await call.rt.events.history(query.types or None, query.stream, query.run, query.limit)
    return Answer(ways.History(list(found)))


async def _dead_letters(call: Call) -> Answer:
    found = await call.rt.events.dead_letters()
    return Answer(
        ways.DeadLetters(
            [ways.DeadLetterLine(subscription=name, letter=one) for name, letters in found.items() for one in letters]
        )
    )


async def _redrive(call: Call) -> Answer:
    body: ways.RedriveBody = call.body
    is_new = await call.rt.events.redrive(body.subscription, body.position, who=call.caller.name)
    return Answer(shapes.Changed(is_new))


_ENTRY = "/v1/entry-points/{entry}"

ENTRIES = (
    Endpoint(
        method="GET", path="/v1/entry-points", id="listEntryPoints", does=_entries, role="read",
        summary="List the entry points.",
        answers={200: ways.EntryLines},
    ),
    Endpoint(
        method="GET", path=_ENTRY, id="getEntryPoint", does=_entry, role="read",
        summary="Say what there is to know of an entry point.",
        answers={200: ways.EntryLine}, refusals=(404,),
    ),
    Endpoint(
        method="POST", path=f"{_ENTRY}/trigger", id="trigger", does=_trigger, role="operate",
        summary="Start a run by an entry point; it is durable when this is answered.",
        body=ways.TriggerBody, answers={202: shapes.Started}, refusals=(404, 409),
    ),
    Endpoint(
        method="GET", path=f"{_ENTRY}/results/{{run}}", id="getEntryResult", does=_result, role="read",
        summary="Say how a run of an entry point ended, as long as its result is kept.",
        answers={200: ways.Result}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path="/v1/statistics/entry-points", id="getEntryStatistics", does=_figures, role="read",
        summary="Return the figures of each entry point.",
        answers={200: dict[str, dict[str, Any]]},
    ),
    Endpoint(
        method="GET", path="/v1/schedules", id="listSchedules", does=_schedules, role="read",
        summary="List the schedules, and when each is due next.",
        answers={200: ways.ScheduleLines},
    ),
    Endpoint(
        method="POST", path="/v1/schedules/{entry}/pause", id="pauseSchedule", does=_pause, role="operate",
        summary="Have a schedule start nothing until it is resumed.",
        body=ways.SchedulePauseBody, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path="/v1/schedules/{entry}/resume", id="resumeSchedule", does=_resume, role="operate",
        summary="Let a paused schedule go on.",
        body=shapes.Empty, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path="/v1/schedules/{entry}/fire", id="fireSchedule", does=_fire, role="operate",
        summary="Start what a schedule starts, now.",
        body=shapes.Empty, answers={202: shapes.Started}, refusals=(404, 409),
    ),
    Endpoint(
        method="GET", path="/v1/history", id="listHistory", does=_history, role="read",
        summary="Look back at what happened, the newest first, by the names that handlers of events know.",
        query=ways.HistoryQuery, answers={200: ways.History},
    ),
    Endpoint(
        method="GET", path="/v1/dead-letters", id="listDeadLetters", does=_dead_letters, role="read",
        summary="List the events that handlers failed at for good.",
        answers={200: ways.DeadLetters},
    ),
    Endpoint(
        method="POST", path="/v1/dead-letters/redrive", id="redrive", does=_redrive, role="operate",
        summary="Have a dead letter delivered once more.",
        body=ways.RedriveBody, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
)  # fmt: skip
