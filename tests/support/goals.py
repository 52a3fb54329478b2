"""What the tests of goals share: a goal's pure core with its log, and short ways to tell it something."""

from typing import Any

import msgspec

from perdure import Goal, GoalDecision, GoalOutcome, GoalProgress
from perdure.actors.kernel.messages import Command, Event, Moment
from perdure.actors.state.goal import GoalBehavior, progress_of
from perdure.actors.state.goal_commands import GetGoal, RecordDecision, RecordOutcome, RecordViolation
from perdure.actors.state.goals import GoalBook, goal_stream
from perdure.store.codec import Codec
from perdure.store.records import Recorded

CODEC = Codec(GoalBehavior.events)


class Pursued:
    """A goal's actor without a runtime; what it records is read back from bytes, as a log would have it."""

    def __init__(self, goal: Goal) -> None:
        self.behavior = GoalBehavior()
        self.stream = goal_stream(goal.id)
        self.state = self.behavior.initial(self.stream)
        self.log: list[Event] = []
        self.define(goal)

    def define(self, goal: Goal) -> None:
        definition = GoalBook([goal], {"named": bool}).definition(goal.id)
        assert definition is not None
        self.ask(definition)

    def ask(self, command: Command) -> Any:
        """Have the goal decide; nothing changes if it refuses."""
        decision = self.behavior.decide(self.state, command, Moment(0, 0))
        for event in decision.events:
            new, _ = CODEC.encode(event)
            row = Recorded(0, self.stream, 0, new.type, new.type_version, 0, bytes(new.data).decode())
            self.log.append(CODEC.decode(row))
            self.state = self.behavior.evolve(self.state, self.log[-1])
        return decision.reply

    def decide(self, *criteria: str, **said: Any) -> GoalDecision:
        fields = {"intent": "go on", **said}
        decision: GoalDecision = self.ask(RecordDecision(criteria=criteria, **fields))
        return decision

    def end(self, decision: GoalDecision | int, success: bool = True, **said: Any) -> GoalOutcome:
        number = decision if isinstance(decision, int) else decision.number
        outcome: GoalOutcome = self.ask(RecordOutcome(decision=number, success=success, **said))
        return outcome

    def outcomes(self, criterion: str, successes: int, failures: int) -> None:
        """Make so many decisions for a criterion, of which so many succeed and so many fail."""
        for number in range(successes + failures):
            self.end(self.decide(criterion), number < successes)

    def violate(self, constraint: str) -> None:
        self.ask(RecordViolation(constraint=constraint, details="seen"))

    @property
    def progress(self) -> GoalProgress:
        return progress_of(self.state)

    @property
    def goal(self) -> Goal:
        found: Goal = self.ask(GetGoal())
        return found

    def met(self, criterion: str) -> bool:
        return next(one.met for one in self.progress.criteria if one.id == criterion)

    def facts(self, *types: type[Event]) -> list[Event]:
        return [event for event in self.log if isinstance(event, types)]


def snapshot_of(pursued: Pursued) -> Any:
    """The state as it comes back from a snapshot."""
    return msgspec.json.decode(msgspec.json.encode(pursued.state), type=GoalBehavior.state_type)
