"""The parts of a runtime beside its runs, by name, and the short words for what is asked of them most.

Not here: what any of them does, which is in a module of its own. Invariant: nothing is decided here.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Unpack

from perdure.actors.triggers.typed import Topic
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.entries.events import Events
from perdure.runtime.entries.handling import EventHandler
from perdure.runtime.entries.registry import EntryPoints
from perdure.runtime.entries.results import ExecutionResult, TriggerOptions
from perdure.runtime.entries.schedules import Schedules
from perdure.runtime.goals import Goals
from perdure.runtime.state import SharedState
from perdure.runtime.web.webhooks.serving import WebhookServer
from perdure.runtime.web.webhooks.webhooks import Webhooks


class Ways:
    """The ways into a runtime, and what runs share; a part of `Runtime`, which sets them."""

    _events: Events
    _entry_points: EntryPoints
    _goals: Goals
    _schedules: Schedules
    _webhooks: Webhooks
    _state: SharedState

    # Events

    @property
    def events(self) -> Events:
        """What happens, for those who ask: subscribe, wait for it, look back, see what handlers failed at."""
        return self._events

    def subscribe(
        self, handler: EventHandler, types: str | Topic[Any] | Iterable[str], **said: Any
    ) -> EventSubscription:
        """Have a handler given every event of these types. See `Events.subscribe`, whose options these are."""
        return self._events.subscribe(handler, types, **said)

    def subscribe_to_events(
        self, event_types: Iterable[str], handler: EventHandler, filter_stream: str | None = None
    ) -> str:
        """Have a handler given these events while the process lives; return the subscription's id."""
        return self._events.subscribe(handler, event_types, stream=filter_stream).id

    def unsubscribe_from_events(self, subscription_id: str) -> bool:
        """Give it no further event; return False when it was taken off before."""
        return self._events.unsubscribe(subscription_id)

    # Entry points

    @property
    def entry_points(self) -> EntryPoints:
        """The ways in: register them, trigger them, ask what became of that."""
        return self._entry_points

    async def trigger(
        self, entry: str, data: Mapping[str, Any] | None = None, **options: Unpack[TriggerOptions]
    ) -> str:
        """Start a run by an entry point and return its id, as soon as that is durable. See `EntryPoints.trigger`."""
        return await self._entry_points.trigger(entry, data, **options)

    async def trigger_and_wait(
        self,
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta | float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> ExecutionResult | None:
        """Start a run and wait for its end; None on timeout, and it goes on. See `EntryPoints.trigger_and_wait`."""
        return await self._entry_points.trigger_and_wait(entry, data, timeout=timeout, **options)

    async def cancel_execution(self, entry: str, run: str) -> bool:
        """Ask for a run of an entry point to be cancelled. See `EntryPoints.cancel`."""
        return await self._entry_points.cancel(entry, run)

    async def get_execution_result(self, entry: str, run: str) -> ExecutionResult | None:
        """Return how a run of an entry point ended, if that is known and kept. See `EntryPoints.result`."""
        return await self._entry_points.result(entry, run)

    # Goals

    @property
    def goals(self) -> Goals:
        """The goals: how far each of them is, and what the application itself decides for them."""
        return self._goals

    async def get_goal_progress(self, goal: str | None = None) -> dict[str, Any]:
        """Return how far a goal is, or the only one, in the shape of founding document 003. See `Goals.progress`.

        Raises:
            UsageError: there are several goals, or none.
            UnknownGoalError: the log has no such goal.
        """
        return (await self._goals.progress(self._goals.only() if goal is None else goal)).to_dict()

    # Schedules

    @property
    def schedules(self) -> Schedules:
        """The schedules of entry points: list, pause and resume them, have one start a run now."""
        return self._schedules

    # Webhooks

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks: their routes, the ASGI application that serves them, figures."""
        return self._webhooks

    @property
    def webhook_server(self) -> WebhookServer | None:
        """The runtime's own server of its webhooks, with its `port` and `url`; None without routes, or while closed."""
        return self._webhooks.server

    # Shared state

    @property
    def state(self) -> SharedState:
        """The values that runs share, and those that all share to read and write. See `SharedState` and `StateView`."""
        return self._state
