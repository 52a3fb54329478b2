"""The state of an actor as the log has it: its newest snapshot for this very code, and the events after that.

It reads only, and no large values. Invariant: what cannot be read (a newer version's events) is passed over.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.replay import Core
from perdure.store.codec import Codec
from perdure.store.errors import UndecodableEventError, UnknownTagError
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId, StreamSummary

S = TypeVar("S")

# The state after some event, for this very code, and the position of that event.
_SNAPSHOT: Final = """
SELECT n.data, e.position FROM streams AS s JOIN snapshots AS n ON n.stream = s.id
JOIN events AS e ON e.stream = s.id AND e.version = n.version WHERE s.name = ?1 AND n.schema = ?2
"""


class Fold(Generic[S]):
    """Reads states of one kind of actor."""

    def __init__(self, reader: LogReader, behavior: Behavior[S]) -> None:
        self._reader = reader
        self._behavior = behavior
        self._codec = Codec(behavior.events)
        self._schema = Core(behavior).schema

    def state(self, stream: StreamId) -> S:
        """Return the state of one actor."""
        state, after = self._behavior.initial(stream), 0
        for data, position in list(self._reader.sql(_SNAPSHOT, (stream, self._schema)).rows):
            state, after = msgspec.json.decode(data, type=self._behavior.state_type), position
        for event in events_of(self._reader, Query(stream=stream, after=after)):
            try:
                state = self._behavior.evolve(state, self._codec.decode(event))
            except (UnknownTagError, UndecodableEventError):
                continue
        return state


def events_of(reader: LogReader, query: Query) -> Iterator[Recorded]:
    """Yield all events that match, a page at a time."""
    while page := reader.read(query):
        yield from page
        query = msgspec.structs.replace(query, after=page[-1].position)


def streams_of(reader: LogReader, prefix: str, *, only_open: bool = False) -> Iterator[StreamSummary]:
    """Yield the streams whose names begin so, a page at a time."""
    after = ""
    while page := reader.streams(prefix, after=after, only_open=only_open):
        yield from page
        after = page[-1].stream


def newest(reader: LogReader, stream: StreamId, types: Sequence[str], *, after: int = 0) -> Recorded | None:
    """Return the last event of these types in a stream."""
    found = reader.read(Query(stream=stream, types=tuple(types), after=after, newest_first=True, limit=1))
    return found[0] if found else None
