"""The requests that stand for one method of the runtime each: their fields are its arguments. Pure data.

Not here: which method that is (`meanings.py`), and requests that have to be read, checked or put together first
(`messages.py`). Invariant: a field has the name of the argument that it is.
"""

from typing import Any, Literal, TypeAlias

from perdure.actors.slots.calls import ToolCall
from perdure.actors.state.goal_commands import GoalDecision
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.definition import EffectClass
from perdure.runtime.control.request import Word

Names: TypeAlias = str | list[str]


# Runs


class RetryRun(Word, frozen=True, tag="retry-run"):
    """Have a run tried again."""

    run: str
    who: str | None = None


class Resume(Word, frozen=True, tag="resume"):
    """Bring back open runs, or one."""

    run: str | None = None


class Questions(Word, frozen=True, tag="questions"):
    """List the open questions."""


class Waiting(Word, frozen=True, tag="waiting"):
    """List the open runs that are not in memory."""


class UntilIdle(Word, frozen=True, tag="until-idle"):
    """Wait until no run can go on by itself."""


# Entry points, schedules, webhooks


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


# Events


class WaitForEvent(Word, frozen=True, tag="wait-for-event"):
    """Wait for the first event that fits."""

    types: Names
    stream: str | None = None
    node: str | None = None
    run: str | None = None
    correlation: str | None = None
    where: dict[str, Any] | None = None
    after: int | str = "now"
    timeout: float | None = None


class EventHistory(Word, frozen=True, tag="event-history"):
    """Look back at the newest events that fit."""

    type: Names | None = None
    stream: str | None = None
    run: str | None = None
    limit: int = 100


class ListDeadLetters(Word, frozen=True, tag="dead-letters"):
    """List what handlers failed at for good."""

    name: str | None = None


class RedriveLetter(Word, frozen=True, tag="redrive"):
    """Have a dead letter delivered once more."""

    name: str
    position: int
    who: str | None = None


class ForgetSubscription(Word, frozen=True, tag="forget-subscription"):
    """Let go of the cursor and the dead letters of a name."""

    name: str


class EventStatistics(Word, frozen=True, tag="event-statistics"):
    """Ask for the figures of the subscriptions."""


# State and goals


class RecentChanges(Word, frozen=True, tag="recent-changes"):
    """List the newest changes of the state in all scopes."""

    limit: int = 10


class DropState(Word, frozen=True, tag="drop-state"):
    """Take all values of a scope away."""

    stream: str | None = None
    conversation: str | None = None
    who: str | None = None


class StateStatistics(Word, frozen=True, tag="state-statistics"):
    """Ask for the figures of the state."""


class ListGoals(Word, frozen=True, tag="goals"):
    """List the goals that the owner was given, as they stand."""


class RecordDecision(Word, frozen=True, tag="record-decision"):
    """Record that something was decided for a goal."""

    goal: str
    intent: str
    criteria: tuple[str, ...] | str = ()
    options: tuple[Any, ...] = ()
    chosen: Any = None
    reasoning: str = ""
    constraints: tuple[str, ...] | str = ()
    kind: str = "custom"
    context: dict[str, Any] | None = None
    who: str | None = None
    id: str | None = None


class RecordOutcome(Word, frozen=True, tag="record-outcome"):
    """Record what a decision came to."""

    decision: GoalDecision | str
    success: bool
    result: Any = None
    error: str | None = None
    summary: str = ""
    who: str | None = None


class RecordViolation(Word, frozen=True, tag="record-violation"):
    """Record that a constraint of a goal was violated."""

    goal: str
    constraint: str
    details: str = ""
    who: str | None = None
    id: str | None = None


class SetGoalStatus(Word, frozen=True, tag="set-goal-status"):
    """Say how a goal stands."""

    goal: str
    status: Literal["ready", "active", "failed", "suspended"]
    because: str = ""
    who: str | None = None


# Tools, agents, workflows


class ForceCircuit(Word, frozen=True, tag="force-circuit"):
    """Take a tool's circuit over."""

    tool: str
    to: Forcing
    because: str
    who: str | None = None
    conversation: str | None = None


class SelectTool(Word, frozen=True, tag="select"):
    """Ask which tool has capabilities."""

    required: Names
    partial: bool = False


