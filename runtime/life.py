"""The actor of the runtime itself: when it was opened and closed, and by whom. The pure core.

Its count of openings numbers the lives of the runtime: calls of an older life died with it.
"""

from typing import Any

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

RUNTIME = StreamId("runtime/main")


class RuntimeOpened(Event, frozen=True, tag="runtime-opened"):
    """A process took the log over."""

    life: int
    pid: int
    host: str
    version: str
    after_crash: bool


class RuntimeClosed(Event, frozen=True, tag="runtime-closed"):
    """The process let the log go in good order."""

    life: int


class OpenRuntime(Command, frozen=True, tag="open-runtime"):
    """Begin a life; answered with its number."""

    pid: int
    host: str
    version: str


class CloseRuntime(Command, frozen=True, tag="close-runtime"):
    """End the life in good order."""


class LifeState(msgspec.Struct, frozen=True):
    """How many lives there were, and whether one is under way."""

    life: int = 0
    is_open: bool = False


class LifeBehavior:
    """The rules of the runtime's own actor."""

    kind = "runtime"
    state_type = LifeState
    state_version = 1
    events = (RuntimeOpened, RuntimeClosed)

    def initial(self, stream: StreamId) -> LifeState:
        """Return the state of a log that was never opened."""
        del stream
        return LifeState()

    def decide(self, state: LifeState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        del moment
        match command:
            case OpenRuntime(pid=pid, host=host, version=version):
                opened = RuntimeOpened(state.life + 1, pid, host, version, after_crash=state.is_open)
                return Decision((opened,), opened)
            case CloseRuntime():
                return Decision((RuntimeClosed(state.life),), None)
            case _:
                raise InternalError(detail=f"the runtime does not understand {type(command).__name__}")

    def evolve(self, state: LifeState, event: Event) -> LifeState:
        """Return the state after *event*."""
        match event:
            case RuntimeOpened(life=life):
                return LifeState(life, is_open=True)
            case _:
                return LifeState(state.life, is_open=False)

    def index(self, state: LifeState) -> Index:
        """Return that the runtime is never open work."""
        del state
        return Index(is_open=False)
