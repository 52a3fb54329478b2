"""Perdure: a durable runtime that an application embeds. The public names; nothing is defined here."""

if __name__ != "perdure":
    raise ImportError(f"import perdure, not {__name__}: this would be a second copy of it")

from perdure.actors.kernel.errors import (
    ActorError,
    ActorFailedError,
    ActorStoppedError,
    AskTimeoutError,
    MailboxFullError,
)
from perdure.actors.kernel.payloads import Secret
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.commands import SlotView, TrajectoryView
from perdure.actors.slots.errors import (
    ExecutionInDoubtError,
    NoSlotError,
    ResetFailedError,
    SandboxUnavailableError,
    SlotError,
    SlotTransitionError,
    StaleLeaseError,
)
from perdure.actors.slots.parsing import has_tool_call, parse_tool_calls
from perdure.actors.state.conversation import Artifact, ConversationFullError
from perdure.actors.state.errors import StateConflictError, StateError, StateFullError, StatePermissionError
from perdure.actors.state.goal_commands import (
    GoalDecision,
    GoalError,
    GoalOutcome,
    UnknownCriterionError,
    UnknownDecisionError,
    UnknownGoalError,
)
from perdure.actors.state.goal_model import Constraint, Criterion, Goal
from perdure.actors.state.goal_progress import CriterionProgress, Evidence, GoalProgress, Violation
from perdure.actors.state.view import MISSING, StateChange, StateView
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.decorator import tool
from perdure.actors.tools.definition import Done, NotDone, Tool
from perdure.actors.tools.errors import (
    BulkheadFullError,
    CircuitOpenError,
    InvalidArgumentsError,
    RateLimitedError,
    ToolError,
    ToolFailedError,
    UnknownToolError,
)
from perdure.actors.tools.limits import RateLimit
from perdure.actors.tools.registry import Registry, Toolset
from perdure.actors.tools.retry import Retry
from perdure.actors.tools.simulation import PastCall, Simulation, simulate
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.triggers.bus import BusEvent, Emission, EventBus, HandlerFailure, Subscription
from perdure.actors.triggers.errors import (
    PublicationConflictError,
    TriggerRefusedError,
    UnknownDeadLetterError,
    UnknownEntryPointError,
)
from perdure.actors.triggers.kinds import Api, Manual, OnEvent, Schedule, Webhook
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.subscription import DeadLetter
from perdure.actors.triggers.typed import Topic
from perdure.actors.triggers.wanted import On, PublishedEvent
from perdure.actors.workflows.agents.agent import Agent, agent
from perdure.actors.workflows.agents.errors import AgentError, AgentLoadError, UnknownActionError, UnknownAgentError
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.agents.pool import AgentInfo, Agents, AgentStatistics
from perdure.actors.workflows.agents.reflective import Reflection, reflective
from perdure.actors.workflows.approving import Approval
from perdure.actors.workflows.context import Context
from perdure.actors.workflows.defined.errors import Fault, InvalidDefinitionError
from perdure.actors.workflows.defined.model import (
    Branching,
    Compensation,
    RetryPolicy,
    Step,
    Trigger,
    WorkflowDefinition,
)
from perdure.actors.workflows.defined.reading import load_definition
from perdure.actors.workflows.defined.registry import DefinedWorkflow, WorkflowInfo, Workflows
from perdure.actors.workflows.definition import Workflow, workflow
from perdure.actors.workflows.errors import (
    CompensationFailedError,
    ControlRefusedError,
    DeadlineExceededError,
    OrchestrationError,
    Parked,
    QuestionNotOpenError,
    ReplayMismatchError,
    RunBlockedError,
    RunCancelledError,
    RunClosedError,
    RunConflictError,
    RunContinuedError,
    RunError,
    RunFailedError,
    SignalConflictError,
    SignalRefusedError,
    StepFailedError,
    UnknownCheckpointError,
    UnknownRunError,
    UnknownStepError,
    UnknownWorkflowError,
    WorkflowFailedError,
    WrongAnswerError,
)
from perdure.actors.workflows.forms import AnswerForm, Choice, Confirm, Form, FormField, FreeText, QuestionType
from perdure.actors.workflows.goals import Pursuit
from perdure.actors.workflows.offspring import ChildRun
from perdure.actors.workflows.queue import Queue
from perdure.actors.workflows.queues import QueueStatistics
from perdure.actors.workflows.saga import Saga
from perdure.actors.workflows.state import NotInDoubtError, RunView
from perdure.runtime.app import Runtime
from perdure.runtime.bridge import BlockingRun, BlockingRuntime, BlockingTrajectory
from perdure.runtime.checkpoints import Checkpoint
from perdure.runtime.control.connection import Connection, connect
from perdure.runtime.control.errors import ConnectionLostError, NotOwnedError, OwnerError, OwnerUnreachableError
from perdure.runtime.conversations import (
    Conversation,
    ConversationMetrics,
    ConversationRun,
    Conversations,
    ConversationStatus,
    ConversationView,
)
from perdure.runtime.entries.config import AgentRuntimeConfig
from perdure.runtime.entries.delivering import SubscriptionStatistics
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.entries.events import Events
from perdure.runtime.entries.registry import EntryPoints
from perdure.runtime.entries.results import ExecutionResult
from perdure.runtime.entries.schedules import Schedules, ScheduleView
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.goals import GoalReader, Goals
from perdure.runtime.handle import RunHandle
from perdure.runtime.people import InputOutcome
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.recovery import WaitingRun
from perdure.runtime.rehearsing import CheckedRun
from perdure.runtime.sagas import SagaClosedError, SagaState
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.executor import ToolExecutor
from perdure.runtime.sandbox.limits import SlotLimits
from perdure.runtime.sandbox.local import Bubblewrap, PlainProcess
from perdure.runtime.sandbox.remote import RemoteBackend
from perdure.runtime.sandbox.tools import (
    CommandResult,
    FileResult,
    bash,
    bash_stateful,
    read_file,
    slot_of,
    tmux,
    write_file,
)
from perdure.runtime.sandbox.trajectory import ArtifactError, Trajectory
from perdure.runtime.settings import Settings
from perdure.runtime.state import SharedState
from perdure.runtime.web.api.roles import Tokens
from perdure.runtime.web.webhooks.errors import WebhookError, WebhookNotDeliveredError, WebhookRefusedError
from perdure.runtime.web.webhooks.outgoing import WebhookReceipt, webhook_tool
from perdure.runtime.web.webhooks.route import WebhookRoute
from perdure.runtime.web.webhooks.serving import WebhookServer
from perdure.runtime.web.webhooks.webhooks import Webhooks, WebhookStatistics
from perdure.store.errors import (
    BacklogFullError,
    ConcurrencyError,
    CorruptLogError,
    InternalError,
    LogClosedError,
    LogWriteError,
    NotALogError,
    PayloadTooLargeError,
    PerdureError,
    Rejected,
    SchemaTooNewError,
    SqliteTooOldError,
    StoreError,
    StoreLockedError,
    UndecodableEventError,
    UnencodableError,
    UnknownTagError,
    UsageError,
)
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded

