"""The actor of one run: what may happen to it, and what is open. The pure core.

It keeps only what decisions need: the steps in flight and the figures. Results of finished steps stay in the log until
a resume reads them (`recording.py`), so a long run is small in memory.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.workflows.commands import (
    AnswerQuestion,
    CancelRun,
    GetRun,
    Interrupt,
    Launch,
    Note,
    ResumeRun,
    SendSignal,
    Settled,
    SettleStep,
    StartRun,
)
from perdure.actors.workflows.errors import RunConflictError, RunError, UnknownRunError
from perdure.actors.workflows.events import (
    RUN_EVENTS,
    AttemptDelayed,
    AttemptFailed,
    AttemptRefused,
    AttemptStarted,
    QuestionWithdrawn,
    RunBlocked,
    RunCancelled,
    RunCancelRequested,
    RunCompleted,
    RunFact,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    RunSuspended,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
    StepNotDone,
    StepStarted,
    TimerFired,
    TimerSet,
)
from perdure.actors.workflows.mailbox import MAIL_EVENTS, Mailbox, answer, receive
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

RunStatus: TypeAlias = Literal["running", "waiting", "blocked", "completed", "failed", "cancelled"]

CLOSED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})

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
    state_version = 1
    events = RUN_EVENTS

    def initial(self, stream: StreamId) -> RunState:
        """Return the state of a run that nobody has started."""
        return RunState(stream.partition("/")[2])

    def decide(self, state: RunState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        match command:
            case Note(fact=fact):
                return _note(state, fact)
            case StartRun():
                return _start(state, command)
            case ResumeRun(life=life):
                return _resume(state, life)
            case CancelRun(reason=reason):
                return _cancel(_born(state), reason, moment)
            case SettleStep():
                return _settle(_born(state), command, moment)
            case SendSignal():
                state = _born(state)
                return receive(state.run, state.status, state.mailbox, command, moment)
            case AnswerQuestion():
                state = _born(state)
                return answer(state.run, state.status, state.mailbox, command, moment)
            case GetRun():
                return Decision((), view(_born(state)))
            case _:
                raise InternalError(detail=f"a run does not understand {type(command).__name__}")

    def evolve(self, state: RunState, event: Event) -> RunState:  # noqa: C901 - one line an event
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case StepStarted(step=step, tool=tool, effect=effect):
                return replace(state, in_flight={**state.in_flight, step: Flight(tool, effect)})
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
                return replace(state, timers=state.timers - 1)
            case RunStarted(workflow=workflow, digest=digest, life=life, deadline=deadline, conversation=conversation):
                return replace(
                    state,
                    status="running",
                    workflow=workflow,
                    digest=digest,
                    life=life,
                    deadline=deadline,
                    conversation=conversation,
                )
            case RunResumed():
                return _resumed(state, event)
            case RunSuspended():
                return replace(state, life=0, crashes=0, suspects=(), was_alone=False)
            case RunParked(wake_at=wake_at, waits_on=waits_on):
                return replace(state, status="waiting", wake_at=wake_at, waits_on=waits_on, life=0)
            case RunBlocked(kind=kind, account=account):
                return replace(state, status="blocked", waits_on=ATTENTION, error_type=kind, error=account, life=0)
            case RunCancelRequested(reason=reason):
                return replace(state, cancel_reason=reason)
            case RunCompleted(result=result):
                return _closed(state, "completed", result=bytes(result).decode())
            case RunFailed(error_type=error_type, error=error):
                return _closed(state, "failed", error_type=error_type, error=error)
            case RunCancelled(reason=reason):
                return _closed(state, "cancelled", error=reason)
            case _ if isinstance(event, MAIL_EVENTS):
                return replace(state, mailbox=state.mailbox.after(event))
            case _:
                return state

    def index(self, state: RunState) -> Index:
        """Return whether the run is open work, when it wakes and what it waits on."""
        return Index(state.status not in CLOSED and state.status != "unborn", state.wake_at, state.waits_on)


def needs_solitude(state: RunState, life: int) -> bool:
    """Return whether the run must not be resumed beside another suspect of crashes."""
    return _is_suspect(state, life) and state.crashes + 1 >= CRASHES_BEFORE_ALONE


def _is_suspect(state: RunState, life: int) -> bool:
    # A life that was not ended by a suspension, a parking or an end was ended by a crash.
    # One that is to be cancelled makes none of its steps again.
    return state.life not in (0, life) and state.cancel_reason is None and bool(_dispatched(state))


def _dispatched(state: RunState) -> tuple[str, ...]:
    return tuple(step for step, flight in state.in_flight.items() if not flight.rests)


def view(state: RunState) -> RunView:
    """Return how the run stands."""
    in_doubt = tuple(k for k, f in state.in_flight.items() if f.in_doubt)
    return RunView(
        run=state.run,
        workflow=state.workflow,
        status="running" if state.status == "unborn" else state.status,
        steps_done=state.steps_done,
        in_flight=tuple(state.in_flight),
        in_doubt=in_doubt,
        wake_at=state.wake_at,
        waits_on=ATTENTION if in_doubt else state.waits_on,
        cancel_reason=state.cancel_reason,
        result=state.result,
        error_type=state.error_type,
        error=state.error,
        questions=tuple(asked.id for asked in state.mailbox.questions.values()),
    )


def _born(state: RunState) -> RunState:
    if state.status == "unborn":
        raise UnknownRunError(run=state.run)
    return state


def _note(state: RunState, fact: RunFact) -> Decision[None]:
    if state.status in CLOSED:
        raise NotOpenError(run=state.run, status=state.status)
    return Decision((fact,), None)


def _start(state: RunState, command: StartRun) -> Decision[RunView]:
    if state.status == "unborn":
        started = RunStarted(
            command.workflow, command.input, command.digest, command.life, command.deadline, command.conversation
        )
        return Decision((started,), view(state), (Launch(command.input, command.principal),))
    if state.workflow != command.workflow:
        raise RunConflictError(detail="", run=state.run, workflow=state.workflow, difference="another workflow")
    if state.digest != command.digest:
        raise RunConflictError(detail="", run=state.run, workflow=state.workflow, difference="other input")
    return Decision((), view(state))


def _resume(state: RunState, life: int) -> Decision[bool]:
    """Prepare a resume; a run that kills the process again and again is set apart, then parked."""
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
    if state.status == "blocked":  # its code cannot run, so there is nothing to wait for
        withdrawn = tuple(QuestionWithdrawn(step, asked.id) for step, asked in state.mailbox.questions.items())
        return Decision((RunCancelRequested(reason), *withdrawn, RunCancelled(reason)), reply=True)
    if state.cancel_reason is not None:
        return Decision((), reply=True)
    if state.status != "waiting":
        return Decision((RunCancelRequested(reason),), reply=True, effects=(Interrupt(),))
    # A sleeper is due at once, so that the next life wakes it too, should this one end before the effect.
    return Decision((RunCancelRequested(reason), RunParked(moment.now, None)), reply=True, effects=(Interrupt(),))


def _settle(state: RunState, command: SettleStep, moment: Moment) -> Decision[None]:
    flight = state.in_flight.get(command.step)
    if flight is None or not flight.in_doubt:
        doubts = ", ".join(k for k, f in state.in_flight.items() if f.in_doubt) or "none"
        raise NotInDoubtError(run=state.run, step=command.step, in_doubt=doubts)
    if state.status != "waiting":
        return Decision((command.fact,), None, (Settled(command.step, command.fact),))
    return Decision((command.fact, RunParked(moment.now, None)), None, (Settled(command.step, command.fact),))


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
        in_flight={},
        timers=0,
        mailbox=state.mailbox.closed(),
        wake_at=None,
        waits_on=None,
        life=0,
        **changes,
    )
