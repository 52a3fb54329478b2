"""The words between a connection and the owner: a closed list of requests, as JSON. Pure data and its encoding.

Nothing here names code: a request is one of the structs below, what it may ask of an actor is one of the commands
below, and a value in it is JSON. Invariant: every reply was durable in the log before it was written.
"""

from typing import Any, Final, Literal, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.slots.commands import SettleExecution, TrajectoryView, ViewTrajectory
from perdure.actors.state.conversation import ConversationState, DropArtifact, GetConversation, KeepArtifact
from perdure.actors.state.goal_commands import GetGoal, GetGoalProgress
from perdure.actors.state.goal_model import Goal
from perdure.actors.state.goal_progress import GoalProgress
from perdure.actors.state.operations import Look, Looked
from perdure.actors.state.scopes import Scope
from perdure.actors.state.seen import Sighting
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.tools.tool import GetToolStatistics
from perdure.actors.triggers.subscription import AskRedrive
from perdure.actors.workflows.commands import (
    AnswerQuestion,
    CancelRun,
    DecideApproval,
    GetRun,
    PauseRun,
    SendSignal,
    SettleStep,
    UnpauseRun,
)
from perdure.actors.workflows.defined.model import Step
from perdure.actors.workflows.state import RunView
from perdure.runtime.control.meanings import MEANINGS
from perdure.runtime.control.request import Request, Word
from perdure.runtime.control.words import AnyWord
from perdure.runtime.options import OptionValues
from perdure.runtime.state import Changed, Eyes
from perdure.runtime.steering import ForkRequest
from perdure.store.codec import OptionalPayload
from perdure.store.records import Query, Recorded

PROTOCOL: Final = 1
"""Raised when a program of one version would misunderstand one of another."""

Asked: TypeAlias = (
    CancelRun | GetRun | SendSignal | AnswerQuestion | DecideApproval | SettleStep | PauseRun | UnpauseRun
    | SettleExecution | ViewTrajectory | GetToolStatistics | GetGoal | GetGoalProgress | AskRedrive
    | GetConversation | KeepArtifact | DropArtifact
)  # fmt: skip
"""All that may be asked of an actor directly; what has to be checked or done beside it has a request of its own."""

ASKABLE: Final[dict[type[Command], tuple[str, Any]]] = {
    CancelRun: ("run", bool),
    GetRun: ("run", RunView),
    SendSignal: ("run", bool),
    AnswerQuestion: ("run", Any),
    DecideApproval: ("run", Any),
    SettleStep: ("run", Any),
    PauseRun: ("run", bool),
    UnpauseRun: ("run", bool),
    SettleExecution: ("trajectory", Any),
    ViewTrajectory: ("trajectory", TrajectoryView),
    GetConversation: ("conversation", ConversationState),
    KeepArtifact: ("conversation", bool),
    DropArtifact: ("conversation", bool),
    GetToolStatistics: ("tool", ToolStatistics),
    AskRedrive: ("subscription", bool),
    GetGoal: ("goal", Goal),
    GetGoalProgress: ("goal", GoalProgress),
}
"""Of each of them: the kind of actor that it is for, and the type of its answer."""


class Ask(Request, frozen=True, tag="ask"):
    """Ask an actor."""

    stream: str
    command: Asked
    principal: str | None = None


class Start(Request, frozen=True, tag="start"):
    """Start a run from the input that the workflow's own signature encoded."""

    workflow: str
    input: msgspec.Raw
    options: OptionValues


class StartNamed(Request, frozen=True, tag="start-named"):
    """Start a run from plain values."""

    workflow: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: OptionValues


class StartData(Request, frozen=True, tag="start-data"):
    """Start a run from one object: all that it takes, or its arguments by name."""

    workflow: str
    data: dict[str, Any]
    options: OptionValues


class Ended(Request, frozen=True, tag="ended"):
    """Wait for a run's end."""

    run: str


class ForkRun(Request, frozen=True, tag="fork-run"):
    """Start a run that begins where another one was before a step."""

    run: str
    asked: ForkRequest


class Publish(Request, frozen=True, tag="publish"):
    """Publish an event to whoever waits for its type."""

    type: str
    data: msgspec.Raw
    id: str | None = None
    who: str | None = None
    source: str | None = None
    correlation: str | None = None


