"""What goes over the wire about the ways in, and about what runs share: entry points, schedules, state, goals, people.

Data only. Times are RFC 3339 in UTC.
"""

from datetime import datetime
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from perdure.actors.state.goal_model import Goal, GoalStatus
from perdure.actors.state.scopes import Scope
from perdure.actors.state.view import MISSING, StateChange
from perdure.actors.triggers.kinds import in_words
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.subscription import DeadLetter
from perdure.actors.workflows.entrance import Isolation, TriggerKind
from perdure.runtime.conversations import ConversationRun
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.schedules import ScheduleView
from perdure.runtime.people import InputOutcome
from perdure.runtime.web.api.endpoint import Name, RunName
from perdure.runtime.web.api.shapes import Body, EventType, Limit, Text, Who

ConversationName: TypeAlias = Annotated[str, Meta(pattern="^[!-~]{1,60}$")]


class EntryLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry point."""

    id: str
    name: str
    workflow: str
    kind: TriggerKind
    trigger: str
    """What starts it, in words, without secrets."""
    isolation: Isolation
    max_concurrent: int
    priority: int
    description: str


def entry_of(one: EntryPoint) -> EntryLine:
    """Return an entry point, as the wire has it."""
    return EntryLine(
        id=one.id,
        name=one.name,
        workflow=one.workflow_name,
        kind=one.wired.kind,
        trigger=in_words(one.wired),
        isolation=one.isolation,
        max_concurrent=one.max_concurrent,
        priority=one.priority,
        description=one.description,
    )


class EntryLines(msgspec.Struct, frozen=True):
    """The entry points."""

    entry_points: list[EntryLine]


class TriggerBody(Body, frozen=True, kw_only=True):
    """A run that is to be started by an entry point."""

    data: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The workflow's arguments by name; of a definition, its data."""
    id: RunName | None = None
    """Of the run: asked again with the same one, it is the same run. Made up when left out."""
    correlation_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    conversation: ConversationName | None = None
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of an entry point ended."""

    run: str
    entry: str
    status: str
    success: bool
    output: Any
    error_type: str | None
    error: str | None
    correlation: str | None
    started_at: datetime | None
    ended_at: datetime | None


class ScheduleLine(msgspec.Struct, frozen=True, kw_only=True):
    """How a schedule stands."""

    entry: str
    trigger: str
    """When it is due, in words."""
    next_due: datetime | None
    next_at: datetime | None
    """When it acts on that: later by its delay, where it has a jitter."""
    is_paused: bool
    because: str | None
    is_registered: bool
    last_due: datetime | None
    last_run: str | None
    fired: int
    skipped: int


def schedule_of(one: ScheduleView) -> ScheduleLine:
    """Return a schedule, as the wire has it."""
    return ScheduleLine(
        entry=one.entry,
        trigger=in_words(one.definition),
        next_due=one.next_due,
        next_at=one.next_at,
        is_paused=one.is_paused,
        because=one.because or None,
        is_registered=one.is_registered,
        last_due=one.last_due,
        last_run=one.last_run,
        fired=one.fired,
        skipped=one.skipped,
    )


class ScheduleLines(msgspec.Struct, frozen=True):
    """The schedules."""

    schedules: list[ScheduleLine]


# State


class StateQuery(msgspec.Struct, frozen=True, kw_only=True):
    """With whose eyes the state is seen; without any, those of all."""

    run: RunName | None = None
    stream: Name | None = None
    """An entry point's id, or the name of a workflow whose runs come by none."""
    conversation: ConversationName | None = None


class StateValues(msgspec.Struct, frozen=True):
    """The values by their keys: the innermost scope's where several have one."""

    values: dict[str, Any]


class WriteBody(Body, frozen=True, kw_only=True):
    """Values that are to be set, all of them or none."""

    values: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=200)], Any], Meta(min_length=1, max_length=1000)
    ]
    scope: Scope | None = None
    """The innermost one that the query names when left out."""


class DeleteQuery(StateQuery, frozen=True, kw_only=True):
    """Where a value is to be taken away."""

    scope: Scope | None = None


class ChangeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a key."""

    key: str
    old: Any | UnsetType = UNSET
    """Left out: it was not there."""
    new: Any | UnsetType = UNSET
    """Left out: it was deleted."""
    place: str
    """The scope with its id: `execution/RUN`, `conversation/ID`, `stream/ENTRY`, `global`."""
    run: str | None
    entry: str | None
    step: str | None
    who: str | None


def change_of(one: StateChange) -> ChangeLine:
    """Return a change, as the wire has it."""
    return ChangeLine(
        key=one.key,
        old=UNSET if one.old is MISSING else one.old,
        new=UNSET if one.new is MISSING else one.new,
        place=one.place,
        run=one.run,
        entry=one.entry,
        step=one.step,
        who=one.who,
    )


class ChangeLines(msgspec.Struct, frozen=True):
    """The newest changes, the newest first."""

    changes: list[ChangeLine]


class LimitQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How many."""

    limit: Limit = 100


# Goals


class GoalLine(msgspec.Struct, frozen=True, kw_only=True):
    """A goal."""

    id: str
    name: str
    description: str
    status: GoalStatus


def goal_of(one: Goal) -> GoalLine:
    """Return a goal, as the wire has it."""
    return GoalLine(id=one.id, name=one.name, description=one.description, status=one.status)


class GoalLines(msgspec.Struct, frozen=True):
    """The goals of the runtime."""

    goals: list[GoalLine]


# People


class ConversationLines(msgspec.Struct, frozen=True):
    """The ids of the conversations, the one that began first first."""

    conversations: list[str]


class ConversationRuns(msgspec.Struct, frozen=True):
    """The runs of a conversation, in the order in which they were started."""

    runs: list[ConversationRun]


class ResumeBody(Body, frozen=True, kw_only=True):
    """What a run goes on with."""

    answer: Any | UnsetType = UNSET
    """For a run that has paused itself."""
    at: Annotated[str, Meta(max_length=1000)] = ""
    """Where it has paused itself, where that is more than one place."""


class TakeUpBody(Body, frozen=True, kw_only=True):
    """What a conversation goes on with."""

    answer: Any | UnsetType = UNSET


class InputBody(Body, frozen=True, kw_only=True):
    """What somebody says to a run."""

    target: Annotated[str, Meta(min_length=1, max_length=1200)]
    """The id of a question or, where a run asks only one, of the run."""
    content: Any
    """A text is read as the question takes it."""
    who: Who | None = None


class InputTaken(msgspec.Struct, frozen=True):
    """What became of it; only `accepted` has changed anything."""

    outcome: InputOutcome


# Handlers of events


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to look back at."""

    types: tuple[EventType, ...] = ()
    stream: Name | None = None
    """The entry point, or who published it."""
    run: RunName | None = None
    limit: Limit = 100


class History(msgspec.Struct, frozen=True):
    """What happened, the newest first: published events, and the runtime's own by the names that handlers know."""

    events: list[LogEvent]


class DeadLetterLine(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a handler failed at for good."""

    subscription: str
    letter: DeadLetter


class DeadLetters(msgspec.Struct, frozen=True):
    """The dead letters of all subscriptions."""

    dead_letters: list[DeadLetterLine]


class RedriveBody(Body, frozen=True, kw_only=True):
    """A dead letter that is to be delivered once more."""

    subscription: Name
    position: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class SchedulePauseBody(Body, frozen=True, kw_only=True):
    """Why."""

    reason: Text = ""
