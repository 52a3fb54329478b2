"""Perdure: a durable runtime that an application embeds. The public names; nothing is defined here."""

if __name__ != "perdure":
    raise ImportError(f"import perdure, not {__name__}: this would be a second copy of it")

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what checkers and editors see; at runtime each comes from `_HOME`, when it is first asked for
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
        GoalConflictError,
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
    from perdure.actors.workflows.child_steps import ChildRun
    from perdure.actors.workflows.context import Context
    from perdure.actors.workflows.defined.errors import Fault, InvalidDefinitionError, UnknownNameError
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
    from perdure.actors.workflows.lines import QueueStatistics
    from perdure.actors.workflows.queue import Queue
    from perdure.actors.workflows.saga import Saga
    from perdure.actors.workflows.state import NotInDoubtError, RunView
    from perdure.runtime.app import Runtime
    from perdure.runtime.blocking_runs import BlockingRun, BlockingTrajectory
    from perdure.runtime.bridge import BlockingRuntime
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
    from perdure.runtime.web.webhooks.figures import WebhookStatistics
    from perdure.runtime.web.webhooks.outgoing import WebhookReceipt, webhook_tool
    from perdure.runtime.web.webhooks.route import WebhookRoute
    from perdure.runtime.web.webhooks.serving import WebhookServer
    from perdure.runtime.web.webhooks.webhooks import Webhooks
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

