"""The goals that an application brings along, and the checks of their constraints, which only it can run.

Nothing is recorded here. Invariant: a check looks at what it is given and at nothing else; what it raises, or cannot
judge, is neither a violation nor an error: it is recorded as that.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.state.goal_commands import DefineGoal, UnknownGoalError
from perdure.actors.state.goal_model import Goal, GoalDefinition, check_goal, definition_of
from perdure.actors.workflows.defined.conditions import Predicate, Verdict, evaluate
from perdure.store.errors import UsageError
from perdure.store.records import StreamId

MAX_DEFINITION_BYTES = 60 * 1024
"""Of a goal: it is in the state of its actor, and what is larger would be kept apart from its event."""

MAX_REASON = 1_000
"""Characters of why a check does not hold, or cannot tell: what a function raises may say anything."""


class Judgement(msgspec.Struct, frozen=True):
    """What the checks of a goal's constraints say of an outcome."""

    violated: dict[str, str] = {}
    unjudged: dict[str, str] = {}


class GoalBook(Mapping[str, Goal]):
    """Goals by id, in the order in which they were given."""

    def __init__(
        self,
        goals: Iterable[Goal] = (),
        predicates: Mapping[str, Predicate] | None = None,
        redaction: Redaction | None = None,
    ) -> None:
        """Take *goals*, whose checks may name *predicates*.

        Raises:
            UsageError: two have the same id, or one cannot be pursued; says why.
        """
        self._predicates = predicates or {}
        self._goals: dict[str, Goal] = {}
        self._definitions: dict[str, DefineGoal] = {}
        self._pursued: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()
        redaction = redaction or Redaction()
        for goal in goals:
            check_goal(goal, self._predicates)
            if goal.id in self._goals:
                raise UsageError(f"two goals have the id {goal.id!r}: give one of them another")
            self._goals[goal.id] = goal
            self._definitions[goal.id] = _definition(goal, redaction)

    def __getitem__(self, id: str) -> Goal:
        try:
            return self._goals[id]
        except KeyError:
            raise UnknownGoalError(goal=id) from None

    def __contains__(self, id: object) -> bool:
        return id in self._goals

    def __iter__(self) -> Iterator[str]:
        return iter(self._goals)

    def __len__(self) -> int:
        return len(self._goals)

    def definition(self, id: str) -> DefineGoal | None:
        """Return what the log is to have of a goal, or None if the application has not brought it along."""
        return self._definitions.get(id)

    def pursued(self, life: object, before: Callable[[], set[str]]) -> set[str]:
        """Return the goals that a run has decided something for; *before* says which in lives before this one."""
        if life not in self._pursued:
            self._pursued[life] = before()
        return self._pursued[life]

    def judge(self, definition: GoalDefinition, outcome: dict[str, Any]) -> Judgement:
        """Return what the checks of a goal, as the log has it, say of an outcome.

        A check that is a function is looked up here: what this application does not have cannot be judged.
        """
        violated: dict[str, str] = {}
        unjudged: dict[str, str] = {}
        goal = definition.goal
        own = {one.id: one.check for one in self._goals[goal.id].constraints} if goal.id in self._goals else {}
        for constraint in goal.constraints:
            if constraint.check is None:
                continue
            is_function = constraint.id in definition.functions
            verdict = self._verdict(own.get(constraint.id) if is_function else constraint.check, outcome)
            if not verdict.is_known:
                unjudged[constraint.id] = verdict.reason[:MAX_REASON]
            elif not verdict.holds:
                violated[constraint.id] = verdict.reason[:MAX_REASON]
        return Judgement(violated, unjudged)

    def _verdict(self, check: Any, outcome: dict[str, Any]) -> Verdict:
        if check is None:
            return Verdict(holds=False, reason="its function is not in this application", is_known=False)
        if callable(check):
            return evaluate("check", outcome, {"check": cast("Predicate", check)})
        return evaluate(check, outcome, self._predicates)


def goal_stream(id: str) -> StreamId:
    """Return the stream of a goal."""
    return StreamId(f"goal/{id}")


def _definition(goal: Goal, redaction: Redaction) -> DefineGoal:
    where = f"the goal {goal.id}"
    context = msgspec.json.decode(encode_payload(goal.context, where=f"{where}.context", redaction=redaction))
    definition = definition_of(msgspec.structs.replace(goal, context=context))
    data = encode_payload(definition, where=where, redaction=Redaction(()), stable=True, limit=MAX_DEFINITION_BYTES)
    try:
        msgspec.json.decode(data, type=GoalDefinition)
    except msgspec.ValidationError as error:
        raise UsageError(f"the goal {goal.id!r} cannot be pursued: {error}") from error
    return DefineGoal(definition=msgspec.Raw(data), digest=definition.digest)
