"""The facts of what reaches a run from outside: signals, questions and approvals with their answers, pauses. Pure data.

Not here: what a run keeps of it (`mailbox.py`). Invariant: tags are for ever, as of all facts of a run (`events.py`).
"""

from typing import Final

import msgspec

from perdure.store.codec import Event


class SignalReceived(Event, frozen=True, tag="signal-received"):
    """Somebody sent the run a signal at `at` (microseconds); it is kept until the code takes it."""

    id: str
    name: str
    value: msgspec.Raw
    at: int


class SignalAwaited(Event, frozen=True, tag="signal-awaited"):
    """The workflow waits for the next signal of a name, at most until `until` (microseconds)."""

    step: str
    branch: str
    name: str
    until: int | None = None


class SignalTaken(Event, frozen=True, tag="signal-taken"):
    """The wait got this signal, which no other wait gets."""

    step: str
    signal: str


class SignalExpired(Event, frozen=True, tag="signal-expired"):
    """No signal came in time; the workflow was told."""

    step: str


class SignalWaitWithdrawn(Event, frozen=True, tag="signal-wait-withdrawn"):
    """The wait was cancelled: a signal that comes now is for others."""

    step: str


class QuestionAsked(Event, frozen=True, tag="question-asked"):
    """The workflow asks people; an answer must fit `schema` (JSON Schema) and be one of `choices`, unless null."""

    step: str
    branch: str
    id: str
    text: str
    schema: msgspec.Raw
    choices: msgspec.Raw
    asked_of: tuple[str, ...]
    digest: str
    until: int | None = None
    several: int = 1
    """How many different people are to answer, or to approve."""
    tool: str = ""
    """The tool of the call that is to be approved; empty for a question."""
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    """Of that call; `schema` is then theirs."""


class QuestionAnswered(Event, frozen=True, tag="question-answered"):
    """Somebody, the event's principal, answered; `left` more are wanted."""

    step: str
    id: str
    answer: msgspec.Raw
    by: str = ""
    left: int = 0
    on_behalf: str = ""
    """Whose answer it is, where `by` passed it on."""


class CallApproved(Event, frozen=True, tag="call-approved"):
    """Somebody approved a call, with other `arguments` unless null: then what others approved before is void.

    `left` more are wanted.
    """

    step: str
    id: str
    by: str
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    left: int = 0
    on_behalf: str = ""
    """Whose word it is, where `by` passed it on."""


class CallRejected(Event, frozen=True, tag="call-rejected"):
    """Somebody rejected a call: it is not made."""

    step: str
    id: str
    by: str
    reason: str
    on_behalf: str = ""
    """Whose word it is, where `by` passed it on."""


class QuestionExpired(Event, frozen=True, tag="question-expired"):
    """Nobody answered in time; the workflow was told."""

    step: str
    id: str


class QuestionWithdrawn(Event, frozen=True, tag="question-withdrawn"):
    """The workflow was cancelled while it asked: an answer that came before and was not yet taken counts no more."""

    step: str
    id: str


class PauseReached(Event, frozen=True, omit_defaults=True, tag="pause-reached"):
    """The workflow paused itself at `name`, having come to `result`; it goes on with what it is resumed with.

    Until then it is an open question, whose answer must fit `schema` (JSON Schema).
    """

    step: str
    branch: str
    id: str
    name: str
    schema: msgspec.Raw
    digest: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    text: str = ""
    asked_of: tuple[str, ...] = ()
    until: int | None = None


class PauseResumed(Event, frozen=True, tag="pause-resumed"):
    """Somebody, the event's principal, resumed a workflow that had paused itself, with this answer."""

    step: str
    id: str
    answer: msgspec.Raw
    by: str = ""
    on_behalf: str = ""
    """Whose answer it is, where `by` passed it on."""


MAIL_EVENTS: Final = (
    SignalReceived, SignalAwaited, SignalTaken, SignalExpired, SignalWaitWithdrawn,
    QuestionAsked, QuestionAnswered, CallApproved, CallRejected, QuestionExpired, QuestionWithdrawn,
    PauseReached, PauseResumed,
)  # fmt: skip
