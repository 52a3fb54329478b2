"""What operators ask of a run that takes reading it first: to be tried again, and to be forked.

The rules are the actor's (`actors/workflows/steering.py`, `retrying.py`). Invariant: a plan that was made on an old
reading of a run is refused by its actor.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.state.shared_state import EMPTY, Shelf, StateChanged, StateMoved
from perdure.actors.workflows.ancestry import Part, beginning, decoded, read_ancestors, read_first
from perdure.actors.workflows.asking import Asked, argument_digest, opened
from perdure.actors.workflows.commands import RetryRun
from perdure.actors.workflows.defined.model import defined_by
from perdure.actors.workflows.errors import ControlRefusedError, UnknownRunError, UnknownStepError
from perdure.actors.workflows.events import (
    Origin,
    PivotPassed,
    RunCancelRequested,
    RunFailed,
    RunRetried,
    RunStarted,
    StepStarted,
)
from perdure.actors.workflows.holdings import StateWritten
from perdure.actors.workflows.links import EntryTold, RunContinued
from perdure.actors.workflows.mail import CallApproved, QuestionAsked
from perdure.actors.workflows.occurrences import SUBSCRIPTION_EVENTS, EventPlacesMoved
from perdure.actors.workflows.recording import Recording
from perdure.actors.workflows.retrying import given_up, plan_retry
from perdure.actors.workflows.subscriptions import Subscriptions
from perdure.runtime.checkpoints import PAUSE_REACHED, Checkpoint

_SHOWN: Final = 20
"""Steps named where one is not known."""


async def plan_of_retry(system: ActorSystem, run: str) -> RetryRun:
    """Return the command that has a run tried again, or the one that it went on as.

    Raises:
        UnknownRunError: there is no such run.
        ControlRefusedError: its code has gone on since the failure.
    """
    part = await _read(system, run)
    while isinstance(ended := _end(part), RunContinued):
        run, part = ended.run, await _read(system, ended.run)
    retries = sum(isinstance(event, RunRetried) for event, _ in part)
    if not isinstance(ended, RunFailed):
        return RetryRun(RunRetried(), retries)
    inherited = await read_ancestors(system, beginning(part).forked_from)
    return RetryRun(plan_retry(run, Recording(part, inherited).steps, ended.step), retries)


def _end(part: Part) -> Event:
    """Return what ended a run, or what it recorded last: of its end its entry point may have been told."""
    return next(event for event, _ in reversed(part) if not isinstance(event, EntryTold))


class ForkRequest(msgspec.Struct, frozen=True):
    """What an operator asks for; see `RunHandle.fork`."""

    step: str
    """The key of the step before which it begins; empty where *checkpoint* says the place."""
    changed: bytes
    """A JSON object."""
    id: str | None = None
    deadline: timedelta | None = None
    who: str | None = None
    checkpoint: str = ""


class Place(msgspec.Struct, frozen=True):
    """Where a fork begins, and what the run was started with that it comes from."""

    origin: Origin
    started: RunStarted
    principal: str | None
    moved: tuple[EventPlacesMoved | StateMoved, ...]
    """How far the run had come with the events that it waits for, and the values that it held."""


async def place_of_fork(system: ActorSystem, run: str, step: str) -> Place:
    """Return where a run stood before it began a step.

    Raises:
        UnknownRunError, UnknownStepError: there is none.
        ControlRefusedError: the step was a part of cleaning up.
    """
    events = await read_first(system, run)
    part, source = await decoded(system, events), run
    if not part:
        raise UnknownRunError(run=run)
    started, principal = beginning(part), events[0].principal
    while (before := _before(part, step)) is None:
        # What the run took over from another one it did not record itself.
        origin = beginning(part).forked_from
        if origin is None:
            known = ", ".join(list(Recording(await _read(system, run)).steps)[:_SHOWN]) or "none"
            raise UnknownStepError(run=run, step=step, known=known)
        source, events = origin.run, await read_first(system, origin.run, origin.version)
        part = await decoded(system, events)
    inherited = await read_ancestors(system, beginning(part).forked_from)
    _check_deadline(run, step, part[: before + 1])
    _check_place(run, step, part[:before], inherited)
    moved = _moved(part[:before], events[0].position)
    return Place(Origin(source, before), started, principal, moved)


async def place_of_checkpoint(system: ActorSystem, run: str, checkpoint: Checkpoint) -> Place:
    """Return where *run*, or a run that it was forked from, stood at a checkpoint.

    Raises:
        ControlRefusedError: it was cleaning up by then.
    """
    events = await read_first(system, checkpoint.run)
    part = await decoded(system, events)
    inherited = await read_ancestors(system, beginning(part).forked_from)
    # A pause that it had reached it reaches itself: the question is its own, and so is the answer.
    version = checkpoint.version - (checkpoint.type == PAUSE_REACHED)
    before = part[:version]
    _check_deadline(run, checkpoint.step, before)
    _check_place(run, checkpoint.step, before, inherited)
    moved = _moved(before, events[0].position)
    return Place(Origin(checkpoint.run, version), beginning(part), events[0].principal, moved)


def _before(part: Part, step: str) -> int | None:
    """Return how many events a run had recorded when it began *step*, for the last time if it was retried."""
    for number, (event, _) in reversed(list(enumerate(part))):
        if getattr(event, "step", None) == step and hasattr(event, "branch"):
            return number
    return None


def _held(before: Part) -> Subscriptions:
    held = Subscriptions()
    for event, _ in before:
        if isinstance(event, SUBSCRIPTION_EVENTS):
            held = held.after(event)
    return held


def _moved(before: Part, began_at: int) -> tuple[EventPlacesMoved | StateMoved, ...]:
    """Return what tells a fork how far the run had come that it begins as."""
    return (*_held(before).moved(began_at, always=True), *_shelf(before).moved())


def _shelf(before: Part) -> Shelf:
    """Return the values of the run itself; what a step changed counts with the end of the step."""
    held = EMPTY
    changes: list[StateChanged] = []
    for event, _ in before:
        if isinstance(event, StateChanged) and event.step is not None:
            changes.append(event)
        elif isinstance(event, StateWritten):
            while changes:
                held = held.after(changes.pop(0))
        else:
            held = held.after(event)
    return held


def _check_place(run: str, step: str, before: Part, inherited: list[Part]) -> None:
    if any(isinstance(event, RunCancelRequested) for event, _ in before):
        raise ControlRefusedError(run=run, what=f"forked at {step}", reason="it was being cancelled by then")
    branch = step[: step.rfind("/") + 1]
    if left := given_up(Recording(before, inherited).steps, branch):
        reason = f"it was cleaning up by then: {left[0]} had been given up"
        raise ControlRefusedError(run=run, what=f"forked at {step}", reason=reason)
    facts = (event for part in (*inherited, before) for event, _ in part)
    if unmade := _approved_and_not_made(facts):
        reason = f"{unmade[0]} was approved for one call, and that was not made yet: fork at {unmade[0]}, to ask anew"
        raise ControlRefusedError(run=run, what=f"forked at {step}", reason=reason)


def _check_deadline(run: str, step: str, begun: Part) -> None:
    """Check that the code had begun nothing after its deadline, of which nothing is recorded where it takes effect.

    Past a pivot it goes on for a while, as it would without a deadline.
    """
    deadline = beginning(begun).deadline
    if deadline is None or any(isinstance(event, PivotPassed) for event, _ in begun):
        return
    if any(at >= deadline and hasattr(event, "branch") for event, at in begun):
        reason = "its deadline had passed by then, and it was cleaning up"
        raise ControlRefusedError(run=run, what=f"forked at {step}", reason=reason)


def _approved_and_not_made(facts: Iterable[Event]) -> list[str]:
    """Return the approvals whose calls had not begun: a fork that took one over would make the call again, unasked."""
    asked: dict[str, Asked] = {}
    unmade: dict[str, str] = {}
    for event in facts:
        match event:
            case QuestionAsked(tool=tool) if tool:
                asked[event.step] = opened(event)
            case CallApproved(step=step):
                asked[step] = asked[step].after(event)
                if event.left == 0:
                    unmade[step] = argument_digest(asked[step].tool, asked[step].arguments.encode())
            case StepStarted() if unmade:
                made = argument_digest(event.tool, event.arguments)
                unmade.pop(next((step for step, called in unmade.items() if called == made), ""), None)
            case _:
                pass
    return list(unmade)


def changed_input(started: RunStarted, changed: bytes) -> bytes:
    """Return the input of a run with other values for some of its arguments; all of them are JSON objects.

    Of a definition's run, which carries its definition, the arguments are the entries of its data.
    """
    given: dict[str, Any] = msgspec.json.decode(started.input)
    others: dict[str, Any] = msgspec.json.decode(changed)
    if defined_by(started.workflow, given) is not None and isinstance(given["data"], dict):
        others = {"data": {**given["data"], **others}}
    return msgspec.json.encode({**given, **others}, order="deterministic")


async def _read(system: ActorSystem, run: str) -> Part:
    part = await decoded(system, await read_first(system, run))
    if not part:
        raise UnknownRunError(run=run)
    return part
