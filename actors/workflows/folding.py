"""How the events of a run become one record a step: what a resumed run is handed instead of running its steps again.

Not the fold of the actor's state (`evolving.py`), which keeps no results. Invariant: a record is changed by the events
of its own step alone, but for a retry by an operator, which opens several steps again.
"""

from collections import Counter
from typing import Literal

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.state.seen import Sighting
from perdure.actors.workflows.asking import Asked, opened
from perdure.actors.workflows.events import (
    AttemptDelayed,
    AttemptFailed,
    AttemptRefused,
    AttemptStarted,
    BranchesFailed,
    BranchesOpened,
    PathTaken,
    PivotPassed,
    RaceWon,
    RunRetried,
    SagaCompensated,
    SagaFailed,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
    StepNotDone,
    StepSkipped,
    StepStarted,
    TimeoutPassed,
    TimeoutSet,
    TimerFired,
    TimerSet,
    ValueRecorded,
    VersionChosen,
)
from perdure.actors.workflows.goal_facts import GoalTold
from perdure.actors.workflows.holdings import StateConflicted, StateRead, StateRefused, StateWritten
from perdure.actors.workflows.links import ChildCancelRequested, ChildEnded, ChildRefused, ChildStarted
from perdure.actors.workflows.mail import (
    CallApproved,
    CallRejected,
    PauseReached,
    PauseResumed,
    QuestionAnswered,
    QuestionAsked,
    QuestionExpired,
    QuestionWithdrawn,
    SignalAwaited,
    SignalExpired,
    SignalReceived,
    SignalTaken,
    SignalWaitWithdrawn,
)
from perdure.actors.workflows.occurrences import (
    EventAwaited,
    EventExpired,
    EventSent,
    EventTaken,
    EventWaitWithdrawn,
    taken_json,
)
from perdure.actors.workflows.step_record import Progress, StepRecord


