"""What an event makes of a run's state. Pure.

It is replayed for ever: a change of what it means raises `RunBehavior.state_version`. Invariant: an event is never
refused here, since whoever recorded it has decided.
"""

from typing import Any

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.state.operations import shelf_or_empty
from perdure.actors.state.shared_state import StateChanged, StateMoved
from perdure.actors.workflows.children import CHILD_EVENTS
from perdure.actors.workflows.events import (
    AttemptDelayed,
    AttemptFailed,
    AttemptRefused,
    AttemptStarted,
    RunBlocked,
    RunCancelled,
    RunCancelRequested,
    RunCompleted,
    RunFailed,
    RunInterrupted,
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
from perdure.actors.workflows.links import ChildCancelRequested, EntryTold, ParentTold, RunContinued
from perdure.actors.workflows.mail import MAIL_EVENTS
from perdure.actors.workflows.occurrences import SUBSCRIPTION_EVENTS
from perdure.actors.workflows.queue import WAITS_IN
from perdure.actors.workflows.state import ATTENTION, Flight, RunState, RunStatus, dispatched_steps
from perdure.actors.workflows.steering import INTERRUPTED, retried


def evolve(state: RunState, event: Event) -> RunState:  # noqa: C901 - one line an event
    """Return the state after *event*."""
    replace = msgspec.structs.replace
    match event:
        case StepStarted(step=step, tool=tool, effect=effect):
            flight = Flight(tool, effect, must_end=_must_end(state, event))
            return replace(state, in_flight={**state.in_flight, step: flight})
        case StepCompleted(step=step) | StepFailed(step=step) | StepCancelled(step=step):
            return _step_ended(state, step)
        case AttemptStarted(step=step, attempt=attempt):
            return _in_flight(state, step, attempt=attempt, rests=False)
        case AttemptFailed(step=step) | AttemptRefused(step=step) | AttemptDelayed(step=step):
            return _survived(_in_flight(state, step, rests=True), step)
        case StepInDoubt(step=step, child=child) if child:
            flight = Flight(child, "", in_doubt=True, rests=True, must_end=True)  # its end was counted: it was none
            return replace(state, in_flight={**state.in_flight, step: flight}, steps_done=state.steps_done - 1)
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
        case RunInterrupted():
            return replace(state, paused=INTERRUPTED, is_interrupted=True)
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
        case EntryTold():
            return replace(state, entry_told=event)
        case StateChanged() | StateMoved():
            return replace(state, shelf=shelf_or_empty(state.shelf).after(event))
        case _ if isinstance(event, CHILD_EVENTS):
            done = state.steps_done + event.ends_a_step
            left = _without(state.in_flight, event.step)
            return replace(state, children=state.children.after(event), steps_done=done, in_flight=left)
        case ChildCancelRequested(step=step):
            return replace(state, in_flight=_without(state.in_flight, step))
        case _ if isinstance(event, SUBSCRIPTION_EVENTS):
            return replace(state, events=state.events.after(event))
        case _ if isinstance(event, MAIL_EVENTS):
            return replace(state, mailbox=state.mailbox.after(event))
        case _:
            return state


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
        entrance=event.entrance,
    )


def _without(flights: dict[str, Flight], step: str) -> dict[str, Flight]:
    """Return what is in flight without a stuck child that is started anew or given up."""
    return {key: one for key, one in flights.items() if key != step} if step in flights else flights


def _step_ended(state: RunState, step: str) -> RunState:
    left = dict(state.in_flight)
    left.pop(step, None)
    ended = msgspec.structs.replace(state, in_flight=left, steps_done=state.steps_done + 1)
    return _survived(ended, step) if ended.crashes else ended


def _survived(state: RunState, step: str) -> RunState:
    """Return the state after an attempt at *step* that the process did not die of."""
    if step not in state.suspects:
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
        is_interrupted=False,
        wake_at=None,
        waits_on=None,
        error_type="",
        error="",
        life=event.life,
        suspects=dispatched_steps(state) if event.after_crash else (),
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
        is_interrupted=False,
        in_flight={},
        timers=0,
        mailbox=state.mailbox.closed(keeps_signals=status == "failed"),
        events=state.events.closed(),
        shelf=state.shelf if status == "failed" else None,  # one that failed may be tried again
        wake_at=None,
        waits_on=None,
        life=0,
        **changes,
    )


def _must_end(state: RunState, event: StepStarted) -> bool:
    # What a run begins when it is to be cancelled is its cleaning up.
    return bool(event.undoes) or event.past_pivot or state.cancel_reason is not None
