"""The parts of a runtime beside its runs, by name.

Not here: what any of them does, which is in a module of its own, and the short words for what is asked of them most
(`door.py`). Invariant: nothing is decided here.
"""

from collections.abc import Iterable
from typing import Any

from perdure.actors.triggers.typed import Topic
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.entries.events import Events
from perdure.runtime.entries.handling import EventHandler
from perdure.runtime.entries.registry import EntryPoints
from perdure.runtime.entries.schedules import Schedules
from perdure.runtime.goals import Goals
from perdure.runtime.state import SharedState
from perdure.runtime.web.webhooks.serving import WebhookServer
from perdure.runtime.web.webhooks.webhooks import Webhooks
from perdure.store.expected import checked_but


@checked_but("__init__")
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
        """The events: subscribe, wait for one, look back, see the dead letters."""
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

    # Goals

    @property
    def goals(self) -> Goals:
        """The goals: how far each of them is, and what the application itself decides for them."""
        return self._goals

    async def only_goal(self) -> str:
        """Return the id of the only goal. See `Goals.only`."""
        return self._goals.only()

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