_HOME = MappingProxyType({
    name: f"perdure.{module}"
    for module, names in {
        "actors.kernel.errors": "ActorError ActorFailedError ActorStoppedError AskTimeoutError MailboxFullError",
        "actors.kernel.payloads": "Secret",
        "actors.slots.calls": "ToolCall ToolResult",
        "actors.slots.commands": "SlotView TrajectoryView",
        "actors.slots.errors": (
            "ExecutionInDoubtError NoSlotError ResetFailedError SandboxUnavailableError SlotError SlotTransitionError "
            "StaleLeaseError"
        ),
        "actors.slots.parsing": "has_tool_call parse_tool_calls",
        "actors.state.conversation": "Artifact ConversationFullError",
        "actors.state.errors": "StateConflictError StateError StateFullError StatePermissionError",
        "actors.state.goal_commands": (
            "GoalConflictError GoalDecision GoalError GoalOutcome UnknownCriterionError UnknownDecisionError "
            "UnknownGoalError"
        ),
        "actors.state.goal_model": "Constraint Criterion Goal",
        "actors.state.goal_progress": "CriterionProgress Evidence GoalProgress Violation",
        "actors.state.view": "MISSING StateChange StateView",
        "actors.tools.breaker": "BreakerPolicy",
        "actors.tools.context": "ToolContext",
        "actors.tools.decorator": "tool",
        "actors.tools.definition": "Done NotDone Tool",
        "actors.tools.errors": (
            "BulkheadFullError CircuitOpenError InvalidArgumentsError RateLimitedError ToolError ToolFailedError "
            "UnknownToolError"
        ),
        "actors.tools.limits": "RateLimit",
        "actors.tools.registry": "Registry Toolset",
        "actors.tools.retry": "Retry",
        "actors.tools.simulation": "PastCall Simulation simulate",
        "actors.tools.statistics": "ToolStatistics",
        "actors.triggers.bus": "BusEvent Emission EventBus HandlerFailure Subscription",
        "actors.triggers.errors": (
            "PublicationConflictError TriggerRefusedError UnknownDeadLetterError UnknownEntryPointError"
        ),
        "actors.triggers.kinds": "Api Manual OnEvent Schedule Webhook",
        "actors.triggers.log_event": "LogEvent",
        "actors.triggers.subscription": "DeadLetter",
        "actors.triggers.typed": "Topic",
        "actors.triggers.wanted": "On PublishedEvent",
        "actors.workflows.agents.agent": "Agent agent",
        "actors.workflows.agents.errors": "AgentError AgentLoadError UnknownActionError UnknownAgentError",
        "actors.workflows.agents.messages": "AgentMessage AgentResponse",
        "actors.workflows.agents.pool": "AgentInfo Agents AgentStatistics",
        "actors.workflows.agents.reflective": "Reflection reflective",
        "actors.workflows.approving": "Approval",
        "actors.workflows.child_steps": "ChildRun",
        "actors.workflows.context": "Context",
        "actors.workflows.defined.errors": "Fault InvalidDefinitionError UnknownNameError",
        "actors.workflows.defined.model": "Branching Compensation RetryPolicy Step Trigger WorkflowDefinition",
        "actors.workflows.defined.reading": "load_definition",
        "actors.workflows.defined.registry": "DefinedWorkflow WorkflowInfo Workflows",
        "actors.workflows.definition": "Workflow workflow",
        "actors.workflows.errors": (
            "CompensationFailedError ControlRefusedError DeadlineExceededError OrchestrationError Parked "
            "QuestionNotOpenError ReplayMismatchError RunBlockedError RunCancelledError RunClosedError "
            "RunConflictError RunContinuedError RunError RunFailedError SignalConflictError SignalRefusedError "
            "StepFailedError UnknownCheckpointError UnknownRunError UnknownStepError UnknownWorkflowError "
            "WorkflowFailedError WrongAnswerError"
        ),
        "actors.workflows.forms": "AnswerForm Choice Confirm Form FormField FreeText QuestionType",
        "actors.workflows.goals": "Pursuit",
        "actors.workflows.lines": "QueueStatistics",
        "actors.workflows.queue": "Queue",
        "actors.workflows.saga": "Saga",
        "actors.workflows.state": "NotInDoubtError RunView",
        "runtime.app": "Runtime",
        "runtime.blocking_runs": "BlockingRun BlockingTrajectory",
        "runtime.bridge": "BlockingRuntime",
        "runtime.checkpoints": "Checkpoint",
        "runtime.control.connection": "Connection connect",
        "runtime.control.errors": "ConnectionLostError NotOwnedError OwnerError OwnerUnreachableError",
        "runtime.conversations": (
            "Conversation ConversationMetrics ConversationRun Conversations ConversationStatus ConversationView"
        ),
        "runtime.entries.config": "AgentRuntimeConfig",
        "runtime.entries.delivering": "SubscriptionStatistics",
        "runtime.entries.entry_points": "EntryPoint",
        "runtime.entries.event_subscription": "EventSubscription",
        "runtime.entries.events": "Events",
        "runtime.entries.registry": "EntryPoints",
        "runtime.entries.results": "ExecutionResult",
        "runtime.entries.schedules": "Schedules ScheduleView",
        "runtime.figures": "RuntimeStatistics",
        "runtime.goals": "GoalReader Goals",
        "runtime.handle": "RunHandle",
        "runtime.people": "InputOutcome",
        "runtime.questions": "OpenQuestion",
        "runtime.recovery": "WaitingRun",
        "runtime.rehearsing": "CheckedRun",
        "runtime.sagas": "SagaClosedError SagaState",
        "runtime.sandbox.backend": "Backend",
        "runtime.sandbox.config": "ExecutorConfig",
        "runtime.sandbox.executor": "ToolExecutor",
        "runtime.sandbox.limits": "SlotLimits",
        "runtime.sandbox.local": "Bubblewrap PlainProcess",
        "runtime.sandbox.remote": "RemoteBackend",
        "runtime.sandbox.tools": "CommandResult FileResult bash bash_stateful read_file slot_of tmux write_file",
        "runtime.sandbox.trajectory": "ArtifactError Trajectory",
        "runtime.settings": "Settings",
        "runtime.state": "SharedState",
        "runtime.web.api.roles": "Tokens",
        "runtime.web.webhooks.errors": "WebhookError WebhookNotDeliveredError WebhookRefusedError",
        "runtime.web.webhooks.outgoing": "WebhookReceipt webhook_tool",
        "runtime.web.webhooks.route": "WebhookRoute",
        "runtime.web.webhooks.serving": "WebhookServer",
        "runtime.web.webhooks.figures": "WebhookStatistics",
        "runtime.web.webhooks.webhooks": "Webhooks",
        "store.errors": (
            "BacklogFullError ConcurrencyError CorruptLogError InternalError LogClosedError LogWriteError "
            "NotALogError PayloadTooLargeError PerdureError Rejected SchemaTooNewError SqliteTooOldError StoreError "
            "StoreLockedError UndecodableEventError UnencodableError UnknownTagError UsageError"
        ),
        "store.reader": "LogReader",
        "store.records": "Query Recorded",
    }.items()
    for name in names.split()
})  # fmt: skip
"""Where each public name comes from: a command or a worker loads what it uses, and not everything there is."""

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
    "GoalConflictError",
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
    "UnknownNameError",
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


if not TYPE_CHECKING:  # a checker that saw it would believe in every name

    def __getattr__(name: str) -> Any:
        """Return a public name, and load where it is defined; the next time it is here."""
        try:
            home = _HOME[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        found = globals()[name] = getattr(importlib.import_module(home), name)
        return found


def __dir__() -> list[str]:
    """Return the public names too: a prompt completes them before they are loaded."""
    return sorted({*globals(), *__all__})
