"""The code's side of goals: decisions, outcomes and violations as recorded steps, `ctx.goal("id")`.

Not here: what a goal makes of them (`actors/state/goal.py`). Invariant: what a run tells a goal is one unit with the
step that tells it, so it is counted once, whatever happens to the process.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import encode_payload
from perdure.actors.kernel.shell import Shell
from perdure.actors.state.goal_commands import (
    GetGoalProgress,
    GoalCommand,
    GoalDecision,
    GoalOutcome,
    UnknownGoalError,
)
from perdure.actors.state.goal_progress import GoalProgress
from perdure.actors.state.goal_state import GoalState
from perdure.actors.state.goal_telling import Deciding, Ending, Who, number_of, violation_of
from perdure.actors.state.goals import goal_stream
from perdure.actors.workflows.branch import Branch, enter
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.goal_facts import GoalTold, Telling
from perdure.actors.workflows.reaching import reach

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

_KEYS: dict[Telling, str] = {
    "decision": "decide", "outcome": "outcome", "violation": "violation", "progress": "progress",
}  # fmt: skip


class Pursuit:
    """A goal as a run pursues it: every call is a recorded step of the run.

    Every method raises:
        UnknownGoalError: neither this runtime nor its log has the goal; nothing was recorded.
    """

    __slots__ = ("_driver", "_named", "id")

    def __init__(self, driver: "Driver", id: str, key: str | None) -> None:
        self._driver = driver
        self._named = key
        self.id = id
        """The goal's id."""

    async def decide(  # noqa: PLR0913 - what there is to say of a decision, all by keyword
        self,
        intent: str,
        *,
        criteria: Sequence[str] = (),
        options: Sequence[Any] = (),
        chosen: Any = None,
        reasoning: str = "",
        constraints: Sequence[str] = (),
        kind: str = "custom",
        context: Mapping[str, Any] | None = None,
    ) -> GoalDecision:
        """Record that something was decided, and return the decision, whose outcome is told later.

        Args:
            intent: what it is for.
            criteria: ids of the criteria that its outcome counts for; a decision for none counts only in the whole.
            options: what there was to choose from.
            chosen: what was chosen.
            reasoning: why.
            constraints: ids of the constraints that were considered.
            kind: what sort of decision it is, for those who read the log.
            context: what was known.

        Raises:
            UnknownCriterionError: the goal has no such criterion; nothing was recorded.
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        said = Deciding(
            intent=intent,
            criteria=criteria,
            options=options,
            chosen=chosen,
            reasoning=reasoning,
            constraints=constraints,
            kind=kind,
            context=context,
        )
        branch = enter()
        try:
            key = self._key(branch, "decision")
            command = said.command(self._encode, self._who(key))
            pursued = self._driver.engine.goals.pursued(self._driver, self._decided)

            def complete(state: GoalState) -> Command:
                del state
                return msgspec.structs.replace(command, is_first=self.id not in pursued)

            result = await self._tell(branch, key, "decision", _data(command), complete)
            pursued.add(self.id)
            return msgspec.json.decode(result, type=GoalDecision)
        finally:
            branch.is_inside = False

    async def outcome(
        self,
        decision: GoalDecision | str,
        success: bool,  # noqa: FBT001 - the first thing there is to say
        *,
        result: Any = None,
        error: str | None = None,
        summary: str = "",
    ) -> GoalOutcome:
        """Record what a decision, given itself or by its id, came to; return how the goal stands after that.

        The checks of the goal's constraints run on it, once; what does not hold is recorded as a violation. A second
        outcome of a decision counts for nothing (`is_new` is False), whoever tells it.

        Raises:
            UnknownDecisionError, UsageError: it is no decision for this goal; nothing was recorded.
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        said = Ending(success=success, result=result, error=error, summary=summary)
        _, number = number_of(decision, self.id)
        branch = enter()
        try:
            key = self._key(branch, "outcome")
            data = msgspec.json.encode([number, bool(success), error, summary]) + self._encode(result, "the result")

            def command(state: GoalState) -> Command:
                return said.command(self._encode, self._who(key), number, state, self._driver.engine.goals)

            told = await self._tell(branch, key, "outcome", data, command)
            return msgspec.json.decode(told, type=GoalOutcome)
        finally:
            branch.is_inside = False

    async def violation(self, constraint: str, details: str = "") -> None:
        """Record that a constraint was violated, where no check could tell.

        Raises:
            UsageError: the goal has no such constraint; nothing was recorded.
            PayloadTooLargeError: the details are too long.
        """
        branch = enter()
        try:
            key = self._key(branch, "violation")
            command = violation_of(constraint, details, self._who(key))
            await self._tell(branch, key, "violation", _data(command), lambda _: command)
        finally:
            branch.is_inside = False

    async def progress(self) -> GoalProgress:
        """Return how far the goal is when the code first comes here; the same when it is replayed."""
        branch = enter()
        try:
            key = self._key(branch, "progress")
            result = await self._tell(branch, key, "progress", b"", lambda _: GetGoalProgress())
            return msgspec.json.decode(result, type=GoalProgress)
        finally:
            branch.is_inside = False

    async def _tell(
        self, branch: Branch, key: str, what: Telling, data: bytes, make: Callable[[GoalState], Command]
    ) -> msgspec.Raw:
        """Return what a step came to: from the recording, or by telling the goal, in one unit with the step."""
        driver, name, made_of = self._driver, f"{what} {self.id}", digest(what, data)
        if key in driver.recording.steps or branch.is_cut:
            record = branch.take(key, "goal", name, made_of)
            if record is not None:
                return record.result
        await driver.keep_pace()
        shell = await self._goal(branch)
        command = make(shell.state)
        # The rules are pure: what the goal will answer is known before, and so is in the fact of the run.
        decided = shell.core.behavior.decide(shell.state, command, driver.engine.clock.moment())
        branch.take(key, "goal", name, made_of)  # only now: what was refused left no trace in the branch
        result = msgspec.Raw(msgspec.json.encode(decided.reply))
        moves = ((shell, command),) if decided.events else ()
        driver.note(GoalTold(key, branch.path, self.id, what, made_of, result), *moves)
        return result

    async def _goal(self, branch: Branch) -> Shell:
        """Return the goal's actor, which knows the goal as this application has it; nothing may be awaited after."""
        driver = self._driver
        shell = await reach(driver, branch, goal_stream(self.id))
        defined = driver.engine.goals.definition(self.id)
        if defined is not None and shell.state.digest != defined.digest:
            driver.record((shell, defined))
        elif shell.state.definition is None:
            raise UnknownGoalError(goal=self.id)
        return shell

    def _key(self, branch: Branch, what: Telling) -> str:
        return branch.key(_KEYS[what]) if self._named is None else branch.named_key(self._named)

    def _who(self, key: str) -> Who:
        state = self._driver.shell.state
        entrance = state.entrance
        return Who(run=self._driver.run_id, step=key, entry=None if entrance is None else entrance.entry)

    def _decided(self) -> set[str]:
        """Return the goals for which the run has decided something in former lives."""
        steps = self._driver.recording.steps.values()
        return {one.name.partition(" ")[2] for one in steps if one.what == "goal" and one.name.startswith("decision ")}

    def _encode(self, value: object, where: str) -> bytes:
        return encode_payload(value, where=where, redaction=self._driver.engine.redaction, stable=True)


def _data(command: GoalCommand) -> bytes:
    """Return what tells a command from others; which step of the run says it does not count."""
    return msgspec.json.encode(msgspec.structs.replace(command, run=None, step=None, entry=None))
