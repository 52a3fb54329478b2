"""The requests about the ways in: entry points, schedules and webhooks. Pure data; see `words.py`."""

from typing import Any, TypeAlias

from perdure.runtime.control.request import Word


class TriggerEntryPoint(Word, frozen=True, tag="trigger"):
    """Start a run by an entry point."""

    entry: str
    data: dict[str, Any] | None = None
    correlation_id: str | None = None
    id: str | None = None
    conversation: str | None = None
    priority: int | None = None
    who: str | None = None


class WaitExecution(Word, frozen=True, tag="wait-execution"):
    """Wait for the end of a run of an entry point, for so many seconds at most."""

    entry: str
    run: str
    timeout: float | None = None


class CancelExecution(Word, frozen=True, tag="cancel-execution"):
    """Have a run of an entry point cancelled."""

    entry: str
    run: str
    reason: str = "cancelled by the application"


class ExecutionResultOf(Word, frozen=True, tag="execution-result"):
    """Ask how a run of an entry point ended."""

    entry: str
    run: str


class EntryStatistics(Word, frozen=True, tag="entry-statistics"):
    """Ask for the figures of the entry points."""


class ListEntryPoints(Word, frozen=True, tag="entry-points"):
    """List the entry points."""


class ListSchedules(Word, frozen=True, tag="schedules"):
    """List the schedules."""


class WebhookFigures(Word, frozen=True, tag="webhook-statistics"):
    """Ask for the figures of the webhooks."""


EntryWord: TypeAlias = (
    TriggerEntryPoint | WaitExecution | CancelExecution | ExecutionResultOf | EntryStatistics | ListEntryPoints
    | ListSchedules | WebhookFigures
)  # fmt: skip
