"""The timeline of one run: a fold of its raw events into steps, their attempts, and what happened to the run itself.

Pure. It judges nothing: what is written here stands in an event. What became of a step: `outcomes.py`. The invariant:
every event of the run changes the timeline or is of a type that this version does not know.
"""

from typing import Literal

import msgspec

from perdure.runtime.cli.facts import Facts, at_place, facts_of
from perdure.runtime.cli.outcomes import ANSWER_WIDTH, OUTCOMES, Note, Step, StepStatus, What, by, go_on
from perdure.runtime.cli.output import duration, shorten
from perdure.runtime.cli.state_words import state_note
from perdure.store.records import Recorded


class Timeline(msgspec.Struct):
    """A run, folded."""

    run: str
    workflow: str = ""
    started_at: int = 0
    ended_at: int | None = None
    turn: str = ""
    """The type of the last event that changed the run's standing."""
    turned_at: int = 0
    deadline: int | None = None
    life: int = 0
    error: str = ""
    where: str = ""
    """In words, the line of the application that the error came from."""
    cancel_reason: str | None = None
    wake_at: int | None = None
    waits_on: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    events: int = 0
    steps: dict[str, Step] = {}
    turns: list[Step] = []

    @property
    def in_doubt(self) -> list[str]:
        """The keys of the steps that somebody has to settle."""
        return [step.key for step in self.steps.values() if step.status == "in doubt"]

    @property
    def in_flight(self) -> list[str]:
        """The keys of the steps without an outcome."""
        under_way = ("in flight", "retrying", "waiting", "in doubt")
        return [s.key for s in self.steps.values() if s.what in ("tool", "function") and s.status in under_way]

    @property
    def steps_done(self) -> int:
        """Tool calls and functions that have ended."""
        return sum(step.what in ("tool", "function") and step.status in OUTCOMES for step in self.steps.values())

    def add(self, event: Recorded) -> None:
        """Take in the next event of the run."""
        facts = facts_of(event)
        self.events += 1
        if event.type.startswith("run-"):
            self._turn(event, facts)
        elif event.type == "parent-told":
            self._mark(event, f"{facts.run} knows how it ended")
        elif event.type == "entry-told":
            self._mark(event, "its entry point knows how it ended")
        elif facts.step:
            self._step(event, facts)
        else:
            self._beside(event, facts)

    def _beside(self, event: Recorded, facts: Facts) -> None:
        match event.type:
            case "signal-received":
                self._mark(event, f"signal {facts.name} came{by(event)}")
            case "version-chosen":
                self._mark(event, f"goes by version {facts.version} of {facts.name}")
            case "state-changed":
                self._mark(event, f"{facts.key} was set from outside{by(event)}")
            case "state-moved":
                self._mark(event, "takes over values of its own")
            case "event-places-moved":
                self._mark(event, "takes over the place among the events that it waits for")
            case _:
                pass

    # The run

    def _turn(self, event: Recorded, facts: Facts) -> None:  # noqa: C901 - one case an event
        match event.type:
            case "run-started":
                self.workflow, self.input, self.deadline = facts.workflow, facts.input, facts.deadline
                self.started_at, self.life = event.at, facts.life
                if facts.parent is not None:
                    self._mark(event, f"started by {facts.parent.run}, step {facts.parent.step}")
                if facts.chain is not None:
                    self._mark(event, f"goes on for {facts.chain.before}")
                if facts.forked_from is not None:
                    self._mark(event, f"forked from {facts.forked_from.run}: what it had finished is not made again")
            case "run-resumed":
                how = "resumed after a crash" if facts.after_crash else "resumed"
                alone = ", alone: it may have killed the process" if facts.is_alone else ""
                self._mark(event, how + alone)
                self.life, self.error, self.wake_at, self.waits_on = facts.life, "", None, None
            case "run-suspended":
                self._mark(event, "stopped in good order")
            case "run-parked":
                self.wake_at, self.waits_on = facts.wake_at, facts.waits_on
                if facts.wake_at is not None and facts.wake_at > event.at:
                    self._mark(event, f"left memory for {duration(facts.wake_at - event.at)}")
                elif facts.waits_on is not None:
                    self._mark(event, f"left memory, waits on {facts.waits_on}")
            case "run-blocked":
                self.error = f"{facts.kind}: {facts.account}"
                self._mark(event, f"blocked: {facts.kind}")
            case "run-cancel-requested":
                self.cancel_reason = facts.reason
                self._mark(event, f"cancel requested: {facts.reason}")
                return  # the run stands as before until its code has taken notice
            case "run-paused":
                self._mark(event, f"paused{by(event)}: {facts.reason}")
                return  # the steps that are in flight end first
            case "run-interrupted":
                self._mark(event, "the process had ended while it ran: held until somebody resumes it")
                return
            case "run-unpaused":
                self._mark(event, f"paused no more{by(event)}")
                return
            case "run-retried":
                self._mark(event, f"to be tried again{f' from {facts.step}' if facts.step else ''}{by(event)}")
                self.error, self.where, self.ended_at = "", "", None
            case "run-completed":
                self.result, self.ended_at = facts.result, event.at
            case "run-continued":
                self.ended_at = event.at
                self._mark(event, f"goes on as {facts.run}")
            case "run-failed":
                self.error, self.ended_at = f"{facts.error_type}: {facts.error}", event.at
                self.where = at_place(facts)
            case "run-cancelled":
                self.error, self.ended_at = facts.reason, event.at
            case _:
                return
        self.turn, self.turned_at = event.type, event.at

    def _mark(self, event: Recorded, text: str) -> None:
        mark = Step("", "", "run", text, event.at, event.position, "done")
        self.turns.append(mark)

    # Its steps

    def _step(self, event: Recorded, facts: Facts) -> None:  # noqa: C901 - one case an event
        match event.type:
            case "step-started":
                what: Literal["tool", "function"] = "function" if facts.kind == "function" else "tool"
                step = self._open(event, facts, what, facts.tool, "in flight")
                step.effect, step.attempts, step.arguments = facts.effect, 1, facts.arguments
            case "value-recorded":
                name = facts.step.rpartition("/")[2].partition("#")[0]
                step = self._open(event, facts, "value", name, "done")
                step.result, step.ended_at = facts.value, event.at
            case "timer-set":
                self._open(event, facts, "timer", "sleep", "sleeping").due = facts.due
            case "signal-awaited":
                self._open(event, facts, "signal", facts.name, "waiting").due = facts.until
            case "question-asked":
                step = self._open(event, facts, "question", "ask", "waiting")
                step.due, step.notes = facts.until, [Note(event.at, facts.text)]
                if facts.tool:
                    step.name = facts.tool
                    step.note(
                        event.at, f"asks for approval of {shorten(bytes(facts.arguments).decode(), ANSWER_WIDTH)}"
                    )
            case "pause-reached":
                step = self._open(event, facts, "question", "pause", "waiting")
                step.due = facts.until
                step.notes = [Note(event.at, f"paused at {facts.name}{f': {facts.text}' if facts.text else ''}")]
            case "child-started":
                step = self._open(event, facts, "child", facts.workflow, "waiting" if facts.is_awaited else "done")
                step.ended_at = None if facts.is_awaited else event.at
                step.notes = [Note(event.at, f"run {facts.run}" + ("" if facts.is_awaited else ", not waited for"))]
            case "child-refused":
                step = self._open(event, facts, "child", facts.workflow, "failed")
                step.ended_at, step.error = event.at, facts.error
                step.notes = [Note(event.at, facts.error)]
            case "timeout-set":
                step = self._open(event, facts, "branches", "timeout", "open")
                step.due, step.count = facts.due, 1
            case "branches-opened":
                name = facts.step.rpartition("/")[2].partition("#")[0]
                self._open(event, facts, "branches", name, "open").count = facts.count
            case _ if (known := self.steps.get(facts.step)) is not None:
                go_on(known, event, facts)
            case _:
                self._occasion(event, facts)

    def _occasion(self, event: Recorded, facts: Facts) -> None:
        """Take in the beginning of what is neither a call nor a wait for somebody."""
        match event.type:
            case "event-awaited":
                step = self._open(event, facts, "event", "event", "waiting")
                step.due, step.notes = facts.until, [Note(event.at, f"waits for {facts.events.replace(',', ' or ')}")]
            case "event-sent":
                self._tell(event, facts, "publish", f"published {facts.event}")
            case "state-read" | "state-written" | "state-conflicted" | "state-refused":
                self._tell(event, facts, "state", state_note(event, facts))
            case "goal-told":
                self._tell(event, facts, "goal", f"{facts.what} of {facts.goal}")
            case "step-skipped":
                self._tell(event, facts, "skipped", facts.reason)
            case "path-taken":
                self._tell(
                    event, facts, "path", f"{f'on to {facts.next}' if facts.next else 'to the end'}: {facts.because}"
                )
            case "pivot-passed":
                self._tell(event, facts, "pivot", "from here on nothing is undone")
            case "saga-failed":
                self._tell(event, facts, "saga", f"is undone: {facts.error_type}: {facts.error}")
            case "saga-compensated":
                self._tell(event, facts, "saga", "is undone")
            case _:
                pass

    def _tell(self, event: Recorded, facts: Facts, name: str, text: str) -> None:
        step = self._open(event, facts, "fact", name, "done")
        step.ended_at, step.notes = event.at, [Note(event.at, text)]

    def _open(
        self,
        event: Recorded,
        facts: Facts,
        what: What,
        name: str,
        status: StepStatus,
    ) -> Step:
        step = Step(facts.step, facts.branch, what, name, event.at, event.position, status)
        self.steps[facts.step] = step
        return step
