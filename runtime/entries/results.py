"""How a run of an entry point ended, as the application is told. Data only.

Invariant: it is read from the log, so it is the same in every life of the runtime.
"""

from datetime import datetime
from typing import Any, TypedDict

import msgspec

from perdure.actors.workflows.state import RunStatus


class TriggerOptions(TypedDict, total=False):
    """What a trigger may say; see `EntryPoints.trigger`."""

    correlation_id: str | None
    id: str | None
    conversation: str | None
    priority: int | None
    who: str | None


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of an entry point ended, or that it has paused itself."""

    run: str
    entry: str
    status: RunStatus
    """`completed`, `failed` or `cancelled`; `blocked` when it cannot go on without an operator, `paused` when it has
    paused itself."""
    output: Any = None
    """What the workflow returned; of one that has paused itself what it had come to."""
    paused_at: str | None = None
    """Where it has paused itself until somebody resumes it; it is not over."""
    error_type: str = ""
    error: str = ""
    """Why it failed, was cancelled or is blocked; empty when it completed."""
    correlation: str = ""
    """What the caller ties the run to; its id when the caller said nothing."""
    started_at: datetime | None = None
    """When it was triggered, UTC."""
    ended_at: datetime | None = None
    """When it ended, UTC."""

    @property
    def success(self) -> bool:
        """Whether it completed."""
        return self.status == "completed"
