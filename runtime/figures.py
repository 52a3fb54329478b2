"""The figures of an open runtime, as an application may ask for them. Data only."""

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
