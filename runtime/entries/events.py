"""The events of a runtime, as the application asks of them: `rt.events`. Subscribe, wait, look back, dead letters.

Not here: the way of an event (`feed.py`, `delivering.py`). Invariant: while nobody subscribes, nothing is read and
nothing is kept; a subscription with a name is at most once in a runtime.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.kernel.messages import Effect
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import Interpreter
from perdure.actors.tools.retry import Retry
from perdure.actors.triggers.kinds import After
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.matching import ANY, EventFilter
from perdure.actors.triggers.subscription import (
    AskRedrive,
    DeadLetter,
    ForgetSubscription,
    GetSubscription,
    Redrive,
    SubscriptionState,
    subscription_stream,
)
from perdure.actors.triggers.typed import Topic
from perdure.actors.triggers.wanted import Where
from perdure.runtime.entries.deliveries import Deliveries
from perdure.runtime.entries.delivering import Delivery, SubscriptionStatistics
from perdure.runtime.entries.event_subscription import EventSubscription, check_after, check_name
from perdure.runtime.entries.handling import EventHandler, reading
from perdure.runtime.entries.history import newest_events, oldest_event
from perdure.store.errors import LogWriteError, UsageError
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery

DURABLE_RETRY: Final = Retry(attempts=5)
"""Of a subscription with a name, unless it says otherwise."""
LIVE_RETRY: Final = Retry()


@checked_but("__init__")
class Events:
    """The events of a runtime: those that somebody published, and those that the runtime recorded."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery") -> None:
        self._runtime = runtime
        self._machinery = machinery
        self._all: dict[str, EventSubscription] = {}
        self._made = 0
        self._work: Deliveries | None = None
        """There while the runtime is open."""
        self._waiters: dict[asyncio.Future[LogEvent | None], None] = {}

    # Subscribing

    def subscribe(  # noqa: PLR0913 - what a subscriber may say, all by keyword
        self,
        handler: EventHandler,
        types: str | Topic[Any] | Iterable[str],
        *,
        name: str | None = None,
        stream: str | None = None,
        node: str | None = None,
        run: str | None = None,
        correlation: str | None = None,
        where: Where | None = None,
        after: After = "now",
        retry: Retry | None = None,
        exclude_own: str | None = None,
    ) -> EventSubscription:
        """Have a handler given every event of these types from now on, one after the other, in the order of the log.

        It waits for nobody, and whoever publishes waits for no handler. Under a *name* the subscription is in the log:
        in the next life of the program, subscribed under the same name, it goes on where it was, so that each event is
        handled at least once. Without a name it ends with the process, and an event is handled at most once.

        An async handler runs on the loop, any other in a worker thread. One that raises is given the event again as
        *retry* says; then the event is a dead letter (`dead_letters`, `redrive`), and the next ones go on.

        Args:
            handler: is given a `LogEvent`.
            types: types that are published, names of the log (`run-completed`), or of document 003
                (`execution_completed`); `"*"` is any. Of a `Topic` the data come as an object of its type.
            name: 1 to 100 printable ASCII characters without a space.
            stream: only events of this entry point, or of this source. An empty text asks for nothing, as None does.
            node: only events of this step.
            run: only events of this run.
            correlation: only events with this correlation.
            where: conditions on the data: `{"if": "amount", "gt": 100}`.
            after: `"now"`, `"start"` of the log, or a position; for a name that is in the log already, where it was.
            retry: 5 attempts for a subscription with a name, one for others.
            exclude_own: the entry point whose own events are passed over.

        Raises:
            UsageError: the name is taken in this runtime, or something cannot be one.
        """
        wanted = EventFilter.of(
            types.name if isinstance(types, Topic) else types,
            stream=stream,
            node=node,
            run=run,
            correlation=correlation,
            where=where,
            not_stream=exclude_own,
        )
        check_after(after)
        subscription = EventSubscription(
            self,
            id=self._new_id(name),
            name=name,
            handler=reading(handler, types) if isinstance(types, Topic) else handler,
            wanted=wanted,
            retry=retry or (LIVE_RETRY if name is None else DURABLE_RETRY),
            since=after,
        )
        self._all[subscription.id] = subscription
        if self._work is not None:
            self._work.begin(subscription)
        return subscription

    def _new_id(self, name: str | None) -> str:
        """Return the id of a subscription: its name, or one of its own."""
        if name is not None:
            check_name(name)
            if name in self._all:
                raise UsageError(f"somebody has subscribed as {name!r} in this runtime already: take another name")
        self._made += 1
        return name or f"sub_{self._made}"

    def unsubscribe(self, subscription: EventSubscription | str) -> bool:
        """Give a handler no further event; return False when it was taken off before.

        The event that it is at goes on to its end. The cursor of a name, and its dead letters, stay in the log: who
        subscribes under it again goes on from there. `forget` lets go of them.
        """
        found = self._find(subscription)
        if found is None:
            return False
        del self._all[found.id]
        if self._work is not None:
            self._work.end(found)
        return True

    async def forget(self, name: str) -> bool:
        """Unsubscribe, and let go of the cursor and the dead letters of a name; return whether there were any.

        Raises:
            LogWriteError, BacklogFullError: the log refused.
        """
        self._machinery.check_open()
        self.unsubscribe(name)
        await self._at_work.until_ended(name)
        was_there: bool = await self._runtime.ask(subscription_stream(name), ForgetSubscription())
        return was_there

    def list(self) -> tuple[EventSubscription, ...]:
        """Return the subscriptions of this runtime, in the order of `subscribe`."""
        return tuple(self._all.values())

    def has(self, subscription: EventSubscription) -> bool:
        """Return whether a subscription has not ended."""
        return self._all.get(subscription.id) is subscription

    def _find(self, subscription: EventSubscription | str) -> EventSubscription | None:
        if isinstance(subscription, str):
            return self._all.get(subscription)
        return subscription if self.has(subscription) else None

    async def opened(self, subscription: EventSubscription) -> None:
        """See `EventSubscription.opened`."""
        self._machinery.check_open()
        if (delivery := self._at_work.of(subscription.id)) is not None:
            await delivery.until_set()

    def figures_of(self, subscription: EventSubscription) -> SubscriptionStatistics:
        """See `EventSubscription.statistics`."""
        delivery = None if self._work is None else self._work.of(subscription.id)
        if delivery is None or not self.has(subscription):
            return SubscriptionStatistics(0, 0, 0, 0, is_behind=False, position=0)
        return delivery.statistics

    # Looking

    async def wait_for(  # noqa: PLR0913 - what a caller may say, all by keyword
        self,
        types: str | Iterable[str],
        *,
        stream: str | None = None,
        node: str | None = None,
        run: str | None = None,
        correlation: str | None = None,
        where: Where | None = None,
        after: After = "now",
        timeout: timedelta | float | None = None,
    ) -> LogEvent | None:
        """Return the first event that fits after a position, as soon as it is durable; None when the time is over.

        With the position at which the caller was (`LogEvent.position`, `rt.events.position`), it finds what happened
        meanwhile. A *timeout* (seconds, or a timedelta) of 0 looks back and waits for nothing.

        Raises:
            UsageError: something cannot be asked for, or the runtime is not open, or closed meanwhile.
            LogWriteError: the log failed meanwhile.
        """
        self._machinery.check_open()
        wanted = EventFilter.of(types, stream=stream, node=node, run=run, correlation=correlation, where=where)
        check_after(after)
        around = self._at_work.around
        begin = self._at_work.position_of(after)
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if seconds is not None and seconds <= 0:
            return await oldest_event(around.system, around.events, wanted, begin)
        return await self._wait(wanted, begin, seconds)

    async def _wait(self, wanted: EventFilter, begin: int, seconds: float | None) -> LogEvent | None:
        work = self._at_work
        around = work.around
        found: asyncio.Future[LogEvent | None] = around.system.loop.create_future()

        async def take(event: LogEvent) -> None:
            if not found.done():
                found.set_result(event)
                delivery.end()

        self._made += 1
        delivery = Delivery(f"wait_{self._made}", None, take, wanted, LIVE_RETRY, around)
        around.feed.add(delivery)
        delivery.begin_at(begin, is_behind=begin < delivery.join())
        self._waiters[found] = None
        timer: Timer | None = None
        if seconds is not None:
            micros = int(seconds * SECOND)
            timer = around.clock.call_after(micros, lambda: None if found.done() else found.set_result(None))
        try:
            return await found
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.pop(found, None)
            work.let_go(delivery)

    @property
    def position(self) -> int:
        """The position of the newest event of the log: what is published after this moment has a greater one."""
        self._machinery.check_open()
        return self._machinery.log.position

    async def history(
        self,
        type: str | Iterable[str] | None = None,
        stream: str | None = None,
        run: str | None = None,
        limit: int = 100,
    ) -> Sequence[LogEvent]:
        """Return the newest events that fit, newest first, at most *limit*.

        It reads the log backwards until there are enough of them; by *run* not beyond the start of that run.
        """
        self._machinery.check_open()
        wanted = EventFilter.of(ANY if type is None else type, stream=stream, run=run)
        return await newest_events(self._machinery.log, self._at_work.around.events, wanted, limit)

    # Dead letters

    async def dead_letters(self, name: str | None = None) -> Mapping[str, Sequence[DeadLetter]]:
        """Return the events that handlers failed at for good, oldest first, by the names of the subscriptions.

        Those of subscriptions without a name are under `-`.
        """
        self._machinery.check_open()
        if name is not None:
            names = [name]
        else:
            names = [key for key, standing in (await self._at_work.standings()).items() if standing.letters]
        found: dict[str, Sequence[DeadLetter]] = {}
        for each in names:
            state: SubscriptionState = await self._runtime.ask(subscription_stream(each), GetSubscription())
            if state.letters or name is not None:
                found[each] = state.letters
        return found

    async def redrive(self, name: str, position: int, *, who: str | None = None) -> bool:
        """Have a dead letter delivered once more; durable on return, and the handler may take its time.

        Return False if that was asked before and is still to be done. If the handler takes it, it is no dead letter any
        more; if it raises, the letter stays, with one more attempt. While nobody has subscribed under the name, the
        request waits in the log.

        Raises:
            UnknownDeadLetterError: there is none of that position, or it was of a subscription without a name.
            LogWriteError, BacklogFullError: the log refused.
        """
        self._machinery.check_open()
        is_new: bool = await self._runtime.ask(subscription_stream(name), AskRedrive(position), principal=who)
        return is_new

    # Figures

    def statistics(self) -> dict[str, Any]:
        """Return the figures since the runtime opened.

        The keys: `total_events` (given to at least one subscriber), `subscriptions`, `durable` (those with a name),
        `delivered`, `failed`, `dead`, `waiting`, and `behind` (subscriptions that read the log).
        """
        work = self._work
        each = [] if work is None else [delivery.statistics for delivery in work]
        return {
            "total_events": 0 if work is None else work.around.feed.passed,
            "subscriptions": len(self._all),
            "durable": sum(one.name is not None for one in self._all.values()),
            "delivered": sum(one.delivered for one in each),
            "failed": sum(one.failed for one in each),
            "dead": sum(one.dead for one in each),
            "waiting": sum(one.waiting for one in each),
            "behind": sum(one.is_behind for one in each),
        }

    # What the runtime asks

    @property
    def interpreters(self) -> Mapping[type[Effect], Interpreter]:
        """The effects that concern subscriptions, and what performs them."""
        return {Redrive: self._redrive}

    def _redrive(self, shell: Shell, effect: Redrive) -> None:
        if self._work is not None:
            self._work.redrive(shell.stream.partition("/")[2], effect.position)

    async def open(self) -> None:
        """Begin with every subscription that was made before the runtime was open. See `Attachment.open`."""
        self._work = Deliveries(self._machinery)
        await self._work.begin_all(list(self._all.values()))

    async def close(self) -> None:
        """Let handlers end the event that they are at, for a while, and note how far they came."""
        await self._stop(self._machinery.parts.settings.drain.total_seconds())

    async def abandon(self) -> None:
        """See `Attachment.abandon`."""
        await self._stop(0)

    def log_failed(self) -> None:
        """Tell those who wait for an event; subscriptions notice when they write."""
        self._end_waits()

    async def _stop(self, drain_seconds: float) -> None:
        work, self._work = self._work, None
        if work is not None:
            await work.stop(drain_seconds)
        self._end_waits()

    def _end_waits(self) -> None:
        failure = self._machinery.failure
        for waiter in list(self._waiters):
            if not waiter.done():
                closed = "the runtime was closed while somebody waited for an event"
                waiter.set_exception(UsageError(closed) if failure is None else LogWriteError(detail=failure.detail))

    @property
    def _at_work(self) -> Deliveries:
        if self._work is None:
            raise UsageError("the runtime is not open: write `async with Runtime(…) as rt:` and use rt inside")
        return self._work
