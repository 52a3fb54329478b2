"""The subscriptions of an open runtime at work: begun from their cursors, ended, stopped together.

Not here: the work of one (`delivering.py`). Invariant: what is appended from the moment that a subscription is begun is
given to it by the feed, and what was appended before it reads for itself, unless it is known that nothing is for it.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.triggers.kinds import After
from perdure.actors.triggers.matching import ANY, EventFilter
from perdure.actors.triggers.subscription import (
    GetSubscription,
    Standing,
    SubscriptionState,
    digest_of,
    read_standing,
    subscription_stream,
)
from perdure.runtime.entries.delivering import FAR, READERS, Delivery, Surroundings
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.entries.feed import Feed
from perdure.runtime.entries.history import recent_names
from perdure.runtime.entries.log_events import LogEvents

if TYPE_CHECKING:
    from perdure.runtime.machinery import Machinery

LOOK_ROUND: Final = 60 * SECOND
"""How often the cursors of subscriptions that had nothing to do are looked at (microseconds)."""


class Deliveries:
    """The deliveries of one life of a runtime."""

    def __init__(self, machinery: "Machinery") -> None:
        system = machinery.system
        events = LogEvents(system)
        self.around = Surroundings(
            system,
            machinery.parts.clock,
            Feed(system, events),
            events,
            machinery.threads,
            asyncio.Semaphore(READERS),
            machinery,
        )
        self._all: dict[str, Delivery] = {}
        self._ended: dict[str, Delivery] = {}
        """By name, those that were taken off and may still be at their last event."""
        self._leaving: dict[Delivery, None] = {}
        self._timer: Timer | None = None

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._all.values())

    def of(self, id: str) -> Delivery | None:
        """Return the delivery of a subscription."""
        return self._all.get(id)

    def position_of(self, after: After) -> int:
        """Return the position that somebody means."""
        now = self.around.system.log.position
        return now if after == "now" else 0 if after == "start" else min(after, now)

    # Beginning

    async def begin_all(self, subscriptions: Sequence[EventSubscription]) -> None:
        """Begin with the subscriptions of a runtime that opens: those in the log where they were."""
        system = self.around.system
        joined = system.log.position
        deliveries = [(one, self._made(one)) for one in subscriptions]
        standings: Mapping[str, Standing] = {}
        recent: Mapping[str, int] = {}
        if any(one.name is not None for one in subscriptions):
            standings = await self.standings()
            cursors = [standings[one.id].until for one in subscriptions if one.id in standings]
            recent = await recent_names(system.log, min(cursors, default=joined), joined)
        for subscription, delivery in deliveries:
            standing = standings.get(subscription.id)
            if standing is None:
                begin = joined if subscription.since == "now" else self.position_of(subscription.since)
                delivery.begin_at(begin, is_behind=begin < joined)
            elif not standing.needs_state and _has_nothing_after(standing.until, subscription.wanted, recent):
                delivery.begin_at(joined, is_behind=False, is_set=_is_same(subscription, standing))
                delivery.recorded_at(standing.until)
            else:
                if standing.needs_state:
                    state: SubscriptionState = await system.ref(subscription_stream(subscription.id)).ask(
                        GetSubscription()
                    )
                    delivery.restore(state)
                delivery.begin_at(standing.until, is_behind=True, is_set=_is_same(subscription, standing))

    def begin(self, subscription: EventSubscription) -> None:
        """Begin with a subscription; one that is in the log finds that out by itself, and where it was."""
        delivery = self._made(subscription)
        begin = self.position_of(subscription.since)
        delivery.begin_at(begin, is_behind=begin < self.around.system.log.position)

    def _made(self, subscription: EventSubscription) -> Delivery:
        name = subscription.name
        delivery = Delivery(
            subscription.id, name, subscription.handler, subscription.wanted, subscription.retry, self.around
        )
        self._all[subscription.id] = delivery
        if name is not None:
            delivery.before = self._ended.pop(name, None)
            self._look_round_later()
        self.around.feed.add(delivery)
        delivery.join()
        return delivery

    async def standings(self) -> dict[str, Standing]:
        """Return how the subscriptions that are in the log stand, by name."""
        found: dict[str, Standing] = {}
        after = ""
        while page := await self.around.system.log.open_streams("subscription/", after=after):
            rows = ((row.stream.partition("/")[2], row.waits_on) for row in page)
            found.update((name, read_standing(said)) for name, said in rows if said is not None)
            after = page[-1].stream
        return found

    def redrive(self, name: str, position: int) -> None:
        """Give a handler a dead letter, if it is here."""
        if (delivery := self._all.get(name)) is not None:
            delivery.redrive(position)

    # Cursors

    def _look_round_later(self) -> None:
        if self._timer is None:
            self._timer = self.around.clock.call_after(LOOK_ROUND, self._look_round)

    def _look_round(self) -> None:
        self._timer = None
        durable = [delivery for delivery in self if delivery.name is not None]
        for delivery in durable:
            if delivery.unrecorded > FAR:
                delivery.write_cursor()
        if durable:
            self._look_round_later()

    # Ending

    def end(self, subscription: EventSubscription) -> None:
        """Give a handler no further event."""
        delivery = self._all.pop(subscription.id, None)
        if delivery is None:
            return
        self.let_go(delivery)
        if subscription.name is not None:
            self._ended[subscription.name] = delivery

    def let_go(self, delivery: Delivery) -> None:
        """End a delivery; it may still be at an event."""
        delivery.end()
        if delivery.task is not None:
            self._leaving[delivery] = None
            delivery.task.add_done_callback(lambda _: self._leaving.pop(delivery, None))

    async def until_ended(self, name: str) -> None:
        """Return once whoever had the name is at no event any more; at once if it is its handler that asks."""
        before = self._ended.get(name)
        if before is None or before.task is asyncio.current_task():
            return  # who has the name next still waits for it
        if before.task is not None:
            await asyncio.wait([before.task])
        self._ended.pop(name, None)

    async def stop(self, drain_seconds: float) -> None:
        """End all of them; an event that a handler is at may end for a while, but for a handler that asks for this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for delivery in list(self):
            self.let_go(delivery)
        await self.around.feed.stop()
        tasks = {delivery.task for delivery in self._leaving if delivery.task is not None} - {asyncio.current_task()}
        try:
            if tasks and drain_seconds:
                await asyncio.wait(tasks, timeout=drain_seconds)
        finally:
            for task in tasks:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _is_same(subscription: EventSubscription, standing: Standing) -> bool:
    return standing.made_of == digest_of(msgspec.json.encode(subscription.wanted))


def _has_nothing_after(position: int, wanted: EventFilter, recent: Mapping[str, int]) -> bool:
    # Under "" is from where on was looked: what happened before that is not known.
    names = [name for name in recent if name] if wanted.tags[0] == ANY else wanted.tags
    return position >= recent[""] and all(recent.get(name, 0) <= position for name in names)
