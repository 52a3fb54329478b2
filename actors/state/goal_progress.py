"""How far a goal is: the formula of founding document 003 over counts of outcomes. Pure; nothing is stored here.

A criterion's progress is the share of successes among the outcomes of the decisions made for it; it is met from its
target on, and then counts in full. Invariant: the counts alone decide, so the order of outcomes never matters.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from perdure.actors.state.goal_model import Criterion, Goal, GoalStatus, share_wanted

Recommendation: TypeAlias = Literal["continue", "complete", "adjust"]

_COMPLETE = 0.95
_POOR = 0.3
_ENOUGH_DECISIONS = 10


class Counts(msgspec.Struct, frozen=True):
    """What became of the decisions for one criterion."""

    decisions: int = 0
    successes: int = 0
    failures: int = 0

    @property
    def progress(self) -> float:
        """The share of successes; 0 without outcomes."""
        return self.successes / max(1, self.successes + self.failures)


class Evidence(msgspec.Struct, frozen=True):
    """An outcome that counts for a criterion, and where in the log it is."""

    intent: str
    success: bool
    decision: int
    run: str | None = None
    position: int | None = None
    """Of `outcome-recorded` in the log; None where it was not looked for."""

    def __str__(self) -> str:
        return f"{self.intent}: {'success' if self.success else 'failed'}"


class CriterionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a criterion is."""

    id: str
    description: str
    met: bool
    progress: float
    weight: float
    target: Any
    decisions: int
    successes: int
    failures: int
    evidence: tuple[Evidence, ...] = ()
    """The newest outcomes, at most five, the oldest of them first."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, or what somebody reported, that a constraint forbids."""

    constraint: str
    severity: str
    """`hard` or `soft`."""
    description: str
    details: str
    decision: int | None = None
    run: str | None = None
    entry: str | None = None
    position: int | None = None
    at: datetime | None = None
    """UTC."""


class GoalProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a goal is, and what it rests on."""

    goal: str
    status: GoalStatus
    overall: float
    """From 0 to 1."""
    recommendation: Recommendation
    criteria: tuple[CriterionProgress, ...]
    decisions: int
    successes: int
    failures: int
    lapsed: int = 0
    """Decisions given up without an outcome, since too many others waited for theirs."""
    violations: dict[str, int] = {}
    """How often each constraint was violated, exactly."""
    unjudged: dict[str, int] = {}
    """How often the check of a constraint could not tell, exactly."""
    newest_violations: tuple[Violation, ...] = ()
    """The newest ones, at most a hundred, the oldest of them first."""
    runs: int = 0
    """Runs that made a decision for it."""
    streams: int = 0
    """Entry points that those came in by."""

    @property
    def success_rate(self) -> float:
        """The share of successes among all outcomes; 0 without any."""
        return self.successes / max(1, self.successes + self.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return the same in the shape of founding document 003, evidence with its positions beside it."""
        return {
            "overall_progress": self.overall,
            "criteria_status": {
                one.id: {
                    "description": one.description,
                    "met": one.met,
                    "progress": one.progress,
                    "evidence": [str(each) for each in one.evidence],
                    "positions": [each.position for each in one.evidence],
                }
                for one in self.criteria
            },
            "constraint_violations": [
                {
                    "constraint_id": one.constraint,
                    "description": one.description,
                    "details": one.details,
                    "stream_id": one.entry,
                    "timestamp": None if one.at is None else one.at.isoformat(),
                    "position": one.position,
                }
                for one in self.newest_violations
            ],
            "metrics": {
                "total_decisions": self.decisions,
                "successful_outcomes": self.successes,
                "failed_outcomes": self.failures,
                "success_rate": self.success_rate,
                "streams_active": self.streams,
                "executions_total": self.runs,
            },
            "recommendation": self.recommendation,
        }


def is_met(criterion: Criterion, counts: Counts) -> bool:
    """Return whether a criterion is met: never without a decision for it."""
    return counts.decisions > 0 and counts.progress >= share_wanted(criterion.target)


def overall_progress(goal: Goal, counts: Mapping[str, Counts]) -> float:
    """Return the progress of all criteria by their weights; 0 without criteria, or where nothing has weight."""
    done = total = 0.0
    for criterion in goal.criteria:
        held = counts.get(criterion.id, Counts())
        done += criterion.weight * (1.0 if is_met(criterion, held) else held.progress)
        total += criterion.weight
    return done / total if total else 0.0


def recommendation(goal: Goal, counts: Mapping[str, Counts], *, decisions: int, hard_violations: int) -> Recommendation:
    """Return what is to be done: a goal is complete only when every criterion is met, however small its weight."""
    overall = overall_progress(goal, counts)
    if hard_violations:
        return "adjust"
    if overall >= _COMPLETE and all(is_met(one, counts.get(one.id, Counts())) for one in goal.criteria):
        return "complete"
    if overall < _POOR and decisions > _ENOUGH_DECISIONS:
        return "adjust"
    return "continue"


def is_about(criterion: Criterion, *, constraints: str, words: str) -> bool:
    """Return whether a decision is about a criterion that it does not name, by founding document 003's rule on texts.

    Args:
        criterion: whose id or description is looked for.
        constraints: the decision's active constraints as one text.
        words: its intent and reasoning as one text.
    """
    if criterion.id in constraints:
        return True
    words = words.lower()
    return sum(word in words for word in criterion.description.lower().split()) >= 2  # noqa: PLR2004 - the rule's
