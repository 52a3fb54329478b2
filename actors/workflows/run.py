"""The actor of one run: what may happen to it, and what is open. The pure core.

It keeps only what decisions need: the steps in flight and the figures. Results of finished steps stay in the log until
a resume reads them (`recording.py`), so a long run is small in memory.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.workflows.children import CHILD_EVENTS, Children, RunEnd, end_child, ending, tell_parent
from perdure.actors.workflows.commands import (
    AnswerQuestion,
    CancelRun,
    Conclude,
    DecideApproval,
    EndChild,
    EndRun,
    Enqueue,
    FindEvent,
    GetRun,
    Interrupt,
    Launch,
    Note,
    PauseRun,
    ResumeRun,
    RetryRun,
    SendSignal,
    Settled,
    SettleStep,
    StartRun,
    TellParent,
    UnpauseRun,
)
from perdure.actors.workflows.errors import RunConflictError, RunContinuedError, RunError, UnknownRunError
from perdure.actors.workflows.events import (
    RUN_EVENTS,
    AttemptDelayed,
    AttemptFailed,
    AttemptRefused,
    AttemptStarted,
    Origin,
    Place,
    QuestionWithdrawn,
    RunBlocked,
    RunCancelled,
    RunCancelRequested,
    RunCompleted,
    RunFact,
    RunFailed,
    RunParked,
    RunPaused,
    RunResumed,
    RunRetried,
    RunStarted,
    RunSuspended,
    RunUnpaused,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
    StepNotDone,
    StepStarted,
    TimerFired,
    TimerSet,
)
from perdure.actors.workflows.links import Chain, ChildEnded, Parent, ParentTold, RunContinued
from perdure.actors.workflows.mailbox import MAIL_EVENTS, Mailbox, answer, receive
from perdure.actors.workflows.occurrences import SUBSCRIPTION_EVENTS
from perdure.actors.workflows.queue import WAITS_IN
from perdure.actors.workflows.steering import PAUSED, is_held, retried, steer
from perdure.actors.workflows.subscriptions import Subscriptions, find
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

RunStatus: TypeAlias = Literal[
    "queued", "running", "waiting", "paused", "blocked", "completed", "failed", "cancelled", "continued",
]  # fmt: skip

CLOSED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "continued"})
_OF_ITSELF = (Note, EndRun, StartRun, ResumeRun, GetRun, EndChild, TellParent)
"""What a run takes that goes on as another one; everything else is for the other."""

CRASHES_BEFORE_ALONE = 2
"""After so many crashes in a row with a step in flight, a run resumes alone; one more, and it is parked as poison."""

ATTENTION = "attention"
"""What a run waits on that only a person can move."""


class Flight(msgspec.Struct, frozen=True):
    """A step without an outcome."""

    tool: str
    effect: str
    attempt: int = 1
    in_doubt: bool = False
    rests: bool = False
    """Whether it waits between two attempts: it cannot be what the process died of."""
    must_end: bool = False
    """Whether it is made again though the run is to be cancelled: a compensation, or a step past a pivot."""


class RunState(msgspec.Struct, frozen=True):
    """What the log knows of a run, less the results of its steps."""

    run: str
    status: RunStatus | Literal["unborn"] = "unborn"
    workflow: str = ""
    digest: str = ""
    deadline: int | None = None
    conversation: str | None = None
    in_flight: dict[str, Flight] = {}
    timers: int = 0
    mailbox: Mailbox = Mailbox()
    events: Subscriptions = Subscriptions()
    steps_done: int = 0
    wake_at: int | None = None
    waits_on: str | None = None
    life: int = 0
    suspects: tuple[str, ...] = ()
    """The steps in flight when the process died, as long as none of them has ended."""
    crashes: int = 0
    """How often in a row the process died with them."""
    was_alone: bool = False
    cancel_reason: str | None = None
    paused: str | None = None
    """Why an operator paused it."""
    retries: int = 0
    """How often an operator had it tried again."""
    forked_from: Origin | None = None
    place: Place | None = None
    """The queue that it came through, or waits in."""
    parent: Parent | None = None
    is_parent_told: bool = False
    children: Children = Children()
    chain: Chain | None = None
    """What it goes on for."""
    continued_as: str | None = None
    result: str = "null"
    """JSON."""
    error_type: str = ""
    error: str = ""


class RunView(msgspec.Struct, frozen=True):
    """How a run stands."""

    run: str
    workflow: str
    status: RunStatus
    steps_done: int
    in_flight: tuple[str, ...]
    in_doubt: tuple[str, ...] = ()
    wake_at: int | None = None
    waits_on: str | None = None
    cancel_reason: str | None = None
    result: str = "null"
    """JSON."""
    error_type: str = ""
    error: str = ""
    questions: tuple[str, ...] = ()
    """The ids of its questions that nobody has answered yet."""
    paused: str | None = None
    """Why an operator paused it; None when nobody has."""
    parent: str | None = None
    """The run that started it."""
    children: tuple[str, ...] = ()
    """The runs that it awaits."""
    continued_as: str | None = None
    """The run that it goes on as; its own status is then `continued`."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in CLOSED


