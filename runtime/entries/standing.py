"""How the open runs of entry points stand: who waits for a turn, is at work, waits out of memory, or is paused.

Read from the queues and from the index of open work. Invariant: the counts of an entry point add up to its open runs.
"""

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from perdure.actors.workflows.lines import QueueStatistics
from perdure.actors.workflows.steering import PAUSED
from perdure.store.records import Query, StreamId

if TYPE_CHECKING:
    from perdure.runtime.machinery import Machinery

_PAGE = 1_000


class OpenRuns(msgspec.Struct, frozen=True):
    """The open runs of one entry point, by how they stand."""

    pending: int
    """They wait in line: for their turn, or for a place to go on."""
    running: int
    """Their code is in memory."""
    waiting: int
    """Out of memory, for a time, a child, a signal, a person."""
    paused: int
    """By an operator or by themselves."""


class _Entry(msgspec.Struct, frozen=True):
    entry: str


class _Begun(msgspec.Struct, frozen=True):
    """What counts here of `run-started`."""

    entrance: _Entry | None = None
    parent: object = None
    forked_from: object = None


class PausedRuns:
    """Counts the paused runs of entry points; whose run one is never changes, and is read once."""

    def __init__(self, machinery: "Machinery") -> None:
        self._machinery = machinery
        self._entries: dict[StreamId, str | None] = {}

    async def count(self) -> Counter[str]:
        """Return how many runs of each entry point are paused, and neither in memory nor in a line."""
        engine, after = self._machinery.engine, ""
        found: dict[StreamId, str | None] = {}
        while page := await self._machinery.log.open_streams("run/", after=after, waits_on=PAUSED, limit=_PAGE):
            for row in page:
                found[row.stream] = await self._entry(row.stream)
            after = page[-1].stream
        self._entries = found  # those that are paused no more are forgotten
        names = {stream: stream.partition("/")[2] for stream in found}
        at_rest = [s for s, run in names.items() if not engine.has(run) and not engine.queues.waits(run)]
        return Counter(entry for stream in at_rest if (entry := found[stream]) is not None)

    async def _entry(self, stream: StreamId) -> str | None:
        if stream in self._entries:
            return self._entries[stream]
        first = await self._machinery.log.read(Query(stream=stream, limit=1))
        begun = msgspec.json.decode(first[0].data or "{}", type=_Begun)
        if begun.entrance is None or begun.parent is not None or begun.forked_from is not None:
            return None
        return begun.entrance.entry


def standing(is_open: int, queue: QueueStatistics, paused: int) -> OpenRuns:
    """Return how the open runs of an entry point stand; forks go through its queue, and are none of its runs."""
    pending = min(queue.waiting, is_open)
    running = min(queue.working, is_open - pending)
    at_rest = min(paused, is_open - pending - running)
    return OpenRuns(pending, running, is_open - pending - running - at_rest, at_rest)
