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
from perdure.actors.workflows.context import Context
from perdure.actors.workflows.definition import Workflow, workflow
from perdure.actors.workflows.errors import (
    DeadlineExceededError,
    Parked,
    QuestionNotOpenError,
    ReplayMismatchError,
    RunBlockedError,
    RunCancelledError,
    RunClosedError,
    RunConflictError,
    RunError,
    RunFailedError,
    SignalConflictError,
    SignalRefusedError,
    StepFailedError,
    UnknownRunError,
    UnknownWorkflowError,
    WrongAnswerError,
)
from perdure.actors.workflows.run import NotInDoubtError, RunView
from perdure.runtime.app import Runtime
from perdure.runtime.bridge import BlockingRun, BlockingRuntime, BlockingTrajectory
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.handle import RunHandle
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.recovery import WaitingRun
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
    "ArtifactError",
    "AskTimeoutError",
    "Backend",
    "BacklogFullError",
    "BlockingRun",
    "BlockingRuntime",
    "BlockingTrajectory",
    "BreakerPolicy",
    "Bubblewrap",
    "BulkheadFullError",
    "CircuitOpenError",
    "CommandResult",
    "ConcurrencyError",
    "Context",
    "CorruptLogError",
    "DeadlineExceededError",
    "Done",
    "ExecutionInDoubtError",
    "ExecutorConfig",
    "FileResult",
    "InternalError",
    "InvalidArgumentsError",
    "LogClosedError",
    "LogReader",
    "LogWriteError",
    "MailboxFullError",
    "NoSlotError",
    "NotALogError",
    "NotDone",
    "NotInDoubtError",
    "OpenQuestion",
    "Parked",
    "PastCall",
    "PayloadTooLargeError",
    "PerdureError",
    "PlainProcess",
    "Query",
    "QuestionNotOpenError",
    "RateLimit",
    "RateLimitedError",
    "Recorded",
    "Registry",
    "Rejected",
    "RemoteBackend",
    "ReplayMismatchError",
    "ResetFailedError",
    "Retry",
    "RunBlockedError",
    "RunCancelledError",
    "RunClosedError",
    "RunConflictError",
    "RunError",
    "RunFailedError",
    "RunHandle",
    "RunView",
    "Runtime",
    "RuntimeStatistics",
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
    "StepFailedError",
    "StoreError",
    "StoreLockedError",
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
    "UndecodableEventError",
    "UnencodableError",
    "UnknownRunError",
    "UnknownTagError",
    "UnknownToolError",
    "UnknownWorkflowError",
    "UsageError",
    "WaitingRun",
    "Workflow",
    "WrongAnswerError",
    "bash",
    "bash_stateful",
    "has_tool_call",
    "parse_tool_calls",
    "read_file",
    "simulate",
    "slot_of",
    "tmux",
    "tool",
    "workflow",
    "write_file",
]