class NotOpenError(RunError):
    """The run's code reported something after the run was closed: another life of it is at work."""

    message = "run {run} is {status}: it takes no more facts"
    run: str
    status: str


class NotInDoubtError(RunError):
    """The step named is not in doubt."""

    message = "step {step!r} of run {run} is not in doubt; in doubt are: {in_doubt}"
    run: str
    step: str
    in_doubt: str


class RunBehavior:
    """The rules of a run's actor."""

    kind = "run"
    state_type = RunState
    state_version = 2
    events = RUN_EVENTS

    def initial(self, stream: StreamId) -> RunState:
        """Return the state of a run that nobody has started."""
        return RunState(stream.partition("/")[2])

    def decide(self, state: RunState, command: Command, moment: Moment) -> Decision[Any]:  # noqa: C901 - one case a command
        """Return what *command* leads to."""
        if state.status == "continued" and not isinstance(command, _OF_ITSELF):
            _check_is_here(state, command)
        match command:
            case Note(fact=fact):
                return _note(state, fact)
            case EndRun() | EndChild() | TellParent():
                return _link(state, command, moment)
            case StartRun():
                return _start(state, command, moment)
            case ResumeRun(life=life):
                return _resume(state, life, moment)
            case CancelRun(reason=reason):
                return _cancel(_born(state), reason, moment)
            case PauseRun() | UnpauseRun() | RetryRun():
                return steer(_born(state), command, moment)
            case SettleStep():
                return _settle(_born(state), command, moment)
            case SendSignal():
                state = _born(state)
                return receive(state.run, _shown(state), state.mailbox, command, moment)
            case AnswerQuestion() | DecideApproval():
                state = _born(state)
                return answer(state.run, _shown(state), state.mailbox, command, moment)
            case FindEvent():
                return find(_shown(state), state.events, command, moment)
            case GetRun():
                return Decision((), view(_born(state)))
            case _:
                raise InternalError(detail=f"a run does not understand {type(command).__name__}")

    def evolve(self, state: RunState, event: Event) -> RunState:  # noqa: C901 - one line an event
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case StepStarted(step=step, tool=tool, effect=effect):
                flight = Flight(tool, effect, must_end=bool(event.undoes) or event.past_pivot)
                return replace(state, in_flight={**state.in_flight, step: flight})
            case StepCompleted(step=step) | StepFailed(step=step) | StepCancelled(step=step):
                return _step_ended(state, step)
            case AttemptStarted(step=step, attempt=attempt):
                return _in_flight(state, step, attempt=attempt, rests=False)
            case AttemptFailed(step=step) | AttemptRefused(step=step) | AttemptDelayed(step=step):
                return _survived(_in_flight(state, step, rests=True), step)
            case StepInDoubt(step=step):
                return _survived(_in_flight(state, step, in_doubt=True, rests=True), step)
            case StepNotDone(step=step):
                return _in_flight(state, step, in_doubt=False)
            case TimerSet():
                return replace(state, timers=state.timers + 1)
            case TimerFired():
                return replace(state, timers=max(0, state.timers - 1))
            case RunStarted():
                return _started(state, event)
            case RunResumed():
                return _resumed(state, event)
            case RunSuspended():
                return replace(state, life=0, crashes=0, suspects=(), was_alone=False)
            case RunParked(wake_at=wake_at, waits_on=waits_on, listens=listens):
                events = state.events.parked(listens)
                return replace(state, status="waiting", wake_at=wake_at, waits_on=waits_on, life=0, events=events)
            case RunBlocked(kind=kind, account=account):
                return replace(state, status="blocked", waits_on=ATTENTION, error_type=kind, error=account, life=0)
            case RunCancelRequested(reason=reason):
                return replace(state, cancel_reason=reason, paused=None)
            case RunPaused(reason=reason):
                return replace(state, paused=reason)
            case RunUnpaused():
                return replace(state, paused=None)
            case RunRetried():
                reopened = {s.step: Flight(s.tool, s.effect, s.attempt, rests=True) for s in event.reopened}
                return retried(state, event, reopened)
            case RunCompleted(result=result):
                return _closed(state, "completed", result=bytes(result).decode())
            case RunFailed(error_type=error_type, error=error):
                return _closed(state, "failed", error_type=error_type, error=error)
            case RunCancelled(reason=reason):
                return _closed(state, "cancelled", error=reason)
            case RunContinued(run=run):
                return _closed(state, "continued", continued_as=run)
            case ParentTold():
                return replace(state, is_parent_told=True)
            case _ if isinstance(event, CHILD_EVENTS):
                done = state.steps_done + event.ends_a_step
                return replace(state, children=state.children.after(event), steps_done=done)
            case _ if isinstance(event, SUBSCRIPTION_EVENTS):
                return replace(state, events=state.events.after(event))
            case _ if isinstance(event, MAIL_EVENTS):
                return replace(state, mailbox=state.mailbox.after(event))
            case _:
                return state

    def index(self, state: RunState) -> Index:
        """Return whether the run is open work, when it wakes and what it waits on."""
        if state.paused is not None and state.status != "blocked":
            return Index(is_open=True, wake_at=state.deadline, waits_on=PAUSED)
        is_open = owes(state) if state.status in CLOSED else state.status != "unborn"
        return Index(is_open, state.wake_at, state.waits_on)


