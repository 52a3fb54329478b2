"""An event of the log as those who subscribe to events get it: published ones and the runtime's own alike.

Not here: how it is made of a row (`runtime/entries/log_events.py`). Invariant: the same row makes the same event, live,
looked back at, or after a restart.
"""

from datetime import datetime
from typing import Any

import msgspec

from perdure.actors.triggers.event_names import document_data, document_name


class LogEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: somebody published it, or the runtime recorded it."""

    position: int
    """Its place in the log: of two events the earlier has the smaller one, and no two have the same."""
    type: str
    """What was published, `order.paid`; or, of the runtime's own, the name in the log: `run-completed`."""
    stream: str | None = None
    """The entry point of the run that it is about; of a published event, its source (an entry point, a webhook)."""
    run: str | None = None
    """The run that it is about, or that published it."""
    node: str | None = None
    """The step that it is about, or that published it."""
    workflow: str | None = None
    """The workflow of that run."""
    data: Any = None
    """What was published; of the runtime's own events their fields, as docs/log.md names them."""
    at: datetime
    """When it was recorded, with the time zone UTC."""
    correlation: str | None = None
    """What the caller tied the run to, or the run's own id; of a published event what the publisher said."""
    source: str | None = None
    """Who published it, if they said so; None of the runtime's own events."""
    depth: int = 0
    """How many events led to it, each by a run or a handler that it brought about."""
    id: str | None = None
    """Of a published event: which one of its type it is. None of the runtime's own, so that nobody can forge one."""

    @property
    def is_published(self) -> bool:
        """Whether somebody published it; False when the runtime recorded it."""
        return self.id is not None

    def to_dict(self) -> dict[str, Any]:
        """Return it with the keys and the names of document 003: see docs/events.md for the table.

        The keys: `type`, `stream_id`, `node_id`, `execution_id`, `data`, `timestamp` (ISO 8601, UTC),
        `correlation_id`, `graph_id` (the workflow).
        """
        return {
            "type": self.type if self.is_published else document_name(self.type),
            "stream_id": self.stream,
            "node_id": self.node,
            "execution_id": self.run,
            "data": self.data if self.is_published else document_data(self.type, self.data),
            "timestamp": self.at.isoformat(),
            "correlation_id": self.correlation,
            "graph_id": self.workflow,
        }
