"""The actor of one goal, `goal/ID`: decisions, their outcomes, violations, and whether it is achieved. Pure.

Not here: how progress is counted (`goal_progress.py`), and the checks of constraints, which are the application's and
run before (`goals.py`). Invariants: an outcome counts once; `goal-achieved` is said once; what is kept in memory of a
decision is let go with its outcome, and the counters stay exact all the same.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Decision, Event, Index, Moment
from perdure.actors.state.goal_commands import (
    SETTABLE,
    DefineGoal,
    GetGoal,
    GetGoalProgress,
    GoalCommand,
    GoalDecision,
    GoalOutcome,
    RecordDecision,
    RecordOutcome,
    RecordViolation,
    SetGoalStatus,
    UnknownCriterionError,
    UnknownDecisionError,
    UnknownGoalError,
)
from perdure.actors.state.goal_events import (
    GOAL_EVENTS,
    ConstraintViolated,
    CriterionStanding,
    DecisionLapsed,
    DecisionMade,
    GoalAchieved,
    GoalDefined,
    GoalProgressed,
    GoalStatusChanged,
    OutcomeRecorded,
)
from perdure.actors.state.goal_model import Constraint, Goal
from perdure.actors.state.goal_progress import (
    CriterionProgress,
    GoalProgress,
    Recommendation,
    is_about,
    is_met,
    overall_progress,
    recommendation,
)
from perdure.actors.state.goal_state import MAX_OPEN, GoalState, evolve, shown
from perdure.actors.state.goal_told import digest_of_decision, digest_of_violation, told_before
from perdure.store.errors import InternalError, UsageError
from perdure.store.records import StreamId

_HELD_BACK: Final = ("failed", "suspended")
"""How a goal stands that is not achieved whatever its progress."""


class GoalBehavior:
    """The rules of a goal."""

    kind = "goal"
    state_type = GoalState
    state_version = 1
    events = GOAL_EVENTS

    def initial(self, stream: StreamId) -> GoalState:
        """Return the state of a goal that nobody has defined."""
        return GoalState(stream.partition("/")[2])

    def decide(self, state: GoalState, command: Any, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case DefineGoal():
                return _define(state, command)
            case GetGoal():
                return Decision((), goal_as_it_stands(_defined(state)))
            case GetGoalProgress():
                return Decision((), progress_of(_defined(state)))
            case RecordDecision():
                return _record_decision(_defined(state), command)
            case RecordOutcome():
                return _record_outcome(_defined(state), command)
            case RecordViolation():
                return _record_violation(_defined(state), command)
            case SetGoalStatus():
                return _set_status(_defined(state), command)
            case _:
                raise InternalError(detail=f"a goal does not understand {type(command).__name__}")

    def evolve(self, state: GoalState, event: Event) -> GoalState:
        """Return the state after *event*."""
        return evolve(state, event)

    def index(self, state: GoalState) -> Index:
        """Return that the goal is open work until it is completed or failed."""
        return Index(is_open=state.status not in ("completed", "failed"))


def goal_of(state: GoalState) -> Goal:
    """Return the goal as it was defined.

    Raises:
        UnknownGoalError: it was not.
    """
    if state.definition is None:
        raise UnknownGoalError(goal=state.id)
    return state.definition.goal


def goal_as_it_stands(state: GoalState) -> Goal:
    """Return the goal with its status, and which of its criteria are met."""
    goal = goal_of(state)
    criteria = tuple(msgspec.structs.replace(one, met=is_met(one, state.counts_of(one.id))) for one in goal.criteria)
    return msgspec.structs.replace(goal, status=state.status, criteria=criteria)


def progress_of(state: GoalState) -> GoalProgress:
    """Return how far the goal is, without places in the log."""
    goal = goal_of(state)
    return GoalProgress(
        goal=state.id,
        status=state.status,
        overall=overall_progress(goal, state.counts),
        recommendation=_recommended(state),
        criteria=tuple(
            CriterionProgress(
                id=one.id,
                description=one.description,
                met=is_met(one, held := state.counts_of(one.id)),
                progress=held.progress,
                weight=one.weight,
                target=one.target,
                decisions=held.decisions,
                successes=held.successes,
                failures=held.failures,
                evidence=state.evidence.get(one.id, ()),
            )
            for one in goal.criteria
        ),
        decisions=state.decisions,
        successes=state.successes,
        failures=state.failures,
        lapsed=state.lapsed,
        violations=state.violations,
        unjudged=state.unjudged,
        runs=state.runs,
        streams=len(state.streams),
    )


def criteria_for(state: GoalState, command: RecordDecision) -> tuple[str, ...]:
    """Return the criteria that a decision is for: those that it names, and with `match_text` those that it is about.

    Raises:
        UnknownCriterionError: it names one that the goal has not.
    """
    goal = goal_of(state)
    known = [one.id for one in goal.criteria]
    for criterion in command.criteria:
        if criterion not in known:
            raise UnknownCriterionError(goal=state.id, criterion=criterion, known=", ".join(known) or "none")
    if not goal.match_text:
        return tuple(dict.fromkeys(command.criteria))
    constraints, words = str(list(command.constraints)), f"{command.intent} {command.reasoning}"
    about = [one.id for one in goal.criteria if is_about(one, constraints=constraints, words=words)]
    return tuple(dict.fromkeys((*command.criteria, *about)))


def _defined(state: GoalState) -> GoalState:
    goal_of(state)
    return state


def _define(state: GoalState, command: DefineGoal) -> Decision[bool]:
    if state.digest == command.digest:
        return Decision((), reply=False)
    events, _ = _with_progress(state, [GoalDefined(command.definition, command.digest)], command)
    return Decision(events, reply=True)


def _record_decision(state: GoalState, command: RecordDecision) -> Decision[GoalDecision]:
    made_of = "" if command.id is msgspec.UNSET else digest_of_decision(command)
    if (before := told_before(state.id, state.told, command, made_of)) is not None:
        known = GoalDecision(goal=state.id, number=before.number, intent=command.intent, criteria=before.criteria)
        return Decision((), known)
    criteria, number = criteria_for(state, command), state.decisions + 1
    made = DecisionMade(
        decision=number,
        intent=command.intent,
        criteria=criteria,
        kind=command.kind,
        options=command.options,
        chosen=command.chosen,
        reasoning=command.reasoning,
        constraints=command.constraints,
        context=command.context,
        run=command.run,
        step=command.step,
        entry=command.entry,
        is_first=command.is_first,
        id=None if command.id is msgspec.UNSET else command.id,
        digest=made_of,
    )
    lapsed = [DecisionLapsed(next(iter(state.open)))] if len(state.open) >= MAX_OPEN else []
    reply = GoalDecision(goal=state.id, number=number, intent=command.intent, criteria=criteria)
    return Decision(_with_progress(state, [*lapsed, made], command)[0], reply)


def _record_outcome(state: GoalState, command: RecordOutcome) -> Decision[GoalOutcome]:
    if command.decision not in state.open:
        if not 0 < command.decision <= state.decisions:
            raise UnknownDecisionError(goal=state.id, decision=command.decision)
        return Decision((), _outcome(state, is_new=False))  # it has its outcome, or lapsed
    constraints = {one.id: one for one in goal_of(state).constraints}
    recorded = OutcomeRecorded(
        decision=command.decision,
        success=command.success,
        result=command.result,
        error=command.error,
        summary=command.summary,
        unjudged=command.unjudged,
        run=command.run,
        step=command.step,
        entry=command.entry,
    )
    violated = [
        _violated(constraints[id], details, command, command.decision)
        for id, details in command.violated.items()
        if id in constraints
    ]
    events, after = _with_progress(state, [recorded, *violated], command)
    return Decision(events, _outcome(after, is_new=True, violated=tuple(one.constraint for one in violated)))


def _record_violation(state: GoalState, command: RecordViolation) -> Decision[None]:
    found = next((one for one in goal_of(state).constraints if one.id == command.constraint), None)
    if found is None:
        known = ", ".join(one.id for one in goal_of(state).constraints) or "none"
        raise UsageError(f"the goal {state.id!r} has no constraint {command.constraint!r}; it has {known}")
    made_of = digest_of_violation(command.constraint, command.details)
    if told_before(state.id, state.told, command, made_of) is not None:
        return Decision((), None)
    violated = _violated(found, command.details, command, None)
    if command.id is not msgspec.UNSET:
        violated = msgspec.structs.replace(violated, id=command.id)
    events, _ = _with_progress(state, [violated], command)
    return Decision(events, None)


def _violated(
    constraint: Constraint, details: str, command: RecordOutcome | RecordViolation, decision: int | None
) -> ConstraintViolated:
    return ConstraintViolated(
        constraint=constraint.id,
        severity=constraint.type,
        description=constraint.description,
        details=details,
        decision=decision,
        run=command.run,
        step=command.step,
        entry=command.entry,
    )


def _set_status(state: GoalState, command: SetGoalStatus) -> Decision[bool]:
    if command.status == state.status:
        return Decision((), reply=False)
    if state.status == "completed":
        raise UsageError(f"the goal {state.id!r} is completed, and stays so: give what comes next a goal of its own")
    if command.status not in SETTABLE:
        raise UsageError(f"a goal is made {', '.join(SETTABLE)}, not {command.status!r}; progress completes it")
    changed = GoalStatusChanged(command.status, command.because)
    return Decision(_with_progress(state, [changed], command)[0], reply=True)


def _outcome(state: GoalState, *, is_new: bool, violated: tuple[str, ...] = ()) -> GoalOutcome:
    return GoalOutcome(
        is_new=is_new,
        violated=violated,
        progress=overall_progress(goal_of(state), state.counts),
        recommendation=_recommended(state),
        is_achieved=state.is_achieved,
    )


def _with_progress(
    state: GoalState, events: Sequence[Event], command: GoalCommand
) -> tuple[tuple[Event, ...], GoalState]:
    """Return *events* with what follows of them, that the goal progressed or is achieved, and the state after all."""
    for event in events:
        state = evolve(state, event)
    progressed = GoalProgressed(
        progress=overall_progress(goal_of(state), state.counts),
        criteria_status={
            one.id: CriterionStanding(is_met(one, held := state.counts_of(one.id)), held.progress)
            for one in goal_of(state).criteria
        },
        recommendation=_recommended(state),
        run=command.run,
        entry=command.entry,
    )
    following: list[Event] = []
    if state.shown != shown(progressed):
        following.append(progressed)
    if progressed.recommendation == "complete" and not state.is_achieved and state.status not in _HELD_BACK:
        following.append(GoalAchieved(progressed.progress, command.run, command.entry))
    for event in following:
        state = evolve(state, event)
    return (*events, *following), state


def _recommended(state: GoalState) -> Recommendation:
    return recommendation(
        goal_of(state), state.counts, decisions=state.decisions, hard_violations=state.hard_violations
    )
