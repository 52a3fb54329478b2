"""Gives every event of the log, once it is durable, to those who listen for it: one feed for all of them.

Events are taken on their way to the disk, so nothing is read back, and nothing at all is done while nobody listens.
Not here: handlers (`delivering.py`). Invariant: a listener is given the events that fit in the order of the log,
without gaps, or is told that it missed some.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.matching import ANY, KEYS, EventFilter
from perdure.runtime.entries.log_events import LogEvents, name_of, rows_of
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.protocols import Ticket
from perdure.store.records import Recorded, Unit

BREATH: Final = 200
"""Listeners that are given an event before others get the loop again."""
BACKLOG: Final = 10_000
"""Events that wait for the feed; more are passed over, and the listeners read them from the log."""

_log = logger("perdure.events")


class Listener(Protocol):
    """Who listens."""

    @property
    def wanted(self) -> EventFilter:
        """Which events."""
        ...

    def push(self, event: LogEvent) -> None:
        """Take an event that fits; must not block, and must not raise."""
        ...

    def miss(self) -> None:
        """Take note that events may have been passed over, from the last one that was pushed on."""
        ...


class _Noted(msgspec.Struct, frozen=True, eq=False):
    """A unit with events that somebody may want."""

    rows: list[Recorded]
    blobs: Mapping[str, bytes]
    ticket: Ticket


class Feed:
    """The events of one log."""

    def __init__(self, system: ActorSystem, events: LogEvents) -> None:
        self._system = system
        self._events = events
        self._index: dict[tuple[str, str, object], dict[Listener, None]] = {}
        self._names: dict[str, int] = {}
        self._pending: deque[_Noted] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.passed = 0
        """Events that were given to at least one listener."""

    def __len__(self) -> int:
        """Return how many events wait to be given to listeners."""
        return self._waiting

    # Listening

    def add(self, listener: Listener) -> None:
        """Give *listener* what is appended from now on."""
        for key in _keys(listener.wanted):
            self._index.setdefault(key, {})[listener] = None
        for tag in listener.wanted.tags:
            self._names[tag] = self._names.get(tag, 0) + 1
        self._system.observer = self._note

    def remove(self, listener: Listener) -> None:
        """Give it nothing more; without effect when it is not listening."""
        for key in _keys(listener.wanted):
            listeners = self._index.get(key, {})
            if listener not in listeners:
                return
            del listeners[listener]
            if not listeners:
                del self._index[key]
        for tag in listener.wanted.tags:
            self._names[tag] -= 1
            if not self._names[tag]:
                del self._names[tag]
        if not self._index:
            self._system.observer = None

    def _listeners(self) -> list[Listener]:
        return list(dict.fromkeys(listener for listeners in self._index.values() for listener in listeners))

    @property
    def horizon(self) -> int:
        """The position up to which nothing waits to be given to listeners."""
        return self._pending[0].rows[0].position - 1 if self._pending else self._system.log.position

    async def stop(self) -> None:
        """Give nobody anything any more."""
        self._is_stopped = True
        self._system.observer = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # From the disk's side

    def _note(self, unit: Unit, ticket: Ticket) -> None:
        """Keep what somebody may want of a unit that was appended this very moment, until it is durable."""
        names = self._names
        if ANY not in names and not any(
            name_of(append.stream, event.type) in names for append in unit.appends for event in append.events
        ):
            return
        rows = [row for row in rows_of(unit, self._system.log.position) if self._is_wanted(row)]
        if not rows:
            return
        self._pending.append(_Noted(rows, {blob.sha256: blob.data for blob in unit.blobs}, ticket))
        self._waiting += len(rows)
        if self._waiting > BACKLOG:
            self._pass_over()
        else:
            ticket.on_settled(self._settled)

    def _is_wanted(self, row: Recorded) -> bool:
        name = name_of(row.stream, row.type)
        return name is not None and (name in self._names or ANY in self._names)

    def _pass_over(self) -> None:
        self._pending.clear()
        self._waiting = 0
        for listener in self._listeners():
            listener.miss()

    def _settled(self, ticket: Ticket) -> None:
        if ticket.error is None and self._task is None and not self._is_stopped and self._pending:
            self._task = self._system.loop.create_task(self._deliver(), name="perdure feed")

    async def _deliver(self) -> None:
        try:
            while self._pending and self._pending[0].ticket.is_durable:
                noted = self._pending[0]
                for row in noted.rows:
                    await self._give(row, noted.blobs)
                if self._pending and self._pending[0] is noted:
                    self._pending.popleft()
                    self._waiting -= len(noted.rows)
        except (LogWriteError, LogClosedError):
            self._is_stopped = True  # the next life goes on from the cursors
        except PerdureError as error:
            # A run's beginning could not be read: whoever listens looks back for itself, when that can be read again.
            _log.warning("events could not be given to those who listen; they read them later", reason=str(error))
            now = self._system.clock.moment().now
            self._system.clock.call_at(now + SECOND, self._pass_over)
        finally:
            self._task = None

    async def _give(self, row: Recorded, blobs: Mapping[str, bytes]) -> None:
        event = await self._events.event(row, blobs)
        if event is None:
            return
        told = 0
        for listener in self._fitting(event):
            listener.push(event)
            told += 1
            if not told % BREATH:
                await asyncio.sleep(0)
        self.passed += bool(told)

    def _fitting(self, event: LogEvent) -> Iterator[Listener]:
        for tag in (event.type, ANY):
            for name in ("", *KEYS):
                key = (tag, name, getattr(event, name) if name else None)
                for listener in list(self._index.get(key, ())):
                    # Looked for again: it may have left while others were given the event.
                    if listener.wanted.fits(event) and listener in self._index.get(key, ()):
                        yield listener


def _keys(wanted: EventFilter) -> list[tuple[str, str, object]]:
    name, value = wanted.key
    return [(tag, name, value) for tag in wanted.tags]
