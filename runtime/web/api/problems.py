"""What an error is over HTTP: a status, and one shape of body for all of them (problem details, RFC 9457).

It knows no HTTP library. Invariant: of an error that is not Perdure's only the type is told, since its text may hold
anything.
"""

import math
from http import HTTPStatus
from typing import Any, Final

import msgspec

from perdure.actors.kernel.errors import ActorStoppedError, MailboxFullError
from perdure.actors.state.errors import StateError, StatePermissionError
from perdure.actors.tools.errors import BulkheadFullError, CircuitOpenError, RateLimitedError
from perdure.actors.triggers.errors import PublicationConflictError
from perdure.actors.workflows.errors import (
    ControlRefusedError,
    QuestionNotOpenError,
    RunClosedError,
    RunConflictError,
    SignalConflictError,
    SignalRefusedError,
)
from perdure.actors.workflows.state import NotInDoubtError
from perdure.runtime.control.faults import fault_of, known_errors
from perdure.store.errors import (
    BacklogFullError,
    ConcurrencyError,
    LogClosedError,
    LogWriteError,
    PayloadTooLargeError,
    PerdureError,
    Rejected,
    UnencodableError,
    UsageError,
)

MEDIA_TYPE: Final = "application/problem+json"

_BUSY: Final = 503
_BROKEN: Final = 500

RETRY_SECONDS: Final = 1
"""After which who was turned away may try again, where the error does not say when."""

_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (PayloadTooLargeError, 413),
    (RunConflictError, 409), (PublicationConflictError, 409), (SignalConflictError, 409), (RunClosedError, 409),
    (ControlRefusedError, 409), (QuestionNotOpenError, 409), (NotInDoubtError, 409), (SignalRefusedError, 409),
    (ConcurrencyError, 409), (Rejected, 409), (StatePermissionError, 403), (StateError, 409),
    (CircuitOpenError, 503), (RateLimitedError, 503), (BulkheadFullError, 503), (MailboxFullError, 503),
    (BacklogFullError, 503), (LogWriteError, 503), (LogClosedError, 503), (ActorStoppedError, 503),
    (UnencodableError, 422),
    (LookupError, 404),
    (UsageError, 422),
)  # fmt: skip
"""The first that an error is one of; any other is a fault of the server."""


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not carried out."""

    type: str
    """A URI: `urn:perdure:problem:` and the name of the error."""
    title: str
    """The same for every problem of the type."""
    status: int
    detail: str
    """What happened this time."""
    error: str
    """The name of the error's class: `UnknownRunError`."""
    data: dict[str, Any] = {}
    """What the error says of itself, such as the `run`."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request that HTTP itself has a status for; raised before or instead of asking the runtime."""

    def __init__(self, status: int, error: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.headers = headers or {}


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """Return what is told of an error, and the headers that go with it."""
    if isinstance(error, Refused):
        title = HTTPStatus(error.status).phrase
        problem = Problem(_type(error.error), title, error.status, str(error), error.error)
        return problem, error.headers
    status = status_of(error)
    fault = fault_of(error)
    kind = known_errors().get(fault.kind, PerdureError)
    title = (kind.__doc__ or fault.kind).strip().splitlines()[0].rstrip(".")
    text = fault.text or str(fault.data.get("detail", fault.kind))
    headers = {} if status != _BUSY else {"Retry-After": str(_wait(error))}
    return Problem(_type(fault.kind), title, status, text, fault.kind, fault.data), headers


def status_of(error: Exception) -> int:
    """Return the status of the answer to a request that ended with *error*."""
    if not isinstance(error, PerdureError):
        return _BROKEN
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), _BROKEN)


def _wait(error: Exception) -> int:
    seconds = getattr(error, "retry_after_seconds", None)
    return max(RETRY_SECONDS, math.ceil(seconds)) if isinstance(seconds, (int, float)) else RETRY_SECONDS


def _type(error: str) -> str:
    return f"urn:perdure:problem:{error}"
