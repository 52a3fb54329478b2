"""The facts of a run. Tags are for ever; every field is what replay or an auditor needs.

Not here: what reaches a run from outside (`mail.py`), its relatives (`links.py`), published events (`occurrences.py`),
shared state (`holdings.py`) and goals (`goal_facts.py`).
"""

from typing import Literal, TypeAlias

import msgspec

from perdure.actors.state.shared_state import StateChanged, StateMoved
from perdure.actors.tools.breaker import RefusedBy
from perdure.actors.workflows.entrance import Entrance
from perdure.actors.workflows.goal_facts import GoalTold
from perdure.actors.workflows.holdings import HOLDING_EVENTS, StateConflicted, StateRead, StateRefused, StateWritten
from perdure.actors.workflows.links import LINK_EVENTS, Chain, ChildCancelRequested, ChildRefused, ChildStarted, Parent
from perdure.actors.workflows.mail import (
    MAIL_EVENTS,
    PauseReached,
    QuestionAsked,
    QuestionExpired,
    QuestionWithdrawn,
    SignalAwaited,
    SignalExpired,
    SignalTaken,
    SignalWaitWithdrawn,
)
from perdure.actors.workflows.occurrences import (
    SUBSCRIPTION_EVENTS,
    EventAwaited,
    EventExpired,
    EventSent,
    EventTaken,
    EventWaitWithdrawn,
)
from perdure.store.codec import Event

StepKind: TypeAlias = Literal["tool", "function"]

Stuck: TypeAlias = Literal["", "compensation", "pivot"]
"""What a step that failed for good is to a saga that cannot do without it: its undoing, or a step past its pivot."""


class Origin(msgspec.Struct, frozen=True):
    """Where a fork begins: after the first `version` events of another run, whose finished steps it takes over."""

    run: str
    version: int


class Reopened(msgspec.Struct, frozen=True):
    """A step that was given up because another one failed, and goes on as after a crash when the run is retried."""

    step: str
    tool: str
    effect: str
    attempt: int


class Place(msgspec.Struct, frozen=True):
    """Where a run waits for its turn, and what its turn goes by: larger priorities come first."""

    queue: str
    priority: int = 0
    partition: str | None = None


class RunStarted(Event, frozen=True, omit_defaults=True, tag="run-started"):
    """Somebody asked for the run; `input` is the workflow's arguments by name."""

    workflow: str
    input: msgspec.Raw
    digest: str
    life: int
    deadline: int | None = None
    conversation: str | None = None
    """Whose circuits and rate limits its calls go by, where a tool has them by conversation."""
    forked_from: Origin | None = None
    parent: Parent | None = None
    chain: Chain | None = None
    place: Place | None = None
    """The queue in which it waits until `run-resumed`."""
    entrance: Entrance | None = None
    """The entry point that started it, or the run that it descends from."""


class RunResumed(Event, frozen=True, tag="run-resumed"):
    """The run's code is about to run again; durable before it does."""

    life: int
    after_crash: bool
    is_alone: bool
    """Whether no other suspect runs beside it, so that a crash can only be its doing."""
    in_flight: tuple[str, ...]
    interrupted: bool = False
    """Whether the process ended while the run was in memory, with a step in flight or not."""


class RunSuspended(Event, frozen=True, tag="run-suspended"):
    """The runtime stopped in good order; these steps had no outcome yet."""

    in_flight: tuple[str, ...]


class RunParked(Event, frozen=True, tag="run-parked"):
    """Every branch waits: the run leaves memory until `wake_at` (microseconds), or until somebody acts."""

    wake_at: int | None
    waits_on: str | None
    listens: tuple[str, ...] | None = None
    """The places of the index of sleepers at which it is listed from here on, `TYPE/…`; null: as before."""


class RunBlocked(Event, frozen=True, tag="run-blocked"):
    """The run cannot go on by itself."""

    kind: Literal["mismatch", "poison", "undecodable"]
    account: str


class RunCancelRequested(Event, frozen=True, tag="run-cancel-requested"):
    """Somebody asked for the run to be cancelled."""

    reason: str


