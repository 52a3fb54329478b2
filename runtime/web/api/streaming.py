"""The log as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): one event a message.

The id of a message is the event's position, so a browser that connects again goes on where it was. Invariant: a reader
that is slow holds a few events and what its connection buffers, nothing more, and one that takes nothing is let go.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final, cast

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perdure.runtime.web.api.endpoint import EVENT_STREAM, Call
from perdure.runtime.web.api.shapes import event_of
from perdure.runtime.web.api.waiting import end_tasks, left
from perdure.store.errors import PerdureError
from perdure.store.records import Query, Recorded

LAST_EVENT_ID: Final = "Last-Event-ID"
READ_AHEAD: Final = 20
"""Events of one stream in memory: values in them are 64 KiB at most, larger ones are told by their hash."""

_BEGINNING: Final = b"retry: 1000\n\n"
_ALIVE: Final = b": alive\n\n"


class EventStream(Response):
    """A response that ends with the connection, or with the server."""

    media_type = EVENT_STREAM

    def __init__(self, call: Call, after: int, query: Query) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._call = call
        self._after = after
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until somebody ends it."""
        del scope, receive
        with contextlib.suppress(ClientDisconnect, OSError, TimeoutError):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._follow(send)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._call.limits.stalled_seconds):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, send: Send) -> None:
        call = self._call
        leaving = asyncio.create_task(left(call.request))
        events = cast("AsyncGenerator[Recorded]", call.rt.tail(self._after, self._query))
        coming: asyncio.Task[Recorded | None] | None = None
        try:
            await self._send(send, _BEGINNING)
            while True:
                coming = coming or asyncio.create_task(_next(events))
                if not await call.waiting.for_next(coming, leaving, call.limits.heartbeat_seconds):
                    await self._send(send, _ALIVE)
                    continue
                event = coming.result()
                if event is None:
                    return  # the log was closed
                await self._send(send, _message(event))
                coming = None
        finally:
            await end_tasks(leaving, *(() if coming is None else (coming,)))
            await events.aclose()

    async def _send(self, send: Send, data: bytes) -> None:
        async with asyncio.timeout(self._call.limits.stalled_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": True})


async def _next(events: "AsyncGenerator[Recorded]") -> Recorded | None:
    try:
        return await anext(events, None)
    except PerdureError:
        return None  # the log takes no more writes: the end of the stream, and of the server, which says why


def _message(event: Recorded) -> bytes:
    # JSON has no line breaks of its own, so one line of data is enough. The type is a tag of ours: it has none either.
    data = msgspec.json.encode(event_of(event))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), data)
