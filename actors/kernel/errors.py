"""What can go wrong between an actor and whoever speaks to it."""

from perdure.store.errors import PerdureError


class ActorError(PerdureError):
    """Base of the errors that an actor's runtime answers with."""


class ActorStoppedError(ActorError):
    """The actor or its runtime stopped before the message was handled; nothing was written for it."""

    message = "{stream} stopped before it handled the message: ask again once the runtime is open"
    stream: str


class ActorFailedError(ActorError):
    """The actor is parked, or failed on this message; its state is as the log has it."""

    message = "{stream} failed: {reason}"
    stream: str
    reason: str


class AskTimeoutError(ActorError, TimeoutError):
    """No answer came within the time; the message may still be handled."""

    message = "no answer within {timeout_seconds} s; the message may still be handled"
    timeout_seconds: float | None


class MailboxFullError(ActorError):
    """The actor has more messages waiting than its bound; nothing was written for this one."""

    message = "{stream} has {waiting} messages waiting: slow down and try again"
    stream: str
    waiting: int
