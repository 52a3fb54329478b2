"""`rt.goals`: the goals of a runtime, how far they are, and what the application itself decides for them.

Not here: the rules (`actors/state/goal.py`), and what runs tell (`ctx.goal`). Invariant: what is returned is durable.
"""

from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import encode_payload
from perdure.actors.kernel.shell import Shell
from perdure.actors.state.goal_commands import (
    GetGoal,
    GetGoalProgress,
    GoalDecision,
    GoalOutcome,
    SetGoalStatus,
)
from perdure.actors.state.goal_model import Goal
from perdure.actors.state.goal_progress import GoalProgress
from perdure.actors.state.goal_telling import Deciding, Ending, Who, number_of, violation_of
from perdure.actors.state.goals import GoalBook, goal_stream
from perdure.runtime.goal_evidence import Places, violations_of
from perdure.runtime.naming import check_principal
from perdure.store.errors import UndecodableEventError, UnknownTagError, UsageError
from perdure.store.expected import checked_but
from perdure.store.records import Query, Recorded, StreamId

if TYPE_CHECKING:
    from perdure.runtime.machinery import Machinery

_log = logger("perdure.goals")


class Source(Protocol):
    """What can be asked for goals: a runtime, here or in another process."""

    def ask(self, stream: StreamId, message: Command, *, principal: str | None = None) -> Awaitable[Any]:
        """Ask an actor; the answer is durable."""
        ...

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of durable events."""
        ...


@checked_but("__init__")
class GoalReader:
    """How goals stand, seen from wherever the log can be asked.

    Every method raises:
        UnknownGoalError: the log has no such goal.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    async def get(self, goal: str) -> Goal:
        """Return a goal as it stands: with its status, and which of its criteria are met."""
        found: Goal = await self._source.ask(goal_stream(goal), GetGoal())
        return found

    async def progress(self, goal: str) -> GoalProgress:
        """Return how far a goal is, with the outcomes that it rests on and where in the log they are.

        It reads the log back to the oldest outcome that it shows; the counts need no reading.
        """
        progress: GoalProgress = await self._source.ask(goal_stream(goal), GetGoalProgress())
        places = Places(progress)
        while (query := places.next_page) is not None and places.add(await self._source.read(query)):
            pass
        violations = await self._source.read(violations_of(goal)) if progress.violations else []
        return places.placed(violations)

    async def statistics(self, *goals: str) -> dict[str, int]:
        """Return the figures of goals, added up.

        The keys: `total_decisions`, `successful_outcomes`, `failed_outcomes`, `constraint_violations`,
        `criteria_tracked` and `streams_seen` (entry points whose runs decided something, counted for each goal).
        """
        figures: dict[str, int] = dict.fromkeys(_FIGURES, 0)
        for goal in goals:
            progress: GoalProgress = await self._source.ask(goal_stream(goal), GetGoalProgress())
            for name, count in zip(_FIGURES, _counts(progress), strict=True):
                figures[name] += count
        return figures


def the_only(goals: Iterable[str]) -> str:
    """Return the only one.

    Raises:
        UsageError: there are several, or none.
    """
    found = list(goals)
    if len(found) != 1:
        raise UsageError(f"say which goal: there are {', '.join(found) or 'none'}")
    return found[0]


_FIGURES: Final[tuple[str, ...]] = (
    "total_decisions", "successful_outcomes", "failed_outcomes", "constraint_violations", "criteria_tracked",
    "streams_seen",
)  # fmt: skip


def _counts(one: GoalProgress) -> tuple[int, ...]:
    violations = sum(one.violations.values())
    return (one.decisions, one.successes, one.failures, violations, len(one.criteria), one.streams)


