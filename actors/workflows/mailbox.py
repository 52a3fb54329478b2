"""What others send to a run: signals that wait for its code, and answers to its questions. Pure.

Not here: the code that waits (`waiting.py`). Invariant: a signal is taken once, in the order of sending; a question is
answered once, with what its schema allows, and by nobody once its time has passed.
"""

from typing import Any, Final, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Decision, Event, Moment
from perdure.actors.workflows.asking import Asked, answered, decided, opened
from perdure.actors.workflows.commands import AnswerQuestion, Arrived, DecideApproval, SendSignal
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import (
    QuestionNotOpenError,
    RunClosedError,
    SignalConflictError,
    SignalRefusedError,
)
from perdure.actors.workflows.events import RunParked
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

MAX_KEPT: Final = 1000
"""Signals that a run keeps until its code takes them."""
MAX_SIGNAL_BYTES: Final = 64 * 1024
"""Of one signal's value, as JSON."""
MAX_KEPT_BYTES: Final = 1024 * 1024
"""Of all values that are kept: they are in memory, and in snapshots."""
MAX_IDS: Final = 1000
"""Ids of signals that are remembered, the newest ones: within them the same signal again is no second one."""

ANSWER: Final = "answer"
"""What a run waits on that asks people."""
SIGNAL: Final = "signal"
"""What a run waits on that a signal moves."""

_CLOSED: Final = frozenset({"completed", "failed", "cancelled", "continued"})
_STILL: Final = frozenset({"blocked", "paused"})
"""A run that nothing wakes: what comes is kept."""
_Status: TypeAlias = str


class Kept(msgspec.Struct, frozen=True):
    """A signal that nobody has taken; `value` is JSON."""

    id: str
    name: str
    value: str
    at: int


class Awaited(msgspec.Struct, frozen=True):
    """A place in the code that waits for a signal."""

    name: str
    until: int | None


class Mailbox(msgspec.Struct, frozen=True):
    """The signals, the waits for them and the questions of one run; waits and questions by step."""

    kept: tuple[Kept, ...] = ()
    awaited: dict[str, Awaited] = {}
    questions: dict[str, Asked] = {}
    ids: dict[str, str] = {}
    """The digests of the signals that came with an id, by it."""
    count: int = 0
    """How many signals came."""

    def after(self, event: Event) -> "Mailbox":
        """Return the mailbox after *event*."""
        replace = msgspec.structs.replace
        match event:
            case SignalReceived():
                return self._with(event)
            case SignalAwaited():
                return replace(self, awaited={**self.awaited, event.step: Awaited(event.name, event.until)})
            case SignalTaken():
                kept = tuple(one for one in self.kept if one.id != event.signal)
                return replace(self, kept=kept, awaited=_without(self.awaited, event.step))
            case SignalExpired() | SignalWaitWithdrawn():
                return replace(self, awaited=_without(self.awaited, event.step))
            case QuestionAsked() | PauseReached():
                return replace(self, questions={**self.questions, event.step: opened(event)})
            case QuestionAnswered(left=left) | CallApproved(left=left) if left:
                asked = self.questions[event.step].after(event)
                return replace(self, questions={**self.questions, event.step: asked})
            case QuestionAnswered() | CallApproved() | CallRejected() | PauseResumed():
                return replace(self, questions=_without(self.questions, event.step))
            case QuestionExpired() | QuestionWithdrawn():
                return replace(self, questions=_without(self.questions, event.step))
            case _:
                return self

    def _with(self, event: SignalReceived) -> "Mailbox":
        data = bytes(event.value)
        ids = self.ids
        if not event.id.startswith("#"):
            forgotten = len(ids) + 1 - MAX_IDS
            newest = dict(list(ids.items())[forgotten:]) if forgotten > 0 else ids
            ids = {**newest, event.id: digest(event.name, data)}
        kept = (*self.kept, Kept(event.id, event.name, data.decode(), event.at))
        return msgspec.structs.replace(self, kept=kept, ids=ids, count=self.count + 1)

    def matches(self) -> dict[str, Kept]:
        """Return which wait gets which signal: the first of a name the first, and none one that came too late."""
        found: dict[str, Kept] = {}
        left = list(self.kept)
        for step, wait in self.awaited.items():
            for one in left:
                if one.name == wait.name and (wait.until is None or one.at < wait.until):
                    found[step] = one
                    left.remove(one)
                    break
        return found

    def is_waiting(self, step: str) -> bool:
        """Return whether what *step* waits for has not come."""
        return step in self.questions or (step in self.awaited and step not in self.matches())

    @property
    def pauses(self) -> dict[str, Asked]:
        """The places at which the workflow has paused itself, by step."""
        return {step: asked for step, asked in self.questions.items() if asked.paused_at}

    def closed(self, *, keeps_signals: bool) -> "Mailbox":
        """Return the mailbox of a run that has ended: it remembers which signals came, and waits for none.

        One that may be retried keeps those that its code has not taken.
        """
        return Mailbox(kept=self.kept if keeps_signals else (), ids=self.ids, count=self.count)


