"""What can go wrong with a run, and the signals that are no errors."""

from perdure.store.errors import PerdureError, UsageError


class RunError(PerdureError):
    """Base of the errors of runs."""


class UnknownRunError(RunError, LookupError):
    """No run has that id."""

    message = "there is no run {run!r} in this log"
    run: str


class UnknownWorkflowError(RunError, LookupError):
    """No workflow of that name is registered."""

    message = "no workflow named {workflow!r} is registered; there are {known}"
    workflow: str
    known: str


class RunConflictError(RunError, UsageError):
    """The id belongs to a run of another workflow, or with other input."""

    message = "the id {run!r} belongs to a run of {workflow} with {difference}: choose another id, or leave it out"
    run: str
    workflow: str
    difference: str


class StepFailedError(RunError):
    """A step failed for good; raised inside the workflow, the same live and replayed.

    The original exception is the `__cause__` only live.
    """

    message = "step {step} failed: {error_type}: {error}"
    step: str
    error_type: str
    error: str
    retryable: bool


class RunFailedError(RunError):
    """The run's workflow raised."""

    message = "run {run} failed: {error_type}: {error}"
    run: str
    error_type: str
    error: str


class RunCancelledError(RunError):
    """The run was cancelled."""

    message = "run {run} was cancelled: {reason}"
    run: str
    reason: str


class RunBlockedError(RunError):
    """The run is parked until somebody acts: its code changed, or it kills the process."""

    message = "run {run} is blocked ({kind}): {account}"
    run: str
    kind: str
    account: str


class ReplayMismatchError(RunError):
    """The code does not fit what is recorded; the run is parked with this account."""

    message = "{account}"
    account: str


class RunClosedError(RunError):
    """The run has ended: nothing can be sent to it."""

    message = "run {run} is {status}: nothing can be sent to it any more"
    run: str
    status: str


class SignalRefusedError(RunError):
    """The run keeps as many signals as it may, or this one is too large; it was not sent."""

    message = "run {run} takes no signal {name!r}: {reason}"
    run: str
    name: str
    reason: str


class SignalConflictError(RunError, UsageError):
    """The id belongs to a signal with another name or another value."""

    message = "run {run} got another signal with the id {signal!r}: an id is for one name and one value"
    run: str
    signal: str


class QuestionNotOpenError(RunError):
    """Nobody waits for an answer to the question."""

    message = "question {question!r} of run {run} is not open: answered, expired, withdrawn, or never asked"
    run: str
    question: str


class WrongAnswerError(RunError, UsageError):
    """The answer does not fit the question; nothing was recorded."""

    message = "that does not answer {question!r}: {reason}"
    question: str
    reason: str


class DeadlineExceededError(RunError, TimeoutError):
    """The run's deadline has passed."""

    message = "the deadline of run {run} has passed"
    run: str


class Parked(BaseException):
    """Thrown into a workflow that leaves memory; it will be resumed from the log.

    `finally` blocks run; they must not call `ctx`, which refuses from here on by raising this again.
    """
