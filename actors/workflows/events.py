"""The facts of a run. Tags are for ever; every field is what replay or an auditor needs."""

from typing import Literal, TypeAlias

import msgspec

from perdure.actors.tools.breaker import RefusedBy
from perdure.store.codec import Event

StepKind: TypeAlias = Literal["tool", "function"]


class RunStarted(Event, frozen=True, tag="run-started"):
    """Somebody asked for the run; `input` is the workflow's arguments by name."""

    workflow: str
    input: msgspec.Raw
    digest: str
    life: int
    deadline: int | None = None
    conversation: str | None = None
    """Whose circuits and rate limits its calls go by, where a tool has them by conversation."""


class RunResumed(Event, frozen=True, tag="run-resumed"):
    """The run's code is about to run again; durable before it does."""

    life: int
    after_crash: bool
    is_alone: bool
    """Whether no other suspect runs beside it, so that a crash can only be its doing."""
    in_flight: tuple[str, ...]


class RunSuspended(Event, frozen=True, tag="run-suspended"):
    """The runtime stopped in good order; these steps had no outcome yet."""

    in_flight: tuple[str, ...]


class RunParked(Event, frozen=True, tag="run-parked"):
    """Every branch waits: the run leaves memory until `wake_at` (microseconds), or until somebody acts."""

    wake_at: int | None
    waits_on: str | None


class RunBlocked(Event, frozen=True, tag="run-blocked"):
    """The run cannot go on by itself."""

    kind: Literal["mismatch", "poison", "undecodable"]
    account: str


class RunCancelRequested(Event, frozen=True, tag="run-cancel-requested"):
    """Somebody asked for the run to be cancelled."""

    reason: str


class RunCompleted(Event, frozen=True, tag="run-completed"):
    """The workflow returned."""

    result: msgspec.Raw


class RunFailed(Event, frozen=True, tag="run-failed"):
    """The workflow raised."""

    error_type: str
    error: str
    step: str | None = None


class RunCancelled(Event, frozen=True, tag="run-cancelled"):
    """The workflow was cancelled and its `finally` blocks have run."""

    reason: str


class StepStarted(Event, frozen=True, tag="step-started"):
    """A step is about to be dispatched for the first time."""

    step: str
    branch: str
    kind: StepKind
    tool: str
    effect: str
    arguments: msgspec.Raw
    digest: str


class AttemptStarted(Event, frozen=True, tag="attempt-started"):
    """A step is about to be dispatched again."""

    step: str
    attempt: int


class AttemptFailed(Event, frozen=True, tag="attempt-failed"):
    """An attempt failed; the next one is due at `retry_at` (microseconds)."""

    step: str
    attempt: int
    error_type: str
    error: str
    retry_at: int


class AttemptRefused(Event, frozen=True, tag="attempt-refused"):
    """A guard of the tool refused an attempt, which does not count; the next try is due at `retry_at`."""

    step: str
    attempt: int
    reason: str
    retry_at: int
    by: RefusedBy | Literal[""] = ""
    """Which guard it was; "" in events from before there was this field."""


class AttemptDelayed(Event, frozen=True, tag="attempt-delayed"):
    """An attempt has its place under the tool's rate limit, and waits for it until `until` (microseconds)."""

    step: str
    attempt: int
    until: int


class StepCompleted(Event, frozen=True, tag="step-completed"):
    """The step has a result; it is never run again."""

    step: str
    result: msgspec.Raw
    attempt: int
    micros: int


class StepFailed(Event, frozen=True, tag="step-failed"):
    """The step failed for good; the workflow was told."""

    step: str
    error_type: str
    error: str
    retryable: bool
    attempt: int
    micros: int


class StepCancelled(Event, frozen=True, tag="step-cancelled"):
    """The step was given up; `stopped` says whether its work is known to have ended."""

    step: str
    attempt: int
    stopped: bool


class StepInDoubt(Event, frozen=True, tag="step-in-doubt"):
    """An irreversible step was dispatched and its outcome is not known; somebody has to say."""

    step: str
    attempt: int
    reason: str


