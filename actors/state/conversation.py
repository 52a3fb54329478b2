"""The actor of one conversation, `conversation/ID`: which runs it has had, and the values kept with it. The pure core.

Not here: what the runs share (`state/conversation/ID`), and how the conversation stands, which follows from its runs.
Invariant: a run joins in one unit with its own start, so the history has every run and none that never was.
"""

from typing import Any, Final

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.store.codec import OptionalPayload
from perdure.store.errors import InternalError, PerdureError
from perdure.store.records import StreamId

MAX_RUNS: Final = 1000
"""Of the newest ones are remembered in memory; the log has all of them."""
MAX_ARTIFACTS: Final = 1000
"""Names of values that a conversation keeps at the same time."""


class ConversationRunStarted(Event, frozen=True, omit_defaults=True, tag="conversation-run-started"):
    """A run was started in the conversation; `takes_up` is the one that it goes on for, if it does."""

    run: str
    workflow: str
    takes_up: str | None = None


class ArtifactKept(Event, frozen=True, omit_defaults=True, tag="artifact-kept"):
    """A value was kept under a name, in place of the one before; `sha256` is of its content.

    `content` is JSON or, where `is_binary`, a text in base64.
    """

    name: str
    content: OptionalPayload
    sha256: str
    size: int
    is_binary: bool = False
    media_type: str = "application/json"
    run: str | None = None
    """The run that made it, as whoever kept it says."""


class ArtifactDropped(Event, frozen=True, tag="artifact-dropped"):
    """A name was taken away; the log keeps what was under it."""

    name: str


class JoinConversation(Command, frozen=True, tag="join-conversation"):
    """Note that a run starts in the conversation; a run that has is not noted again."""

    run: str
    workflow: str
    takes_up: str | None = None


class KeepArtifact(Command, frozen=True, tag="keep-artifact"):
    """Keep a value under a name; answered with whether that is another value than before."""

    fact: ArtifactKept


class DropArtifact(Command, frozen=True, tag="drop-artifact"):
    """Take a name away; answered with whether it was there."""

    name: str


class GetConversation(Command, frozen=True, tag="get-conversation"):
    """Ask for the history; answered with a `ConversationState`."""


class ConversationFullError(PerdureError):
    """The conversation keeps as many values as it may; this one was not kept."""

    message = "conversation {conversation} keeps {count} artifacts already: drop one first"
    conversation: str
    count: int


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run of the conversation."""

    run: str
    workflow: str
    takes_up: str | None = None
    """The run that it goes on for, where somebody had an interrupted one taken up again."""


class Artifact(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value that is kept, less its content."""

    name: str
    sha256: str
    size: int
    """Of the content, in bytes."""
    is_binary: bool = False
    media_type: str = "application/json"
    run: str | None = None


class ConversationState(msgspec.Struct, frozen=True):
    """What the log knows of a conversation itself."""

    id: str
    count: int = 0
    """Runs so far."""
    runs: tuple[Member, ...] = ()
    """The newest of them, the newest last."""
    artifacts: dict[str, Artifact] = {}


class ConversationBehavior:
    """The rules of a conversation's actor."""

    kind = "conversation"
    state_type = ConversationState
    state_version = 1
    events = (ConversationRunStarted, ArtifactKept, ArtifactDropped)

    def initial(self, stream: StreamId) -> ConversationState:
        """Return the state of a conversation that nobody has begun."""
        return ConversationState(stream.partition("/")[2])

    def decide(self, state: ConversationState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case JoinConversation(run=run):
                if any(one.run == run for one in state.runs):
                    return Decision((), reply=False)
                return Decision((ConversationRunStarted(run, command.workflow, command.takes_up),), reply=True)
            case KeepArtifact(fact=fact):
                return _keep(state, fact)
            case DropArtifact(name=name):
                is_there = name in state.artifacts
                return Decision((ArtifactDropped(name),) if is_there else (), reply=is_there)
            case GetConversation():
                return Decision((), state)
            case _:
                raise InternalError(detail=f"a conversation does not understand {type(command).__name__}")

    def evolve(self, state: ConversationState, event: Event) -> ConversationState:
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case ConversationRunStarted(run=run, workflow=workflow, takes_up=takes_up):
                runs = (*state.runs, Member(run, workflow, takes_up))[-MAX_RUNS:]
                return replace(state, count=state.count + 1, runs=runs)
            case ArtifactKept(name=name):
                kept = Artifact(name, event.sha256, event.size, event.is_binary, event.media_type, event.run)
                return replace(state, artifacts={**state.artifacts, name: kept})
            case ArtifactDropped(name=name):
                left = {key: value for key, value in state.artifacts.items() if key != name}
                return replace(state, artifacts=left)
            case _:
                return state

    def index(self, state: ConversationState) -> Index:
        """Return that a conversation is no open work: its runs are."""
        del state
        return Index(is_open=False)


def conversation_stream(id: str) -> StreamId:
    """Return the stream of a conversation."""
    return StreamId(f"conversation/{id}")


def _keep(state: ConversationState, fact: ArtifactKept) -> Decision[bool]:
    known = state.artifacts.get(fact.name)
    if known is not None and (known.sha256, known.media_type) == (fact.sha256, fact.media_type):
        return Decision((), reply=False)
    if known is None and len(state.artifacts) >= MAX_ARTIFACTS:
        raise ConversationFullError(conversation=state.id, count=len(state.artifacts))
    return Decision((fact,), reply=True)
