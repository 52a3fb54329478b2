"""Who waits in which queue, and who is next: lets runs into memory as places, partitions and rates allow.

All of it is in memory and made anew from the log when a runtime opens: that a run waits is in its stream, and so is
that its turn came (`run-resumed`). Invariant: no code of a queue's run is in memory without a place, and there are no
more places than the queue, and all that share them, have.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.actors.kernel.clock import Timer
from perdure.actors.kernel.logs import logger
from perdure.actors.tools.limits import RateLimit
from perdure.actors.workflows.events import Place
from perdure.actors.workflows.lines import Line, Pool, Queued, QueueStatistics, queued
from perdure.actors.workflows.queue import Queue, TakeQueueToken
from perdure.store.records import StreamId, stream_id

if TYPE_CHECKING:
    from perdure.actors.workflows.engine import Engine

PAGE = 200
"""Runs let in with one query."""

_POOLED = "queues that share places"
"""No queue can be called that."""

_log = logger("perdure.runs")


class _Begun(msgspec.Struct, frozen=True):
    """What counts here of `run-started`."""

    place: Place | None = None


class Shared(msgspec.Struct, frozen=True):
    """Queues whose runs share so many places, beside the places that each queue has."""

    places: int
    queues: frozenset[str]


class Queues:
    """The queues of a runtime."""

    def __init__(self, engine: "Engine", queues: Iterable[Queue], shared: Shared | None = None) -> None:
        self._engine = engine
        self._lines = {queue.name: Line(queue) for queue in queues}
        pooled = {name: line for name, line in self._lines.items() if shared is not None and name in shared.queues}
        self._sources: dict[str, Line | Pool] = {k: line for k, line in self._lines.items() if k not in pooled}
        """Where the next run comes from: a queue, or the queues that share places."""
        if shared is not None and pooled:
            self._sources[_POOLED] = Pool(shared.places, tuple(pooled.values()))
        self._pooled = frozenset(pooled)
        self._timers: dict[str, Timer] = {}
        """Sources whose rate lets nobody in before a time."""
        self._is_filling: set[str] = set()
        self._is_open = False

    @property
    def names(self) -> frozenset[str]:
        """What the queues are called."""
        return frozenset(self._lines)

    def statistics(self) -> Mapping[str, QueueStatistics]:
        """Return how each queue stands."""
        return {name: line.statistics() for name, line in self._lines.items()}

    def is_let_on(self, one: Queued) -> bool:
        """Give a run that goes on a place if one is free for it; otherwise line it up, ahead of new runs.

        It has one already where its turn has just come; one of a queue that there is not needs none.
        """
        line = self._lines.get(one.queue)
        if line is None or one.run in line.working:
            return True
        line.add(one)
        source = self._source(one.queue)
        first = self._sources[source].next()
        if first is not None and first.run == one.run:
            line.enter(one.run, one.partition)
            return True
        self._fill(source)
        return False

    def waits(self, run: str) -> bool:
        """Return whether a run waits in a line."""
        return any(line.waits(run) for line in self._lines.values())

    def _source(self, queue: str) -> str:
        return _POOLED if queue in self._pooled else queue

    def add(self, waiting: Iterable[Queued]) -> None:
        """Have runs wait for their turns; one of a queue that there is not waits for its queue."""
        touched: set[str] = set()
        for one in waiting:
            line = self._lines.get(one.queue)
            if line is None:
                _log.warning("a run waits in a queue that is not configured", run=one.run, queue=one.queue)
            else:
                line.add(one)
                touched.add(self._source(one.queue))
        for name in touched:
            self._fill(name)

    def open(self) -> None:
        """Let runs in from now on: those that were at work when the log was last open have their places again."""
        self._is_open = True
        for name in self._sources:
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
        self._fill_all()

    def vacate(self, runs: Iterable[str]) -> None:
        """Take back the places of runs that were to come into memory and did not."""
        left = [run for run in runs for line in self._lines.values() if line.leave(run)]
        if left:
            self._fill_all()

    def _fill_all(self) -> None:
        for name in self._sources:
            self._fill(name)

    def stop(self) -> None:
        """Let nobody in any more."""
        for timer in self._timers.values():
            timer.cancel()

    # Letting in

    def _fill(self, name: str) -> None:
        """See to it that a source is looked at; one look at a time."""
        if not self._is_open or name in self._is_filling or self._engine.is_stopping or not self._engine.room:
            return
        if (one := self._sources[name].next()) is None or self._is_too_early(name, one):
            return
        self._is_filling.add(name)
        self._engine.resumer.spawn(self._let_in(name))

    async def _let_in(self, name: str) -> None:
        try:
            while not self._engine.is_stopping and (let_in := await self._admitted(name)):
                outcomes = await self._engine.resumer.resume_many([stream_id(f"run/{one.run}") for one in let_in])
                for stream, error in outcomes:
                    if error is not None:
                        _log.warning("a run's turn came, and it cannot begin", run=stream, reason=str(error))
                # Those that did not come have left their places; one whose memory was given away meanwhile has not.
                self.vacate(one.run for one in let_in if not self._engine.resumer.is_bringing(one.run))
        finally:
            self._is_filling.discard(name)
        self._fill(name)

    async def _admitted(self, name: str) -> list[Queued]:
        """Give places to those whose turn it is, as far as the rate allows; return who they are."""
        let_in: list[Queued] = []
        source = self._sources[name]
        while len(let_in) < min(PAGE, self._engine.room) and (one := source.next()) is not None:
            if self._is_too_early(name, one):
                break
            line = self._lines[one.queue]
            if line.queue.rate is None or one.is_back:
                line.enter(one.run, one.partition)
                let_in.append(one)
            elif wait := await self._take_token(one, line.queue.rate):
                self._look_again(name, wait)
            elif line.waits(one.run):  # somebody may have taken the place meanwhile: it has its token, and is next
                line.add(msgspec.structs.replace(one, is_back=True))
        return let_in

    def _is_too_early(self, source: str, one: Queued) -> bool:
        """Return whether a run that is next waits for the rate."""
        return source in self._timers and not one.is_back

    async def _take_token(self, one: Queued, limit: RateLimit) -> int:
        """Take a token for a run; return the microseconds until there is one, if there is none."""
        stream = self._lines[one.queue].queue.stream
        wait: int = await self._engine.system.ref(stream).ask(TakeQueueToken(one.run, limit))
        return wait

    def _look_again(self, name: str, wait: int) -> None:
        clock = self._engine.clock

        def look() -> None:
            del self._timers[name]
            self._fill(name)

        self._timers[name] = clock.call_at(clock.moment().now + wait, look)