class StepNotDone(Event, frozen=True, tag="step-not-done"):
    """It was found that a step in doubt did not happen: it may be dispatched."""

    step: str
    source: str


class ValueRecorded(Event, frozen=True, tag="value-recorded"):
    """A time, a random number or an id that the workflow drew."""

    step: str
    branch: str
    value: msgspec.Raw


class TimerSet(Event, frozen=True, tag="timer-set"):
    """The workflow sleeps until `due` (microseconds)."""

    step: str
    branch: str
    due: int


class TimerFired(Event, frozen=True, tag="timer-fired"):
    """The sleep is over."""

    step: str


class BranchesOpened(Event, frozen=True, tag="branches-opened"):
    """A gather or a map started; its branches are numbered from 0."""

    step: str
    branch: str
    count: int


class BranchesFailed(Event, frozen=True, tag="branches-failed"):
    """A branch failed and the others were cancelled; the failure with the lowest number is raised."""

    step: str
    failed: int


class SignalReceived(Event, frozen=True, tag="signal-received"):
    """Somebody sent the run a signal at `at` (microseconds); it is kept until the code takes it."""

    id: str
    name: str
    value: msgspec.Raw
    at: int


class SignalAwaited(Event, frozen=True, tag="signal-awaited"):
    """The workflow waits for the next signal of a name, at most until `until` (microseconds)."""

    step: str
    branch: str
    name: str
    until: int | None = None


class SignalTaken(Event, frozen=True, tag="signal-taken"):
    """The wait got this signal, which no other wait gets."""

    step: str
    signal: str


class SignalExpired(Event, frozen=True, tag="signal-expired"):
    """No signal came in time; the workflow was told."""

    step: str


class SignalWaitWithdrawn(Event, frozen=True, tag="signal-wait-withdrawn"):
    """The wait was cancelled: a signal that comes now is for others."""

    step: str


class QuestionAsked(Event, frozen=True, tag="question-asked"):
    """The workflow asks people; an answer must fit `schema` (JSON Schema) and be one of `choices`, unless null."""

    step: str
    branch: str
    id: str
    text: str
    schema: msgspec.Raw
    choices: msgspec.Raw
    asked_of: tuple[str, ...]
    digest: str
    until: int | None = None


class QuestionAnswered(Event, frozen=True, tag="question-answered"):
    """Somebody, the event's principal, answered; there is one answer at most."""

    step: str
    id: str
    answer: msgspec.Raw


class QuestionExpired(Event, frozen=True, tag="question-expired"):
    """Nobody answered in time; the workflow was told."""

    step: str
    id: str


class QuestionWithdrawn(Event, frozen=True, tag="question-withdrawn"):
    """The workflow was cancelled while it asked: an answer that came before and was not yet taken counts no more."""

    step: str
    id: str


RunFact: TypeAlias = (
    RunSuspended | RunParked | RunBlocked | RunCompleted | RunFailed | RunCancelled
    | StepStarted | AttemptStarted | AttemptFailed | AttemptRefused | AttemptDelayed
    | StepCompleted | StepFailed | StepCancelled | StepInDoubt | StepNotDone
    | ValueRecorded | TimerSet | TimerFired | BranchesOpened | BranchesFailed
    | SignalAwaited | SignalTaken | SignalExpired | SignalWaitWithdrawn
    | QuestionAsked | QuestionExpired | QuestionWithdrawn
)  # fmt: skip
"""What the run's own code reports, as opposed to what others ask of it."""

RUN_EVENTS: tuple[type[Event], ...] = (
    RunStarted, RunResumed, RunSuspended, RunParked, RunBlocked, RunCancelRequested, RunCompleted, RunFailed,
    RunCancelled, StepStarted, AttemptStarted, AttemptFailed, AttemptRefused, AttemptDelayed,
    StepCompleted, StepFailed, StepCancelled, StepInDoubt, StepNotDone,
    ValueRecorded, TimerSet, TimerFired, BranchesOpened, BranchesFailed,
    SignalReceived, SignalAwaited, SignalTaken, SignalExpired, SignalWaitWithdrawn,
    QuestionAsked, QuestionAnswered, QuestionExpired, QuestionWithdrawn,
)  # fmt: skip