class StepFold:
    """Takes in the events of a run, oldest first."""

    __slots__ = ("_asked", "_signals", "sightings", "steps", "versions")

    def __init__(self) -> None:
        self.steps: dict[str, StepRecord] = {}
        self.versions: dict[str, tuple[int, dict[str, int]]] = {}
        """The versions that were chosen, and how much each branch had recorded by then."""
        self.sightings: list[Sighting] | None = None
        """What a synchronized run has seen of values that others may change."""
        self._signals: dict[str, msgspec.Raw] = {}
        """Those that were received and not taken."""
        self._asked: dict[str, Asked] = {}
        """The questions that wait for more people."""

    def add(self, event: Event, at: int) -> None:  # noqa: C901 - one case an event
        """Take an event in that was recorded *at* a time."""
        match event:
            case StepStarted():
                self.steps[event.step] = StepRecord(
                    "step", event.branch, event.tool, at, effect=event.effect, digest=event.digest
                )
            case ValueRecorded():
                name = event.step.rpartition("/")[2].partition("#")[0]
                self.steps[event.step] = StepRecord("value", event.branch, name, at, "completed", result=event.value)
            case StepSkipped():
                self.steps[event.step] = StepRecord("skip", event.branch, "skip", at, "completed")
            case PathTaken():
                name = f"{event.left} > {event.next}"
                self.steps[event.step] = StepRecord("path", event.branch, name, at, "completed")
            case TimerSet():
                self.steps[event.step] = StepRecord("timer", event.branch, "sleep", at, due=event.due)
            case TimerFired():
                self.steps[event.step].progress = "completed"
            case StepCompleted():
                record = self.steps[event.step]
                record.progress, record.result, record.attempt = "completed", event.result, event.attempt
                record.micros = event.micros
            case StepFailed():
                record = self.steps[event.step]
                record.progress, record.error_type, record.error = "failed", event.error_type, event.error
                record.retryable, record.timed_out, record.micros = event.retryable, event.timed_out, event.micros
                record.was_dispatched = event.dispatched
                record.past_pivot = False  # of a child: a person has said so
            case StepCancelled():
                record = self.steps[event.step]
                record.before, record.progress = record.progress, "cancelled"
                record.was_dispatched = event.dispatched
            case RunRetried():
                self._reopen(event)
            case PivotPassed():
                self.steps[event.step] = StepRecord("pivot", event.branch, "pivot", at, "completed")
            case SagaFailed():
                self.steps[event.step] = StepRecord("saga", event.branch, "saga", at)
            case SagaCompensated():
                self.steps[event.step].progress = "completed"
            case _:
                self._add_attempt(event, at)

    def _add_attempt(self, event: Event, at: int) -> None:
        """Take in what concerns the attempts of a step."""
        match event:
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
                record = self.steps[event.step]
                record.in_doubt, record.stuck, record.attempt = True, event.stuck, event.attempt
                record.past_pivot = bool(event.child)
            case StepNotDone():
                record = self.steps[event.step]
                record.in_doubt, record.known_not_done = False, True
                if record.stuck:  # its attempts are made anew
                    record.stuck, record.at, record.base, record.attempt = "", at, record.attempt, record.attempt + 1
            case _:
                self._add_wait(event, at)

    def _reopen(self, event: RunRetried) -> None:
        for key in (*event.again, *event.waits):
            del self.steps[key]
        for key in event.forks:
            self.steps[key].failed = self.steps[key].won = None
        for one in event.reopened:
            record = self.steps[one.step]
            record.progress, record.in_doubt = record.before, False

    def _add_scope(self, event: Event, at: int) -> None:
        """Take in what concerns branches, and the version of the code that runs in them."""
        match event:
            case BranchesOpened():
                self.steps[event.step] = StepRecord("branches", event.branch, "branches", at, count=event.count)
            case BranchesFailed():
                self.steps[event.step].failed = event.failed
            case TimeoutSet():
                known = self.steps.get(event.step)
                record = known or StepRecord("timeout", event.branch, "timeout", at)
                self.steps[event.step], record.due = record, event.due
            case TimeoutPassed():
                self.steps[event.step].progress = "failed"
            case RaceWon():
                self.steps[event.step].won = event.winner
            case VersionChosen():
                recorded: dict[str, int] = {}
                for one in self.steps.values():
                    recorded[one.branch] = recorded.get(one.branch, 0) + 1
                self.versions[event.name] = (event.version, recorded)
            case _:
                self._add_event(event, at)

    def _add_event(self, event: Event, at: int) -> None:
        """Take in what concerns published events; other facts say nothing of steps."""
        match event:
            case EventSent():
                record = StepRecord("publication", event.branch, event.event, at, "completed", digest=event.digest)
                self.steps[event.step] = record
            case EventAwaited():
                record = StepRecord("event", event.branch, event.events, at, digest=event.digest, until=event.until)
                self.steps[event.step] = record
            case EventTaken():
                record = self.steps[event.step]
                record.progress, record.result = "completed", taken_json(event)
            case EventExpired():
                self.steps[event.step].progress = "failed"
            case EventWaitWithdrawn():
                self.steps[event.step].progress = "cancelled"
            case StateRead() | StateWritten() | StateConflicted() | StateRefused():
                self._add_holding(event, at)
            case GoalTold():
                name, told = f"{event.what} {event.goal}", event.result
                record = StepRecord("goal", event.branch, name, at, "completed", digest=event.digest, result=told)
                self.steps[event.step] = record
            case _:
                pass

    def _add_holding(self, event: StateRead | StateWritten | StateConflicted | StateRefused, at: int) -> None:
        """Take in what concerns shared state."""
        record = StepRecord("state", event.branch, event.action, at, "completed", digest=event.digest)
        match event:
            case StateRead(value=value, found=found):
                record.result, record.count = value, int(found)
            case StateWritten(result=result):
                record.result = result
            case StateConflicted() | StateRefused():
                record.progress, record.result = "failed", event.details
                record.error_type, record.error = event.error_type, event.error
        self.steps[event.step] = record
        if isinstance(event, StateRead | StateWritten) and event.seen:
            self.sightings = self.sightings or []
            self.sightings.extend(event.seen)

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
                name = event.tool or "ask"
                self.steps[event.step] = StepRecord(
                    "question", event.branch, name, at, digest=event.digest, until=event.until
                )
                self._asked[event.step] = opened(event)
            case PauseReached() | PauseResumed():
                self._add_pause(event, at)
            case QuestionAnswered(left=left) | CallApproved(left=left) if left:
                self._asked[event.step] = self._asked[event.step].after(event)
            case QuestionAnswered() | CallApproved() | CallRejected():
                record = self.steps[event.step]
                record.progress, record.result = "completed", self._asked.pop(event.step).outcome(event)
            case SignalExpired() | QuestionExpired():
                self.steps[event.step].progress = "failed"
            case SignalWaitWithdrawn() | QuestionWithdrawn():
                self.steps[event.step].progress = "cancelled"
            case _:
                self._add_child(event, at)

    def _add_pause(self, event: PauseReached | PauseResumed, at: int) -> None:
        if isinstance(event, PauseReached):
            name, until = event.name, event.until
            self.steps[event.step] = StepRecord("pause", event.branch, name, at, digest=event.digest, until=until)
        else:
            record = self.steps[event.step]
            record.progress, record.result = "completed", event.answer

    def _add_child(self, event: Event, at: int) -> None:
        """Take in what concerns a child run."""
        match event:
            case ChildStarted() | ChildRefused():
                what: Literal["child", "detached"] = "child" if event.is_awaited else "detached"
                record = StepRecord(what, event.branch, event.workflow, at, digest=event.digest, run=event.run)
                record.past_pivot = isinstance(event, ChildStarted) and event.past_pivot
                self.steps[event.step] = record
                if isinstance(event, ChildRefused):
                    record.progress, record.error_type, record.error = "failed", "RunConflictError", event.error
                elif not event.is_awaited:
                    record.progress = "completed"
            case ChildEnded(status="completed"):
                self._end_child(event, "completed")
            case ChildEnded():
                self._end_child(event, "failed")
            case ChildCancelRequested():
                self.steps[event.step].is_given_up = True
            case _:
                self._add_scope(event, at)

    def _end_child(self, event: ChildEnded, progress: Progress) -> None:
        record = self.steps[event.step]
        record.progress, record.result = progress, event.result
        record.error_type, record.error = event.error_type, event.error

    def keep_finished(self) -> None:
        """Forget what has not ended: a fork begins it anew, under its own name."""
        self._signals.clear()
        used: set[str] = set()
        """Paths of branches in which something is kept."""
        for key, record in reversed(list(self.steps.items())):
            is_over = record.progress in ("completed", "failed", "cancelled") and not record.is_unsettled
            holds = record.what in ("branches", "timeout") and any(path.startswith(f"{key}.") for path in used)
            # Something kept that came after it in its branch shows that the code had gone on.
            if is_over or holds or record.branch in used:
                used.add(record.branch)
                record.due = 0
            else:
                del self.steps[key]
        kept = Counter(record.branch for record in self.steps.values())
        for _, recorded in self.versions.values():
            recorded.update((branch, min(count, kept[branch])) for branch, count in list(recorded.items()))
