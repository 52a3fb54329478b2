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
from perdure.actors.triggers.errors import PublicationConflictError
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
    UnknownRunError,
    UnknownStepError,
    UnknownWorkflowError,
    WorkflowFailedError,
    WrongAnswerError,
)
from perdure.actors.workflows.offspring import ChildRun
from perdure.actors.workflows.queue import Queue
from perdure.actors.workflows.queues import QueueStatistics
from perdure.actors.workflows.saga import Saga
from perdure.actors.workflows.state import NotInDoubtError, RunView
from perdure.runtime.app import Runtime
from perdure.runtime.bridge import BlockingRun, BlockingRuntime, BlockingTrajectory
from perdure.runtime.control.connection import Connection, connect
from perdure.runtime.control.errors import ConnectionLostError, NotOwnedError, OwnerError, OwnerUnreachableError
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.handle import RunHandle
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
    "ActorError",
    "ActorFailedError",
    "ActorStoppedError",
    "Agent",
    "AgentError",
    "AgentInfo",
    "AgentLoadError",
    "AgentMessage",
    "AgentResponse",
    "AgentStatistics",
    "Agents",
    "Approval",
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
    "ChildRun",
    "CircuitOpenError",
    "CommandResult",
    "Compensation",
    "CompensationFailedError",
    "ConcurrencyError",
    "Connection",
    "ConnectionLostError",
    "Context",
    "ControlRefusedError",
    "CorruptLogError",
    "DeadlineExceededError",
    "DefinedWorkflow",
    "Done",
    "Emission",
    "EventBus",
    "ExecutionInDoubtError",
    "ExecutorConfig",
    "Fault",
    "FileResult",
    "HandlerFailure",
    "InternalError",
    "InvalidArgumentsError",
    "InvalidDefinitionError",
    "LogClosedError",
    "LogReader",
    "LogWriteError",
    "MailboxFullError",
    "NoSlotError",
    "NotALogError",
    "NotDone",
    "NotInDoubtError",
    "NotOwnedError",
    "On",
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
    "Query",
    "QuestionNotOpenError",
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
    "SchemaTooNewError",
    "Secret",
    "Settings",
    "SignalConflictError",
    "SignalRefusedError",
    "Simulation",
    "SlotError",
    "SlotLimits",
    "SlotTransitionError",
    "SlotView",
    "SqliteTooOldError",
    "StaleLeaseError",
    "Step",
    "StepFailedError",
    "StoreError",
    "StoreLockedError",
    "Subscription",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "ToolExecutor",
    "ToolFailedError",
    "ToolResult",
    "ToolStatistics",
    "Toolset",
    "Trajectory",
    "TrajectoryView",
    "Trigger",
    "UndecodableEventError",
    "UnencodableError",
    "UnknownActionError",
    "UnknownAgentError",
    "UnknownRunError",
    "UnknownStepError",
    "UnknownTagError",
    "UnknownToolError",
    "UnknownWorkflowError",
    "UsageError",
    "WaitingRun",
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
    "workflow",
    "write_file",
]
