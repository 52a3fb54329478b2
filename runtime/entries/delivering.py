"""Gives the events of one subscription to its handler, one after the other, and notes how far it came.

In front of the feed it has a bounded queue; what does not fit, and what happened before, it reads from the log. Not
here: which events there are (`feed.py`) and what the notes mean (`subscription.py`). Invariant: the handler gets the
events that fit in the order of the log; one with a name gets every one of them, also across restarts, at least once.
"""

import asyncio
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.clock import SECOND, Clock
from perdure.actors.kernel.logs import logger
from perdure.actors.tools.retry import Retry
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.matching import EventFilter
from perdure.actors.triggers.subscription import (
    LIVE,
    DeadLetterRedriven,
    DeliveryFailed,
    EventDeadLettered,
    EventsHandled,
    NoteDelivery,
    RedriveFailed,
    SetSubscription,
    SubscriptionState,
    Trouble,
    subscription_stream,
)
from perdure.runtime.entries.feed import Feed
from perdure.runtime.entries.handling import EventHandler, Handling, said
from perdure.runtime.entries.log_events import PAGE, LogEvents
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError, UsageError
from perdure.store.records import Query

if TYPE_CHECKING:
    from perdure.actors.kernel.system import ActorSystem
    from perdure.runtime.machinery import Machinery
    from perdure.runtime.threads import WorkerThreads

QUEUE: Final = 256
"""Events that wait in memory for one handler; the others wait in the log."""
HANDLED_AT_ONCE: Final = 100
"""Events after which the cursor is written; after a crash at most so many, or those of a second, come once more."""
CURSOR_EVERY: Final = SECOND
FAR: Final = 10_000
"""Positions that a cursor may be behind before it is written although nothing was handled."""
READERS: Final = 8
"""Subscriptions that read the log at the same time."""

_log = logger("perdure.events")


class SubscriptionStatistics(msgspec.Struct, frozen=True):
    """Figures of a subscription, since this process subscribed."""

    delivered: int
    """Events that the handler has taken."""
    failed: int
    """Times that it raised."""
    dead: int
    """Events that it failed at for good."""
    waiting: int
    """Events that wait in memory; there may be more in the log while `is_behind`."""
    is_behind: bool
    position: int
    """Up to which position every event that fits has been dealt with."""


class Surroundings(msgspec.Struct, frozen=True, eq=False):
    """What a delivery needs of the runtime."""

    system: "ActorSystem"
    clock: Clock
    feed: Feed
    events: LogEvents
    threads: "WorkerThreads"
    readers: asyncio.Semaphore
    machinery: "Machinery"

    @property
    def is_ending(self) -> bool:
        """Whether the runtime closes, or its log failed: what a handler does with it then fails for that alone."""
        return not self.machinery.is_open or self.machinery.failure is not None


class _OverError(Exception):
    """The subscription ended while an event was not dealt with."""


