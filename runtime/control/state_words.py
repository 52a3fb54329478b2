"""The requests about what runs share: state and goals. Pure data; see `words.py`."""

from typing import Any, Literal, TypeAlias

from perdure.actors.state.goal_commands import GoalDecision
from perdure.runtime.control.request import Word


class RecentChanges(Word, frozen=True, tag="recent-changes"):
    """List the newest changes of the state in all scopes."""

    limit: int = 10


class DropState(Word, frozen=True, tag="drop-state"):
    """Delete all values of a scope."""

    stream: str | None = None
    conversation: str | None = None
    who: str | None = None


class StateStatistics(Word, frozen=True, tag="state-statistics"):
    """Ask for the figures of the state."""


class ListGoals(Word, frozen=True, tag="goals"):
    """List the goals that the owner was given, as they stand."""


class RecordDecision(Word, frozen=True, tag="record-decision"):
    """Record that something was decided for a goal."""

    goal: str
    intent: str
    criteria: tuple[str, ...] | str = ()
    options: tuple[Any, ...] = ()
    chosen: Any = None
    reasoning: str = ""
    constraints: tuple[str, ...] | str = ()
    kind: str = "custom"
    context: dict[str, Any] | None = None
    who: str | None = None
    id: str | None = None


class RecordOutcome(Word, frozen=True, tag="record-outcome"):
    """Record what a decision came to."""

    decision: GoalDecision | str
    success: bool
    result: Any = None
    error: str | None = None
    summary: str = ""
    who: str | None = None


class RecordViolation(Word, frozen=True, tag="record-violation"):
    """Record that a constraint of a goal was violated."""

    goal: str
    constraint: str
    details: str = ""
    who: str | None = None
    id: str | None = None


class SetGoalStatus(Word, frozen=True, tag="set-goal-status"):
    """Say how a goal stands."""

    goal: str
    status: Literal["ready", "active", "failed", "suspended"]
    because: str = ""
    who: str | None = None


StateWord: TypeAlias = (
    RecentChanges | DropState | StateStatistics | ListGoals | RecordDecision | RecordOutcome | RecordViolation
    | SetGoalStatus
)  # fmt: skip
