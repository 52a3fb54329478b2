"""What a run has done so far, by step: read from the log once, when the run resumes, and consumed by its code.

Not an actor's state: results live here only while they are being replayed. Invariant: a recorded step is handed out
once, to the branch that recorded it.
"""

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.workflows.events import (
    AttemptDelayed,
    AttemptFailed,
    AttemptRefused,
    AttemptStarted,
    BranchesFailed,
    BranchesOpened,
    QuestionAnswered,
    QuestionAsked,
    QuestionExpired,
    QuestionWithdrawn,
    SignalAwaited,
    SignalExpired,
    SignalReceived,
    SignalTaken,
    SignalWaitWithdrawn,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
    StepNotDone,
    StepStarted,
    TimerFired,
    TimerSet,
    ValueRecorded,
)

Progress: TypeAlias = Literal["dispatched", "backing_off", "completed", "failed", "cancelled"]


class StepRecord(msgspec.Struct):
    """One recorded step, folded from its events."""

    what: Literal["step", "value", "timer", "branches", "signal", "question"]
    branch: str
    name: str
    at: int
    progress: Progress = "dispatched"
    effect: str = ""
    digest: str = ""
    attempt: int = 1
    due: int = 0
    """When the next attempt, or the end of the sleep, is due."""
    until: int | None = None
    """When the wait for a signal or an answer ends by itself."""
    in_doubt: bool = False
    known_not_done: bool = False
    has_token: bool = False
    """Whether it waits for a token of the rate limit that is spoken for."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error_type: str = ""
    error: str = ""
    retryable: bool = False
    count: int = 0
    failed: int | None = None


class Recording:
    """The recorded steps of a run."""

    __slots__ = ("_left", "_signals", "steps")

    def __init__(self, events: Iterable[tuple[Event, int]] = ()) -> None:
        self.steps: dict[str, StepRecord] = {}
        self._signals: dict[str, msgspec.Raw] = {}
        """Those that were received and not taken."""
        for event, at in events:
            self._add(event, at)
        self._left: dict[str, int] = {}
        for record in self.steps.values():
            self._left[record.branch] = self._left.get(record.branch, 0) + 1

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, key: str) -> StepRecord | None:
        """Hand out the record of a step, once."""
        record = self.steps.pop(key, None)
        if record is not None:
            self._left[record.branch] -= 1
        return record

    def has_left_in(self, branch: str) -> bool:
        """Return whether *branch* has recorded what it was not yet handed."""
        return bool(self._left.get(branch))

    def branches_of(self, fork: str) -> set[int]:
        """Return the numbers of the branches of *fork* that have anything left."""
        prefix = f"{fork}."
        paths = (path for path, count in self._left.items() if count and path.startswith(prefix))
        return {int(path[len(prefix) :].partition("/")[0]) for path in paths}

    def left_in(self, branch: str) -> list[tuple[str, StepRecord]]:
        """Return what *branch* has recorded and not yet been handed."""
        if not self._left.get(branch):
            return []
        return [(key, record) for key, record in self.steps.items() if record.branch == branch]

    def _add(self, event: Event, at: int) -> None:  # noqa: C901 - one case an event
        match event:
            case StepStarted():
                self.steps[event.step] = StepRecord(
                    "step", event.branch, event.tool, at, effect=event.effect, digest=event.digest
                )
            case ValueRecorded():
                name = event.step.rpartition("/")[2].partition("#")[0]
                self.steps[event.step] = StepRecord("value", event.branch, name, at, "completed", result=event.value)
            case TimerSet():
                self.steps[event.step] = StepRecord("timer", event.branch, "sleep", at, due=event.due)
            case TimerFired():
                self.steps[event.step].progress = "completed"
            case BranchesOpened():
                self.steps[event.step] = StepRecord("branches", event.branch, "branches", at, count=event.count)
            case BranchesFailed():
                self.steps[event.step].failed = event.failed
            case StepCompleted():
                record = self.steps[event.step]
                record.progress, record.result, record.attempt = "completed", event.result, event.attempt
            case StepFailed():
                record = self.steps[event.step]
                record.progress, record.error_type, record.error = "failed", event.error_type, event.error
                record.retryable = event.retryable
            case StepCancelled():
                self.steps[event.step].progress = "cancelled"
            case AttemptStarted():
                record = self.steps[event.step]
                record.progress, record.attempt, record.known_not_done = "dispatched", event.attempt, False
                record.has_token = False
            case AttemptFailed():
                record = self.steps[event.step]
                record.progress, record.due, record.attempt = "backing_off", event.retry_at, event.attempt + 1
            case AttemptRefused(retry_at=due) | AttemptDelayed(until=due):
                record = self.steps[event.step]
                record.progress, record.due, record.attempt = "backing_off", due, event.attempt
                record.has_token = isinstance(event, AttemptDelayed)
            case StepInDoubt():
                self.steps[event.step].in_doubt = True
            case StepNotDone():
                record = self.steps[event.step]
                record.in_doubt, record.known_not_done = False, True
            case _:
                self._add_wait(event, at)

    def _add_wait(self, event: Event, at: int) -> None:
        """Take in what concerns a wait for a signal or an answer; other events say nothing of steps."""
        match event:
            case SignalReceived():
                self._signals[event.id] = event.value
            case SignalAwaited():
                self.steps[event.step] = StepRecord("signal", event.branch, event.name, at, until=event.until)
            case SignalTaken():
                record = self.steps[event.step]
                record.progress, record.result = "completed", self._signals.pop(event.signal)
            case QuestionAsked():
                self.steps[event.step] = StepRecord(
                    "question", event.branch, "ask", at, digest=event.digest, until=event.until
                )
            case QuestionAnswered():
                record = self.steps[event.step]
                record.progress, record.result = "completed", event.answer
            case SignalExpired() | QuestionExpired():
                self.steps[event.step].progress = "failed"
            case SignalWaitWithdrawn() | QuestionWithdrawn():
                self.steps[event.step].progress = "cancelled"
            case _:
                pass
