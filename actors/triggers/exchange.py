"""Carries published events to the runs that wait for them: those in memory at once, sleepers by waking them.

It holds no truth: what was published is in the topics, what a run has taken is in the run. Invariant: events are begun
in the order of the log, each when it is durable; a topic is marked as delivered only when every sleeper that listens
for what is in it has a durable reason to wake, so after a crash it is gone through again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from perdure.actors.kernel.clock import SECOND, Clock
from perdure.actors.kernel.errors import MailboxFullError
from perdure.actors.kernel.messages import Effect
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem, Interpreter
from perdure.actors.triggers.listing import StopListening, listings_of, read_row
from perdure.actors.triggers.topic import Announce, EventPublished, MarkDelivered, TopicState, topic_of
from perdure.actors.triggers.wanted import Occurrence, Wanted, holds
from perdure.actors.workflows.commands import FindEvent
from perdure.store.errors import BacklogFullError, LogClosedError, LogWriteError, PerdureError
from perdure.store.records import OpenStream, Query, Recorded, StreamId

BATCH: Final = 500
"""Events that are looked for in the index of sleepers together."""
PAGE: Final = 500
"""Sleepers, or events, that are read with one query."""
BREATH: Final = 200
"""Listeners that are told before others get the loop again."""
LOOK_AGAIN: Final = SECOND
"""Microseconds until an event is delivered again after the log could not be read."""

_log = structlog.get_logger("perdure.events")


class LiveWait:
    """A wait of a run that is in memory."""

    __slots__ = ("found", "run", "seen", "step", "until", "wake", "wanted")

    def __init__(self, run: str, step: str, wanted: Wanted, seen: int, until: int | None) -> None:
        self.run = run
        self.step = step
        self.wanted = wanted
        self.seen = seen
        """The position up to which it has passed over every event."""
        self.until = until
        self.found: Occurrence | None = None
        """The first event after that which fits."""
        self.wake: Callable[[], None] = lambda: None


class Exchange:
    """Tells runs of events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._system: ActorSystem
        self._opened_at = 0
        self.begun = 0
        """The position of the last event of which listeners are being, or have been, told."""
        self._begun_of: dict[str, int] = {}
        self._live: dict[str, dict[LiveWait, None]] = {}
        self._queue: deque[Occurrence] = deque()
        self._batch: list[Occurrence] = []
        self._marks: dict[str, int] = {}
        self._silent: set[str] = set()
        """Types for which no sleeper is listed."""
        self._listed = 0
        """How many entries were made in this life."""
        self._is_waking = False
        self._is_gathering = False
        """Whether what former lives left is being read: it comes before anything new."""
        self._is_stopped = False
        self._task: asyncio.Task[None] | None = None
        self.on_idle: Callable[[], None] = lambda: None
        """Told when everything that was published is delivered."""

    @property
    def interpreters(self) -> Mapping[type[Effect], Interpreter]:
        """The effects of topics, and what performs them."""
        return {Announce: self._announce}

    @property
    def is_busy(self) -> bool:
        """Whether events are being delivered."""
        return self._task is not None and not self._is_stopped

    def attach(self, system: ActorSystem) -> None:
        """Take up the work on a log."""
        self._system = system
        self._opened_at = self.begun = system.log.position

    async def wake_sleepers(self) -> None:
        """Deliver what former lives published and did not deliver; from now on, wake sleepers. Idempotent."""
        if self._is_waking or self._is_gathering:
            return
        self._is_gathering = True
        try:
            if self._task is not None:
                await asyncio.wait([self._task])
            left = {event.position: event for event in await self._left_behind()}
            left.update((event.position, event) for event in self._queue)
            self._queue = deque(left[position] for position in sorted(left))
            self._is_waking = True
        finally:
            self._is_gathering = False
            self._go_on()

    async def _left_behind(self) -> list[Occurrence]:
        found: list[Occurrence] = []
        after = ""
        while page := await self._system.log.open_streams("topic/", after=after):
            for row in page:
                found.extend(await self._undelivered(row.stream))
            after = page[-1].stream
        return found

    async def _undelivered(self, topic: StreamId) -> list[Occurrence]:
        state: TopicState = (await self._system.directory.activate(topic)).state
        left = state.published - state.delivered
        found: list[Occurrence] = []
        query = Query(stream=topic, types=("event-published",), limit=PAGE, newest_first=True)
        while left > 0 and (page := await self._system.log.read(query)):
            rows = page[:left]
            number = state.delivered + left
            left -= len(rows)
            query = msgspec.structs.replace(query, until=rows[-1].position - 1)
            found.extend(await self._decoded(rows, number, step=-1))
        return found

    async def stop(self) -> None:
        """Deliver nothing any more."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # Listeners in memory

    def listen(self, wait: LiveWait) -> None:
        """Tell a wait of every event from now on; it must not be behind."""
        for type in wait.wanted.types:
            self._live.setdefault(type, {})[wait] = None

    def unlisten(self, wait: LiveWait) -> None:
        """Tell it no more."""
        for type in wait.wanted.types:
            waits = self._live.get(type, {})
            waits.pop(wait, None)
            if not waits:
                self._live.pop(type, None)

    def is_behind(self, types: Iterable[str], seen: int) -> bool:
        """Return whether there may be events of these types after *seen* of which listeners were told already."""
        return seen < self._opened_at or any(self._begun_of.get(type, 0) > seen for type in types)

    def listed(self, type: str) -> None:
        """Take note that a sleeper is being listed under a type."""
        self._listed += 1
        self._silent.discard(type)

    async def first(self, wanted: Wanted, after: int, until: int, before: int | None) -> Occurrence | None:
        """Return the first event that is wanted between two positions, and published before a time."""
        first: Occurrence | None = None
        for type in wanted.types:
            if self.is_behind((type,), after):
                end = until if first is None else first.position - 1
                first = await self._first_of(type, wanted, after, end, before) or first
        return first

    async def _first_of(
        self, type: str, wanted: Wanted, after: int, until: int, before: int | None
    ) -> Occurrence | None:
        query = Query(stream=topic_of(type), types=("event-published",), after=after, until=until, limit=PAGE)
        while page := await self._system.log.read(query):
            for event in await self._decoded(page, 0):
                if (before is None or event.at < before) and wanted.fits(type, msgspec.json.decode(event.data)):
                    return event
            query = msgspec.structs.replace(query, after=page[-1].position)
        return None

    async def _decoded(self, rows: Sequence[Recorded], number: int, step: int = 0) -> list[Occurrence]:
        """Return the events; those that were erased are not among them."""
        codec = self._system.codec
        kept = [row for row in rows if row.data is not None]
        blobs: Mapping[str, bytes] = {}
        if needed := codec.needed_blobs(kept):
            blobs = await self._system.log.blobs(needed)
        found: list[Occurrence] = []
        for count, row in enumerate(rows):
            if row.data is not None and isinstance(event := codec.decode(row, blobs), EventPublished):
                type, at = row.stream.partition("/")[2], row.at
                ordinal = number + step * count
                found.append(Occurrence(type, ordinal, event.id, event.data, event.run, at, row.position))
        return found

    # Delivery

    def _announce(self, shell: Shell, effect: Announce) -> None:
        type = shell.stream.partition("/")[2]
        self._queue.append(
            Occurrence(type, effect.number, effect.id, effect.data, effect.run, effect.at, effect.position)
        )
        self._go_on()

    def _go_on(self) -> None:
        is_held = self._is_stopped or self._is_gathering or self._task is not None
        if not is_held and (self._queue or self._batch):
            self._task = self._system.loop.create_task(self._deliver(), name="perdure events")

    async def _deliver(self) -> None:
        try:
            while (self._queue or self._batch) and not self._is_gathering:
                await self._deliver_batch()
            self._mark_delivered()
            self._task = None
            self.on_idle()
        except (LogWriteError, LogClosedError):
            self._is_stopped = True  # the next life delivers what this one did not
        except PerdureError as error:
            # The disk may not be readable for a moment: sleepers must not be forgotten for that.
            _log.warning("an event could not be delivered; it is tried again", reason=str(error))
            self._clock.call_at(self._clock.moment().now + LOOK_AGAIN, self._retry)

    def _retry(self) -> None:
        self._task = None
        self._go_on()

    async def _deliver_batch(self) -> None:
        while self._queue and len(self._batch) < BATCH and not self._is_gathering:
            event = self._queue.popleft()
            self._batch.append(event)
            await self._tell_listeners(event)
        if self._is_waking and self._batch:
            await self._wake(self._batch)
            for event in self._batch:
                self._marks[event.type] = max(self._marks.get(event.type, 0), event.number)
        self._batch = []

    async def _tell_listeners(self, event: Occurrence) -> None:
        self.begun = max(self.begun, event.position)
        self._begun_of[event.type] = max(self._begun_of.get(event.type, 0), event.position)
        waits = self._live.get(event.type)
        if not waits:
            return
        data = msgspec.json.decode(event.data)
        for count, wait in enumerate(list(waits), 1):
            if wait.found is None and wait.seen < event.position and wait in waits:
                _tell(wait, event, data)
            if not count % BREATH:
                await asyncio.sleep(0)

    def _mark_delivered(self) -> None:
        marks, self._marks = self._marks, {}
        for type, number in marks.items():
            self._system.ref(topic_of(type)).tell(MarkDelivered(number))

    # Sleepers

    async def _wake(self, batch: Sequence[Occurrence]) -> None:
        """Give every sleeper that listens for one of these events a durable reason to wake."""
        by_type: dict[str, list[tuple[Occurrence, Any]]] = {}
        for event in batch:
            if event.type not in self._silent:
                by_type.setdefault(event.type, []).append((event, msgspec.json.decode(event.data)))
        if not by_type:
            return
        # A run that left memory before these events were begun, and is listed since, must be among what is read.
        await self._system.log.flush()
        found: dict[tuple[str, str], int] = {}
        rows: dict[str, list[OpenStream]] = {}
        for type, events in by_type.items():
            await self._look(type, events, found, rows)
        wakes = list(found.items())
        for start in range(0, len(wakes), PAGE):
            await self._ask(wakes[start : start + PAGE], rows)

    async def _look(
        self,
        type: str,
        events: Sequence[tuple[Occurrence, Any]],
        found: dict[tuple[str, str], int],
        rows: dict[str, list[OpenStream]],
    ) -> None:
        """Find the sleepers for events of one type, and the first event for each of their waits."""
        listed, after, count = self._listed, "", 0
        while page := await self._system.log.open_streams(listings_of(type), after=after, limit=PAGE):
            for row in page:
                entry = read_row(row.waits_on or "")
                for wait in entry.waits:
                    first = next(
                        (e.position for e, data in events if e.position > wait.after and holds(wait.either, data)), None
                    )
                    if first is not None:
                        key = (entry.run, wait.step)
                        found[key] = min(found.get(key, first), first)
                        rows.setdefault(entry.run, []).append(row)
            after, count = page[-1].stream, count + len(page)
        if not count and listed == self._listed:
            self._silent.add(type)

    async def _ask(self, wakes: Sequence[tuple[tuple[str, str], int]], rows: Mapping[str, list[OpenStream]]) -> None:
        asked = [(run, self._find(run, step, position)) for (run, step), position in wakes]
        for (run, answer), ((_, step), position) in zip(asked, wakes, strict=True):
            if not await self._is_found(answer, run, step, position):
                for row in rows[run]:  # it is awake, or has ended: a run is listed anew each time that it leaves memory
                    self._system.ref(row.stream).tell(StopListening(row.waits_on))

    def _find(self, run: str, step: str, position: int) -> Any:
        return self._system.ref(StreamId(f"run/{run}")).ask(FindEvent(step, position), correlation=run)

    async def _is_found(self, answer: Any, run: str, step: str, position: int) -> bool:
        while True:
            try:
                return bool(await answer)
            except (BacklogFullError, MailboxFullError):
                await self._system.log.flush()
                answer = self._find(run, step, position)
            except (LogWriteError, LogClosedError):
                raise
            except PerdureError as error:
                _log.warning("a run could not be told of an event", run=run, step=step, reason=str(error))
                return True


def _tell(wait: LiveWait, event: Occurrence, data: Any) -> None:
    if (wait.until is None or event.at < wait.until) and wait.wanted.fits(event.type, data):
        wait.found = event
        wait.wake()
    else:
        wait.seen = event.position