@checked_but("__init__")
class Goals(GoalReader):
    """The goals of a runtime: `rt.goals`."""

    def __init__(self, source: Source, machinery: "Machinery", book: GoalBook) -> None:
        super().__init__(source)
        self.book = book
        """The goals that the application has brought along."""
        self._machinery = machinery

    def __iter__(self) -> Iterator[str]:
        return iter(self.book)

    def __len__(self) -> int:
        return len(self.book)

    def __contains__(self, goal: object) -> bool:
        return goal in self.book

    def only(self) -> str:
        """Return the only goal that there is.

        Raises:
            UsageError: there are several, or none.
        """
        return the_only(self.book)

    async def list(self) -> "list[Goal]":
        """Return the runtime's goals as they stand, in the order in which it was given them."""
        return [await self.get(goal) for goal in self.book]

    async def statistics(self, *goals: str) -> dict[str, int]:
        """Return the figures of goals, added up; of all goals of the runtime when none is named."""
        return await super().statistics(*(goals or self.book))

    async def record_decision(  # noqa: PLR0913 - what there is to say of a decision, all by keyword
        self,
        goal: str,
        intent: str,
        *,
        criteria: Sequence[str] = (),
        options: Sequence[Any] = (),
        chosen: Any = None,
        reasoning: str = "",
        constraints: Sequence[str] = (),
        kind: str = "custom",
        context: Mapping[str, Any] | None = None,
        who: str | None = None,
        id: str | None = None,
    ) -> GoalDecision:
        """Record that the application decided something for a goal. See `Pursuit.decide`, which is for runs.

        With an *id* of the caller's, recording it again (the last 1,000 ids of a goal are remembered) changes nothing
        and returns the decision that there is; without one it is another decision.

        Raises:
            GoalConflictError: the id was another decision's, or a violation's; nothing was recorded.
            UnknownGoalError, UnknownCriterionError, UnencodableError, PayloadTooLargeError: nothing was recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        check_principal(who)
        said = Deciding(
            intent=intent,
            criteria=criteria,
            options=options,
            chosen=chosen,
            reasoning=reasoning,
            constraints=constraints,
            kind=kind,
            context=context,
            id=id,
        )
        command = said.command(self._encode, Who())
        decision: GoalDecision = await self._source.ask(goal_stream(goal), command, principal=who)
        return decision

    async def record_outcome(
        self,
        decision: GoalDecision | str,
        success: bool,  # noqa: FBT001 - the first thing there is to say
        *,
        result: Any = None,
        error: str | None = None,
        summary: str = "",
        who: str | None = None,
    ) -> GoalOutcome:
        """Record what a decision, of a run or of the application, came to. See `Pursuit.outcome`.

        It needs no id: a decision has one outcome, so recorded again it counts for nothing, and `is_new` is False.

        Raises:
            UnknownGoalError, UnknownDecisionError, UnencodableError, PayloadTooLargeError: nothing was recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        check_principal(who)
        goal, number = number_of(decision)
        said = Ending(success=success, result=result, error=error, summary=summary)
        shell = await self._shell(goal)
        command = said.command(self._encode, Who(), number, shell.state, self.book)
        outcome: GoalOutcome = await self._source.ask(goal_stream(goal), command, principal=who)
        return outcome

    async def record_violation(
        self, goal: str, constraint: str, details: str = "", *, who: str | None = None, id: str | None = None
    ) -> None:
        """Record that a constraint of a goal was violated, where no check could tell.

        With an *id*, as of `record_decision`, recording it again changes nothing.

        Raises:
            GoalConflictError: the id was another violation's, or a decision's; nothing was recorded.
            UnknownGoalError, UsageError: there is no such goal, or no such constraint of it.
        """
        check_principal(who)
        await self._source.ask(goal_stream(goal), violation_of(constraint, details, Who(), id), principal=who)

    async def set_status(
        self,
        goal: str,
        status: Literal["ready", "active", "failed", "suspended"],
        because: str = "",
        *,
        who: str | None = None,
    ) -> bool:
        """Say how a goal stands; return whether that is news. One that is failed or suspended is not achieved.

        Raises:
            UnknownGoalError, UsageError: there is no such goal, or it is completed, which only progress makes it.
        """
        check_principal(who)
        command = SetGoalStatus(status=status, because=because)
        has_changed: bool = await self._source.ask(goal_stream(goal), command, principal=who)
        return has_changed

    async def _shell(self, goal: str) -> Shell:
        self._machinery.check_open()
        return await self._machinery.system.directory.bring(goal_stream(goal))

    def _encode(self, value: object, where: str) -> bytes:
        return encode_payload(value, where=where, redaction=self._machinery.parts.redaction, stable=True)

    # As an attachment

    async def open(self) -> None:
        """Have the log know the goals as they are now."""
        for goal in self.book:
            if (definition := self.book.definition(goal)) is None:
                continue
            try:
                await self._source.ask(goal_stream(goal), definition)
            except (UnknownTagError, UndecodableEventError) as error:
                _log.warning("a goal cannot be read", goal=goal, reason=str(error))  # nothing else is affected

    async def close(self) -> None:
        """Do nothing: nothing is under way."""

    async def abandon(self) -> None:
        """Do nothing."""

    def log_failed(self) -> None:
        """Do nothing."""
