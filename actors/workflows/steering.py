"""What operators may ask of a run: to stop where it is, to go on, to be tried again. The pure rules.

Not here: which steps a retry forgets (`retrying.py`). Invariant: a run that is held runs no code until it is let go, is
to be cancelled, or its deadline has passed.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from perdure.actors.kernel.messages import Decision, Moment
from perdure.actors.workflows.commands import Enqueue, Pause, PauseRun, RetryRun, UnpauseRun, Wake
from perdure.actors.workflows.errors import ControlRefusedError, RunClosedError
from perdure.actors.workflows.events import RunInterrupted, RunParked, RunPaused, RunRetried, RunUnpaused
from perdure.actors.workflows.queue import WAITS_IN

if TYPE_CHECKING:
    from perdure.actors.workflows.state import Flight, RunState

INTERRUPTED: Final = "the process ended while it ran"
"""Why a run is held that the runtime was told to report."""

PAUSED: Final = "resume"
"""What a run waits on that an operator has paused."""

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "continued"})


def is_held(state: "RunState", now: int) -> bool:
    """Return whether the run is paused, and nothing is more urgent than that."""
    if state.paused is None or state.cancel_reason is not None:
        return False
    return state.deadline is None or state.deadline > now


def is_too_late(state: "RunState", now: int) -> bool:
    """Return whether a run's deadline passed before its turn came: it fails, and its code never runs."""
    is_new = state.status == "queued" and not state.retries
    return is_new and state.deadline is not None and state.deadline <= now


def is_to_run(state: "RunState", now: int) -> bool:
    """Return whether resuming an open run runs its code."""
    return not is_held(state, now) and not is_too_late(state, now) and state.error_type != "poison"


def steer(
    state: "RunState", command: PauseRun | UnpauseRun | RetryRun, moment: Moment
) -> Decision[bool] | Decision[None]:
    """Return what an operator's command leads to.

    Raises:
        RunClosedError, ControlRefusedError: it may not be; nothing was recorded.
    """
    match command:
        case PauseRun(reason=reason):
            return _pause(state, reason, moment)
        case UnpauseRun():
            return _unpause(state, moment)
        case RetryRun():
            return _retry(state, command, moment)


def _pause(state: "RunState", reason: str, moment: Moment) -> Decision[bool]:
    _check_open(state)
    if state.cancel_reason is not None:
        raise ControlRefusedError(run=state.run, what="paused", reason="it is being cancelled, and cleans up")
    if state.deadline is not None and state.deadline <= moment.now:
        raise ControlRefusedError(run=state.run, what="paused", reason="its deadline has passed, and it cleans up")
    if state.paused is not None:
        return Decision((), reply=False)
    return Decision((RunPaused(reason),), reply=True, effects=(Pause(),))


def _unpause(state: "RunState", moment: Moment) -> Decision[bool]:
    _check_open(state)
    if state.paused is None:
        return Decision((), reply=False)
    if state.status == "blocked":  # what blocks it is not lifted
        return Decision((RunUnpaused(),), reply=True)
    if state.status == "queued" and state.place is not None:
        return Decision((RunUnpaused(),), reply=True, effects=(Enqueue(state.place, moment.now),))
    # A run that left memory is due at once, so that the next life wakes it too, should this one end before the effect.
    due = (RunParked(moment.now, None),) if state.status == "waiting" else ()
    return Decision((RunUnpaused(), *due), reply=True, effects=(Wake(),))


def _retry(state: "RunState", command: RetryRun, moment: Moment) -> Decision[None]:
    check_may_be_retried(state, moment.now)
    if command.retries != state.retries:
        raise ControlRefusedError(run=state.run, what="retried", reason="it was retried a moment ago, and failed again")
    again = Wake() if state.place is None else Enqueue(state.place, moment.now)
    return Decision((command.fact,), None, (again,))


def report_interrupted(state: "RunState", life: int) -> Decision[bool]:
    """Hold a run that was in memory when the process ended; one that somebody has resumed since is not held again."""
    was_in_memory = state.status == "running" and state.life not in (0, life)
    if not was_in_memory or state.is_interrupted or state.cancel_reason is not None or state.paused is not None:
        return Decision((), reply=state.paused is not None and state.cancel_reason is None)
    return Decision((RunInterrupted(tuple(state.in_flight)),), reply=True)


def check_may_be_retried(state: "RunState", now: int) -> None:
    """Check that a run can be tried again, as far as its state tells.

    Raises:
        ControlRefusedError: it cannot.
    """
    reason = ""
    match state.status:
        case "blocked":
            pass
        case "failed" if state.cancel_reason is not None:
            reason = "it failed while it was being cancelled: fork it"
        case "failed" if state.deadline is not None and state.deadline <= now:
            reason = "its deadline has passed: fork it, with another one"
        case "failed" if state.is_parent_told and state.parent is not None:
            reason = f"run {state.parent.run}, which awaits it, was told of that: retry that one, or fork this one"
        case "failed":
            pass
        case "completed" | "cancelled" | "continued":
            reason = f"it is {state.status}: fork it"
        case _:
            reason = "it is open: it has neither failed nor is it blocked"
    if reason:
        raise ControlRefusedError(run=state.run, what="retried", reason=reason)


def _check_open(state: "RunState") -> None:
    if state.status in _ENDED:
        raise RunClosedError(run=state.run, status=state.status)


def retried(state: "RunState", event: RunRetried, reopened: "dict[str, Flight]") -> "RunState":
    """Return the state of a run that is tried again; *reopened* steps are in flight once more.

    It is due, or waits for its turn where it came through a queue.
    """
    place = state.place
    return msgspec.structs.replace(
        state,
        status="waiting" if place is None else "queued",
        in_flight={**state.in_flight, **reopened},
        steps_done=state.steps_done - len(event.again) - len(reopened),
        retries=state.retries + 1,
        wake_at=None if place is None else state.deadline,
        waits_on=None if place is None else WAITS_IN + place.queue,
        error_type="",
        error="",
        life=0,
        suspects=(),
        crashes=0,
        was_alone=False,
    )
