"""The endpoints of events: publish one, read a page of the log, follow it as server-sent events."""

from starlette.responses import Response

from perdure.actors.triggers.event_names import RECEIVED
from perdure.runtime.web.api import shapes
from perdure.runtime.web.api.endpoint import EVENT_STREAM, Answer, Call, Endpoint
from perdure.runtime.web.api.pages import page_of_events
from perdure.runtime.web.api.problems import Refused
from perdure.runtime.web.api.streaming import LAST_EVENT_ID, READ_AHEAD, EventStream
from perdure.store.records import Query, StreamId


async def _publish(call: Call) -> Answer:
    body: shapes.PublishBody = call.body
    if body.type == RECEIVED:  # one under the id of a delivery that is to come would have that taken for a duplicate
        detail = f"{RECEIVED} is what the deliveries of webhooks become: publish it under another type"
        raise Refused(422, "InvalidBodyError", detail)
    return Answer(shapes.Published(await call.rt.publish(body.type, body.data, id=body.id, who=call.caller.name)))


async def _read(call: Call) -> Answer:
    query: shapes.EventsQuery = call.query
    return Answer(await page_of_events(call.rt, _query(query, query.after or 0, query)))


def _query(wanted: shapes.EventFilter, after: int, page: shapes.EventsQuery | None = None) -> Query:
    return Query(
        after=after,
        until=None if page is None else page.until,
        stream=None if wanted.stream is None else StreamId(wanted.stream),
        stream_prefix=wanted.prefix,
        types=wanted.types or None,
        correlation=wanted.correlation,
        tool=wanted.tool,
        limit=READ_AHEAD if page is None else page.limit,
        newest_first=page is not None and page.newest_first,
    )


async def _stream(call: Call) -> Response:
    query: shapes.EventFilter = call.query
    after = _resumed_from(call)
    if after is None:
        after = query.after
    if after is None:
        newest = await call.rt.read(Query(limit=1, newest_first=True))
        after = newest[0].position if newest else 0
    return EventStream(call, after, _query(query, after))


def _resumed_from(call: Call) -> int | None:
    said = call.request.headers.get(LAST_EVENT_ID, "").strip()
    if not said:
        return None
    if not said.isascii() or not said.isdecimal() or len(said) > 18:  # noqa: PLR2004 - digits that SQLite takes
        raise Refused(422, "InvalidHeaderError", f"{LAST_EVENT_ID} is the position of an event")
    return int(said)


EVENTS = (
    Endpoint(
        method="POST", path="/v1/events", id="publishEvent", does=_publish, role="operate",
        summary="Publish an event; it is durable when this is answered.",
        body=shapes.PublishBody, answers={200: shapes.Published}, refusals=(409,),
    ),
    Endpoint(
        method="GET", path="/v1/events", id="listEvents", does=_read, role="read",
        summary="Read a page of the events of the log.",
        query=shapes.EventsQuery, answers={200: shapes.Events},
    ),
    Endpoint(
        method="GET", path="/v1/events/stream", id="followEvents", does=_stream, role="read",
        summary="Follow the log as server-sent events, from now on or from after a position.",
        query=shapes.EventFilter, answers={200: str}, media_type=EVENT_STREAM,
        headers={LAST_EVENT_ID: "The position of the last event that was seen; it goes before `after`."},
    ),
)  # fmt: skip
