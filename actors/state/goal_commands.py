"""What a goal can be asked, what it answers, and how it refuses. Data only; the rules are in `goal.py`."""

from typing import Final, Literal

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.state.goal_progress import Recommendation
from perdure.store.codec import OptionalPayload
from perdure.store.errors import PerdureError, UsageError

SETTABLE: Final = ("ready", "active", "failed", "suspended")
"""How somebody may say that a goal stands."""


class GoalCommand(Command, frozen=True, kw_only=True):
    """Base of what is recorded of a goal: which run says so, in which step, and by which entry point it came in."""

    run: str | None = None
    step: str | None = None
    entry: str | None = None


class DefineGoal(GoalCommand, frozen=True, tag="define-goal", kw_only=True):
    """Take note of what the goal is; answered with whether that is news."""

    definition: msgspec.Raw
    digest: str


class RecordDecision(GoalCommand, frozen=True, tag="record-decision", kw_only=True):
    """Record that something was decided; answered with a `GoalDecision`."""

    intent: str
    criteria: tuple[str, ...] = ()
    kind: str = "custom"
    options: OptionalPayload = msgspec.UNSET
    chosen: OptionalPayload = msgspec.UNSET
    reasoning: str = ""
    constraints: tuple[str, ...] = ()
    context: OptionalPayload = msgspec.UNSET
    is_first: bool = False
    id: str | msgspec.UnsetType = msgspec.UNSET
    """The caller's own: told again, it is the same decision. Left out of what is encoded where there is none."""


class RecordOutcome(GoalCommand, frozen=True, tag="record-outcome", kw_only=True):
    """Record what a decision came to, unless that is known; answered with a `GoalOutcome`."""

    decision: int
    success: bool
    result: OptionalPayload = msgspec.UNSET
    error: str | None = None
    summary: str = ""
    violated: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """Constraints whose check did not hold, and why."""
    unjudged: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """Constraints whose check could not tell, and why."""


class RecordViolation(GoalCommand, frozen=True, tag="record-violation", kw_only=True):
    """Record that a constraint was violated."""

    constraint: str
    details: str = ""
    id: str | msgspec.UnsetType = msgspec.UNSET


class SetGoalStatus(GoalCommand, frozen=True, tag="set-goal-status", kw_only=True):
    """Say how the goal stands; answered with whether that is news."""

    status: Literal["ready", "active", "failed", "suspended"]
    because: str = ""


class GetGoal(Command, frozen=True, tag="get-goal"):
    """Ask for the goal as it stands; answered with a `Goal`."""


class GetGoalProgress(Command, frozen=True, tag="get-goal-progress"):
    """Ask how far the goal is; answered with a `GoalProgress` without places in the log."""


class GoalDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that was recorded."""

    goal: str
    number: int
    """Of the goal's decisions, from 1; a run that resumes, or another run, never has it again."""
    intent: str
    criteria: tuple[str, ...] = ()
    """Those that its outcome counts for."""

    @property
    def id(self) -> str:
        """`GOAL#NUMBER`, by which its outcome is told."""
        return f"{self.goal}#{self.number}"


class GoalOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the goal stands once an outcome was recorded."""

    is_new: bool
    """False where the decision had an outcome, or had lapsed: nothing was counted."""
    violated: tuple[str, ...] = ()
    """Constraints whose check did not hold for this outcome."""
    progress: float
    recommendation: Recommendation
    is_achieved: bool
    """Whether the goal is achieved, by this outcome or before."""


class GoalError(PerdureError):
    """Base of what can go wrong with a goal; whatever is raised, nothing was recorded."""


class GoalConflictError(GoalError, UsageError):
    """The id belongs to another decision or violation than the one that is told under it."""

    message = "the goal {goal!r} was told something else as {told!r}: an id is for one decision or one violation"
    goal: str
    told: str


class UnknownGoalError(GoalError, UsageError, LookupError):
    """The log has no goal of that id, and the runtime none either."""

    message = "there is no goal {goal!r}: Runtime(…, goals=[Goal(id={goal!r}, …)])"
    goal: str


class UnknownCriterionError(GoalError, UsageError):
    """A decision names a criterion that its goal has not."""

    message = "the goal {goal!r} has no criterion {criterion!r}; it has {known}"
    goal: str
    criterion: str
    known: str


class UnknownDecisionError(GoalError, UsageError):
    """The outcome is of a decision that the goal has not."""

    message = "the goal {goal!r} has no decision {decision}: give what decide returned"
    goal: str
    decision: int
