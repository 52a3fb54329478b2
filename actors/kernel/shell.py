"""The one actor class: a mailbox on the event loop around the pure core of one stream.

It decides nothing itself. Invariant: its state is the fold of the events that it appended or loaded, and `version`
counts them.
"""

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import pykka

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.messages import Command, Index
from perdure.store.protocols import Ticket
from perdure.store.records import StreamId

if TYPE_CHECKING:
    from pykka._actor import ActorInbox

    from perdure.actors.kernel.replay import Core, Revived
    from perdure.actors.kernel.system import ActorSystem

TURN = 64
"""Messages handled before the other actors get the loop again."""


class Envelope:
    """A message on its way, where the answer goes, who sends it and what its events are correlated with."""

    __slots__ = ("correlation", "message", "principal", "reply_to")

    def __init__(
        self,
        message: Command,
        reply_to: Answer[Any] | None,
        principal: str | None = None,
        correlation: str | None = None,
    ) -> None:
        self.message = message
        self.reply_to = reply_to
        self.principal = principal
        self.correlation = correlation


class Mailbox(deque[Envelope]):
    """pykka's inbox as a deque; only touched on the loop, so it needs no lock."""

    __slots__ = ()

    def put(self, envelope: Envelope, /) -> None:
        """Queue an envelope."""
        self.append(envelope)

    def get(self) -> Envelope:
        """Take the oldest envelope out."""
        return self.popleft()

    def empty(self) -> bool:
        """Return whether nothing waits."""
        return not self


class Shell(pykka.Actor):
    """The actor of one stream while it is in memory.

    Subclasses pykka's actor at the points meant for new actor types; pykka's process-wide registry and its loop are
    not used, since two runtimes in one process must not know of each other.
    """

    actor_inbox: Mailbox  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride] # a narrower inbox

    def __init__(self, system: "ActorSystem", core: "Core[Any]", revived: "Revived[Any]") -> None:
        # Not super().__init__(): it draws a UUID and makes an Event and a reference for every actor, 1.5 KB that nobody
        # asks for here. What it promises is below, made when somebody does.
        self.actor_urn = revived.stream
        self.actor_inbox = Mailbox()  # pyright: ignore[reportIncompatibleVariableOverride] # as above
        self._stopped: threading.Event | None = None
        self._has_left = False
        self.stream: StreamId = revived.stream
        self.core = core
        self.state: Any = revived.state
        self.version: int = revived.version
        self.index: Index | None = revived.index
        self.snapshot_version: int = revived.snapshot_version
        self.pins = 0
        """How many tasks work for this actor; it stays in memory as long as there is one."""
        self.last_used = 0
        self.ticket: Ticket | None = None
        """Of the last unit with events of this actor: when it is durable, so is all that the state rests on."""
        self._system = system
        self._is_scheduled = False

    @staticmethod
    def _create_actor_inbox() -> "ActorInbox":
        return Mailbox()  # type: ignore[return-value] # typed over our own envelope

    @staticmethod
    def _create_future() -> Answer[Any]:
        return Answer()

    @property
    def actor_ref(self) -> "pykka.ActorRef[Any]":
        """A reference of pykka's kind; ours are `Ref`, which finds an actor that is not in memory."""
        return pykka.ActorRef(self)

    @property
    def actor_stopped(self) -> threading.Event:  # type: ignore[override] # pyright: ignore[reportIncompatibleVariableOverride] # as above
        """Whether the actor has left memory, as pykka's references ask for it."""
        if self._stopped is None:
            self._stopped = threading.Event()
            if self._has_left:
                self._stopped.set()
        return self._stopped

    def leave(self) -> None:
        """Note that the actor has left memory."""
        self._has_left = True
        if self._stopped is not None:
            self._stopped.set()

    def _start_actor_loop(self) -> None:
        """Do nothing: the loop is the event loop, and `put` asks it for a turn."""

    @property
    def is_idle(self) -> bool:
        """Whether it may leave memory: nothing waits and nobody works for it."""
        return not self.actor_inbox and not self.pins

    @property
    def is_durable(self) -> bool:
        """Whether everything that its state rests on is on disk."""
        return self.ticket is None or self.ticket.is_durable

    def put(self, envelope: Envelope) -> None:
        """Queue *envelope* and see to it that it is handled."""
        self.actor_inbox.append(envelope)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._system.loop.call_soon(self.take_turn)

    def take_turn(self) -> None:
        """Handle what waits, at most a turn's worth; while the disk lags behind, wait for it."""
        self._is_scheduled = False
        inbox = self.actor_inbox
        for _ in range(TURN):
            if not inbox:
                return
            if self._system.log.is_congested and (barrier := self._system.log.barrier()) is not None:
                self._is_scheduled = True
                barrier.on_settled(lambda _: self.take_turn())
                return
            if not self._system.handle(self, inbox.popleft()):
                return
        if inbox:
            self._is_scheduled = True
            self._system.loop.call_soon(self.take_turn)

    def on_receive(self, message: Command) -> Any:
        """Decide *message* as part of pykka's interface; the reply may be ahead of the disk."""
        return self._system.transact(((self, message),)).replies[0]
