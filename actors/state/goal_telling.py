"""What callers tell a goal, checked and as commands: for runs and for the application alike. Pure but for the checks.

Nothing is recorded here. Invariant: what a check of a constraint is given is what the log will have.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from perdure.actors.state.goal_commands import GoalDecision, RecordDecision, RecordOutcome, RecordViolation
from perdure.actors.state.goal_state import GoalState
from perdure.actors.state.goal_told import check_told_id
from perdure.actors.state.goals import GoalBook, Judgement
from perdure.store.codec import OptionalPayload
from perdure.store.errors import PayloadTooLargeError, UsageError

Encode: TypeAlias = Callable[[object, str], bytes]
"""Returns a value as it will be recorded; it is told what the value is called where it cannot be."""

MAX_TEXT_BYTES: Final = 32 * 1024
"""Of the texts of a decision, or of an outcome, together: what is longer is data, for `context` or `result`."""


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Which run tells it, in which step, and by which entry point it came in."""

    run: str | None = None
    step: str | None = None
    entry: str | None = None


class Deciding(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, as the caller says it."""

    intent: str
    criteria: Sequence[str] = ()
    options: Sequence[Any] = ()
    chosen: Any = None
    reasoning: str = ""
    constraints: Sequence[str] = ()
    kind: str = "custom"
    context: Mapping[str, Any] | None = None
    id: str | None = None
    """What the caller calls it; of runs None, whose steps are told once anyway."""

    def command(self, encode: Encode, who: Who) -> RecordDecision:
        """Return it as a command.

        Raises:
            UsageError: there is no intent, or a text stands where texts are expected.
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        if not self.intent.strip():
            raise UsageError("a decision has an intent: a text that says what it is for")
        check_told_id(self.id)
        if isinstance(self.criteria, str) or isinstance(self.constraints, str):
            raise UsageError("criteria and constraints are lists of ids, such as ['sent'], and not one text")
        check_texts("the decision", self.intent, self.reasoning, self.kind, *self.criteria, *self.constraints)
        return RecordDecision(
            intent=self.intent,
            criteria=tuple(self.criteria),
            kind=self.kind,
            options=_payload(encode, list(self.options) or None, "the options of the decision"),
            chosen=_payload(encode, self.chosen, "what the decision chose"),
            reasoning=self.reasoning,
            constraints=tuple(self.constraints),
            context=_payload(encode, None if self.context is None else dict(self.context), "the decision's context"),
            run=who.run,
            step=who.step,
            entry=who.entry,
            id=msgspec.UNSET if self.id is None else self.id,
        )


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision came to, as the caller says it."""

    success: bool
    result: Any = None
    error: str | None = None
    summary: str = ""

    def command(self, encode: Encode, who: Who, decision: int, state: GoalState, book: GoalBook) -> RecordOutcome:
        """Return it as a command, with what the checks of the goal's constraints say of it.

        Raises:
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        check_texts("the outcome", self.error or "", self.summary)
        result = _payload(encode, self.result, "the result of the decision")
        judged = self._judged(result, who, decision, state, book)
        return RecordOutcome(
            decision=decision,
            success=bool(self.success),
            result=result,
            error=self.error,
            summary=self.summary,
            violated=judged.violated,
            unjudged=judged.unjudged,
            run=who.run,
            step=who.step,
            entry=who.entry,
        )

    def _judged(self, result: OptionalPayload, who: Who, decision: int, state: GoalState, book: GoalBook) -> Judgement:
        made = state.open.get(decision)
        if made is None or state.definition is None:
            return Judgement()  # it will not be counted
        outcome: dict[str, Any] = {
            "success": bool(self.success),
            "result": None if isinstance(result, msgspec.UnsetType) else msgspec.json.decode(result),
            "error": self.error,
            "summary": self.summary,
            "decision": {"number": decision, "intent": made.intent, "criteria": list(made.criteria)},
            "run": who.run,
            "entry": who.entry,
        }
        return book.judge(state.definition, outcome)


def violation_of(constraint: str, details: str, who: Who, id: str | None = None) -> RecordViolation:
    """Return a violation that somebody reports as a command.

    Raises:
        UsageError: it cannot be called *id*.
        PayloadTooLargeError: the details are too long.
    """
    check_told_id(id)
    check_texts("the violation", constraint, details)
    return RecordViolation(
        constraint=constraint,
        details=details,
        run=who.run,
        step=who.step,
        entry=who.entry,
        id=msgspec.UNSET if id is None else id,
    )


def number_of(decision: GoalDecision | str, goal: str | None = None) -> tuple[str, int]:
    """Return the goal and the number of a decision, given itself or by its id.

    Raises:
        UsageError: it is none, or of another goal than *goal*.
    """
    if isinstance(decision, GoalDecision):
        named, number = decision.goal, str(decision.number)
    else:
        named, _, number = str(decision).rpartition("#")
    if not named or not (number.isascii() and number.isdecimal() and len(number) < 16):  # noqa: PLR2004 - more than there will be
        raise UsageError(f"{decision!r} is no decision: give what decide returned, or its id, such as 'goal#7'")
    if goal not in (None, named):
        raise UsageError(f"the decision {named}#{number} is of the goal {named!r}, not of {goal!r}")
    return named, int(number)


def _payload(encode: Encode, value: Any, where: str) -> OptionalPayload:
    return msgspec.UNSET if value is None else msgspec.Raw(encode(value, where))


def check_texts(where: str, *texts: str) -> None:
    """Check that texts are no longer than they may be together.

    Raises:
        PayloadTooLargeError: they are.
    """
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > MAX_TEXT_BYTES:
        raise PayloadTooLargeError(where=f"the texts of {where}", size=size, limit=MAX_TEXT_BYTES)
