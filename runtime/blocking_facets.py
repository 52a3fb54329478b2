"""The facets of a runtime, each with calls that block; what each does and raises is said at the facet itself.

Nothing is decided here: the methods are made of those of the asynchronous core, with their signatures.
"""

from collections.abc import Iterable
from typing import Any, ParamSpec, Self, TypeVar, overload

from msgspec import UNSET

from perdure.actors.state.view import StateView
from perdure.actors.workflows.agents.pool import Agents
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.blocking import Front, blocking, fronted, on_loop
from perdure.runtime.blocking_runs import BlockingOptions, BlockingRun
from perdure.runtime.conversations import Conversation, Conversations
from perdure.runtime.entries.delivering import SubscriptionStatistics
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.entries.events import Events
from perdure.runtime.entries.registry import EntryPoints
from perdure.runtime.entries.schedules import Schedules
from perdure.runtime.goals import Goals
from perdure.runtime.sagas import Sagas
from perdure.runtime.state import SharedState

P = ParamSpec("P")
R = TypeVar("R")


class BlockingView(Front):
    """Shared values as somebody sees them; see `StateView`."""

    read = blocking(StateView.read)
    has = blocking(StateView.has)
    read_all = blocking(StateView.read_all)
    changes = blocking(StateView.changes)
    write = blocking(StateView.write)
    write_batch = blocking(StateView.write_batch)
    delete = blocking(StateView.delete)
    update = blocking(StateView.update)
    compare_and_set = blocking(StateView.compare_and_set)

    def with_permissions(
        self, *, read: Iterable[str] | None = None, write: Iterable[str] | None = None
    ) -> "BlockingView":
        """Return the same view for these keys only. See `StateView.with_permissions`."""
        return BlockingView(self._bridge, self._inner.with_permissions(read=read, write=write))


class BlockingState(BlockingView):
    """The shared state; see `SharedState`."""

    view = fronted(SharedState.view, BlockingView)
    recent_changes = blocking(SharedState.recent_changes)
    drop = blocking(SharedState.drop)
    statistics = blocking(SharedState.statistics)


class BlockingConversation(Front):
    """One conversation; see `Conversation`."""

    @property
    def id(self) -> str:
        """Its id."""
        return self._conversation.id

    @overload
    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> BlockingRun[R]: ...
    @overload
    def start(self, workflow: str, *args: Any, **kwargs: Any) -> BlockingRun[Any]: ...
    def start(self, workflow: Any, *args: Any, **kwargs: Any) -> BlockingRun[Any]:
        """Start a run in the conversation. See `Conversation.start`."""
        return BlockingRun(self._bridge, self._bridge.wait(self._conversation.start(workflow, *args, **kwargs)))

    def resume(self, answer: object = UNSET, *, who: str | None = None) -> BlockingRun[Any]:
        """Resume the newest run that stands still. See `Conversation.resume`."""
        return BlockingRun(self._bridge, self._bridge.wait(self._conversation.resume(answer, who=who)))

    with_options = fronted(Conversation.with_options, BlockingOptions)
    trigger = blocking(Conversation.trigger)
    status = blocking(Conversation.status)
    history = blocking(Conversation.history)
    latest_checkpoint = blocking(Conversation.latest_checkpoint)
    metrics = blocking(Conversation.metrics)
    keep = blocking(Conversation.keep)
    artifacts = blocking(Conversation.artifacts)
    artifact = blocking(Conversation.artifact)
    drop = blocking(Conversation.drop)

    @property
    def state(self) -> BlockingView:
        """The state that the runs of the conversation share."""
        return BlockingView(self._bridge, self._conversation.state)

    @property
    def _conversation(self) -> Conversation:
        conversation: Conversation = self._inner
        return conversation


class BlockingConversations(Front):
    """The conversations; see `Conversations`."""

    get = fronted(Conversations.get, BlockingConversation)
    list = blocking(Conversations.list)