def owes(state: RunState) -> bool:
    """Return whether a run that has ended is to be told of by its parent, or has children that have not ended."""
    return bool(state.children.awaited) or _untold_parent(state) is not None


def _untold_parent(state: RunState) -> Parent | None:
    parent = state.parent
    is_over = state.status in CLOSED and state.status != "continued"
    return parent if is_over and parent is not None and parent.is_awaited and not state.is_parent_told else None


def report(state: RunState) -> ChildEnded | None:
    """Return what the parent of a run that has ended is still to be told; None: nothing."""
    parent = _untold_parent(state)
    if parent is None:
        return None
    match state.status:
        case "completed":
            fact: RunEnd = RunCompleted(msgspec.Raw(state.result.encode()))
        case "failed":
            fact = RunFailed(state.error_type, state.error)
        case _:
            fact = RunCancelled(state.error)
    return ending(state.run, parent.step, fact)


def needs_solitude(state: RunState, life: int) -> bool:
    """Return whether the run must not be resumed beside another suspect of crashes."""
    return _is_suspect(state, life) and state.crashes + 1 >= CRASHES_BEFORE_ALONE


def _is_suspect(state: RunState, life: int) -> bool:
    # A life that was not ended by a suspension, a parking or an end was ended by a crash.
    # One that is to be cancelled makes none of its steps again, but for those that a saga must bring to their end.
    dispatched = _dispatched(state)
    if state.cancel_reason is not None:
        dispatched = tuple(step for step in dispatched if state.in_flight[step].must_end)
    return state.life not in (0, life) and bool(dispatched)


def _dispatched(state: RunState) -> tuple[str, ...]:
    return tuple(step for step, flight in state.in_flight.items() if not flight.rests)


