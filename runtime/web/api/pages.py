"""Pages of events with a bound in bytes, and where the next one begins."""

from typing import TYPE_CHECKING, Final

from perdure.runtime.web.api.shapes import Event, Events, event_of
from perdure.store.records import Query

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends after the event with which it is larger."""


async def page_of_events(rt: "Runtime", query: Query) -> Events:
    """Return the events that match: fewer than `query.limit` where they are large."""
    found = await rt.read(query)
    events: list[Event] = []
    size = 0
    for one in found:
        events.append(event_of(one))
        size += len(one.data or "")
        if size >= PAGE_BYTES:
            break
    is_last = len(events) == len(found) < query.limit
    if is_last or not events:
        return Events(events, None)
    last = events[-1].position
    return Events(events, last - 1 if query.newest_first else last)
