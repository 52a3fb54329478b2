"""What goes over the wire of the HTTP API: the bodies of requests and of answers, from which its description is made.

Data only. Times are RFC 3339 in UTC. Invariant: a request with a field that does not stand here is refused.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from perdure.actors.kernel.clock import moment_of
from perdure.actors.workflows.state import RunStatus
from perdure.actors.workflows.state import RunView as ActorView
from perdure.runtime.checkpoints import Checkpoint
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.web.api.endpoint import Name, RunName
from perdure.store.records import Recorded

Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Position: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Text: TypeAlias = Annotated[str, Meta(max_length=10_000)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=315_360_000)]
"""Up to ten years."""
EventType: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100)]
Who: TypeAlias = Annotated[str, Meta(min_length=1, max_length=80)]
"""Whom an answer comes from. A token with a name is that person's or service's: another name takes an admin's token."""


def maybe_moment(micros: int | None) -> datetime | None:
    """Return microseconds since 1970 as a time; None for None."""
    return None if micros is None else moment_of(micros)


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what requests say."""


class Empty(Body, frozen=True):
    """Nothing: `{}`, or no body."""


# Runs


class StartBody(Body, frozen=True, kw_only=True):
    """A run that is to be started."""

    workflow: Name
    input: dict[str, Any] = {}
    """The workflow's arguments by name; of a definition, its data."""
    id: RunName | None = None
    """Of the run: asked again with the same one, it is the same run. Made up when left out."""
    deadline_seconds: Seconds | None = None
    conversation: Annotated[str, Meta(pattern="^[!-~]{1,60}$")] | None = None
    queue: Name | None = None
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] = 0
    partition: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Started(msgspec.Struct, frozen=True):
    """The run that was started, or is so already: it is durable."""

    run: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands."""

    run: str
    workflow: str
    status: RunStatus
    steps_done: int
    in_flight: tuple[str, ...]
    """The keys of its steps that have no outcome yet."""
    in_doubt: tuple[str, ...]
    """Of these, those of which nobody knows whether they happened."""
    wake_at: datetime | None
    waits_on: str | None
    cancel_reason: str | None
    result: Any
    """Null while it is open, and of one that did not complete."""
    error_type: str | None
    error: str | None
    questions: tuple[str, ...]
    """The ids of its questions that nobody has answered."""
    paused: str | None
    """Why it was paused."""
    parent: str | None
    children: tuple[str, ...]
    continued_as: str | None


def run_of(view: ActorView) -> Run:
    """Return how a run stands, as the wire has it."""
    return Run(
        run=view.run,
        workflow=view.workflow,
        status=view.status,
        steps_done=view.steps_done,
        in_flight=view.in_flight,
        in_doubt=view.in_doubt,
        wake_at=maybe_moment(view.wake_at),
        waits_on=view.waits_on,
        cancel_reason=view.cancel_reason,
        result=msgspec.Raw(view.result.encode()),
        error_type=view.error_type or None,
        error=view.error or None,
        questions=view.questions,
        paused=view.paused,
        parent=view.parent,
        children=view.children,
        continued_as=view.continued_as,
    )


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a list."""

    run: str
    workflow: str
    status: RunStatus
    is_open: bool
    started_at: datetime
    last_at: datetime
    """Of its newest event."""
    wake_at: datetime | None
    waits_on: str | None
    entry: str | None
    """The entry point that it came in by."""
    parent: str | None
    continued_as: str | None
    error_type: str | None
    error: str | None


class Runs(msgspec.Struct, frozen=True):
    """A page of runs, the newest first."""

    runs: list[RunLine]
    cursor: str | None
    """For the next page; null at the end. A page may hold fewer than were asked for, and still not be the last."""


class RunsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list; conditions are joined by AND."""

    status: tuple[RunStatus, ...] = ()
    workflow: Name | None = None
    entry: Name | None = None
    parent: RunName | None = None
    is_open: bool | None = None
    limit: Limit = 100
    cursor: Annotated[str, Meta(pattern="^[0-9]{1,18}$")] | None = None


class WaitQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait."""

    wait: Annotated[int, Meta(ge=0, le=60)] = 0
    """Seconds; without them, the answer comes at once."""


class ReasonBody(Body, frozen=True, kw_only=True):
    """Why."""

    reason: Annotated[str, Meta(min_length=1, max_length=10_000)] = "asked for over HTTP"


class Changed(msgspec.Struct, frozen=True):
    """Whether that changed anything; it is durable either way."""

    changed: bool


class RetriedStep(msgspec.Struct, frozen=True):
    """A run that is tried again."""

    run: str
    step: str | None
    """The step that it failed of, where it did."""


class ForkBody(Body, frozen=True, kw_only=True):
    """A run that is to begin where another one was: before a step, or at a checkpoint; one of the two."""

    step: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    checkpoint: Annotated[str, Meta(min_length=1, max_length=300)] | None = None
    changed: dict[str, Any] = {}
    """Arguments that are other than that run's, by name."""
    id: RunName | None = None
    deadline_seconds: Seconds | None = None


class Checkpoints(msgspec.Struct, frozen=True):
    """The places at which a run had just finished something, oldest first."""

    checkpoints: list[Checkpoint]


class SignalBody(Body, frozen=True, kw_only=True):
    """A signal."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    value: Any = None
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """Sent again with the same one, it is the same signal."""


class SettleBody(Body, frozen=True, kw_only=True):
    """What became of a step in doubt."""

    step: Annotated[str, Meta(min_length=1, max_length=1000)]
    verdict: Literal["done", "not_done", "failed"]
    result: Any = None
    """Of one that is `done`."""
    reason: Text = "settled over HTTP"
    """Of the others: how you know, or what went wrong."""


# Questions


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question that somebody may answer, or a call that somebody may approve."""

    id: str
    run: str
    text: str
    schema: dict[str, Any]
    choices: list[Any] | None
    to: tuple[str, ...]
    asked_at: datetime
    until: datetime | None
    tool: str | None
    """Of the call that is to be approved; null for a question."""
    arguments: dict[str, Any] | None
    digest: str | None
    several: int
    by: tuple[str, ...]
    is_edited: bool


