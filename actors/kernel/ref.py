"""A reference to an actor: its stream's name and two verbs. It keeps nothing alive."""

from typing import TYPE_CHECKING, Any

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Envelope
from perdure.store.records import StreamId

if TYPE_CHECKING:
    from perdure.actors.kernel.system import ActorSystem


class Ref:
    """Speak to the actor of a stream, whether it is in memory or not; from any thread."""

    __slots__ = ("_system", "stream")

    def __init__(self, system: "ActorSystem", stream: StreamId) -> None:
        self._system = system
        self.stream = stream

    def __repr__(self) -> str:
        return f"<Ref {self.stream}>"

    def tell(self, message: Command, *, correlation: str | None = None, principal: str | None = None) -> None:
        """Send *message* and wait for nothing; a refusal is nobody's to see."""
        self._system.post(self.stream, Envelope(message, None, principal, correlation))

    def ask(self, message: Command, *, correlation: str | None = None, principal: str | None = None) -> Answer[Any]:
        """Send *message* and return the answer to come: `await` it on the loop, `get(timeout=…)` it elsewhere.

        The answer comes once everything it may rest on is durable. Abandoning it cancels nothing.

        Raises (when the answer is taken):
            PerdureError: the actor refused; nothing was written.
            MailboxFullError: too many messages wait for this actor.
            ActorStoppedError: the runtime stopped before the message was handled.
            ActorFailedError: the actor failed on this message or is parked.
            LogWriteError: the log failed; ask again after reopening.
        """
        answer: Answer[Any] = Answer()
        self._system.post(self.stream, Envelope(message, answer, principal, correlation))
        return answer