def receive(run: str, status: _Status, box: Mailbox, command: SendSignal, moment: Moment) -> Decision[bool]:
    """Keep a signal for the run's code; it is answered with False when it came before.

    Raises:
        RunClosedError, SignalRefusedError, SignalConflictError: it is not kept.
    """
    data = bytes(command.value)
    if command.id is not None and command.id in box.ids:
        if box.ids[command.id] != digest(command.name, data):
            raise SignalConflictError(detail="", run=run, signal=command.id)
        return Decision((), reply=False)
    _check_open(run, status)
    if reason := _full(box, len(data)):
        raise SignalRefusedError(run=run, name=command.name, reason=reason)
    received = SignalReceived(command.id or f"#{box.count + 1}", command.name, command.value, moment.now)
    is_awaited = any(kept.id == received.id for kept in box.after(received).matches().values())
    events = _waking(status, received, moment) if is_awaited else (received,)
    effects = (Arrived(),) if is_awaited and status not in _STILL else ()
    return Decision(events, reply=True, effects=effects)


def _full(box: Mailbox, size: int) -> str:
    if size > MAX_SIGNAL_BYTES:
        return f"its value has {size} bytes of JSON, at most {MAX_SIGNAL_BYTES} are allowed"
    if len(box.kept) >= MAX_KEPT or sum(len(one.value) for one in box.kept) + size > MAX_KEPT_BYTES:
        return f"it keeps {len(box.kept)} already that its code has not taken"
    return ""


def answer(
    run: str, status: _Status, box: Mailbox, command: AnswerQuestion | DecideApproval, moment: Moment
) -> Decision[None]:
    """Take what a person says to an open question; the code is told after the last word.

    Raises:
        RunClosedError, QuestionNotOpenError, WrongAnswerError: it is not taken.
    """
    _check_open(run, status)
    step = next((step for step, asked in box.questions.items() if asked.id == command.question), None)
    asked = None if step is None else box.questions[step]
    if step is None or asked is None or (asked.until is not None and asked.until <= moment.now):
        raise QuestionNotOpenError(run=run, question=command.question)
    if isinstance(command, AnswerQuestion):
        fact: QuestionAnswered | CallApproved | CallRejected | PauseResumed = answered(step, asked, command)
    else:
        fact = decided(step, asked, command)
    if isinstance(fact, (QuestionAnswered, CallApproved)) and fact.left:
        return Decision((fact,), None)
    effects = () if status == "blocked" else (Arrived(QuestionAnswered(step, asked.id, asked.outcome(fact))),)
    return Decision(_waking(status, fact, moment), None, effects)


def _check_open(run: str, status: _Status) -> None:
    if status in _CLOSED:
        raise RunClosedError(run=run, status=status)


def _waking(status: _Status, fact: Event, moment: Moment) -> tuple[Event, ...]:
    # A run that left memory is due at once, so that the next life wakes it too, should this one end before the effect.
    return (RunParked(moment.now, None), fact) if status == "waiting" else (fact,)


def _without(steps: dict[str, Any], step: str) -> dict[str, Any]:
    return {key: value for key, value in steps.items() if key != step}
