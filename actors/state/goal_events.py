"""The facts of a goal, `goal/ID`: what was decided for it, what came of that, and how far it got.

Tags are for ever. Not here: the facts of the runs that decide (`actors/workflows/goals.py`), in the same units.
"""

import msgspec

from perdure.store.codec import Event, OptionalPayload


class GoalDefined(Event, frozen=True, tag="goal-defined"):
    """An application has this goal; functions among its checks are there by name. Again when it changed."""

    definition: msgspec.Raw
    digest: str


class DecisionMade(Event, frozen=True, omit_defaults=True, tag="decision-made"):
    """Somebody decided something for the goal; `criteria` are those that its outcome counts for."""

    decision: int
    intent: str
    criteria: tuple[str, ...] = ()
    kind: str = "custom"
    options: OptionalPayload = msgspec.UNSET
    chosen: OptionalPayload = msgspec.UNSET
    reasoning: str = ""
    constraints: tuple[str, ...] = ()
    """Those that were considered."""
    context: OptionalPayload = msgspec.UNSET
    """What was known."""
    run: str | None = None
    step: str | None = None
    entry: str | None = None
    """The entry point that the run came in by."""
    is_first: bool = False
    """Whether it is the run's first decision for the goal."""
    id: str | None = None
    """The caller's id for it, if it was given one."""
    digest: str = ""
    """The digest of what was said under `id`; empty without one."""


class DecisionLapsed(Event, frozen=True, tag="decision-lapsed"):
    """Too many decisions wait for their outcome: this one, the oldest, is not waited for any more."""

    decision: int


class OutcomeRecorded(Event, frozen=True, omit_defaults=True, tag="outcome-recorded"):
    """What a decision came to, once; `unjudged` says which checks could not tell, and why."""

    decision: int
    success: bool
    result: OptionalPayload = msgspec.UNSET
    error: str | None = None
    summary: str = ""
    unjudged: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    run: str | None = None
    step: str | None = None
    entry: str | None = None


class ConstraintViolated(Event, frozen=True, omit_defaults=True, tag="constraint-violated"):
    """A check did not hold for an outcome, or somebody reported a violation."""

    constraint: str
    severity: str
    """`hard` or `soft`, as it was then."""
    description: str = ""
    details: str = ""
    decision: int | None = None
    run: str | None = None
    step: str | None = None
    entry: str | None = None
    id: str | None = None
    """The reporter's id for it, if it was given one."""


class CriterionStanding(msgspec.Struct, frozen=True):
    """How far a criterion is."""

    met: bool
    progress: float


class GoalProgressed(Event, frozen=True, omit_defaults=True, tag="goal-progressed"):
    """The progress of the goal, or what is recommended, is another one than before."""

    progress: float
    criteria_status: dict[str, CriterionStanding]
    recommendation: str
    run: str | None = None
    entry: str | None = None


class GoalAchieved(Event, frozen=True, omit_defaults=True, tag="goal-achieved"):
    """Every criterion is met, and no hard constraint was ever violated; said once."""

    progress: float
    run: str | None = None
    entry: str | None = None


class GoalStatusChanged(Event, frozen=True, omit_defaults=True, tag="goal-status-changed"):
    """Somebody, the event's principal, set how the goal stands."""

    status: str
    because: str = ""


GOAL_EVENTS: tuple[type[Event], ...] = (
    GoalDefined, DecisionMade, DecisionLapsed, OutcomeRecorded, ConstraintViolated, GoalProgressed, GoalAchieved,
    GoalStatusChanged,
)  # fmt: skip