__all__ = [
    "MISSING",
    "ActorError",
    "ActorFailedError",
    "ActorStoppedError",
    "Agent",
    "AgentError",
    "AgentInfo",
    "AgentLoadError",
    "AgentMessage",
    "AgentResponse",
    "AgentRuntimeConfig",
    "AgentStatistics",
    "Agents",
    "AnswerForm",
    "Api",
    "Approval",
    "Artifact",
    "ArtifactError",
    "AskTimeoutError",
    "Backend",
    "BacklogFullError",
    "BlockingRun",
    "BlockingRuntime",
    "BlockingTrajectory",
    "Branching",
    "BreakerPolicy",
    "Bubblewrap",
    "BulkheadFullError",
    "BusEvent",
    "CheckedRun",
    "Checkpoint",
    "ChildRun",
    "Choice",
    "CircuitOpenError",
    "CommandResult",
    "Compensation",
    "CompensationFailedError",
    "ConcurrencyError",
    "Confirm",
    "Connection",
    "ConnectionLostError",
    "Constraint",
    "Context",
    "ControlRefusedError",
    "Conversation",
    "ConversationFullError",
    "ConversationMetrics",
    "ConversationRun",
    "ConversationStatus",
    "ConversationView",
    "Conversations",
    "CorruptLogError",
    "Criterion",
    "CriterionProgress",
    "DeadLetter",
    "DeadlineExceededError",
    "DefinedWorkflow",
    "Done",
    "Emission",
    "EntryPoint",
    "EntryPoints",
    "EventBus",
    "EventSubscription",
    "Events",
    "Evidence",
    "ExecutionInDoubtError",
    "ExecutionResult",
    "ExecutorConfig",
    "Fault",
    "FileResult",
    "Form",
    "FormField",
    "FreeText",
    "Goal",
    "GoalDecision",
    "GoalError",
    "GoalOutcome",
    "GoalProgress",
    "GoalReader",
    "Goals",
    "HandlerFailure",
    "InputOutcome",
    "InternalError",
    "InvalidArgumentsError",
    "InvalidDefinitionError",
    "LogClosedError",
    "LogEvent",
    "LogReader",
    "LogWriteError",
    "MailboxFullError",
    "Manual",
    "NoSlotError",
    "NotALogError",
    "NotDone",
    "NotInDoubtError",
    "NotOwnedError",
    "On",
    "OnEvent",
    "OpenQuestion",
    "OrchestrationError",
    "OwnerError",
    "OwnerUnreachableError",
    "Parked",
    "PastCall",
    "PayloadTooLargeError",
    "PerdureError",
    "PlainProcess",
    "PublicationConflictError",
    "PublishedEvent",
    "Pursuit",
    "Query",
    "QuestionNotOpenError",
    "QuestionType",
    "Queue",
    "QueueStatistics",
    "RateLimit",
    "RateLimitedError",
    "Recorded",
    "Reflection",
    "Registry",
    "Rejected",
    "RemoteBackend",
    "ReplayMismatchError",
    "ResetFailedError",
    "Retry",
    "RetryPolicy",
    "RunBlockedError",
    "RunCancelledError",
    "RunClosedError",
    "RunConflictError",
    "RunContinuedError",
    "RunError",
    "RunFailedError",
    "RunHandle",
    "RunView",
    "Runtime",
    "RuntimeStatistics",
    "Saga",
    "SagaClosedError",
    "SagaState",
    "SandboxUnavailableError",
    "Schedule",
    "ScheduleView",
    "Schedules",
    "SchemaTooNewError",
    "Secret",
    "Settings",
    "SharedState",
    "SignalConflictError",
    "SignalRefusedError",
    "Simulation",
    "SlotError",
    "SlotLimits",
    "SlotTransitionError",
    "SlotView",
    "SqliteTooOldError",
    "StaleLeaseError",
    "StateChange",
    "StateConflictError",
    "StateError",
    "StateFullError",
    "StatePermissionError",
    "StateView",
    "Step",
    "StepFailedError",
    "StoreError",
    "StoreLockedError",
    "Subscription",
    "SubscriptionStatistics",
    "Tokens",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "ToolExecutor",
    "ToolFailedError",
    "ToolResult",
    "ToolStatistics",
    "Toolset",
    "Topic",
    "Trajectory",
    "TrajectoryView",
    "Trigger",
    "TriggerRefusedError",
    "UndecodableEventError",
    "UnencodableError",
    "UnknownActionError",
    "UnknownAgentError",
    "UnknownCheckpointError",
    "UnknownCriterionError",
    "UnknownDeadLetterError",
    "UnknownDecisionError",
    "UnknownEntryPointError",
    "UnknownGoalError",
    "UnknownRunError",
    "UnknownStepError",
    "UnknownTagError",
    "UnknownToolError",
    "UnknownWorkflowError",
    "UsageError",
    "Violation",
    "WaitingRun",
    "Webhook",
    "WebhookError",
    "WebhookNotDeliveredError",
    "WebhookReceipt",
    "WebhookRefusedError",
    "WebhookRoute",
    "WebhookServer",
    "WebhookStatistics",
    "Webhooks",
    "Workflow",
    "WorkflowDefinition",
    "WorkflowFailedError",
    "WorkflowInfo",
    "Workflows",
    "WrongAnswerError",
    "agent",
    "bash",
    "bash_stateful",
    "connect",
    "has_tool_call",
    "load_definition",
    "parse_tool_calls",
    "read_file",
    "reflective",
    "simulate",
    "slot_of",
    "tmux",
    "tool",
    "webhook_tool",
    "workflow",
    "write_file",
]