class BlockingGoals(Front):
    """The goals; see `Goals`."""

    only = on_loop(Goals.only)
    get = blocking(Goals.get)
    progress = blocking(Goals.progress)
    statistics = blocking(Goals.statistics)
    record_decision = blocking(Goals.record_decision)
    record_outcome = blocking(Goals.record_outcome)
    record_violation = blocking(Goals.record_violation)
    set_status = blocking(Goals.set_status)
    list = blocking(Goals.list)


class BlockingSubscription(Front):
    """What `subscribe` returns; see `EventSubscription`."""

    @property
    def id(self) -> str:
        """What it is called."""
        return self._subscription.id

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self._subscription.name

    @property
    def is_active(self) -> bool:
        """Whether its handler is given events."""
        return self._subscription.is_active

    @property
    def statistics(self) -> SubscriptionStatistics:
        """Its figures, since this process subscribed."""
        return self._subscription.statistics

    def opened(self) -> Self:
        """Block until it is in the log. See `EventSubscription.opened`."""
        self._bridge.wait(self._subscription.opened())
        return self

    unsubscribe = on_loop(EventSubscription.unsubscribe)

    @property
    def _subscription(self) -> EventSubscription:
        subscription: EventSubscription = self._inner
        return subscription


class BlockingEvents(Front):
    """What happens; see `Events`. A handler that is no coroutine runs on a worker thread, an async one on the loop."""

    subscribe = fronted(Events.subscribe, BlockingSubscription)
    wait_for = blocking(Events.wait_for)
    history = blocking(Events.history)
    dead_letters = blocking(Events.dead_letters)
    redrive = blocking(Events.redrive)
    forget = blocking(Events.forget)
    statistics = on_loop(Events.statistics)

    def unsubscribe(self, subscription: BlockingSubscription | str) -> bool:
        """Give a handler no further event. See `Events.unsubscribe`."""
        if isinstance(subscription, BlockingSubscription):
            return subscription.unsubscribe()
        return on_loop(Events.unsubscribe)(self, subscription)

    @property
    def position(self) -> int:
        """The position of the newest event of the log."""
        position: int = self._inner.position
        return position

    def list(self) -> tuple[BlockingSubscription, ...]:
        """Return the subscriptions, in the order of `subscribe`."""
        return tuple(BlockingSubscription(self._bridge, one) for one in on_loop(Events.list)(self))


class BlockingEntryPoints(Front):
    """The entry points; see `EntryPoints`."""

    register = on_loop(EntryPoints.register)
    unregister = on_loop(EntryPoints.unregister)
    get = on_loop(EntryPoints.get)
    trigger = blocking(EntryPoints.trigger)
    trigger_and_wait = blocking(EntryPoints.trigger_and_wait)
    wait = blocking(EntryPoints.wait)
    cancel = blocking(EntryPoints.cancel)
    result = blocking(EntryPoints.result)
    statistics = blocking(EntryPoints.statistics)
    list = on_loop(EntryPoints.list)


class BlockingSchedules(Front):
    """The schedules; see `Schedules`."""

    get = blocking(Schedules.get)
    next = blocking(Schedules.next)
    pause = blocking(Schedules.pause)
    resume = blocking(Schedules.resume)
    fire_now = blocking(Schedules.fire_now)
    list = blocking(Schedules.list)


class BlockingAgents(Front):
    """The agents; see `Agents`."""

    register = on_loop(Agents.register)
    find = on_loop(Agents.find)
    discover = on_loop(Agents.discover)
    stats = on_loop(Agents.stats)
    select_best = blocking(Agents.select_best)
    load = blocking(Agents.load)
    unload = blocking(Agents.unload)


class BlockingSagas(Front):
    """Sagas that the application drives step by step; see `Sagas`."""

    start = blocking(Sagas.start)
    execute = blocking(Sagas.execute)
    state = blocking(Sagas.state)
