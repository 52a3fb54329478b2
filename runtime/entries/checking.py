"""What an entry point says of its trigger, checked when it is registered and not when it first has to fire.

Not here: whether its workflow and its step are there (`starting_at.py`), and what only an open runtime knows: secrets,
ports, routes that contradict each other. Invariant: it keeps nothing and starts nothing.
"""

from typing import Any, Final

from perdure.actors.triggers.kinds import Api, Manual, OnEvent, Schedule, Webhook
from perdure.actors.triggers.matching import EventFilter
from perdure.actors.triggers.timetable import check_schedule
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.web.webhooks.route import WebhookRoute
from perdure.store.errors import UsageError

INPUT: Final = "event"
"""The one argument that events, deliveries and times give to a workflow."""


def check_trigger(entry: EntryPoint, workflow: Workflow[..., Any]) -> None:
    """Check that what starts an entry point can be, and that its workflow takes what it is started with.

    Raises:
        UsageError: a type of events, a condition, a route or a schedule cannot be, or the workflow is not one of
            `event`.
    """
    match entry.wired:
        case Api() | Manual():
            return
        case OnEvent() as on:
            _check_events(entry, on)
        case Webhook() as hook:
            WebhookRoute.of_entry(entry.id, hook)
        case Schedule() as schedule:
            check_schedule(schedule, f"the schedule of entry point {entry.id}")
    if not workflow.takes(INPUT):
        kind = entry.wired.kind
        text = f"entry point {entry.id} is started by its {kind} with one argument, {INPUT!r}, which workflow"
        raise UsageError(f"{text} {workflow.name} has to take, and no other: async def {workflow.name}(ctx, {INPUT})")


def _check_events(entry: EntryPoint, on: OnEvent) -> None:
    if not on.types:
        return  # it is named in a warning when the runtime opens
    try:
        EventFilter.of(on.types, where=on.where)
    except UsageError as error:
        raise UsageError(f"the trigger of entry point {entry.id}: {error}") from error
