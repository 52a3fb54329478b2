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
from perdure.runtime.control import words
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
    words.TriggerEntryPoint: Meaning("entry_points.trigger", str),
    words.WaitExecution: Meaning("entry_points.wait", ExecutionResult | None),
    words.CancelExecution: Meaning("entry_points.cancel", bool),
    words.ExecutionResultOf: Meaning("entry_points.result", ExecutionResult | None),
    words.EntryStatistics: Meaning("entry_points.statistics", dict[str, dict[str, Any]]),
    words.ListEntryPoints: Meaning("entry_points.list", list[dict[str, Any]], _without_code),
    words.ListSchedules: Meaning("schedules.list", list[ScheduleView]),
    words.WebhookFigures: Meaning("webhooks.statistics", WebhookStatistics),
    words.WaitForEvent: Meaning("events.wait_for", LogEvent | None),
    words.EventHistory: Meaning("events.history", list[LogEvent]),
    words.ListDeadLetters: Meaning("events.dead_letters", dict[str, list[DeadLetter]]),
    words.RedriveLetter: Meaning("events.redrive", bool),
    words.ForgetSubscription: Meaning("events.forget", bool),
    words.EventStatistics: Meaning("events.statistics", dict[str, Any]),
    words.RecentChanges: Meaning("state.recent_changes_json", list[dict[str, Any]], msgspec.Raw),
    words.DropState: Meaning("state.drop", int),
    words.StateStatistics: Meaning("state.statistics", dict[str, int]),
    words.ListGoals: Meaning("goals.list", list[Goal]),
    words.RecordDecision: Meaning("goals.record_decision", GoalDecision),
    words.RecordOutcome: Meaning("goals.record_outcome", GoalOutcome),
    words.RecordViolation: Meaning("goals.record_violation", None),
    words.SetGoalStatus: Meaning("goals.set_status", bool),
    words.ForceCircuit: Meaning("force_circuit", bool),
    words.SelectTool: Meaning("select", str | None, _name),
    words.ToolDefinitions: Meaning("tools.definitions", list[dict[str, Any]]),
    words.McpDefinitions: Meaning("tools.mcp_definitions", list[dict[str, Any]]),
    words.FindAgents: Meaning("agents.find", list[AgentInfo]),
    words.SelectAgent: Meaning("agents.select_best", str | None, _name),
    words.DiscoverAgents: Meaning("agents.discover", list[AgentInfo]),
    words.AgentFigures: Meaning("agents.stats", AgentStatistics),
    words.LoadAgent: Meaning("agents.load", None),
    words.UnloadAgent: Meaning("agents.unload", bool),
    words.ListWorkflows: Meaning("workflows.list", list[WorkflowInfo]),
    words.QuarantineSlot: Meaning("quarantine_slot", None),
    words.ResetSlot: Meaning("reset_slot", str | None),
    words.ExecuteCall: Meaning("executor.execute", ToolResult),
    words.FindCall: Meaning("executor.find", ToolResult | None),
    words.ReleaseTrajectory: Meaning("executor.release_trajectory", None),
    words.ReadArtifact: Meaning("executor.read_artifact", ArtifactReadResponsePayload),
    words.ListArtifacts: Meaning("executor.list_artifacts", ArtifactListResponsePayload),
    words.ArchiveArtifacts: Meaning("executor.archive_artifacts", ArtifactArchiveResponsePayload),
    words.Statistics: Meaning("statistics", RuntimeStatistics),
    words.WorkflowStatistics: Meaning("get_stats", dict[str, Any]),
    words.ReadBlob: Meaning("blob", bytes | None),
}
"""Of each word: the method that it stands for. The docstring of that method says what is done, and what it raises."""

CALLS: Final = (words.ExecuteCall, words.ReleaseTrajectory)
"""What takes a while and is carried out although the connection is lost; withdrawn, it is cancelled."""
WAITS: Final = (words.WaitExecution, words.WaitForEvent, words.UntilIdle, words.FindCall)
"""What takes a while and ends with the connection."""
LARGE: Final = (words.ReadBlob, words.ReadArtifact, words.ListArtifacts, words.ArchiveArtifacts)
"""What comes back may be large."""
