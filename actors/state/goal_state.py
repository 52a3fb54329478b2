"""What the log knows of one goal, and what an event makes of it. Frozen data and a pure fold.

It is replayed for ever: a change of what an event means raises `GoalBehavior.state_version`. Invariant: its size is
bounded by the goal's parts and by the decisions that wait for their outcome, never by those that have one.
"""

from typing import Final, TypeAlias, cast

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.state.goal_events import (
    ConstraintViolated,
    DecisionLapsed,
    DecisionMade,
    GoalAchieved,
    GoalDefined,
    GoalProgressed,
    GoalStatusChanged,
    OutcomeRecorded,
)
from perdure.actors.state.goal_model import GoalDefinition, GoalStatus
from perdure.actors.state.goal_progress import Counts, Evidence
from perdure.actors.state.goal_told import Told, digest_of_violation, with_told

MAX_OPEN: Final = 10_000
"""Decisions that wait for their outcome: then the oldest lapses, which is an event."""
_INTENT_KEPT: Final = 200
"""Characters of an intent that are in memory, for evidence; the log has all of it."""
_EVIDENCE_KEPT: Final = 5
"""Outcomes of a criterion, as founding document 003 shows them."""
_STREAMS_KEPT: Final = 1_000
"""Entry points whose runs decided something; no application has so many."""

Shown: TypeAlias = tuple[float, str, tuple[tuple[str, bool, float], ...]]
"""What `goal-progressed` said last: progress, recommendation, and how each criterion stands."""

_definition = msgspec.json.Decoder(GoalDefinition).decode
_replace = msgspec.structs.replace


class OpenDecision(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision without an outcome."""

    intent: str
    criteria: tuple[str, ...] = ()


class GoalState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the log knows of a goal."""

    id: str
    definition: GoalDefinition | None = None
    digest: str = ""
    status: GoalStatus = "draft"
    decisions: int = 0
    successes: int = 0
    failures: int = 0
    lapsed: int = 0
    open: dict[int, OpenDecision] = {}
    """By number, the oldest first."""
    counts: dict[str, Counts] = {}
    evidence: dict[str, tuple[Evidence, ...]] = {}
    violations: dict[str, int] = {}
    hard_violations: int = 0
    unjudged: dict[str, int] = {}
    runs: int = 0
    streams: tuple[str, ...] = ()
    shown: Shown = (0.0, "continue", ())
    is_achieved: bool = False
    told: dict[str, Told] = {}
    """What was reported under an id of the reporter's, by that id, the newest last."""

    def counts_of(self, criterion: str) -> Counts:
        """Return what became of the decisions for a criterion."""
        return self.counts.get(criterion) or Counts()


def evolve(state: GoalState, event: Event) -> GoalState:
    """Return the state after *event*."""
    match event:
        case GoalDefined():
            return _defined(state, event)
        case DecisionMade():
            return _decided(state, event)
        case DecisionLapsed(decision=decision):
            left = {number: one for number, one in state.open.items() if number != decision}
            return _replace(state, open=left, lapsed=state.lapsed + 1)
        case OutcomeRecorded():
            return _ended(state, event)
        case ConstraintViolated(constraint=id, severity=severity):
            violations = {**state.violations, id: state.violations.get(id, 0) + 1}
            told = state.told
            if event.id is not None:
                told = with_told(told, event.id, Told(digest_of_violation(id, event.details)))
            hard = state.hard_violations + (severity == "hard")
            return _replace(state, violations=violations, hard_violations=hard, told=told)
        case GoalProgressed():
            return _replace(state, shown=shown(event))
        case GoalAchieved():
            return _replace(state, status="completed", is_achieved=True)
        case GoalStatusChanged(status=status):
            return _replace(state, status=cast("GoalStatus", status))
        case _:
            return state


def shown(event: GoalProgressed) -> Shown:
    """Return what `goal-progressed` says, but for who brought it about."""
    standing = tuple((id, one.met, one.progress) for id, one in event.criteria_status.items())
    return (event.progress, event.recommendation, standing)


def _defined(state: GoalState, event: GoalDefined) -> GoalState:
    definition = _definition(event.definition)
    goal = definition.goal
    # What was counted for a criterion holds, however it is worded now; what is no criterion any more is let go.
    return _replace(
        state,
        definition=definition,
        digest=event.digest,
        status=goal.status if state.definition is None else state.status,
        counts={one.id: state.counts_of(one.id) for one in goal.criteria},
        evidence={one.id: state.evidence[one.id] for one in goal.criteria if one.id in state.evidence},
        shown=state.shown if state.definition is not None else _nothing_yet(definition),
    )


def _nothing_yet(definition: GoalDefinition) -> Shown:
    return (0.0, "continue", tuple((one.id, False, 0.0) for one in definition.goal.criteria))


def _decided(state: GoalState, event: DecisionMade) -> GoalState:
    counts = dict(state.counts)
    for id in event.criteria:
        held = state.counts_of(id)
        counts[id] = _replace(held, decisions=held.decisions + 1)
    told = state.told
    if event.id is not None:
        told = with_told(told, event.id, Told(event.digest, event.decision, event.criteria))
    return _replace(
        state,
        status="active" if state.status in ("draft", "ready") else state.status,
        decisions=event.decision,
        open={**state.open, event.decision: OpenDecision(event.intent[:_INTENT_KEPT], event.criteria)},
        counts=counts,
        runs=state.runs + event.is_first,
        streams=_with_entry(state.streams, event.entry),
        told=told,
    )


def _with_entry(streams: tuple[str, ...], entry: str | None) -> tuple[str, ...]:
    if entry is None or entry in streams or len(streams) >= _STREAMS_KEPT:
        return streams
    return (*streams, entry)


def _ended(state: GoalState, event: OutcomeRecorded) -> GoalState:
    left = dict(state.open)
    made = left.pop(event.decision, OpenDecision(""))
    counts, evidence = dict(state.counts), dict(state.evidence)
    for id in made.criteria:
        if id not in counts:
            continue  # it was a criterion when the decision was made, and is none any more
        held = counts[id]
        counts[id] = _replace(
            held, successes=held.successes + event.success, failures=held.failures + (not event.success)
        )
        proof = Evidence(made.intent, event.success, event.decision, event.run)
        evidence[id] = (*evidence.get(id, ()), proof)[-_EVIDENCE_KEPT:]
    unjudged = dict(state.unjudged)
    for id in event.unjudged:
        unjudged[id] = unjudged.get(id, 0) + 1
    return _replace(
        state,
        open=left,
        counts=counts,
        evidence=evidence,
        successes=state.successes + event.success,
        failures=state.failures + (not event.success),
        unjudged=unjudged,
    )
