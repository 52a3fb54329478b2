"""What the log knows of one run, and how it is shown: frozen data, and what can be read off it.

Not here: what may happen to a run (`run.py`), and what an event makes of it (`evolving.py`). Results of finished steps
stay in the log until a resume reads them (`recording.py`), so a long run is small in memory.
"""

from typing import Literal, TypeAlias

import msgspec

from perdure.actors.workflows.children import Children, RunEnd, ending
from perdure.actors.workflows.errors import RunError
from perdure.actors.workflows.events import (
    Origin,
    Place,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from perdure.actors.workflows.links import Chain, ChildEnded, Parent
from perdure.actors.workflows.mailbox import Mailbox
from perdure.actors.workflows.steering import PAUSED
from perdure.actors.workflows.subscriptions import Subscriptions

RunStatus: TypeAlias = Literal[
    "queued", "running", "waiting", "paused", "blocked", "completed", "failed", "cancelled", "continued",
]  # fmt: skip

CLOSED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "continued"})
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
    """Whether it is made again though the run is to be cancelled: a compensation, a step past a pivot, a clean-up."""


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


def owes(state: RunState) -> bool:
    """Return whether a run that has ended is to be told of by its parent, or has children that have not ended."""
    return bool(state.children.awaited) or untold_parent(state) is not None


def untold_parent(state: RunState) -> Parent | None:
    """Return the parent that is still to be told of the run's end."""
    parent = state.parent
    is_over = state.status in CLOSED and state.status != "continued"
    return parent if is_over and parent is not None and parent.is_awaited and not state.is_parent_told else None


def report(state: RunState) -> ChildEnded | None:
    """Return what the parent of a run that has ended is still to be told; None: nothing."""
    parent = untold_parent(state)
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
    return is_suspect(state, life) and state.crashes + 1 >= CRASHES_BEFORE_ALONE


def is_suspect(state: RunState, life: int) -> bool:
    """Return whether the process may have died of one of the run's steps."""
    # A life that was not ended by a suspension, a parking or an end was ended by a crash.
    # One that is to be cancelled makes none of its steps again, but for those that must come to their end.
    dispatched = dispatched_steps(state)
    if state.cancel_reason is not None:
        dispatched = tuple(step for step in dispatched if state.in_flight[step].must_end)
    return state.life not in (0, life) and bool(dispatched)


def dispatched_steps(state: RunState) -> tuple[str, ...]:
    """Return the steps whose attempt has begun and not ended."""
    return tuple(step for step, flight in state.in_flight.items() if not flight.rests)


def view(state: RunState) -> RunView:
    """Return how the run stands."""
    in_doubt = tuple(k for k, f in state.in_flight.items() if f.in_doubt)
    return RunView(
        run=state.run,
        workflow=state.workflow,
        status=shown_status(state),
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


def shown_status(state: RunState) -> RunStatus:
    """Return the status as others see it."""
    if state.status == "unborn":
        return "running"
    return state.status if state.paused is None or state.status == "blocked" else "paused"
