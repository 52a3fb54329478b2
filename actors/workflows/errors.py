"""What can go wrong with a run, and the signals that are no errors."""

from typing import Any

from perdure.store.errors import PerdureError, UsageError


class RunError(PerdureError):
    """Base of the errors of runs."""


class UnknownRunError(RunError, LookupError):
    """No run has that id."""

    message = "there is no run {run!r} in this log"
    run: str


class OrchestrationError(RunError):
    """Base of what can go wrong with a workflow as a whole; says which, and where there is one, the step and the agent.

    The original exception is the `__cause__` only live.
    """

    workflow_id: str = ""
    step_id: str | None = None
    agent: str | None = None


class WorkflowFailedError(OrchestrationError):
    """A defined workflow ended without success; names the step and the agent, where there are any.

    `error_type` is the name of the class of what went wrong, the same live and replayed; `result` is what the workflow
    had come to, in the shape of its pattern, where it says so.
    """

    message = "Workflow execution failed: {error}"
    error_type: str
    error: str
    status: str = "failed"
    """`failed`; `compensated`: a saga that undid all that it had done; `timed_out`; `cancelled`."""
    result: Any = None


class UnknownWorkflowError(OrchestrationError, LookupError):
    """No workflow of that name is registered."""

    message = "workflow {workflow!r} not found; registered are {known}"
    workflow: str
    known: str

    def __init__(self, **data: object) -> None:
        super().__init__(**{"workflow_id": data.get("workflow", ""), **data})


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
    timed_out: bool = False
    """Whether the limit of the attempt ended it, and not the tool itself."""


class CompensationFailedError(RunError):
    """A saga failed, and what undoes some of its steps was given up by a person: they stay done."""

    message = "saga {saga} was not undone: {given_up} given up, after: {after}"
    saga: str
    given_up: str
    """The keys of the steps that were not undone."""
    after: str
    """Why the saga failed."""


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


class ControlRefusedError(RunError):
    """The run cannot be paused, retried or forked as it stands; nothing was recorded."""

    message = "run {run} cannot be {what}: {reason}"
    run: str
    what: str
    reason: str


class UnknownStepError(RunError, LookupError):
    """The run has recorded no step of that key."""

    message = "run {run} has no step {step!r}; it has {known}"
    run: str
    step: str
    known: str


class RunContinuedError(RunError):
    """The run goes on as another one; handles follow it by themselves."""

    message = "run {run} goes on as {following}"
    run: str
    following: str


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


class Continuing(BaseException):
    """Thrown by `ctx.continue_as_new`: the run ends, and goes on as a new one with this input (JSON)."""

    def __init__(self, data: bytes) -> None:
        super().__init__("the run goes on as a new one")
        self.data = data
