"""What was reported to a goal under ids of the callers, so that a report repeated after a crash changes nothing. Pure.

Not here: outcomes, of which a decision has one, whatever they are called. Invariant: an id is for one decision or one
violation, as long as it is among the newest ones.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from perdure.actors.state.goal_commands import GoalConflictError, RecordDecision, RecordViolation
from perdure.actors.workflows.definition import digest
from perdure.store.errors import UsageError

MAX_IDS: Final = 1000
"""How many ids are remembered, the newest ones; as many as of a run's signals."""
_LONGEST_ID: Final = 128


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A report that had an id."""

    digest: str
    number: int = 0
    """Of the decision; 0: it was a violation."""
    criteria: tuple[str, ...] = ()


def check_told_id(id: str | None) -> None:
    """Check what a caller calls a decision or a violation; None: nothing.

    Raises:
        UsageError: it cannot be called that.
    """
    given: object = id  # not every caller is checked
    if id is not None and not (isinstance(given, str) and 0 < len(given) <= _LONGEST_ID and given.isprintable()):
        raise UsageError(f"the id of what a goal is told is 1 to {_LONGEST_ID} printable characters, not {id!r}")


def digest_of_decision(command: RecordDecision) -> str:
    """Return what tells a decision from others, as its caller said it."""
    texts = [command.intent, command.kind, command.reasoning, list(command.criteria), list(command.constraints)]
    data = [None if one is msgspec.UNSET else one for one in (command.options, command.chosen, command.context)]
    return digest("decision", msgspec.json.encode([*texts, *data]))  # field by field: it is in the log for ever


def digest_of_violation(constraint: str, details: str) -> str:
    """Return what tells a violation from others."""
    return digest("violation", msgspec.json.encode([constraint, details]))


def told_before(
    goal: str, told: Mapping[str, Told], command: RecordDecision | RecordViolation, made_of: str
) -> Told | None:
    """Return the earlier report with the id of *command*; None: it has no id, or a new one.

    Raises:
        GoalConflictError: that was something else.
    """
    if command.id is msgspec.UNSET:
        return None
    found = told.get(command.id)
    if found is not None and found.digest != made_of:
        raise GoalConflictError(goal=goal, told=command.id)
    return found


def with_told(told: dict[str, Told], id: str, one: Told) -> dict[str, Told]:
    """Return *told* with one more report, without the oldest where that is one too many."""
    forgotten = len(told) + 1 - MAX_IDS
    newest = dict(list(told.items())[forgotten:]) if forgotten > 0 else told
    return {**newest, id: one}
