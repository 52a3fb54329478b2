"""Which method of the runtime each word stands for, and what comes back. One table, for the owner and for who asks.

Not here: how it is performed (`answering.py`). Invariant: the table is the whole list of what a word can have done.
"""

from typing import Any, Final, cast

import msgspec

from perdure.actors.slots.calls import ToolResult
from perdure.actors.state.goal_commands import GoalDecision, GoalOutcome
from perdure.actors.state.goal_model import Goal
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.subscription import DeadLetter
from perdure.actors.workflows.agents.pool import AgentInfo, AgentStatistics
from perdure.actors.workflows.defined.registry import WorkflowInfo
from perdure.runtime.control import entry_words, event_words, slot_words, state_words, tool_words, words
from perdure.runtime.control.request import Meaning, Request
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.results import ExecutionResult
from perdure.runtime.entries.schedules import ScheduleView
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.recovery import WaitingRun
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)
from perdure.runtime.web.webhooks.figures import WebhookStatistics


def _name(found: Any) -> str | None:
    return None if found is None else cast("str", found.name)


def _without_code(points: tuple[EntryPoint, ...]) -> list[EntryPoint]:
    return [msgspec.structs.replace(one, workflow=one.workflow_name) for one in points]


MEANINGS: Final[dict[type[Request], Meaning]] = {
    words.RetryRun: Meaning("retry_run", str | None),
    words.Resume: Meaning("resume", None),
    words.Questions: Meaning("questions", list[OpenQuestion]),
    words.Waiting: Meaning("waiting", list[WaitingRun]),
    words.UntilIdle: Meaning("until_idle", None),
    entry_words.TriggerEntryPoint: Meaning("entry_points.trigger", str),
    entry_words.WaitExecution: Meaning("entry_points.wait", ExecutionResult | None),
    entry_words.CancelExecution: Meaning("entry_points.cancel", bool),
    entry_words.ExecutionResultOf: Meaning("entry_points.result", ExecutionResult | None),
    entry_words.EntryStatistics: Meaning("entry_points.statistics", dict[str, dict[str, Any]]),
    entry_words.ListEntryPoints: Meaning("entry_points.list", list[dict[str, Any]], _without_code),
    entry_words.ListSchedules: Meaning("schedules.list", list[ScheduleView]),
    entry_words.WebhookFigures: Meaning("webhooks.statistics", WebhookStatistics),
    event_words.WaitForEvent: Meaning("events.wait_for", LogEvent | None),
    event_words.EventHistory: Meaning("events.history", list[LogEvent]),
    event_words.ListDeadLetters: Meaning("events.dead_letters", dict[str, list[DeadLetter]]),
    event_words.RedriveLetter: Meaning("events.redrive", bool),
    event_words.ForgetSubscription: Meaning("events.forget", bool),
    event_words.EventStatistics: Meaning("events.statistics", dict[str, Any]),
    state_words.RecentChanges: Meaning("state.recent_changes_json", list[dict[str, Any]], msgspec.Raw),
    state_words.DropState: Meaning("state.drop", int),
    state_words.StateStatistics: Meaning("state.statistics", dict[str, int]),
    state_words.ListGoals: Meaning("goals.list", list[Goal]),
    state_words.RecordDecision: Meaning("goals.record_decision", GoalDecision),
    state_words.RecordOutcome: Meaning("goals.record_outcome", GoalOutcome),
    state_words.RecordViolation: Meaning("goals.record_violation", None),
    state_words.SetGoalStatus: Meaning("goals.set_status", bool),
    tool_words.ForceCircuit: Meaning("force_circuit", bool),
    tool_words.SelectTool: Meaning("select", str | None, _name),
    tool_words.ToolDefinitions: Meaning("tools.definitions", list[dict[str, Any]]),
    tool_words.McpDefinitions: Meaning("tools.mcp_definitions", list[dict[str, Any]]),
    tool_words.FindAgents: Meaning("agents.find", list[AgentInfo]),
    tool_words.SelectAgent: Meaning("agents.select_best", str | None, _name),
    tool_words.DiscoverAgents: Meaning("agents.discover", list[AgentInfo]),
    tool_words.AgentFigures: Meaning("agents.stats", AgentStatistics),
    tool_words.LoadAgent: Meaning("agents.load", None),
    tool_words.UnloadAgent: Meaning("agents.unload", bool),
    tool_words.ListWorkflows: Meaning("workflows.list", list[WorkflowInfo]),
    slot_words.QuarantineSlot: Meaning("quarantine_slot", None),
    slot_words.ResetSlot: Meaning("reset_slot", str | None),
    slot_words.ExecuteCall: Meaning("executor.execute", ToolResult),
    slot_words.FindCall: Meaning("executor.find", ToolResult | None),
    slot_words.ReleaseTrajectory: Meaning("executor.release_trajectory", None),
    slot_words.ReadArtifact: Meaning("executor.read_artifact", ArtifactReadResponsePayload),
    slot_words.ListArtifacts: Meaning("executor.list_artifacts", ArtifactListResponsePayload),
    slot_words.ArchiveArtifacts: Meaning("executor.archive_artifacts", ArtifactArchiveResponsePayload),
    words.Statistics: Meaning("statistics", RuntimeStatistics),
    words.WorkflowStatistics: Meaning("get_stats", dict[str, Any]),
    words.ReadBlob: Meaning("blob", bytes | None),
}
"""Of each word: the method that it stands for. The docstring of that method says what is done, and what it raises."""

CALLS: Final = (slot_words.ExecuteCall, slot_words.ReleaseTrajectory)
"""Requests that take a while and are carried out even if the connection is lost; withdrawing one cancels it."""
WAITS: Final = (entry_words.WaitExecution, event_words.WaitForEvent, words.UntilIdle, slot_words.FindCall)
"""Requests that take a while and end with the connection."""
LARGE: Final = (words.ReadBlob, slot_words.ReadArtifact, slot_words.ListArtifacts, slot_words.ArchiveArtifacts)
"""Requests whose answers may be large."""