def question_of(one: OpenQuestion) -> Question:
    """Return a question, as the wire has it."""
    return Question(
        id=one.id,
        run=one.run,
        text=one.text,
        schema=one.schema,
        choices=one.choices,
        to=one.to,
        asked_at=moment_of(one.asked_at),
        until=maybe_moment(one.until),
        tool=one.tool or None,
        arguments=one.arguments,
        digest=one.digest or None,
        several=one.several,
        by=one.by,
        is_edited=one.is_edited,
    )


class Questions(msgspec.Struct, frozen=True):
    """The open questions, oldest first."""

    questions: list[Question]


class QuestionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which questions to list."""

    run: RunName | None = None
    to: Name | None = None
    """Only those that are for somebody."""


class AnswerBody(Body, frozen=True, kw_only=True):
    """An answer."""

    value: Any
    who: Who | None = None


class ApproveBody(Body, frozen=True, kw_only=True):
    """A yes to a call."""

    who: Who | None = None
    arguments: dict[str, Any] | None = None
    """Other ones than the run asked for."""
    digest: Annotated[str, Meta(max_length=200)] = ""
    """Of the arguments that are meant, where somebody changed them."""


class RejectBody(Body, frozen=True, kw_only=True):
    """A no to a call."""

    who: Who | None = None
    reason: Text = ""


class Done(msgspec.Struct, frozen=True):
    """What was asked for is durable."""

    done: Literal[True] = True


# Events


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the log."""

    position: int
    stream: str
    version: int
    type: str
    type_version: int
    at: datetime
    data: Any
    """Null once erased."""
    blobs: dict[str, str] | None
    """The hashes of large values, by the names of the fields of `data` that are null for them."""
    correlation: str | None
    causation: str | None
    principal: str | None


def event_of(one: Recorded) -> Event:
    """Return an event, as the wire has it."""
    return Event(
        position=one.position,
        stream=one.stream,
        version=one.version,
        type=one.type,
        type_version=one.type_version,
        at=moment_of(one.at),
        data=None if one.data is None else msgspec.Raw(one.data.encode()),
        blobs=None if one.blobs is None else msgspec.json.decode(one.blobs, type=dict[str, str]),
        correlation=one.correlation,
        causation=one.causation,
        principal=one.principal,
    )


class Events(msgspec.Struct, frozen=True):
    """A page of events, in the order of the log."""

    events: list[Event]
    next: int | None
    """Say it as `after` for the next page, or with `newest_first` as `until`; null: there is none now."""


StreamName: TypeAlias = Annotated[str, Meta(pattern="^[!-~]{1,200}$")]


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; conditions are joined by AND."""

    after: Position | None = None
    """Only positions greater than this."""
    types: tuple[EventType, ...] = ()
    stream: StreamName | None = None
    prefix: StreamName | None = None
    """Only streams whose names begin so: `run/`."""
    correlation: Name | None = None
    """What events are tied to: the run that they are about."""
    tool: Name | None = None


class EventsQuery(EventFilter, frozen=True, kw_only=True):
    """Which events to read, and how many."""

    until: Position | None = None
    """Only positions up to this."""
    limit: Limit = 100
    newest_first: bool = False


class RunEventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of one run to read."""

    after: Position = 0
    limit: Limit = 100


class PublishBody(Body, frozen=True, kw_only=True):
    """An event that is to be published."""

    type: EventType
    data: Any = None
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """Published again with the same one, it is the same event."""


class Published(msgspec.Struct, frozen=True):
    """The event is durable."""

    is_new: bool


# Looking


class WorkflowLine(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that can be started."""

    id: str
    name: str
    description: str
    pattern: str | None
    """Null: it is a function."""
    steps: tuple[str, ...]
    metadata: dict[str, Any]


class WorkflowLines(msgspec.Struct, frozen=True):
    """The workflows."""

    workflows: list[WorkflowLine]


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """The circuit breaker of a tool."""

    circuit: str
    """The tool's name, with `@CONVERSATION` where each conversation has its own."""
    state: str
    """`closed`, `open` or `half_open`."""
    forced: str | None
    """What an operator made of it: `open` or `disabled`."""
    failures: int
    """In a row."""
    calls: int
    successes: int
    rejected: int
    p50_seconds: float
    p95_seconds: float
    last_error: str | None
    retry_after_seconds: float


class Circuits(msgspec.Struct, frozen=True):
    """The circuits that have been used, and those of the runtime's tools."""

    circuits: list[Circuit]


class ForceBody(Body, frozen=True, kw_only=True):
    """What is to become of a circuit."""

    to: Literal["open", "closed", "disabled", "auto"]
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]
    conversation: Annotated[str, Meta(pattern="^[!-~]{1,60}$")] | None = None


class WaitingLine(msgspec.Struct, frozen=True, kw_only=True):
    """An open run that is not in memory."""

    run: str
    wake_at: datetime | None
    waits_on: str | None
    could_not: str | None
    """Why it could not be resumed."""


class WaitingLines(msgspec.Struct, frozen=True):
    """The open runs that are not in memory, at most 10,000."""

    waiting: list[WaitingLine]


class Health(msgspec.Struct, frozen=True):
    """That the process lives."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests are carried out now."""

    status: Literal["opening", "ready", "draining", "failed", "closed"]
