"""The events that the steps of an event-driven workflow wait for, one after the other in the order of the log.

Invariant: the workflow waits for the same events all the time, and what no step waits for at the moment is passed over;
so each event is looked at once, whatever has run meanwhile.
"""

import json
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from perdure.actors.triggers.wanted import On, PublishedEvent
from perdure.actors.workflows.defined.calling import Data
from perdure.actors.workflows.defined.model import Step, Trigger
from perdure.actors.workflows.defined.pausing import after_pause
from perdure.actors.workflows.errors import StepFailedError

if TYPE_CHECKING:
    from perdure.actors.workflows.defined.flow import Flow


class Triggers:
    """Which steps still wait, and which are due."""

    def __init__(self, flow: "Flow") -> None:
        self._flow = flow
        self._wanted = [_on(trigger) for step in flow.definition.steps for trigger in step.on]
        after_pauses = {step.id for step in map(partial(after_pause, flow.definition), flow.definition.steps) if step}
        self._due: list[Step] = [s for s in flow.definition.steps if not s.on and s.id not in after_pauses]
        """At first, those that wait for no event."""
        self._waiting = [step for step in flow.definition.steps if step.on]
        self._came: set[str] = set()
        """The steps whose event has come; with `until` they wait for another one, without a limit."""
        self._event: PublishedEvent | None = None
        self._began: datetime | None = None

    async def next_step(self, data: Data) -> Step | None:
        """Return the next step to perform, once its event has come; None when the workflow is complete.

        Raises:
            WorkflowFailedError: the event of a step did not come in time.
        """
        flow, until = self._flow, self._flow.definition.until
        while not self._due:
            if not self._waiting if until is None else flow.judge(until, data).holds:
                return None
            self._take(await self._next_event())
        return self._due.pop(0)

    def go_on_at(self, step: Step | None) -> None:
        """Perform *step* before whatever else is due; None: nothing is to come first."""
        if step is not None:
            self._due.insert(0, step)

    def with_event(self, data: Data) -> Data:
        """Return *data* with the event that the step which is due was waiting for, as `event`."""
        if self._event is None:
            return data
        return {**data, "event": {"type": self._event.type, "data": self._event.data, "id": self._event.id}}

    async def _next_event(self) -> PublishedEvent:
        limits = [(seconds, step) for step in self._waiting if (seconds := _patience(step)) is not None]
        if not limits:
            return await self._flow.ctx.any_event(self._wanted)
        now = self._flow.ctx.now()  # recorded whether or not a time still counts, as in runs of before
        self._began = self._began or now
        limits = [(seconds, step) for seconds, step in limits if step.id not in self._came]
        if not limits:
            return await self._flow.ctx.any_event(self._wanted)
        limit, late = min(limits, key=itemgetter(0))
        left = self._began + timedelta(seconds=limit) - now
        try:
            if left > timedelta(0):
                return await self._flow.ctx.any_event(self._wanted, timeout=left)
        except StepFailedError as error:
            raise self._too_late(late, limit) from error
        raise self._too_late(late, limit)

    def _too_late(self, step: Step, limit: float) -> Exception:
        return self._flow.broken(f"Step {step.id} failed: no event came within {limit:g}s", "TimeoutError", step)

    def _take(self, event: PublishedEvent) -> None:
        self._event = event
        self._due = [step for step in self._waiting if any(self._fits(trigger, event) for trigger in step.on)]
        self._came.update(step.id for step in self._due)
        if self._flow.definition.until is None:
            self._waiting = [step for step in self._waiting if step not in self._due]

    def _fits(self, trigger: Trigger, event: PublishedEvent) -> bool:
        given: Any = event.data
        data = cast("Data", given) if isinstance(given, dict) else {"value": given}
        return trigger.event == event.type and self._flow.judge(trigger.filter, data).holds


def _patience(step: Step) -> float | None:
    """Return how long a step waits for the first of its events; None: for ever."""
    limits = [trigger.within for trigger in step.on]
    return None if None in limits else max((limit for limit in limits if limit is not None), default=None)


def _on(trigger: Trigger) -> On:
    """Return what is waited for: where a filter names a predicate, every event of the type, which is judged here."""
    if isinstance(trigger.filter, str) or '"predicate"' in json.dumps(trigger.filter):
        return On(trigger.event)
    return On(trigger.event, trigger.filter)