def view(state: RunState) -> RunView:
    """Return how the run stands."""
    in_doubt = tuple(k for k, f in state.in_flight.items() if f.in_doubt)
    return RunView(
        run=state.run,
        workflow=state.workflow,
        status=_shown(state),
        steps_done=state.steps_done,
        in_flight=tuple(state.in_flight),
        in_doubt=in_doubt,
        wake_at=state.wake_at,
        waits_on=ATTENTION if in_doubt else PAUSED if state.paused is not None else state.waits_on,
        cancel_reason=state.cancel_reason,
        result=state.result,
        error_type=state.error_type,
        error=state.error,
        questions=tuple(asked.id for asked in state.mailbox.questions.values()),
        paused=state.paused,
        parent=None if state.parent is None else state.parent.run,
        children=tuple(state.children.awaited.values()),
        continued_as=state.continued_as,
    )


def _shown(state: RunState) -> RunStatus:
    if state.status == "unborn":
        return "running"
    return state.status if state.paused is None or state.status == "blocked" else "paused"


def _born(state: RunState) -> RunState:
    if state.status == "unborn":
        raise UnknownRunError(run=state.run)
    return state


def _note(state: RunState, fact: RunFact) -> Decision[None]:
    _check_takes_facts(state)
    return Decision((fact,), None)


def _check_takes_facts(state: RunState) -> None:
    if state.status in CLOSED:
        raise NotOpenError(run=state.run, status=state.status)


def _link(state: RunState, command: EndRun | EndChild | TellParent, moment: Moment) -> Decision[Any]:
    match command:
        case EndRun(fact=fact, told=told):
            _check_takes_facts(state)
            return Decision((fact,) if told is None else (fact, told), None)
        case EndChild():
            return end_child(state.children, _shown(state), command, moment)
        case TellParent():
            return tell_parent(_untold_parent(state))


def _check_is_here(state: RunState, command: Command) -> None:
    """Check that a command is for this run, and not for the one that it goes on as.

    Raises:
        RunContinuedError: it is for the other.
    """
    # A signal that it took itself must not come to the other as a new one.
    if not (isinstance(command, SendSignal) and command.id in state.mailbox.ids):
        raise RunContinuedError(run=state.run, following=state.continued_as)


def _start(state: RunState, command: StartRun, moment: Moment) -> Decision[RunView]:
    if state.status == "unborn":
        started = RunStarted(
            command.workflow, command.input, command.digest, command.life, command.deadline, command.conversation,
            command.forked_from, place=command.place, parent=command.parent, chain=command.chain,
        )  # fmt: skip
        launch = Launch(command.input, command.principal, command.forked_from is not None)
        begin = launch if command.place is None else Enqueue(command.place, moment.now)
        return Decision((started, *command.mail), view(state), (begin,))
    if state.workflow != command.workflow:
        raise RunConflictError(detail="", run=state.run, workflow=state.workflow, difference="another workflow")
    if state.digest != command.digest:
        raise RunConflictError(detail="", run=state.run, workflow=state.workflow, difference="other input")
    if state.forked_from != command.forked_from:
        raise RunConflictError(detail="", run=state.run, workflow=state.workflow, difference="another origin")
    return Decision((), view(state))


def _resume(state: RunState, life: int, moment: Moment) -> Decision[bool]:
    """Prepare a resume; a run that kills the process again and again is set apart, then parked."""
    if is_held(state, moment.now):
        # One that was paused before its code came to run left nothing behind that a crash could explain.
        is_laid_down = state.status == "running" and state.life == life
        return Decision((RunParked(state.deadline, PAUSED),) if is_laid_down else (), reply=False)
    if state.status in CLOSED or state.status == "unborn" or state.error_type == "poison":
        return Decision((), reply=False)
    is_suspect = _is_suspect(state, life)
    if is_suspect and state.was_alone:
        steps = ", ".join(state.suspects)
        account = f"the process died {state.crashes + 1} times in a row while it ran, the last time alone, in: {steps}"
        return Decision((RunBlocked("poison", account),), reply=False)
    is_alone = needs_solitude(state, life)
    resumed = RunResumed(life, after_crash=is_suspect, is_alone=is_alone, in_flight=tuple(state.in_flight))
    return Decision((resumed,), reply=True)


