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
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.definition import Done, NotDone, Tool, ToolContext, tool
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
    ReplayMismatchError,
    RunBlockedError,
    RunCancelledError,
    RunConflictError,
    RunError,
    RunFailedError,
    StepFailedError,
    UnknownRunError,
    UnknownWorkflowError,
)
from perdure.actors.workflows.run import NotInDoubtError, RunView
from perdure.runtime.app import Runtime, RuntimeStatistics
from perdure.runtime.bridge import BlockingRun, BlockingRuntime
from perdure.runtime.handle import RunHandle
from perdure.runtime.recovery import WaitingRun
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
    "AskTimeoutError",
    "BacklogFullError",
    "BlockingRun",
    "BlockingRuntime",
    "BreakerPolicy",
    "BulkheadFullError",
    "CircuitOpenError",
    "ConcurrencyError",
    "Context",
    "CorruptLogError",
    "DeadlineExceededError",
    "Done",
    "InternalError",
    "InvalidArgumentsError",
    "LogClosedError",
    "LogReader",
    "LogWriteError",
    "MailboxFullError",
    "NotALogError",
    "NotDone",
    "NotInDoubtError",
    "Parked",
    "PastCall",
    "PayloadTooLargeError",
    "PerdureError",
    "Query",
    "RateLimit",
    "RateLimitedError",
    "Recorded",
    "Registry",
    "Rejected",
    "ReplayMismatchError",
    "Retry",
    "RunBlockedError",
    "RunCancelledError",
    "RunConflictError",
    "RunError",
    "RunFailedError",
    "RunHandle",
    "RunView",
    "Runtime",
    "RuntimeStatistics",
    "SchemaTooNewError",
    "Secret",
    "Settings",
    "Simulation",
    "SqliteTooOldError",
    "StepFailedError",
    "StoreError",
    "StoreLockedError",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolFailedError",
    "ToolStatistics",
    "Toolset",
    "UndecodableEventError",
    "UnencodableError",
    "UnknownRunError",
    "UnknownTagError",
    "UnknownToolError",
    "UnknownWorkflowError",
    "UsageError",
    "WaitingRun",
    "Workflow",
    "simulate",
    "tool",
    "workflow",
]