class RunPaused(Event, frozen=True, tag="run-paused"):
    """An operator, the event's principal, stopped the run: steps in flight end, and nothing but its deadline wakes it.

    A cancel, or the deadline, ends the pause as `run-unpaused` does.
    """

    reason: str


class RunUnpaused(Event, frozen=True, tag="run-unpaused"):
    """An operator lets the run go on."""


class RunInterrupted(Event, frozen=True, tag="run-interrupted"):
    """The process ended while the run was in memory, and the runtime was told to report that: the run is held.

    It goes on when somebody resumes it; recorded when the log is opened again.
    """

    in_flight: tuple[str, ...]


class RunRetried(Event, frozen=True, tag="run-retried"):
    """An operator has a run that failed, or was blocked, tried again; what it recorded holds, but for what is named.

    `step` is the one that the run failed of. Forgotten are the failed steps `again`, the waits `waits` that were given
    up because of it, and that the branches of `forks` failed; the cancelled steps `reopened` go on as after a crash.
    """

    step: str | None = None
    again: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    forks: tuple[str, ...] = ()
    reopened: tuple[Reopened, ...] = ()


class RunCompleted(Event, frozen=True, tag="run-completed"):
    """The workflow returned."""

    result: msgspec.Raw


class RunFailed(Event, frozen=True, tag="run-failed"):
    """The workflow raised."""

    error_type: str
    error: str
    step: str | None = None
    """The key of the step whose failure it was."""
    step_id: str | None = None
    """That step of the definition, where the workflow is one; and who was to perform it."""
    agent: str | None = None
    outcome: Literal["failed", "compensated"] = "failed"
    """Whether a saga has undone all that it had done."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    """What a defined workflow had come to, where its pattern says so."""
    where: str = ""
    """The line of the application that the error came from, as `shop.py:12 in pay`; the file by its name alone."""


class RunCancelled(Event, frozen=True, tag="run-cancelled"):
    """The workflow was cancelled and its `finally` blocks have run."""

    reason: str


class StepStarted(Event, frozen=True, omit_defaults=True, tag="step-started"):
    """A step is about to be dispatched for the first time."""

    step: str
    branch: str
    kind: StepKind
    tool: str
    effect: str
    arguments: msgspec.Raw
    digest: str
    undoes: str = ""
    """The step that this one compensates, if it is a compensation."""
    past_pivot: bool = False
    """Whether a saga has passed its pivot: then the step must come to its end, however often it takes."""


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
    timed_out: bool = False
    """Whether the limit of the attempt ended it, and not the tool itself."""
    dispatched: bool = True
    """Whether the tool may have been called; false when every attempt is known to have been refused."""
    where: str = ""
    """The line of the application that the error came from, as `shop.py:12 in pay`; the file by its name alone."""


class StepCancelled(Event, frozen=True, tag="step-cancelled"):
    """The step was given up; `stopped` says whether its work is known to have ended."""

    step: str
    attempt: int
    stopped: bool
    dispatched: bool = True
    """Whether the tool may have been called."""


class StepInDoubt(Event, frozen=True, tag="step-in-doubt"):
    """What became of a step is not known, or cannot be made good; somebody has to say.

    An irreversible step was dispatched and has no outcome; or `stuck` says what failed for good and may not: the
    compensation of a step, or a step past the pivot of its saga.
    """

    step: str
    attempt: int
    reason: str
    stuck: Stuck = ""
    child: str = ""
    """The workflow of the child run that failed, if the step is one."""


class StepNotDone(Event, frozen=True, tag="step-not-done"):
    """It was found that a step in doubt did not happen: it may be dispatched."""

    step: str
    source: str


class ValueRecorded(Event, frozen=True, tag="value-recorded"):
    """A time, a random number or an id that the workflow drew."""

    step: str
    branch: str
    value: msgspec.Raw


class StepSkipped(Event, frozen=True, tag="step-skipped"):
    """A step of a definition was not performed: its conditions do not hold."""

    step: str
    branch: str
    reason: str


class PathTaken(Event, frozen=True, tag="path-taken"):
    """A conditional workflow went from one step of its definition to the next; null is its end."""

    step: str
    branch: str
    left: str
    next: str | None
    because: str


class PivotPassed(Event, frozen=True, tag="pivot-passed"):
    """A saga has passed its pivot: from here on nothing is compensated, and every step must come to its end."""

    step: str
    branch: str


class SagaFailed(Event, frozen=True, tag="saga-failed"):
    """The body of a saga failed or was cancelled; what it had done is about to be compensated."""

    step: str
    branch: str
    error_type: str
    error: str


class SagaCompensated(Event, frozen=True, tag="saga-compensated"):
    """All compensations of a saga have ended; the steps `given_up` were not undone, which a person has said."""

    step: str
    undone: tuple[str, ...]
    given_up: tuple[str, ...]


class TimerSet(Event, frozen=True, tag="timer-set"):
    """The workflow sleeps until `due` (microseconds)."""

    step: str
    branch: str
    due: int


class TimerFired(Event, frozen=True, tag="timer-fired"):
    """The sleep is over."""

    step: str


class BranchesOpened(Event, frozen=True, tag="branches-opened"):
    """A gather, a map or a race started; its branches are numbered from 0."""

    step: str
    branch: str
    count: int


class BranchesFailed(Event, frozen=True, tag="branches-failed"):
    """A branch failed and the others were cancelled; the failure with the lowest number is raised."""

    step: str
    failed: int


class RaceWon(Event, frozen=True, tag="race-won"):
    """A branch of a race ended first, with a result or a failure; the others are cancelled."""

    step: str
    winner: int


class TimeoutSet(Event, frozen=True, tag="timeout-set"):
    """A coroutine, the branch 0 of this step, has until `due` (microseconds)."""

    step: str
    branch: str
    due: int


class TimeoutPassed(Event, frozen=True, tag="timeout-passed"):
    """The time of a coroutine was over: it is cancelled, and the workflow is told."""

    step: str


class VersionChosen(Event, frozen=True, tag="version-chosen"):
    """The run's code came to a deliberate change called `name`, and goes on with this version of it to its end."""

    name: str
    version: int


