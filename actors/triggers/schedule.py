"""The actor of one schedule, `schedule/ENTRY`: when it is due next, what it started, what it passed over and why. Pure.

Not here: which times a schedule has (`timetable.py`), and who acts when one comes (`runtime/entries/attending.py`).
Invariant: a due time is fired, in one unit with the start of its run, or passed over with a reason, and only once.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.triggers.errors import NotDueError
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.timetable import delay_of
from perdure.store.errors import InternalError
from perdure.store.records import StreamId, stream_id

Why: TypeAlias = Literal["missed", "overlap", "refused", "changed"]
"""Why a due time led to no run: it passed while nothing ran, the run before was not over, the run could not be started,
or the schedule was changed before."""

RUNS_KEPT = 16
"""Earlier runs of a schedule that are asked whether they are over: of more than so many, the newest."""


HELD = 1_000
"""Due times that wait for an earlier run; what comes due then is passed over."""


class Turn(msgspec.Struct, frozen=True):
    """When a schedule is due, and when it acts: later by its delay. Microseconds since 1970 UTC."""

    due: int
    at: int


class ScheduleSet(Event, frozen=True, tag="schedule-set"):
    """The application has a schedule, for the first time or another one than before."""

    definition: Schedule
    anchor: int
    """What intervals are counted from, in microseconds."""
    next: Turn | None
    is_paused: bool = False


class ScheduleFired(Event, frozen=True, omit_defaults=True, tag="schedule-fired"):
    """The schedule started a run for a due time, in one unit with the run's start."""

    due: int
    run: str
    next: Turn | None
    missed: int = 0
    """Earlier due times that this run is for as well: they had passed while nothing ran."""
    since: int | None = None
    """The first of them."""
    beside: tuple[str, ...] = ()
    """Earlier runs of the schedule that were not over."""
    cancels: bool = False
    """Whether they are cancelled for this one."""
    was_held: bool = False
    """Whether it had waited for an earlier run; then *next* is as it was."""


class FiringHeld(Event, frozen=True, omit_defaults=True, tag="firing-held"):
    """A due time came while an earlier run was not over: its run is started when that is."""

    due: int
    behind: str
    next: Turn | None
    missed: int = 0
    since: int | None = None


class ScheduleFiredByHand(Event, frozen=True, omit_defaults=True, tag="schedule-fired-by-hand"):
    """Somebody had the schedule start a run between its times."""

    number: int
    run: str
    beside: tuple[str, ...] = ()
    cancels: bool = False


class FiringsSkipped(Event, frozen=True, omit_defaults=True, tag="firings-skipped"):
    """Due times led to no run."""

    first: int
    last: int
    count: int
    why: Why
    next: Turn | None
    detail: str = ""
    was_held: bool = False
    """Whether it had waited for an earlier run."""


class PreviousRunsCancelled(Event, frozen=True, tag="previous-runs-cancelled"):
    """Earlier runs were told to end, for a later one."""

    runs: tuple[str, ...]


class SchedulePaused(Event, frozen=True, tag="schedule-paused"):
    """Somebody stopped the schedule; what comes due is passed over without a trace."""

    because: str = ""


class ScheduleResumed(Event, frozen=True, tag="schedule-resumed"):
    """Somebody let the schedule go on."""

    next: Turn | None


SCHEDULE_EVENTS = (
    ScheduleSet, ScheduleFired, FiringHeld, ScheduleFiredByHand, FiringsSkipped, PreviousRunsCancelled, SchedulePaused,
    ScheduleResumed,
)  # fmt: skip

Passing: TypeAlias = ScheduleFired | FiringHeld | FiringsSkipped
"""What can become of a due time."""


class SetSchedule(Command, frozen=True, tag="set-schedule"):
    """Take note of the schedule that the application has; *next* is its next due time, were it new."""

    definition: Schedule
    anchor: int
    next: Turn | None


class PassDue(Command, frozen=True, tag="pass-due"):
    """Note what became of due times; refused if *expected* is not the next one."""

    expected: int
    facts: tuple[Passing, ...]


class PassHeld(Command, frozen=True, tag="pass-held"):
    """Note what became of the oldest of the due times that waited; refused if *expected* is another one."""

    expected: int
    fact: ScheduleFired | FiringsSkipped


class FireByHand(Command, frozen=True, tag="fire-by-hand"):
    """Note that somebody had a run started; refused if its number is not the next one."""

    fact: ScheduleFiredByHand


class NoteCancelled(Command, frozen=True, tag="note-cancelled"):
    """Note that the earlier runs were told to end."""


class PauseSchedule(Command, frozen=True, tag="pause-schedule"):
    """Stop the schedule; answered with whether it was not paused."""

    because: str = ""


class ResumeSchedule(Command, frozen=True, tag="resume-schedule"):
    """Let the schedule go on; answered with whether it was paused."""

    next: Turn | None


class GetSchedule(Command, frozen=True, tag="get-schedule"):
    """Ask how the schedule stands; answered with a `ScheduleState`."""


class Held(msgspec.Struct, frozen=True):
    """A due time that waits for an earlier run."""

    due: int
    missed: int = 0
    since: int | None = None


