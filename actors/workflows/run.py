"""The actor of one run: what may happen to it, and what is open. The pure core.

Not here: the state that it decides on (`state.py`), and what an event makes of it (`evolving.py`).
"""

from typing import Any

from perdure.actors.kernel.messages import Command, Decision, Index, Moment
from perdure.actors.state.operations import shelf_or_empty
from perdure.actors.state.shared_state import ChangeState, changed
from perdure.actors.workflows.children import end_child, tell_parent
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
    ReportInterrupted,
    ResumeRun,
    RetryRun,
    SendSignal,
    Settled,
    SettleStep,
    StartRun,
    TellEntry,
    TellParent,
    UnpauseRun,
    WriteState,
)
from perdure.actors.workflows.errors import RunClosedError, RunConflictError, RunContinuedError, UnknownRunError
from perdure.actors.workflows.events import (
    RUN_EVENTS,
    RunBlocked,
    RunCancelled,
    RunCancelRequested,
    RunParked,
    RunResumed,
    RunStarted,
)
from perdure.actors.workflows.evolving import evolve
from perdure.actors.workflows.failures import overdue
from perdure.actors.workflows.mail import QuestionWithdrawn
from perdure.actors.workflows.mailbox import answer, receive
from perdure.actors.workflows.pausing import unpause
from perdure.actors.workflows.state import (
    CLOSED,
    NotInDoubtError,
    NotOpenError,
    RunState,
    RunView,
    is_suspect,
    needs_solitude,
    owes,
    shown_status,
    untold_parent,
    view,
)
from perdure.actors.workflows.steering import PAUSED, is_held, is_too_late, report_interrupted, steer
from perdure.actors.workflows.subscriptions import find
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

_OF_ITSELF = (Note, WriteState, EndRun, StartRun, ResumeRun, GetRun, EndChild, TellParent, TellEntry)
"""What a run takes that goes on as another one; everything else is for the other."""


class RunBehavior:
    """The rules of a run's actor."""

    kind = "run"
    state_type = RunState
    state_version = 3
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
                if state.status in CLOSED:
                    raise NotOpenError(run=state.run, status=state.status)
                return Decision((fact,), None)
            case EndRun() | EndChild() | TellParent() | TellEntry():
                return _link(state, command, moment)
            case WriteState(fact=fact, change=change):
                _check_takes_facts(state)
                # The step last: a fork that begins right before it takes over nothing of what it changed.
                return Decision((*changed(shelf_or_empty(state.shelf), change), fact), None)
            case ChangeState():
                return _change_from_outside(_born(state), command)
            case StartRun():
                return _start(state, command, moment)
            case ResumeRun(life=life):
                return _resume(state, life, moment)
            case CancelRun(reason=reason):
                return _cancel(_born(state), reason, moment)
            case PauseRun() | RetryRun():
                return steer(_born(state), command, moment)
            case UnpauseRun():
                return unpause(_born(state), shown_status(state), command, moment)
            case ReportInterrupted(life=life):
                return report_interrupted(state, life)
            case SettleStep():
                return _settle(_born(state), command, moment)
            case SendSignal():
                state = _born(state)
                return receive(state.run, shown_status(state), state.mailbox, command, moment)
            case AnswerQuestion() | DecideApproval():
                state = _born(state)
                return answer(state.run, shown_status(state), state.mailbox, command, moment)
            case FindEvent():
                return find(shown_status(state), state.events, command, moment)
            case GetRun():
                return Decision((), view(_born(state)))
            case _:
                raise InternalError(detail=f"a run does not understand {type(command).__name__}")

    evolve = staticmethod(evolve)

    def index(self, state: RunState) -> Index:
        """Return whether the run is open work, when it wakes and what it waits on."""
        if state.paused is not None and state.status != "blocked":
            return Index(is_open=True, wake_at=state.deadline, waits_on=PAUSED)
        is_open = owes(state) if state.status in CLOSED else state.status != "unborn"
        return Index(is_open, state.wake_at, state.waits_on)


def _born(state: RunState) -> RunState:
    if state.status == "unborn":
        raise UnknownRunError(run=state.run)
    return state


def _check_takes_facts(state: RunState) -> None:
    if state.status in CLOSED:
        raise NotOpenError(run=state.run, status=state.status)


def _change_from_outside(state: RunState, command: ChangeState) -> Decision[None]:
    if state.status in CLOSED:
        raise RunClosedError(run=state.run, status=state.status)
    return Decision(changed(shelf_or_empty(state.shelf), command), None)


def _link(state: RunState, command: EndRun | EndChild | TellParent | TellEntry, moment: Moment) -> Decision[Any]:
    match command:
        case EndRun(fact=fact, told=told):
            _check_takes_facts(state)
            return Decision((fact,) if told is None else (fact, told), None)
        case EndChild():
            return end_child(state.children, shown_status(state), command, moment)
        case TellParent():
            return tell_parent(untold_parent(state))
        case TellEntry(fact=told):
            return Decision((told,), None)


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
            entrance=command.entrance,
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
    if is_too_late(state, moment.now):
        return Decision((overdue(state.run),), reply=False, effects=(Interrupt(), Conclude()))
    may_have_killed = is_suspect(state, life)
    if may_have_killed and state.was_alone:
        steps = ", ".join(state.suspects)
        account = f"the process died {state.crashes + 1} times in a row while it ran, the last time alone, in: {steps}"
        return Decision((RunBlocked("poison", account),), reply=False)
    is_alone = needs_solitude(state, life)
    was_in_memory = state.status == "running" and state.life not in (0, life)
    resumed = RunResumed(life, may_have_killed, is_alone, tuple(state.in_flight), interrupted=was_in_memory)
    return Decision((resumed,), reply=True)


def _cancel(state: RunState, reason: str, moment: Moment) -> Decision[bool]:
    if state.status in CLOSED:
        return Decision((), reply=False)
    requested = RunCancelRequested(reason)
    if state.status == "queued" and not state.retries:  # its code never ran
        return Decision((requested, RunCancelled(reason)), reply=True, effects=(Interrupt(), Conclude()))
    if state.status == "blocked":  # its code cannot run, so there is nothing to wait for
        withdrawn = tuple(QuestionWithdrawn(step, asked.id) for step, asked in state.mailbox.questions.items())
        effects = (Conclude(), *state.events.leave(state.run))
        return Decision((requested, *withdrawn, RunCancelled(reason)), reply=True, effects=effects)
    if state.cancel_reason is not None:
        return Decision((), reply=True)
    if state.status not in ("waiting", "queued"):
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