RunFact: TypeAlias = (
    RunSuspended | RunParked | RunBlocked | RunCompleted | RunFailed | RunCancelled
    | StepStarted | AttemptStarted | AttemptFailed | AttemptRefused | AttemptDelayed
    | StepCompleted | StepFailed | StepCancelled | StepInDoubt | StepNotDone
    | ValueRecorded | StepSkipped | PathTaken | PivotPassed | SagaFailed | SagaCompensated
    | TimerSet | TimerFired | BranchesOpened | BranchesFailed
    | RaceWon | TimeoutSet | TimeoutPassed | VersionChosen
    | SignalAwaited | SignalTaken | SignalExpired | SignalWaitWithdrawn
    | QuestionAsked | QuestionExpired | QuestionWithdrawn | PauseReached
    | ChildStarted | ChildRefused | ChildCancelRequested
    | EventSent | EventAwaited | EventTaken | EventExpired | EventWaitWithdrawn
    | StateRead | StateWritten | StateConflicted | StateRefused | GoalTold
)  # fmt: skip
"""What the run's own code reports, as opposed to what others ask of it."""

RUN_EVENTS: tuple[type[Event], ...] = (
    RunStarted, RunResumed, RunSuspended, RunParked, RunBlocked, RunCancelRequested, RunPaused, RunUnpaused, RunRetried,
    RunCompleted, RunFailed,
    RunCancelled, StepStarted, AttemptStarted, AttemptFailed, AttemptRefused, AttemptDelayed,
    StepCompleted, StepFailed, StepCancelled, StepInDoubt, StepNotDone,
    ValueRecorded, StepSkipped, PathTaken, PivotPassed, SagaFailed, SagaCompensated,
    TimerSet, TimerFired, BranchesOpened, BranchesFailed,
    RaceWon, TimeoutSet, TimeoutPassed, VersionChosen,
    RunInterrupted,
    *MAIL_EVENTS, *LINK_EVENTS, EventSent, *SUBSCRIPTION_EVENTS, *HOLDING_EVENTS, StateChanged, StateMoved, GoalTold,
)  # fmt: skip
