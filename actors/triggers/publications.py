"""Reads published events back from the log: the first that somebody wants, and those that were not delivered.

Invariant: events come in the order of the log; one that was erased is passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from perdure.actors.kernel.system import ActorSystem
from perdure.actors.triggers.topic import EventPublished, TopicState, topic_of
from perdure.actors.triggers.wanted import Occurrence, Wanted
from perdure.store.records import Query, Recorded, StreamId

PAGE: Final = 500
"""Events that are read with one query."""


async def first_of(
    system: ActorSystem, type: str, wanted: Wanted, *, after: int, until: int, before: int | None
) -> Occurrence | None:
    """Return the first event of a type that is wanted between two positions, and published before a time."""
    query = Query(stream=topic_of(type), types=("event-published",), after=after, until=until, limit=PAGE)
    while page := await system.log.read(query):
        for event in await _decoded(system, page, 0):
            if (before is None or event.at < before) and wanted.fits(type, msgspec.json.decode(event.data)):
                return event
        query = msgspec.structs.replace(query, after=page[-1].position)
    return None


async def undelivered(system: ActorSystem) -> list[Occurrence]:
    """Return the events of all topics of which sleepers may not have been told."""
    found: list[Occurrence] = []
    after = ""
    while page := await system.log.open_streams("topic/", after=after):
        for row in page:
            found.extend(await _undelivered(system, row.stream))
        after = page[-1].stream
    return found


async def _undelivered(system: ActorSystem, topic: StreamId) -> list[Occurrence]:
    state: TopicState = (await system.directory.activate(topic)).state
    left = state.published - state.delivered
    found: list[Occurrence] = []
    query = Query(stream=topic, types=("event-published",), limit=PAGE, newest_first=True)
    while left > 0 and (page := await system.log.read(query)):
        rows = page[:left]
        number = state.delivered + left
        left -= len(rows)
        query = msgspec.structs.replace(query, until=rows[-1].position - 1)
        found.extend(await _decoded(system, rows, number, step=-1))
    return found


async def _decoded(system: ActorSystem, rows: Sequence[Recorded], number: int, step: int = 0) -> list[Occurrence]:
    """Return the events, numbered from *number* on; those that were erased are not among them."""
    codec = system.codec
    kept = [row for row in rows if row.data is not None]
    blobs: Mapping[str, bytes] = {}
    if needed := codec.needed_blobs(kept):
        blobs = await system.log.blobs(needed)
    found: list[Occurrence] = []
    for count, row in enumerate(rows):
        if row.data is not None and isinstance(event := codec.decode(row, blobs), EventPublished):
            type, at = row.stream.partition("/")[2], row.at
            found.append(Occurrence(type, number + step * count, event.id, event.data, event.run, at, row.position))
    return found