class Delivery:
    """One subscription at work: its queue, its handler, its cursor."""

    def __init__(
        self, key: str, name: str | None, handler: EventHandler, wanted: EventFilter, retry: Retry, around: Surroundings
    ) -> None:
        self.key = key
        self.name = name
        self.wanted = wanted
        self._handling = Handling(handler, retry, around.clock, around.threads)
        self._around = around
        self._queue: deque[LogEvent] = deque()
        self._is_behind = False
        """Whether events between the last one of the queue and what is pushed next are to be read from the log."""
        self._accepts_after = 0
        """The position of the last event that was given by the feed, or that the log is read up to."""
        self.seen = 0
        """The position up to which every event that fits was dealt with."""
        self._recorded = 0
        self._handled = 0
        """Events since the cursor was written."""
        self._trouble: Trouble | None = None
        self._redrives: dict[int, None] = {}
        self._is_begun = False
        self._is_over = False
        self._is_set = name is None
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._context = copy_context()
        self.before: Delivery | None = None
        """Who had the name before, and may still be at its last event."""
        self._is_timer_set = False
        self.opened: asyncio.Future[None] | None = None
        self._delivered = self._failed = self._dead = 0

    # Where it begins

    def join(self) -> int:
        """Take what is appended from now on of the feed; return the position of now."""
        self._accepts_after = self._around.system.log.position
        return self._accepts_after

    def begin_at(self, position: int, *, is_behind: bool, is_set: bool = False) -> None:
        """Begin after *position*; what was appended up to now is read from the log where it *is_behind*."""
        self.seen = self._recorded = position
        self._is_behind = is_behind
        if is_behind:
            self._queue.clear()
        self._is_set = self._is_set or is_set
        self._is_begun = True
        if self._is_behind or not self._is_set or self._queue or self._redrives:
            self.kick()

    def recorded_at(self, position: int) -> None:
        """Take note of the cursor that is in the log, where it is not the one that was begun at."""
        self._recorded = position

    def restore(self, state: SubscriptionState) -> None:
        """Take up what the last life left: an event that is to be given again, dead letters that are asked for."""
        self._trouble = state.trouble
        self._redrives.update((one.position, None) for one in state.letters if one.is_asked_for)

    async def until_set(self) -> None:
        """Return once it is in the log.

        Raises:
            UsageError: the handler that had the name before asks, whose end this waits for.
        """
        if self._is_set or self._is_over:
            return
        if self.before is not None and self.before.task is asyncio.current_task():
            raise UsageError(f"the handler that has the name {self.key!r} cannot wait for who is to have it next")
        if self.opened is None:
            self.opened = self._around.system.loop.create_future()
        await asyncio.shield(self.opened)

    # From the feed

    def push(self, event: LogEvent) -> None:
        """See `Listener.push`."""
        if self._is_over or self._is_behind or event.position <= self._accepts_after:
            return
        if len(self._queue) >= QUEUE:
            self._is_behind = True
            return
        self._accepts_after = event.position
        self._queue.append(event)
        self.kick()

    def miss(self) -> None:
        """See `Listener.miss`."""
        self._is_behind = True
        self.kick()

    def redrive(self, position: int) -> None:
        """Give the handler a dead letter, when it has the time."""
        self._redrives[position] = None
        self.kick()

    def kick(self) -> None:
        """Go on, if there is something to do and nobody at it."""
        if self._task is None and self._is_begun and not self._is_over:
            # In the context of who subscribed: that of whoever published is no business of the handler's.
            loop, name = self._around.system.loop, f"perdure subscription {self.key}"
            self._task = loop.create_task(self._work(), name=name, context=self._context)

    # The work

    async def _work(self) -> None:
        try:
            await self._set()
            while not self._is_over:
                if self._redrives:
                    await self._deliver_letter(next(iter(self._redrives)))
                elif self._queue:
                    event = self._queue.popleft()
                    await self._deliver(event)
                    self._passed(event.position)
                elif self._is_behind:
                    await self._look_back()
                else:
                    break
        except _OverError:
            self._is_over = True
        except (LogWriteError, LogClosedError) as error:
            self._is_over = True  # the next life goes on from the cursor
            self._open(error)
        except PerdureError as error:
            _log.warning("a subscription waits for the log", subscription=self.key, reason=str(error))
            self._queue.clear()  # the event that it was at comes first again, from the log
            self._is_behind = True
            clock = self._around.clock
            clock.call_at(clock.moment().now + SECOND, self.kick)
        finally:
            self._task = None
            if self._is_over and self._handled:
                self._tell_cursor(self.seen)

    async def _set(self) -> None:
        if self._is_set or self.name is None:
            return
        if self.before is not None and self.before.task is not None:
            await asyncio.wait([self.before.task])
        self.before = None
        wanted = msgspec.Raw(msgspec.json.encode(self.wanted))
        ref = self._around.system.ref(subscription_stream(self.name))
        state: SubscriptionState = await ref.ask(SetSubscription(self.seen, wanted))
        self._is_set = True
        if state.wanted is not None:
            self._queue.clear()
            self.seen = self._recorded = state.until
            self._is_behind = True
            self.restore(state)
        self._open()

    def _open(self, error: Exception | None = None) -> None:
        if self.opened is None or self.opened.done():
            return
        if error is None:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(error)

    async def _look_back(self) -> None:
        """Deal with what was appended up to now and not given by the feed."""
        around = self._around
        self._accepts_after = target = around.system.log.position
        self._is_behind = False
        if (ticket := around.system.log.barrier()) is not None:
            await ticket
        after: int | None = self.seen
        while after is not None and after < target and not self._is_over:
            query = Query(after=after, until=target, limit=PAGE)
            async with around.readers:
                found, after = await around.events.read(self.wanted.tags, query)
            for event in found:
                if self.is_over:
                    return
                if self.wanted.fits(event):
                    await self._deliver(event)
                    self._passed(event.position)
        if not self._is_over:
            self.seen = max(self.seen, target)
            self._trouble = None

    async def _deliver(self, event: LogEvent) -> None:
        """Have an event handled, or fail for good; returns when it is one or the other."""
        trouble, self._trouble = self._trouble, None
        attempt = 0
        first_at = self._around.clock.moment().now
        if trouble is not None and trouble.position == event.position:
            attempt = trouble.attempt
            await self._until(trouble.retry_at)
        while not self.is_over:
            attempt += 1
            error = await self._handling.attempt(event)
            if error is None:
                self._delivered += 1
                return
            self._check_counts(error)
            self._failed += 1
            due = self._handling.due(error, attempt, first_at)
            if due is None:
                await self._bury(event, attempt, error)
                return
            if self.name is not None:
                fact = DeliveryFailed(event.position, attempt, type(error).__name__, said(error), due)
                await self._flush_cursor()
                await self._note(fact)
            await self._until(due)
        raise _OverError  # this event was not dealt with

    def _check_counts(self, error: Exception) -> None:
        """Check that a failure is the handler's own; if the runtime is ending, the event comes again in the next life.

        Raises:
            _OverError: it may not be.
        """
        if self._around.is_ending and (self.name is not None or isinstance(error, LogWriteError | LogClosedError)):
            _log.info("an event comes again in the next life", subscription=self.key, reason=str(error))
            raise _OverError from error

    async def _bury(self, event: LogEvent, attempts: int, error: Exception) -> None:
        self._dead += 1
        _log.error(
            "a handler failed at an event for good",
            subscription=self.key,
            position=event.position,
            type=event.type,
            exception=account_of(error),
        )
        key = self.key if self.name is None else None
        await self._note(
            EventDeadLettered(event.position, event.type, attempts, type(error).__name__, said(error), key)
        )

    async def _deliver_letter(self, position: int) -> None:
        around = self._around
        found, _ = await around.events.read(("*",), Query(after=position - 1, until=position, limit=1))
        error: Exception | None = None
        if found:
            error = await self._handling.attempt(found[0])
        if error is None:
            self._delivered += bool(found)
            await self._note(DeadLetterRedriven(position))
        else:
            self._check_counts(error)
            self._failed += 1
            _log.error(
                "a handler failed at a dead letter again",
                subscription=self.key,
                position=position,
                exception=account_of(error),
            )
            await self._note(RedriveFailed(position, type(error).__name__, said(error)))
        self._redrives.pop(position, None)

    async def _note(self, fact: Any) -> None:
        stream = subscription_stream(LIVE if self.name is None else self.name)
        await self._around.system.ref(stream).ask(NoteDelivery(fact))

    # The cursor

    def _passed(self, position: int) -> None:
        self.seen = max(self.seen, position)
        if self.name is None:
            return
        self._handled += 1
        if self._handled >= HANDLED_AT_ONCE:
            self.write_cursor()
        elif not self._is_timer_set:
            self._is_timer_set = True
            self._around.clock.call_after(CURSOR_EVERY, self._cursor_is_due)

    def _cursor_is_due(self) -> None:
        self._is_timer_set = False
        if self._handled and not self._is_over:
            self.write_cursor()

    def write_cursor(self) -> None:
        """Have the cursor recorded, without waiting for that."""
        if self.name is None or not self._is_set or (position := self.position) <= self._recorded:
            return
        self._tell_cursor(position)

    def _tell_cursor(self, position: int) -> None:
        if self.name is not None:
            self._recorded, self._handled = position, 0
            self._around.system.ref(subscription_stream(self.name)).tell(NoteDelivery(EventsHandled(position)))

    async def _flush_cursor(self) -> None:
        if self._handled and self.name is not None:
            self._recorded, self._handled = self.seen, 0
            await self._note(EventsHandled(self.seen))

    @property
    def position(self) -> int:
        """The position up to which every event that fits has been dealt with."""
        is_idle = self._task is None and not self._queue and not self._is_behind and self._trouble is None
        return max(self.seen, self._around.feed.horizon) if is_idle else self.seen

    @property
    def unrecorded(self) -> int:
        """How many positions the recorded cursor is behind."""
        return self.position - self._recorded

    # Waiting and ending

    async def _until(self, when: int) -> None:
        clock = self._around.clock
        if self._is_over or clock.moment().now >= when:
            return
        self._wake = wake = self._around.system.loop.create_future()
        timer = clock.call_at(when, lambda: None if wake.done() else wake.set_result(None))
        try:
            await wake
        finally:
            timer.cancel()
            self._wake = None

    def end(self) -> None:
        """Begin no further event; one that is being handled may go on to its end."""
        if self._task is None and (self._handled or self.unrecorded > FAR // 10):
            self.write_cursor()
        self._is_over = True
        self._queue.clear()
        self._around.feed.remove(self)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        self._open()

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return self._is_over

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that is at work, if there is one."""
        return self._task

    @property
    def statistics(self) -> SubscriptionStatistics:
        """Return its figures."""
        return SubscriptionStatistics(
            self._delivered, self._failed, self._dead, len(self._queue), self._is_behind, self.position
        )
