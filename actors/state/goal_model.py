"""What a goal is: criteria with weights and targets, constraints with checks. Data, and whether it can be one.

Nothing is counted here (`goal_progress.py` does) and nothing is recorded (`goal.py`). Invariant: a goal that was
checked has ids that differ, weights from 0 to 1, targets that can be compared with and conditions without faults.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from perdure.actors.workflows.defined.condition_faults import faults_in
from perdure.actors.workflows.defined.conditions import Predicate, is_number
from perdure.actors.workflows.defined.model import Conditions
from perdure.actors.workflows.definition import digest
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields
from perdure.store.records import stream_id

GoalStatus: TypeAlias = Literal["draft", "ready", "active", "completed", "failed", "suspended"]
"""`draft` and `ready` become `active` with the first decision; only progress makes a goal `completed`."""

ConstraintType: TypeAlias = Literal["hard", "soft"]
"""Whether a violation forbids that the goal is complete, or is only counted."""

Check: TypeAlias = Conditions | Callable[[dict[str, Any]], object]
"""Holds for what a decision came to: conditions, the name of a function among the runtime's `predicates`, or one."""

LONGEST_ID = 100
"""Characters of the id of a goal, a criterion or a constraint."""
MOST_PARTS = 200
"""Criteria, or constraints, of one goal: they are in the state, and their ids in every decision."""
_BEFORE_ITS_END = ("draft", "ready", "active")


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """Something by which success is told; `met` is how it stands where a goal was read, and not to be given."""

    id: str
    description: str = ""
    target: Any = None
    """`"90%"`: so many of the outcomes of its decisions have to be successes; anything else: 80 % of them."""
    weight: float = 1.0
    metric: str = "custom"
    """What it is measured by, for people: here it is measured by the outcomes of the decisions made for it."""
    met: bool = False


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """Something that no outcome may do; its check runs with every outcome."""

    id: str
    description: str = ""
    type: ConstraintType = "hard"
    category: str = "general"
    check: Any = None
    """A `Check`: what has to hold; without one only `violation` records that it does not."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be reached, by one run or by many."""

    id: str
    name: str = ""
    description: str = ""
    criteria: Sequence[Criterion] = ()
    constraints: Sequence[Constraint] = ()
    status: GoalStatus = "draft"
    """Where the goal was read: how it stands; where it is given: `draft`, `ready` or `active`."""
    context: dict[str, Any] = {}
    required_capabilities: Sequence[str] = ()
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}
    version: str = "1.0.0"
    parent_version: str | None = None
    evolution_reason: str | None = None
    match_text: bool = False
    """Whether a decision is also for criteria that it does not name, but shares two words of their description with."""

    @property
    def is_success(self) -> bool:
        """Whether at least 90 % of the weight of the criteria is met; False without criteria."""
        total = math.fsum(one.weight for one in self.criteria)
        return bool(self.criteria) and math.fsum(one.weight for one in self.criteria if one.met) >= 0.9 * total

    def to_prompt_context(self) -> str:
        """Return the goal as text for a model: what it is, what success means, what it must and should not do."""
        lines = [f"# Goal: {self.name or self.id}", *([self.description] if self.description else [])]
        if self.criteria:
            lines += ["", "## Success criteria"]
            lines += [f"- {one.description or one.id}{_wanted(one.target)}" for one in self.criteria]
        if self.constraints:
            lines += ["", "## Constraints"]
            words = {"hard": "MUST", "soft": "SHOULD"}
            lines += [f"- {words[one.type]}: {one.description or one.id}" for one in self.constraints]
        if self.context:
            lines += ["", "## Context"]
            lines += [f"- {name}: {value}" for name, value in self.context.items()]
        return "\n".join(lines)


class GoalDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A goal as the log has it: functions are there by their names only."""

    goal: Goal
    functions: tuple[str, ...] = ()
    """Constraints whose check is a function that the goal brings along; its name stands for it in the check."""

    @property
    def digest(self) -> str:
        """What tells it from other definitions."""
        return digest(self.goal.id, msgspec.json.encode(self, order="deterministic"))


def definition_of(goal: Goal) -> GoalDefinition:
    """Return what the log is to have of a goal, which was checked."""
    functions = tuple(one.id for one in goal.constraints if callable(one.check))
    constraints = tuple(
        msgspec.structs.replace(one, check=_named(one.check)) if callable(one.check) else one
        for one in goal.constraints
    )
    criteria = tuple(msgspec.structs.replace(one, met=False) for one in goal.criteria)
    plain = msgspec.structs.replace(goal, criteria=criteria, constraints=constraints)
    return GoalDefinition(goal=plain, functions=functions)


def share_wanted(target: Any) -> float:
    """Return which share of outcomes have to be successes for a target.

    Raises:
        ValueError: it ends like a percentage and is none.
    """
    if isinstance(target, str) and target.endswith("%"):
        return float(target[:-1]) / 100
    return 0.8


def check_goal(goal: Any, predicates: Mapping[str, Predicate]) -> Goal:
    """Return a goal if it is one that can be pursued.

    Raises:
        UsageError: it is none, or has faults; names all of them.
    """
    if not isinstance(goal, Goal):
        raise UsageError(f"{goal!r} is not a goal: write Goal(id=…, criteria=[Criterion(id=…)])")
    check_fields(goal)
    if faults := list(_faults(goal, predicates)):
        raise UsageError(f"the goal {goal.id!r} cannot be pursued: {'; '.join(faults)}")
    return goal


def _faults(goal: Goal, predicates: Mapping[str, Predicate]) -> Iterator[str]:
    expected: list[tuple[Any, type[Any]]] = [(each, Criterion) for each in goal.criteria]
    expected += [(each, Constraint) for each in goal.constraints]
    if strange := [part for part, kind in expected if not isinstance(part, kind)]:
        yield f"{strange[0]!r} is no Criterion, or no Constraint, and stands where one is expected"
        return
    yield from _id_faults("the goal", goal.id)
    if goal.status not in _BEFORE_ITS_END:
        yield f"a goal begins as {', '.join(_BEFORE_ITS_END)}, not as {goal.status!r}"
    for what, parts in (("criterion", goal.criteria), ("constraint", goal.constraints)):
        ids = [part.id for part in parts]
        yield from (f"two of its parts are the {what} {id!r}" for id in {id for id in ids if ids.count(id) > 1})
        for id in ids:
            yield from _id_faults(f"a {what}", id)
        if len(ids) > MOST_PARTS:
            yield f"it has {len(ids)} {what} parts: at most {MOST_PARTS} fit"
    for criterion in goal.criteria:
        yield from _criterion_faults(criterion)
    for constraint in goal.constraints:
        yield from _constraint_faults(constraint, predicates)


def _id_faults(what: str, id: Any) -> Iterator[str]:
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID or not id.isprintable() or "#" in id:
        yield f"the id of {what} is 1 to {LONGEST_ID} printable characters without #, not {id!r}"
    elif what == "the goal":
        try:
            stream_id(f"goal/{id}")
        except (UsageError, ValueError) as error:
            yield str(error)


def _criterion_faults(one: Criterion) -> Iterator[str]:
    if not is_number(one.weight) or not 0 <= one.weight <= 1:
        yield f"the weight of {one.id!r} is from 0 to 1, not {one.weight!r}"
    try:
        if not 0 <= share_wanted(one.target) <= 1:
            yield f"the target of {one.id!r} is from 0% to 100%, not {one.target!r}"
    except ValueError:
        yield f"the target of {one.id!r} ends with % and is no percentage: {one.target!r}"


def _constraint_faults(one: Constraint, predicates: Mapping[str, Predicate]) -> Iterator[str]:
    if one.type not in get_args(ConstraintType):
        yield f"the type of {one.id!r} is hard or soft, not {one.type!r}"
    if one.check is None:
        return
    if not callable(one.check):
        for fault in faults_in(one.check, f"the check of {one.id!r}", predicates):
            yield str(fault)
    elif inspect.iscoroutinefunction(one.check):
        yield f"the check of {one.id!r} is async: it may only look at what it is given"


def _named(check: Any) -> str:
    name = getattr(check, "__qualname__", None) or type(check).__qualname__
    return cast("str", name)


def _wanted(target: Any) -> str:
    return "" if target is None else f" (target: {target})"