def _cancel(state: RunState, reason: str, moment: Moment) -> Decision[bool]:
    if state.status in CLOSED:
        return Decision((), reply=False)
    requested = RunCancelRequested(reason)
    if state.status == "queued":  # its code never ran
        return Decision((requested, RunCancelled(reason)), reply=True, effects=(Interrupt(), Conclude()))
    if state.status == "blocked":  # its code cannot run, so there is nothing to wait for
        withdrawn = tuple(QuestionWithdrawn(step, asked.id) for step, asked in state.mailbox.questions.items())
        return Decision((requested, *withdrawn, RunCancelled(reason)), reply=True, effects=(Conclude(),))
    if state.cancel_reason is not None:
        return Decision((), reply=True)
    if state.status != "waiting":
        return Decision((requested,), reply=True, effects=(Interrupt(),))
    # A sleeper is due at once, so that the next life wakes it too, should this one end before the effect.
    return Decision((requested, RunParked(moment.now, None)), reply=True, effects=(Interrupt(),))


def _settle(state: RunState, command: SettleStep, moment: Moment) -> Decision[None]:
    flight = state.in_flight.get(command.step)
    if flight is None or not flight.in_doubt:
        doubts = ", ".join(k for k, f in state.in_flight.items() if f.in_doubt) or "none"
        raise NotInDoubtError(run=state.run, step=command.step, in_doubt=doubts)
    if state.status != "waiting":
        return Decision((command.fact,), None, (Settled(command.step, command.fact),))
    return Decision((command.fact, RunParked(moment.now, None)), None, (Settled(command.step, command.fact),))


def _started(state: RunState, event: RunStarted) -> RunState:
    return msgspec.structs.replace(
        state,
        status="running" if event.place is None else "queued",
        waits_on=None if event.place is None else WAITS_IN + event.place.queue,
        wake_at=None if event.place is None else event.deadline,
        place=event.place,
        workflow=event.workflow,
        digest=event.digest,
        life=event.life,
        deadline=event.deadline,
        conversation=event.conversation,
        forked_from=event.forked_from,
        parent=event.parent,
        chain=event.chain,
    )


def _step_ended(state: RunState, step: str) -> RunState:
    left = dict(state.in_flight)
    left.pop(step, None)
    return _survived(msgspec.structs.replace(state, in_flight=left, steps_done=state.steps_done + 1), step)


def _survived(state: RunState, step: str) -> RunState:
    """Return the state after an attempt at *step* that the process did not die of."""
    if not state.crashes or step not in state.suspects:
        return state
    suspects = tuple(s for s in state.suspects if s != step)
    if suspects:
        return msgspec.structs.replace(state, suspects=suspects)
    return msgspec.structs.replace(state, suspects=(), crashes=0, was_alone=False)


def _resumed(state: RunState, event: RunResumed) -> RunState:
    return msgspec.structs.replace(
        state,
        status="running",
        paused=None,
        wake_at=None,
        waits_on=None,
        error_type="",
        error="",
        life=event.life,
        suspects=_dispatched(state) if event.after_crash else (),
        crashes=state.crashes + 1 if event.after_crash else 0,
        was_alone=event.is_alone,
    )


def _in_flight(state: RunState, step: str, **changes: Any) -> RunState:
    flight = state.in_flight.get(step)
    if flight is None:
        return state
    changed = msgspec.structs.replace(flight, **changes)
    return msgspec.structs.replace(state, in_flight={**state.in_flight, step: changed})


def _closed(state: RunState, status: RunStatus, **changes: Any) -> RunState:
    return msgspec.structs.replace(
        state,
        status=status,
        paused=None,
        in_flight={},
        timers=0,
        mailbox=state.mailbox.closed(keeps_signals=status == "failed"),
        events=state.events.closed(),
        wake_at=None,
        waits_on=None,
        life=0,
        **changes,
    )
