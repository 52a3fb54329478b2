"""Who waits in one queue and who holds a place there, and who of several queues that share places is next. In memory.

Not here: letting runs in (`queues.py`). Invariant: a run waits or holds a place, never both; whoever is next finds one.
"""

import heapq
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from perdure.actors.workflows.events import Place
from perdure.actors.workflows.queue import Queue

_Turn: TypeAlias = tuple[bool, int, int, str]
"""What the order goes by: whether it is its first turn; the priority, less than 0 for more than 0; when it was started;
the run's id."""


class Queued(msgspec.Struct, frozen=True):
    """A run that waits for its turn."""

    run: str
    queue: str
    at: int
    """When it was started, in microseconds."""
    priority: int = 0
    partition: str | None = None
    is_back: bool = False
    """Whether it had its turn already and waits for a place to go on: it comes first, and needs no other token."""

    @property
    def turn(self) -> _Turn:
        """What the order goes by."""
        return (not self.is_back, -self.priority, self.at, self.run)


def queued(run: str, place: Place | None, at: int, *, is_back: bool = False) -> Queued:
    """Return a run that was started *at* that time and waits at its place."""
    assert place is not None  # noqa: S101 - only such a run is ever queued
    return Queued(run, place.queue, at, place.priority, place.partition, is_back)


class QueueStatistics(msgspec.Struct, frozen=True):
    """How a queue stands."""

    waiting: int
    working: int
    """Runs that hold a place: their code is in memory, or about to be."""
    partitions: dict[str, int]
    """Of them, by partition."""


class Line:
    """One queue: who waits, and who holds a place."""

    __slots__ = ("_blocked", "_partitions", "_ready", "_waiting", "queue", "working")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.working: dict[str, str | None] = {}
        """The partitions of the runs that hold a place, by run."""
        self._waiting: dict[str, Queued] = {}
        self._ready: list[_Turn] = []
        self._blocked: dict[str, list[_Turn]] = {}
        """Waiting runs whose partition is full, by partition; looked at again when a run of the partition leaves."""
        self._partitions: dict[str, int] = {}

    def add(self, one: Queued) -> None:
        """Add a run to the line. Idempotent; one that had its turn already does not become a new one."""
        known = self._waiting.get(one.run)
        if one.run not in self.working and (known is None or (one.is_back and not known.is_back)):
            self._waiting[one.run] = one
            heapq.heappush(self._ready, one.turn)

    def waits(self, run: str) -> bool:
        """Return whether a run waits here."""
        return run in self._waiting

    def discard(self, run: str) -> None:
        """Forget a run that waits no more."""
        self._waiting.pop(run, None)  # its turn is passed over when it comes

    def next(self) -> Queued | None:
        """Return whose turn it is, or None when all places are taken or nobody waits. It stays where it is."""
        if self.queue.concurrency is not None and len(self.working) >= self.queue.concurrency:
            return None
        while self._ready:
            one = self._waiting.get(self._ready[0][-1])
            if one is None or one.turn != self._ready[0]:
                heapq.heappop(self._ready)
            elif one.partition is not None and self._is_full(one.partition):
                self._blocked.setdefault(one.partition, []).append(heapq.heappop(self._ready))
            else:
                return one
        return None

    def enter(self, run: str, partition: str | None) -> None:
        """Give a run a place, whether there is one or not."""
        self.discard(run)
        if run not in self.working:
            self.working[run] = partition
            if partition is not None:
                self._partitions[partition] = self._partitions.get(partition, 0) + 1

    def leave(self, run: str) -> bool:
        """Take a run's place back; return whether it had one."""
        if run not in self.working:
            return False
        partition = self.working.pop(run)
        if partition is not None:
            self._partitions[partition] -= 1
            if not self._partitions[partition]:
                del self._partitions[partition]
            for turn in self._blocked.pop(partition, ()):
                heapq.heappush(self._ready, turn)
        return True

    def _is_full(self, partition: str) -> bool:
        bound = self.queue.partition_concurrency
        return bound is not None and self._partitions.get(partition, 0) >= bound

    def statistics(self) -> QueueStatistics:
        """Return how it stands."""
        return QueueStatistics(len(self._waiting), len(self.working), dict(self._partitions))


class Pool:
    """Queues that share places: the first of all that wait in any of them is next."""

    def __init__(self, places: int, lines: Sequence[Line]) -> None:
        self._places = places
        self._lines = lines

    def next(self) -> Queued | None:
        """Return whose turn it is, as `Line.next`."""
        if sum(len(line.working) for line in self._lines) >= self._places:
            return None
        heads = [one for line in self._lines if (one := line.next()) is not None]
        return min(heads, key=lambda one: one.turn, default=None)
