"""The figures of an open runtime, as an application may ask for them. Data only.

From `running` on they are those of founding document 003, by its names.
"""

from typing import Any

import msgspec

from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.workflows.lines import QueueStatistics
from perdure.runtime.sandbox.statistics import SlotStatistics
from perdure.runtime.web.webhooks.figures import WebhookStatistics
from perdure.store.records import LogStatistics


class RuntimeStatistics(msgspec.Struct, frozen=True):
    """Figures of an open runtime; everything they rest on is durable."""

    life: int
    """How often the log was opened for writing, this time included."""
    runs_in_memory: int
    actors_in_memory: int
    failed_actors: dict[str, str]
    """Actors that failed too often and are parked, with the reason."""
    tools: dict[str, ToolStatistics]
    log: LogStatistics
    slots: SlotStatistics | None = None
    """None: this runtime has no slots."""
    queues: dict[str, QueueStatistics] = {}
    """By name; what waits is made anew from the log when a runtime opens."""
    webhooks: WebhookStatistics | None = None
    """Counted in memory since it was opened; None: this runtime has no routes."""
    running: bool = True
    entry_points: int = 0
    """How many there are."""
    streams: dict[str, dict[str, Any]] = {}
    """By entry point; see `EntryPoints.statistics`."""
    goal_id: str | None = None
    """Of the only goal; None: there are several, or none."""
    outcome_aggregator: dict[str, int] = {}
    """All goals added up; see `Goals.statistics`."""
    event_bus: dict[str, int] = {}
    """Since the runtime was opened; see `Events.statistics`."""
    state_manager: dict[str, int] = {}
    """See `SharedState.statistics`."""
