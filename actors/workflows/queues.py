"""Who waits in which queue, and who is next: lets runs into memory as places, partitions and rates allow.

All of it is in memory and made anew from the log when a runtime opens: that a run waits is in its stream, and so is
that its turn came (`run-resumed`). Invariant: at most one of a queue's runs a place comes from here; only a run that
slept may be one too many.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import structlog

from perdure.actors.kernel.clock import Timer
from perdure.actors.workflows.events import Place
from perdure.actors.workflows.queue import Queue, TakeQueueToken
from perdure.store.records import StreamId, stream_id

if TYPE_CHECKING:
    from perdure.actors.workflows.engine import Engine

PAGE = 200
"""Runs let in with one query."""

_log = structlog.get_logger("perdure.runs")

_Turn: TypeAlias = tuple[int, int, str]
"""What the order goes by: the priority, less than 0 for more than 0; when it was started; the run's id."""


class Queued(msgspec.Struct, frozen=True):
    """A run that waits for its turn."""

    run: str
    queue: str
    at: int
    """When it was started, in microseconds."""
    priority: int = 0
    partition: str | None = None

    @property
    def turn(self) -> _Turn:
        """What the order goes by."""
        return (-self.priority, self.at, self.run)


def queued(run: str, place: Place | None, at: int) -> Queued:
    """Return a run that was started *at* that time and waits at its place."""
    assert place is not None  # noqa: S101 - only such a run is ever queued
    return Queued(run, place.queue, at, place.priority, place.partition)


class _Begun(msgspec.Struct, frozen=True):
    """What counts here of `run-started`."""

    place: Place | None = None


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
        """Those whose partition is full, by partition: looked at again when one of it leaves."""
        self._partitions: dict[str, int] = {}

    def add(self, one: Queued) -> None:
        """Have a run wait for its turn; once is enough."""
        if one.run not in self._waiting and one.run not in self.working:
            self._waiting[one.run] = one
            heapq.heappush(self._ready, one.turn)

    def discard(self, run: str) -> None:
        """Forget a run that waits no more."""
        self._waiting.pop(run, None)  # its turn is passed over when it comes

    def next(self) -> Queued | None:
        """Return whose turn it is, or None when all places are taken or nobody waits. It stays where it is."""
        if self.queue.concurrency is not None and len(self.working) >= self.queue.concurrency:
            return None
        while self._ready:
            one = self._waiting.get(self._ready[0][2])
            if one is None:
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


class Queues:
    """The queues of a runtime."""

    def __init__(self, engine: "Engine", queues: Iterable[Queue]) -> None:
        self._engine = engine
        self._lines = {queue.name: Line(queue) for queue in queues}
        self._timers: dict[str, Timer] = {}
        """Queues whose rate lets nobody in before a time."""
        self._is_filling: set[str] = set()
        self._is_open = False

    @property
    def names(self) -> frozenset[str]:
        """What the queues are called."""
        return frozenset(self._lines)

    def statistics(self) -> Mapping[str, QueueStatistics]:
        """Return how each queue stands."""
        return {name: line.statistics() for name, line in self._lines.items()}

    def add(self, waiting: Iterable[Queued]) -> None:
        """Have runs wait for their turns; one of a queue that there is not waits for its queue."""
        touched: set[str] = set()
        for one in waiting:
            line = self._lines.get(one.queue)
            if line is None:
                _log.warning("a run waits in a queue that is not configured", run=one.run, queue=one.queue)
            else:
                line.add(one)
                touched.add(one.queue)
        for name in touched:
            self._fill(name)

    def open(self) -> None:
        """Let runs in from now on: those that were at work when the log was last open have their places again."""
        self._is_open = True
        for name in self._lines:
            self._fill(name)

    async def restore(self, streams: Sequence[StreamId]) -> None:
        """Have runs wait again that waited when the log was last open."""
        if not streams:
            return
        waiting: list[Queued] = []
        for one in await self._engine.system.log.load([(stream, "") for stream in streams]):
            place = msgspec.json.decode(one.events[0].data or "{}", type=_Begun).place
            waiting.append(queued(one.stream.partition("/")[2], place, one.events[0].at))
        self.add(waiting)

    def discard(self, run: str, place: Place | None) -> None:
        """Forget a run that was cancelled while it waited."""
        if place is not None and (line := self._lines.get(place.queue)) is not None:
            line.discard(run)

    def entered(self, run: str, place: Place | None) -> None:
        """Take note that a run's code is in memory."""
        if place is not None and (line := self._lines.get(place.queue)) is not None:
            line.enter(run, place.partition)

    def left(self, run: str, place: Place | None) -> None:
        """Take note that a run's code left memory: the turn of others may have come, in its queue and elsewhere."""
        if place is not None and (line := self._lines.get(place.queue)) is not None:
            line.leave(run)
        for name in self._lines:
            self._fill(name)

    def stop(self) -> None:
        """Let nobody in any more."""
        for timer in self._timers.values():
            timer.cancel()

    # Letting in

    def _fill(self, name: str) -> None:
        """See to it that the queue is looked at; one look at a time."""
        if not self._is_open or name in self._is_filling or name in self._timers:
            return
        if self._engine.is_stopping or not self._engine.room:
            return
        if self._lines[name].next() is None:
            return
        self._is_filling.add(name)
        self._engine.resumer.spawn(self._let_in(name))

    async def _let_in(self, name: str) -> None:
        line = self._lines[name]
        try:
            while not self._engine.is_stopping and (let_in := await self._admitted(line)):
                outcomes = await self._engine.resumer.resume_many([stream_id(f"run/{run}") for run in let_in])
                for stream, error in outcomes:
                    if error is not None:
                        _log.warning("a run's turn came, and it cannot begin", run=stream, reason=str(error))
                for run in let_in:
                    if not self._engine.has(run):
                        line.leave(run)  # it was cancelled or paused, or its code is missing: then it waits for it
        finally:
            self._is_filling.discard(name)
        self._fill(name)

    async def _admitted(self, line: Line) -> list[str]:
        """Give places to those whose turn it is, as far as the rate allows; return who they are."""
        let_in: list[str] = []
        if line.queue.name in self._timers:
            return let_in
        while len(let_in) < min(PAGE, self._engine.room) and (one := line.next()) is not None:
            if line.queue.rate is not None:
                token = TakeQueueToken(one.run, line.queue.rate)
                wait: int = await self._engine.system.ref(line.queue.stream).ask(token)
                if wait:
                    self._look_again(line.queue.name, wait)
                    break
            line.enter(one.run, one.partition)
            let_in.append(one.run)
        return let_in

    def _look_again(self, name: str, wait: int) -> None:
        clock = self._engine.clock

        def look() -> None:
            del self._timers[name]
            self._fill(name)

        self._timers[name] = clock.call_at(clock.moment().now + wait, look)
