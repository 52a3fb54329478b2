"""The words between a connection and the owner: a closed list of requests, as JSON. Pure data and its encoding.

Nothing here names code: a request is one of the structs below, what it may ask of an actor is one of the commands
below, and a value in it is JSON. Invariant: every reply was durable in the log before it was written.
"""

from typing import Any, Final, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.slots.commands import SettleExecution
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.tools.tool import GetToolStatistics
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
from perdure.actors.workflows.state import RunView
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.options import OptionValues
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.recovery import WaitingRun
from perdure.runtime.steering import ForkRequest
from perdure.store.records import Query, Recorded

PROTOCOL: Final = 1
"""Raised when a program of one version would misunderstand one of another."""

Asked: TypeAlias = (
    CancelRun | GetRun | SendSignal | AnswerQuestion | DecideApproval | SettleStep | PauseRun | UnpauseRun
    | SettleExecution | GetToolStatistics
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
    GetToolStatistics: ("tool", ToolStatistics),
}
"""Of each of them: the kind of actor that it is for, and the type of its answer."""


class Request(msgspec.Struct, frozen=True, tag_field="verb"):
    """Base of the requests; a tag is for ever."""


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


class RetryRun(Request, frozen=True, tag="retry-run"):
    """Have a run tried again."""

    run: str
    who: str | None = None


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


class ForceCircuit(Request, frozen=True, tag="force-circuit"):
    """Take a tool's circuit over."""

    tool: str
    to: Forcing
    because: str
    who: str | None = None
    conversation: str | None = None


class QuarantineSlot(Request, frozen=True, tag="quarantine-slot"):
    """Give a slot to nobody until it was reset."""

    slot: str
    because: str
    who: str


class ResetSlot(Request, frozen=True, tag="reset-slot"):
    """Empty a slot."""

    slot: str
    who: str
    take_away: bool = False


class Resume(Request, frozen=True, tag="resume"):
    """Bring back open runs, or one."""

    run: str | None = None


class Questions(Request, frozen=True, tag="questions"):
    """List the open questions."""


class Waiting(Request, frozen=True, tag="waiting"):
    """List the open runs that are not in memory."""


class Statistics(Request, frozen=True, tag="statistics"):
    """Ask for the runtime's figures."""


class WorkflowStatistics(Request, frozen=True, tag="get-stats"):
    """Ask for the figures of defined workflows and of agents."""


class ReadPage(Request, frozen=True, tag="read"):
    """Read a page of events; it may hold fewer than were asked for, and is empty only at the end."""

    query: Query


class Follow(Request, frozen=True, tag="follow"):
    """Wait until there are events after a position, and read a page of them."""

    after: int
    query: Query | None = None


class ReadBlob(Request, frozen=True, tag="blob"):
    """Read a large value by its hash."""

    sha256: str


class Withdraw(Request, frozen=True, tag="withdraw"):
    """Wait no longer for the answer to an earlier request; a tool call is cancelled. There is no answer to this."""

    request: int


AnyRequest: TypeAlias = (
    Ask | Start | StartNamed | StartData | Ended | RetryRun | ForkRun | Publish | CallTool | Dispatch | ForceCircuit
    | QuarantineSlot | ResetSlot | Resume | Questions | Waiting | Statistics | WorkflowStatistics
    | ReadPage | Follow | ReadBlob | Withdraw
)  # fmt: skip

ANSWERS: Final[dict[type[Request], Any]] = {
    Start: str,
    StartNamed: str,
    StartData: str,
    Ended: RunView,
    RetryRun: str | None,
    ForkRun: str,
    Publish: bool,
    CallTool: msgspec.Raw,
    Dispatch: str,
    ForceCircuit: bool,
    QuarantineSlot: Any,
    ResetSlot: str | None,
    Resume: Any,
    Questions: list[OpenQuestion],
    Waiting: list[WaitingRun],
    Statistics: RuntimeStatistics,
    WorkflowStatistics: dict[str, Any],
    ReadPage: list[Recorded],
    Follow: list[Recorded],
    ReadBlob: bytes | None,
}
"""The types of the answers."""


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
    return ANSWERS[type(request)]
