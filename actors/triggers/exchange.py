"""Carries published events to the runs that wait for them: those in memory at once, sleepers by waking them.

It holds no truth: what was published is in the topics, what a run has taken is in the run. Invariant: events are begun
in the order of the log, each when it is durable; a topic is marked as delivered only when every sleeper that listens
for what is in it has a durable reason to wake, so after a crash it is gone through again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from perdure.actors.kernel.clock import SECOND, Clock
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Effect
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem, Interpreter
from perdure.actors.triggers.listing import LeaveListings
from perdure.actors.triggers.publications import first_of, undelivered
from perdure.actors.triggers.sleepers import Sleepers
from perdure.actors.triggers.topic import Announce, MarkDelivered, topic_of
from perdure.actors.triggers.wanted import Occurrence, Wanted
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError

BATCH: Final = 500
"""Events that are looked for in the index of sleepers together."""
BREATH: Final = 200
"""Listeners that are told before others get the loop again."""
LOOK_AGAIN: Final = SECOND
"""Microseconds until an event is delivered again after the log could not be read."""

_log = logger("perdure.events")


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
        self.sleepers: Sleepers
        """The runs that are not in memory."""
        self._opened_at = 0
        self.begun = 0
        """The position of the last event of which listeners are being, or have been, told."""
        self._begun_of: dict[str, int] = {}
        self._live: dict[str, dict[LiveWait, None]] = {}
        self._queue: deque[Occurrence] = deque()
        self._batch: list[Occurrence] = []
        self._marks: dict[str, int] = {}
        self._is_waking = False
        self._is_gathering = False
        """Whether what former lives left is being read: it comes before anything new."""
        self._is_stopped = False
        self._task: asyncio.Task[None] | None = None
        self.on_idle: Callable[[], None] = lambda: None
        """Told when everything that was published is delivered."""

    @property
    def interpreters(self) -> Mapping[type[Effect], Interpreter]:
        """The effects that concern events, and what performs them."""
        return {Announce: self._announce, LeaveListings: self._leave}

    @property
    def is_busy(self) -> bool:
        """Whether events are being delivered."""
        return self._task is not None and not self._is_stopped

    def attach(self, system: ActorSystem) -> None:
        """Take up the work on a log."""
        self._system, self.sleepers = system, Sleepers(system)
        self._opened_at = self.begun = system.log.position

    async def wake_sleepers(self) -> None:
        """Deliver what former lives published and did not deliver; from now on, wake sleepers. Idempotent."""
        if self._is_waking or self._is_gathering:
            return
        self._is_gathering = True
        try:
            if self._task is not None:
                await asyncio.wait([self._task])
            left = {event.position: event for event in await undelivered(self._system)}
            left.update((event.position, event) for event in self._queue)
            self._queue = deque(left[position] for position in sorted(left))
            self._is_waking = True
        finally:
            self._is_gathering = False
            self._go_on()

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

    async def first(self, wanted: Wanted, after: int, until: int, before: int | None) -> Occurrence | None:
        """Return the first event that is wanted between two positions, and published before a time."""
        first: Occurrence | None = None
        for type in wanted.types:
            if self.is_behind((type,), after):
                end = until if first is None else first.position - 1
                first = await first_of(self._system, type, wanted, after=after, until=end, before=before) or first
        return first

    # Delivery

    def _leave(self, shell: Shell, effect: LeaveListings) -> None:
        self.sleepers.leave(shell, effect)

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
            await self.sleepers.wake(self._batch)
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


def _tell(wait: LiveWait, event: Occurrence, data: Any) -> None:
    if (wait.until is None or event.at < wait.until) and wait.wanted.fits(event.type, data):
        wait.found = event
        wait.wake()
    else:
        wait.seen = event.position
