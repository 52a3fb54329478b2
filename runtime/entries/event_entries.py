"""Starts entry points whose trigger is an event: a durable subscription each, whose handler starts a run.

Not here: entry points (`registry.py`) and subscriptions (`events.py`). Invariant: an event starts at most one run of an
entry point, however often it is delivered: the run's key is the event's position.
"""

from typing import TYPE_CHECKING, Final

from perdure.actors.kernel.logs import logger
from perdure.actors.tools.retry import Retry
from perdure.actors.triggers.errors import TriggerRefusedError
from perdure.actors.triggers.kinds import OnEvent
from perdure.actors.triggers.log_event import LogEvent
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.entries.handling import EventHandler

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

PREFIX: Final = "entry:"
"""The subscription of an entry point is called by this and its id."""
RETRY: Final = Retry(
    attempts=5,
    never_on=("InvalidArgumentsError", "PayloadTooLargeError", "UnencodableError", "RunConflictError"),
)
"""What the workflow cannot take is a dead letter at once."""

_log = logger("perdure.events")


class EventEntries:
    """The entry points of a runtime that events start; see `Attachment`."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._made: list[EventSubscription] = []

    async def open(self) -> None:
        """Subscribe for each of them; one without types is named in a warning and started by nothing."""
        for entry in self._runtime.entry_points.list():
            if isinstance(entry.wired, OnEvent):
                self._wire(entry, entry.wired)
        for subscription in self._made:
            await subscription.opened()

    def _wire(self, entry: EntryPoint, trigger: OnEvent) -> None:
        if not trigger.types:
            _log.warning("an entry point waits for no event: OnEvent(types=…) names none", entry_point=entry.id)
            return
        subscription = self._runtime.events.subscribe(
            self._starter(entry.id),
            trigger.types,
            name=PREFIX + entry.id,
            stream=trigger.stream,
            node=trigger.node,
            run=trigger.run,
            correlation=trigger.correlation,
            where=trigger.where,
            after=trigger.after,
            retry=RETRY,
            exclude_own=entry.id,
        )
        self._made.append(subscription)

    def _starter(self, entry: str) -> EventHandler:
        async def start(event: LogEvent) -> None:
            if event.depth > self._runtime.settings.max_trigger_depth:
                return  # it says itself that something was refused: two that wait for that would never end
            try:
                await self._runtime.entry_points.fire(
                    entry,
                    {"event": event.to_dict()},
                    kind="event",
                    key=str(event.position),
                    correlation=event.correlation,
                    depth=event.depth + 1,
                    cause=event.position,
                )
            except TriggerRefusedError as refusal:  # which is recorded: nothing is left to do for the event
                _log.warning(
                    "an event started nothing", entry_point=entry, position=event.position, reason=str(refusal)
                )

        return start

    async def close(self) -> None:
        """Start nothing more; how far each came is noted when the subscriptions close."""
        while self._made:
            self._made.pop().unsubscribe()

    async def abandon(self) -> None:
        """See `Attachment.abandon`."""
        await self.close()

    def log_failed(self) -> None:
        """See `Attachment.log_failed`: the subscriptions notice."""