class SteerSchedule(Request, frozen=True, tag="steer-schedule"):
    """Pause or resume a schedule, or have it start a run now."""

    entry: str
    to: Literal["pause", "resume", "fire"]
    because: str = ""
    who: str | None = None


class LookAtState(Request, frozen=True, tag="look-at-state"):
    """Perform a call on shared values that changes nothing."""

    eyes: Eyes
    look: Look
    is_held: bool = False
    """Whether it is the value in the one scope that a write would go to, here `scope`."""
    scope: Scope | None = None


class ChangeState(Request, frozen=True, tag="change-values"):
    """Perform a call on shared values that may change something."""

    eyes: Eyes
    action: Literal["write", "write_batch", "delete", "compare_and_set"]
    values: dict[str, msgspec.Raw]
    taken: tuple[str, ...] = ()
    """Keys to delete."""
    expected: OptionalPayload = msgspec.UNSET
    """What `compare_and_set` expects; UNSET: that the key is not there."""
    scope: Scope | None = None
    seen: tuple[Sighting, ...] = ()


class CheckSagaStep(Request, frozen=True, tag="check-saga-step"):
    """Check a step of a saga as the owner would one of a definition."""

    name: str
    step: Step


class CallTool(Request, frozen=True, tag="call"):
    """Call a tool once, outside of a run."""

    tool: str
    arguments: msgspec.Raw
    options: OptionValues


class Dispatch(Request, frozen=True, tag="dispatch"):
    """Make a call as a model asks for it."""

    tool: str
    arguments: str
    options: OptionValues


class ReadPage(Request, frozen=True, tag="read"):
    """Read a page of events; it may hold fewer than were asked for, and is empty only at the end."""

    query: Query


class Follow(Request, frozen=True, tag="follow"):
    """Wait until there are events after a position, and read a page of them."""

    after: int
    query: Query | None = None


class Withdraw(Request, frozen=True, tag="withdraw"):
    """Wait no longer for the answer to an earlier request; a tool call is cancelled. There is no answer to this."""

    request: int


AnyRequest: TypeAlias = (
    Ask | Start | StartNamed | StartData | Ended | ForkRun | Publish | CallTool
    | Dispatch | SteerSchedule | LookAtState | ChangeState | CheckSagaStep | ReadPage | Follow | Withdraw | AnyWord
)  # fmt: skip

ANSWERS: Final[dict[type[Request], Any]] = {
    Start: str,
    StartNamed: str,
    StartData: str,
    Ended: RunView,
    ForkRun: str,
    Publish: bool,
    SteerSchedule: bool | str,
    LookAtState: Looked,
    ChangeState: Changed,
    CheckSagaStep: None,
    CallTool: msgspec.Raw,
    Dispatch: str,
    ReadPage: list[Recorded],
    Follow: list[Recorded],
}
"""The types of the answers; those of words are in their table."""


class Fault(msgspec.Struct, frozen=True):
    """An error on its way; `kind` is a name of the closed list in `faults.py`."""

    kind: str
    data: dict[str, Any] = {}
    text: str = ""


class Hello(msgspec.Struct, frozen=True):
    """What the owner says first."""

    protocol: int
    version: str
    redacted_keys: tuple[str, ...]
    refused: str = ""
    """Why it closes the connection again; empty: it does not."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A request with the number that its reply will have."""

    id: int
    request: msgspec.Raw


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a request, or why there is none. Number 0 is to all that is still open."""

    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    fault: Fault | None = None


encode: Final = msgspec.json.Encoder().encode
decode_hello: Final = msgspec.json.Decoder(Hello).decode
decode_envelope: Final = msgspec.json.Decoder(Envelope).decode
decode_reply: Final = msgspec.json.Decoder(Reply).decode
_request_decoder: Final["msgspec.json.Decoder[AnyRequest]"] = msgspec.json.Decoder(AnyRequest)


def decode_request(data: bytes | msgspec.Raw) -> AnyRequest:
    """Return the request in *data*.

    Raises:
        msgspec.MsgspecError: it is none of the list.
    """
    return _request_decoder.decode(data)


def answer_type(request: Request) -> Any:
    """Return the type of the answer to *request*."""
    if isinstance(request, Ask):
        return ASKABLE[type(request.command)][1]
    kind = type(request)
    return MEANINGS[kind].answer if isinstance(request, Word) else ANSWERS[kind]
