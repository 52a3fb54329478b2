"""The timeline of one run: a fold of its raw events into steps, their attempts, and what happened to the run itself.

Pure. It judges nothing: what is written here stands in an event. The invariant: every event of the run changes the
timeline or is of a type that this version does not know.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from perdure.runtime.cli.facts import Facts, facts_of, refuser
from perdure.runtime.cli.output import duration, shorten
from perdure.store.records import Recorded

StepStatus: TypeAlias = Literal[
    "in flight", "retrying", "waiting", "in doubt", "done", "failed", "cancelled", "sleeping", "open",
]  # fmt: skip

What: TypeAlias = Literal["tool", "function", "value", "timer", "branches", "signal", "question", "child", "run"]

REFUSALS: Final = frozenset({"CircuitOpenError", "RateLimitedError", "BulkheadFullError"})
"""Errors of attempts that were not made."""
_ANSWER_WIDTH: Final = 100
_CHILD_ENDS: Final[dict[str, StepStatus]] = {"completed": "done", "cancelled": "cancelled"}
OUTCOMES: Final = frozenset({"done", "failed", "cancelled"})


class Note(msgspec.Struct, frozen=True):
    """Something that happened on the way."""

    at: int
    text: str


class Step(msgspec.Struct):
    """A recorded piece of the run."""

    key: str
    branch: str
    what: What
    name: str
    at: int
    position: int
    status: StepStatus
    effect: str = ""
    ended_at: int | None = None
    attempts: int = 0
    refusals: int = 0
    micros: int = 0
    """How long the last attempt took."""
    due: int | None = None
    """When the next attempt, or the end of the sleep, is due."""
    error: str = ""
    is_verdict: bool = False
    """Whether a person said how it ended."""
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    count: int = 0
    """Branches, where it opened some."""
    notes: list[Note] = []

    @property
    def is_notable(self) -> bool:
        """Whether it did not simply go well."""
        return self.status not in ("done", "cancelled") or bool(self.notes) or self.what == "run"

    def note(self, at: int, text: str) -> None:
        """Add something that happened on its way."""
        self.notes = [*self.notes, Note(at, text)]


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
        elif facts.step:
            self._step(event, facts)
        elif event.type == "signal-received":
            self._mark(event, f"signal {facts.name} came{_by(event)}")

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
                self._mark(event, f"paused{_by(event)}: {facts.reason}")
                return  # the steps that are in flight end first
            case "run-unpaused":
                self._mark(event, f"paused no more{_by(event)}")
                return
            case "run-retried":
                self._mark(event, f"to be tried again{f' from {facts.step}' if facts.step else ''}{_by(event)}")
                self.error, self.ended_at = "", None
            case "run-completed":
                self.result, self.ended_at = facts.result, event.at
            case "run-continued":
                self.ended_at = event.at
                self._mark(event, f"goes on as {facts.run}")
            case "run-failed":
                self.error, self.ended_at = f"{facts.error_type}: {facts.error}", event.at
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
                        event.at, f"asks for approval of {shorten(bytes(facts.arguments).decode(), _ANSWER_WIDTH)}"
                    )
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
            case _:
                known = self.steps.get(facts.step)
                if known is not None:
                    _go_on(known, event, facts)

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


def _go_on(step: Step, event: Recorded, facts: Facts) -> None:  # noqa: C901 - one case an event
    def note(text: str) -> None:
        step.note(event.at, text)

    match event.type:
        case "attempt-started":
            if step.status == "in flight":
                note("dispatched again: the process had ended before there was an outcome")
            step.status, step.due = "in flight", None
            step.attempts = max(step.attempts, facts.attempt)
        case "attempt-failed":
            step.status, step.due = "retrying", facts.retry_at
            again = "" if facts.retry_at is None else f"; again in {duration(facts.retry_at - event.at)}"
            note(f"attempt {facts.attempt} failed: {facts.error_type}: {facts.error}{again}")
        case "attempt-refused":
            step.status, step.due, step.refusals = "retrying", facts.retry_at, step.refusals + 1
            step.attempts = facts.attempt - 1  # what is refused was not tried
            again = "" if facts.retry_at is None else f"; again in {duration(facts.retry_at - event.at)}"
            note(f"{refuser(facts)}: {facts.reason}{again}")
        case "attempt-delayed":
            step.status, step.due = "waiting", facts.until
            wait = "" if facts.until is None else f"; begins in {duration(facts.until - event.at)}"
            note(f"waits for its turn under the rate limit{wait}")
        case "step-in-doubt":
            step.status = "in doubt"
            note(f"in doubt: {facts.reason}")
        case "step-not-done":
            step.status = "in flight"
            note(f"found not to have happened, by {facts.source}")
        case "step-completed":
            _end(step, event, facts, "done")
            step.result = facts.result
            if step.is_verdict:
                note("somebody said that it happened")
        case "step-failed":
            _end(step, event, facts, "failed")
            step.error = f"{facts.error_type}: {facts.error}"
            note(step.error)
        case "step-cancelled":
            _end(step, event, facts, "cancelled")
            if not facts.stopped:
                note("cancelled; whether its work has ended is not known, and what it returns is ignored")
        case "timer-fired":
            step.status, step.ended_at, step.due = "done", event.at, None
        case "branches-failed":
            step.status, step.ended_at = "failed", event.at
            note(f"branch {facts.failed} failed, the others were cancelled")
        case _:
            _go_on_waiting(step, event, facts)


def _go_on_waiting(step: Step, event: Recorded, facts: Facts) -> None:  # noqa: C901 - one case an event
    """Take in what became of a wait for a signal or for people."""
    match event.type:
        case "signal-taken":
            _over(step, event, "done")
        case "question-answered" | "call-approved" if facts.left:
            step.note(event.at, f"said so: {facts.by}; {facts.left} more wanted")
        case "call-approved":
            _over(step, event, "done")
            changed = bytes(facts.arguments).decode()
            edited = "" if changed == "null" else f", with {shorten(changed, _ANSWER_WIDTH)}"
            step.note(event.at, f"approved by {facts.by}{edited}")
        case "call-rejected":
            _over(step, event, "done")
            step.note(event.at, f"rejected by {facts.by}: {facts.reason}")
        case "race-won":
            step.note(event.at, f"branch {facts.winner} ended first")
        case "timeout-passed":
            _over(step, event, "failed")
            step.note(event.at, "its time was over")
        case "question-answered":
            _over(step, event, "done")
            step.result = facts.answer
            step.note(event.at, f"answered{_by(event)}: {shorten(bytes(facts.answer).decode(), _ANSWER_WIDTH)}")
        case "signal-expired" | "question-expired":
            _over(step, event, "failed")
            step.note(event.at, "nothing came in time")
        case "signal-wait-withdrawn" | "question-withdrawn":
            _over(step, event, "cancelled")
        case "child-cancel-requested":
            step.note(event.at, "told to cancel; its end is waited for")
        case "child-ended":
            status = _CHILD_ENDS.get(facts.status, "failed")
            _over(step, event, status)
            step.result = facts.result
            if status != "done":
                step.error = f"{facts.error_type}: {facts.error}"
                step.note(event.at, step.error)
        case _:
            pass


def _over(step: Step, event: Recorded, status: StepStatus) -> None:
    step.status, step.ended_at, step.due = status, event.at, None


def _by(event: Recorded) -> str:
    return "" if event.principal is None else f", by {event.principal}"


def _end(step: Step, event: Recorded, facts: Facts, status: StepStatus) -> None:
    # Attempt 0 is how a verdict on a step in doubt is told from an outcome.
    step.is_verdict = facts.attempt == 0
    step.status, step.ended_at, step.due, step.micros = status, event.at, None, facts.micros
    is_refused = facts.error_type in REFUSALS
    step.attempts = facts.attempt - 1 if is_refused else max(step.attempts, facts.attempt)
