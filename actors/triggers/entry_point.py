"""The actor of one entry point, `entry-point/ID`: how it is declared, the runs that it started, how they ended. Pure.

Not here: what starts it (`kinds.py`) and the runs themselves. Invariant: a run is started in one unit with
`entry-triggered`, and its end is noted here in one unit with `entry-told` in the run's own stream: each once.
"""

from typing import Any

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.workflows.entrance import EndStatus, Isolation, TriggerKind
from perdure.store.errors import InternalError
from perdure.store.records import StreamId, stream_id


class EntryOpened(Event, frozen=True, tag="entry-opened"):
    """A runtime opened that has the entry point, declared like this."""

    name: str
    workflow: str
    trigger: TriggerKind
    when: str
    """What starts it, in words."""
    isolation: Isolation
    max_concurrent: int
    priority: int = 0
    node: str | None = None
    """The step of the workflow that its runs start at, where it is not the first one."""
    description: str = ""


class EntryClosed(Event, frozen=True, tag="entry-closed"):
    """The runtime that had it closed; after a crash this is missing."""


class EntryTriggered(Event, frozen=True, tag="entry-triggered"):
    """The entry point started a run, in one unit with its `run-started`."""

    run: str
    kind: TriggerKind
    correlation: str | None = None
    depth: int = 0
    cause: int | None = None
    """The position of the event that triggered it."""


class TriggerRefused(Event, frozen=True, tag="trigger-refused"):
    """Something would have started a run, and was refused: too many runs had led to it."""

    run: str
    """What the run would have been called."""
    kind: TriggerKind
    reason: str
    depth: int = 0
    cause: int | None = None


class EntryRunEnded(Event, frozen=True, tag="entry-run-ended"):
    """A run of the entry point ended; `number` counts the ends, and a run that is tried again ends once more."""

    run: str
    status: EndStatus
    number: int
    before: EndStatus | None = None
    """How it had ended before an operator had it tried again."""


ENTRY_POINT_EVENTS = (EntryOpened, EntryClosed, EntryTriggered, TriggerRefused, EntryRunEnded)


class OpenEntry(Command, frozen=True, tag="open-entry"):
    """Note that a runtime has the entry point."""

    fact: EntryOpened


class CloseEntry(Command, frozen=True, tag="close-entry"):
    """Note that the runtime closes; nothing if that is known."""


class TriggerEntry(Command, frozen=True, tag="trigger-entry"):
    """Note that the entry point starts a run."""

    fact: EntryTriggered


class RefuseTrigger(Command, frozen=True, tag="refuse-trigger"):
    """Note that the entry point does not start a run; answered with whether that is news."""

    fact: TriggerRefused


class NoteRunEnded(Command, frozen=True, tag="note-run-ended"):
    """Note how a run of it ended; answered with the number of the end."""

    run: str
    status: EndStatus
    before: EndStatus | None = None


class GetEntryPoint(Command, frozen=True, tag="get-entry-point"):
    """Ask for the figures; answered with an `EntryPointState`."""


class EntryPointState(msgspec.Struct, frozen=True):
    """What an entry point has started, and what became of it."""

    declared: EntryOpened | None = None
    """How it was declared last."""
    is_open: bool = False
    """Whether a runtime has it; after a crash, whether one had it."""
    triggered: int = 0
    refused: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    ends: int = 0
    """Ends so far: of results, so many newest ones are kept."""
    last_run: str | None = None
    """The newest run."""
    last_refused: str | None = None
    """What the newest run that was refused would have been called."""

    @property
    def ended(self) -> int:
        """Runs that have ended."""
        return self.completed + self.failed + self.cancelled

    @property
    def open(self) -> int:
        """Runs that have not ended: at work, waiting, blocked."""
        return self.triggered - self.ended


class EntryPointBehavior:
    """The rules of an entry point's actor."""

    kind = "entry-point"
    state_type = EntryPointState
    state_version = 1
    events = ENTRY_POINT_EVENTS

    def initial(self, stream: StreamId) -> EntryPointState:
        """Return the state of an entry point that has started nothing."""
        del stream
        return EntryPointState()

    def decide(self, state: EntryPointState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case OpenEntry(fact=fact):
                return Decision((fact,), None)
            case CloseEntry():
                return Decision((EntryClosed(),) if state.is_open else (), None)
            case TriggerEntry(fact=fact):
                return Decision((fact,), None)
            case RefuseTrigger(fact=fact) if fact.run == state.last_refused:
                return Decision((), reply=False)
            case RefuseTrigger(fact=fact):
                return Decision((fact,), reply=True)
            case NoteRunEnded(run=run, status=status, before=before):
                number = state.ends + 1
                return Decision((EntryRunEnded(run, status, number, before),), number)
            case GetEntryPoint():
                return Decision((), state)
            case _:
                raise InternalError(detail=f"an entry point does not understand {type(command).__name__}")

    def evolve(self, state: EntryPointState, event: Event) -> EntryPointState:
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case EntryOpened():
                return replace(state, declared=event, is_open=True)
            case EntryClosed():
                return replace(state, is_open=False)
            case EntryTriggered(run=run):
                return replace(state, triggered=state.triggered + 1, last_run=run)
            case TriggerRefused(run=run):
                return replace(state, refused=state.refused + 1, last_refused=run)
            case EntryRunEnded(status=status, number=number, before=before):
                counts = {name: getattr(state, name) for name in ("completed", "failed", "cancelled")}
                counts[status] += 1
                if before is not None:
                    counts[before] -= 1
                return replace(state, ends=number, **counts)
            case _:
                return state

    def index(self, state: EntryPointState) -> Index:
        """Return that an entry point is never open work: its runs are."""
        del state
        return Index(is_open=False)


def entry_stream(entry: str) -> StreamId:
    """Return the stream of an entry point."""
    return stream_id(f"entry-point/{entry}")