class ScheduleState(msgspec.Struct, frozen=True):
    """How a schedule stands."""

    entry: str
    definition: Schedule | None = None
    """As the application had it last; None: it never had one."""
    anchor: int = 0
    next: Turn | None = None
    is_paused: bool = False
    because: str = ""
    fired: int = 0
    skipped: int = 0
    by_hand: int = 0
    """Runs that somebody had started, among those `fired`."""
    last_due: int | None = None
    last_run: str | None = None
    runs: tuple[str, ...] = ()
    """The last run, and those that were not over when it was started."""
    cancelling: tuple[str, ...] = ()
    """Runs that are to be told to end."""
    held: tuple[Held, ...] = ()
    """Due times whose runs are still to be started, the oldest first."""


class ScheduleBehavior:
    """The rules of a schedule."""

    kind = "schedule"
    state_type = ScheduleState
    state_version = 1
    events = SCHEDULE_EVENTS

    def initial(self, stream: StreamId) -> ScheduleState:
        """Return the state of a schedule that nobody has set."""
        return ScheduleState(stream.partition("/")[2])

    def decide(  # noqa: C901 - one case a command
        self, state: ScheduleState, command: Command, moment: Moment
    ) -> Decision[Any]:
        """Return what *command* leads to."""
        match command:
            case SetSchedule():
                return Decision(_set(state, command, moment.now), None)
            case PassDue(expected=expected, facts=facts):
                if state.is_paused or state.next is None or state.next.due != expected:
                    raise NotDueError(entry=state.entry)
                return Decision(facts, None)
            case PassHeld(expected=expected, fact=fact):
                if state.is_paused or not state.held or state.held[0].due != expected:
                    raise NotDueError(entry=state.entry)
                return Decision((fact,), None)
            case FireByHand(fact=fact):
                if fact.number != state.by_hand + 1:
                    raise NotDueError(entry=state.entry)
                return Decision((fact,), None)
            case NoteCancelled():
                return Decision((PreviousRunsCancelled(state.cancelling),) if state.cancelling else (), None)
            case PauseSchedule(because=because):
                return Decision(() if state.is_paused else (SchedulePaused(because),), not state.is_paused)
            case ResumeSchedule(next=next):
                return Decision((ScheduleResumed(next),) if state.is_paused else (), state.is_paused)
            case GetSchedule():
                return Decision((), state)
            case _:
                raise InternalError(detail=f"a schedule does not understand {type(command).__name__}")

    def evolve(self, state: ScheduleState, event: Event) -> ScheduleState:
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case ScheduleSet(definition=definition, anchor=anchor, next=next, is_paused=is_paused):
                because = state.because if is_paused else ""
                return replace(
                    state, definition=definition, anchor=anchor, next=next, is_paused=is_paused, because=because
                )
            case ScheduleFired(due=due, next=next, was_held=was_held):
                return replace(_started(state, event), next=next, last_due=due, held=state.held[int(was_held) :])
            case FiringHeld(due=due, next=next, missed=missed, since=since):
                return replace(state, next=next, held=(*state.held, Held(due, missed, since)))
            case ScheduleFiredByHand(number=number):
                return replace(_started(state, event), by_hand=number)
            case FiringsSkipped(next=next, count=count, was_held=was_held):
                return replace(state, next=next, skipped=state.skipped + count, held=state.held[int(was_held) :])
            case PreviousRunsCancelled():
                return replace(state, cancelling=())
            case SchedulePaused(because=because):
                return replace(state, is_paused=True, because=because)
            case ScheduleResumed(next=next):
                return replace(state, is_paused=False, because="", next=next)
            case _:
                return state

    def index(self, state: ScheduleState) -> Index:
        """Return when it acts next; a paused one waits for somebody."""
        if state.is_paused:
            return Index(waits_on="resume")
        return Index(
            is_open=state.next is not None or bool(state.held), wake_at=None if state.next is None else state.next.at
        )


def schedule_of(entry: str) -> StreamId:
    """Return the stream of an entry point's schedule."""
    return stream_id(f"schedule/{entry}")


def turn_of(entry: str, due: int | None, definition: Schedule) -> Turn | None:
    """Return when a schedule acts on a due time."""
    return None if due is None else Turn(due, due + delay_of(entry, due, definition.jitter))


def _set(state: ScheduleState, command: SetSchedule, now: int) -> tuple[Event, ...]:
    new, old = command.definition, state.definition
    if old is None:
        first = Turn(now, now) if new.run_immediately else command.next
        return (ScheduleSet(new, command.anchor, first, new.paused),)
    if new == old:
        return ()
    is_paused = state.is_paused if new.paused == old.paused else new.paused
    if _times(new) == _times(old):
        due = None if state.next is None else state.next.due
        kept = turn_of(state.entry, due, new)
        if state.is_paused and not is_paused:
            kept = command.next
        return (ScheduleSet(new, state.anchor, kept, is_paused),)
    changed = ScheduleSet(new, command.anchor, command.next, is_paused)
    if state.is_paused or state.next is None or state.next.at > now:
        return (changed,)
    due = state.next.due
    return (FiringsSkipped(due, due, 1, "changed", None, "it had passed when the schedule was changed"), changed)


def _times(definition: Schedule) -> tuple[Any, ...]:
    return (definition.every, definition.cron, definition.time_zone)


def _started(state: ScheduleState, event: ScheduleFired | ScheduleFiredByHand) -> ScheduleState:
    return msgspec.structs.replace(
        state,
        fired=state.fired + 1,
        last_run=event.run,
        runs=(*event.beside, event.run)[-RUNS_KEPT:],
        cancelling=(*state.cancelling, *event.beside)[-RUNS_KEPT:] if event.cancels else state.cancelling,
    )
