"""Looks back at the events of a log: the newest ones, the first after a position, which there were lately.

Not here: who is given what comes (`feed.py`). Invariant: what fits is judged as for subscriptions; nothing is kept.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from perdure.actors.kernel.system import ActorSystem
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.matching import EventFilter
from perdure.actors.triggers.topic import topic_of
from perdure.runtime.entries.log_events import PAGE, LogEvents, name_of
from perdure.store.errors import UsageError
from perdure.store.protocols import EventLog
from perdure.store.records import Query, StreamId

A_UNIT: Final = 100
"""More events than are in a unit that starts a run, before the run's own."""
LATELY: Final = 20_000
"""Positions that are looked through for all subscriptions together when a runtime opens."""


async def newest_events(log: EventLog, events: LogEvents, wanted: EventFilter, limit: int) -> list[LogEvent]:
    """Return the newest events that fit, newest first.

    Raises:
        UsageError: the limit is negative.
    """
    if limit < 0:
        raise UsageError(f"the limit of a history is 0 or more, not {limit!r}")
    if wanted.run is None:
        return await _newest(events, wanted, Query(stream=_one_stream(wanted), limit=PAGE, newest_first=True), limit)
    # Two places have what is about a run: its own stream, and what was published by it, which is correlated with it.
    stream = StreamId(f"run/{wanted.run}")
    first = await log.read(Query(stream=stream, limit=1))
    if not first:
        return []
    own = Query(stream=stream, limit=PAGE, newest_first=True)
    # The unit that started it may have said so elsewhere first; before that nothing is about it.
    others = Query(correlation=wanted.run, after=max(0, first[0].position - A_UNIT), limit=PAGE, newest_first=True)
    found = {event.position: event for query in (own, others) for event in await _newest(events, wanted, query, limit)}
    return [found[position] for position in sorted(found, reverse=True)][:limit]


def _one_stream(wanted: EventFilter) -> StreamId | None:
    """Return the stream that has all that fits, if it is one: no event of the runtime's own has a name with a dot."""
    name, *others = wanted.tags
    return topic_of(name) if "." in name and not others else None


async def _newest(events: LogEvents, wanted: EventFilter, query: Query, limit: int) -> list[LogEvent]:
    found: list[LogEvent] = []
    while len(found) < limit:
        page, last = await events.read(wanted.tags, query)
        found.extend(event for event in page if wanted.fits(event))
        if last is None:
            break
        query = msgspec.structs.replace(query, until=last - 1)
    return found[:limit]


async def oldest_event(system: ActorSystem, events: LogEvents, wanted: EventFilter, after: int) -> LogEvent | None:
    """Return the first event that fits after a position, of those that are in the log now."""
    until = system.log.position
    if (ticket := system.log.barrier()) is not None:
        await ticket
    place: int | None = after
    while place is not None and place < until:
        page, place = await events.read(wanted.tags, Query(after=place, until=until, limit=PAGE))
        if (first := next((event for event in page if wanted.fits(event)), None)) is not None:
            return first
    return None


async def recent_names(log: EventLog, after: int, until: int) -> Mapping[str, int]:
    """Return the newest position of each name of an event between two, and under "" from where on was looked.

    It looks at the end of the log only: what a subscription missed before, it reads for itself.
    """
    if (ticket := log.barrier()) is not None:
        await ticket
    floor = max(after, until - LATELY)
    found: dict[str, int] = {"": floor}
    place = floor
    while page := await log.read(Query(after=place, until=until)):
        for row in page:
            if (name := name_of(row.stream, row.type)) is not None:
                found[name] = row.position
        place = page[-1].position
    return found
