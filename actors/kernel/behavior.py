"""The port between the kernel and a kind of actor: its pure core.

A behavior decides and evolves on frozen data, without clock, randomness, I/O or logging.
"""

from typing import Any, Protocol, TypeVar

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.store.records import StreamId

S = TypeVar("S")


class Behavior(Protocol[S]):
    """The rules of one kind of actor, whose streams are named `kind/…`."""

    @property
    def kind(self) -> str:
        """The first part of the names of its streams."""
        ...

    @property
    def state_type(self) -> type[S]:
        """A msgspec type, so that a snapshot can be written and read."""
        ...

    @property
    def state_version(self) -> int:
        """Raised by hand when `evolve` changes its meaning: older snapshots are then thrown away."""
        ...

    @property
    def events(self) -> tuple[type[Event], ...]:
        """Every event type that the streams of this kind hold."""
        ...

    def initial(self, stream: StreamId) -> S:
        """Return the state of a stream without events."""
        ...

    def decide(self, state: S, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to in *state*; change nothing.

        Raises:
            PerdureError: the command is refused; nothing has happened. The asker gets the error.
        """
        ...

    def evolve(self, state: S, event: Event) -> S:
        """Return the state after *event*. Never refuses: the event is a fact."""
        ...

    def index(self, state: S) -> Index:
        """Return what the index of open work should say of the stream in this state."""
        ...