class ToolDefinitions(Word, frozen=True, tag="tool-definitions"):
    """Ask for the tools that can be offered to a model."""

    names: Names | None = None


class McpDefinitions(Word, frozen=True, tag="mcp-definitions"):
    """Ask for the same in the form of the Model Context Protocol."""

    names: Names | None = None


class FindAgents(Word, frozen=True, tag="find-agents"):
    """Ask which agents have a capability."""

    capability: str


class SelectAgent(Word, frozen=True, tag="select-agent"):
    """Ask which agent has capabilities."""

    required: Names
    partial: bool = False


class DiscoverAgents(Word, frozen=True, tag="agents"):
    """List the agents."""


class AgentFigures(Word, frozen=True, tag="agent-statistics"):
    """Ask for the figures of the agents."""


class LoadAgent(Word, frozen=True, tag="load-agent"):
    """Bring an agent into memory."""

    name: str


class UnloadAgent(Word, frozen=True, tag="unload-agent"):
    """Take an agent out of memory."""

    name: str


class ListWorkflows(Word, frozen=True, tag="workflows"):
    """List the workflows."""


# Slots and trajectories


class QuarantineSlot(Word, frozen=True, tag="quarantine-slot"):
    """Give a slot to nobody until it was reset."""

    slot: str
    because: str
    who: str


class ResetSlot(Word, frozen=True, tag="reset-slot"):
    """Empty a slot."""

    slot: str
    who: str
    take_away: bool = False


class ExecuteCall(Word, frozen=True, tag="execute-call"):
    """Run one call of a trajectory."""

    trajectory_id: str
    call: ToolCall
    timeout_s: float | None = None
    effect: EffectClass | None = None
    lease_seconds: float | None = None
    principal: str | None = None


class FindCall(Word, frozen=True, tag="find-call"):
    """Ask what became of a call."""

    uniq_id: str


class ReleaseTrajectory(Word, frozen=True, tag="release-trajectory"):
    """Give a trajectory's slot back."""

    trajectory_id: str
    reset_workspace: bool = False
    cancel: bool = False
    because: str = "released"
    principal: str | None = None


class ReadArtifact(Word, frozen=True, tag="read-artifact"):
    """Read a file of a workspace."""

    trajectory_id: str
    path: str
    encoding: str = "text"
    max_bytes: int | None = None
    include_sha256: bool = False


class ListArtifacts(Word, frozen=True, tag="list-artifacts"):
    """List a folder of a workspace."""

    trajectory_id: str
    path: str = "."
    recursive: bool = False
    max_entries: int | None = None


class ArchiveArtifacts(Word, frozen=True, tag="archive-artifacts"):
    """Pack a folder of a workspace."""

    trajectory_id: str
    path: str = "."
    archive_format: str = "tar.gz"
    max_bytes: int | None = None
    max_entries: int | None = None


# Looking


class Statistics(Word, frozen=True, tag="statistics"):
    """Ask for the runtime's figures."""


class WorkflowStatistics(Word, frozen=True, tag="get-stats"):
    """Ask for the figures of defined workflows and of agents."""


class ReadBlob(Word, frozen=True, tag="blob"):
    """Read a large value by its hash."""

    sha256: str


AnyWord: TypeAlias = (
    RetryRun | Resume | Questions | Waiting | UntilIdle | TriggerEntryPoint | WaitExecution | CancelExecution
    | ExecutionResultOf | EntryStatistics | ListEntryPoints | ListSchedules | WebhookFigures | WaitForEvent
    | EventHistory | ListDeadLetters | RedriveLetter | ForgetSubscription | EventStatistics | RecentChanges
    | DropState | StateStatistics | ListGoals | RecordDecision | RecordOutcome | RecordViolation | SetGoalStatus
    | ForceCircuit | SelectTool | ToolDefinitions | McpDefinitions | FindAgents | SelectAgent | DiscoverAgents
    | AgentFigures | LoadAgent | UnloadAgent | ListWorkflows | QuarantineSlot | ResetSlot | ExecuteCall | FindCall
    | ReleaseTrajectory | ReadArtifact | ListArtifacts | ArchiveArtifacts | Statistics | WorkflowStatistics | ReadBlob
)  # fmt: skip
