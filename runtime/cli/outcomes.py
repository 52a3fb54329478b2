"""What became of a step: the later events of a call, of a wait, of a child, folded into it.

Pure, and of one step only; which steps there are: `timeline.py`. Invariant: a note says what stands in an event.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from perdure.runtime.cli.facts import Facts, at_place, refuser
from perdure.runtime.cli.output import duration, shorten
from perdure.store.records import Recorded

StepStatus: TypeAlias = Literal[
    "in flight", "retrying", "waiting", "in doubt", "done", "failed", "cancelled", "sleeping", "open",
]  # fmt: skip

What: TypeAlias = Literal[
    "tool", "function", "value", "timer", "branches", "signal", "question", "child", "event", "fact", "run"
]

REFUSALS: Final = frozenset({"CircuitOpenError", "RateLimitedError", "BulkheadFullError"})
"""Errors of attempts that were not made."""
ANSWER_WIDTH: Final = 100
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


def go_on(step: Step, event: Recorded, facts: Facts) -> None:  # noqa: C901 - one case an event
    """Take in a later event of a step."""

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
            note(step.error + at_place(facts))
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
            edited = "" if changed == "null" else f", with {shorten(changed, ANSWER_WIDTH)}"
            step.note(event.at, f"approved by {facts.by}{edited}")
        case "call-rejected":
            _over(step, event, "done")
            step.note(event.at, f"rejected by {facts.by}: {facts.reason}")
        case "race-won":
            step.note(event.at, f"branch {facts.winner} ended first")
        case "timeout-passed":
            _over(step, event, "failed")
            step.note(event.at, "its time was over")
        case "question-answered" | "pause-resumed":
            _over(step, event, "done")
            step.result = facts.answer
            how = "answered" if event.type == "question-answered" else "resumed"
            step.note(event.at, f"{how}{by(event)}: {_short(facts.answer)}")
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
        case "saga-compensated":
            left = f"; not undone: {', '.join(facts.given_up)}" if facts.given_up else ""
            step.note(event.at, f"what it had done is undone{left}")
        case _:
            _go_on_listening(step, event, facts)


def _go_on_listening(step: Step, event: Recorded, facts: Facts) -> None:
    match event.type:
        case "event-found":
            step.note(event.at, "one was published")
        case "event-taken":
            _over(step, event, "done")
            step.result = facts.data
            source = f", published by {facts.run}" if facts.run else ""
            step.note(event.at, f"got {facts.event} {facts.id}{source}: {_short(facts.data)}")
        case "event-expired":
            _over(step, event, "failed")
            step.note(event.at, "nothing came in time")
        case "event-wait-withdrawn":
            _over(step, event, "cancelled")
        case _:
            pass


def _short(value: msgspec.Raw) -> str:
    return shorten(bytes(value).decode(), ANSWER_WIDTH)


def _over(step: Step, event: Recorded, status: StepStatus) -> None:
    step.status, step.ended_at, step.due = status, event.at, None


def by(event: Recorded) -> str:
    """Return in words who caused an event, where it says so."""
    return "" if event.principal is None else f", by {event.principal}"


def _end(step: Step, event: Recorded, facts: Facts, status: StepStatus) -> None:
    # Attempt 0 is how a verdict on a step in doubt is told from an outcome.
    step.is_verdict = facts.attempt == 0
    step.status, step.ended_at, step.due, step.micros = status, event.at, None, facts.micros
    is_refused = facts.error_type in REFUSALS
    step.attempts = facts.attempt - 1 if is_refused else max(step.attempts, facts.attempt)
