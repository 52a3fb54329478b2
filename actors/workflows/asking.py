"""An open question or approval: who may still say what, and what it comes to. Pure.

Not here: the code that waits (`waiting.py`, `approving.py`). Invariant: a question is answered with what its schema
allows, once by each person and by nobody once its time has passed; who passes on another's word has had their own by
that. An approval counts for exactly the arguments that were approved, so those given before somebody changes the
arguments are void.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.workflows.commands import AnswerQuestion, DecideApproval
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import WrongAnswerError
from perdure.actors.workflows.mail import (
    CallApproved,
    CallRejected,
    PauseReached,
    PauseResumed,
    QuestionAnswered,
    QuestionAsked,
)
from perdure.actors.workflows.people import person_key
from perdure.actors.workflows.schema import misfit

MAX_PEOPLE: Final = 50
"""Who may be wanted for one question."""
_AS_THEY_ARE: Final = b"null"
"""What stands for arguments that nobody changes."""


class Verdict(msgspec.Struct, frozen=True):
    """What became of an approval."""

    outcome: Literal["approved", "rejected", "expired"]
    by: tuple[str, ...]
    """Who approved, in their order, or who rejected."""
    reason: str
    arguments: msgspec.Raw
    is_edited: bool


class Asked(msgspec.Struct, frozen=True):
    """An open question; `schema`, `choices`, `arguments` and `answers` are JSON."""

    id: str
    schema: str
    choices: str
    until: int | None
    several: int = 1
    tool: str = ""
    """The tool whose call is to be approved; empty for a question."""
    arguments: str = "null"
    edited_by: str = ""
    by: tuple[str, ...] = ()
    """Who answered or approved so far."""
    people: tuple[str, ...] = ()
    """Who has answered where several are wanted, by their keys, including those whose answer somebody passed on."""
    answers: tuple[str, ...] = ()
    paused_at: str = ""
    """Of a pause of the workflow's own: where; empty for a question."""
    result: str = "null"
    """What a workflow that paused itself had come to."""

    def after(self, event: Event) -> "Asked":
        """Return what is open after somebody said something that was not the last word."""
        match event:
            case QuestionAnswered():
                answers = (*self.answers, bytes(event.answer).decode())
                people = (*self.people, *self._people(event))
                return msgspec.structs.replace(self, by=(*self.by, event.by), people=people, answers=answers)
            case CallApproved(arguments=arguments) if bytes(arguments) == _AS_THEY_ARE:
                people = (*self.people, *self._people(event))
                return msgspec.structs.replace(self, by=(*self.by, event.by), people=people)
            case CallApproved(arguments=arguments):
                changed = bytes(arguments).decode()
                by, people = (event.by,), self._people(event)
                return msgspec.structs.replace(self, by=by, people=people, arguments=changed, edited_by=event.by)
            case _:
                return self

    def _people(self, said: QuestionAnswered | CallApproved) -> tuple[str, ...]:
        if self.several == 1:
            return ()
        return tuple(person_key(name) for name in (said.by, said.on_behalf) if name)

    def outcome(self, event: Event) -> msgspec.Raw:
        """Return what the workflow is told after the last word."""
        if isinstance(event, PauseResumed):
            return event.answer
        if isinstance(event, QuestionAnswered):
            return event.answer if self.several == 1 else _listed(self.after(event).answers)
        end = self.after(event)
        is_rejected = isinstance(event, CallRejected)
        verdict = Verdict(
            "rejected" if is_rejected else "approved",
            (event.by,) if isinstance(event, CallRejected) else end.by,
            event.reason if isinstance(event, CallRejected) else "",
            msgspec.Raw(end.arguments.encode()),
            bool(end.edited_by),
        )
        return msgspec.Raw(msgspec.json.encode(verdict))


def opened(event: QuestionAsked | PauseReached) -> Asked:
    """Return the question that *event* opens."""
    if isinstance(event, PauseReached):
        schema, result = bytes(event.schema).decode(), bytes(event.result).decode()
        return Asked(event.id, schema, "null", event.until, paused_at=event.name, result=result)
    return Asked(
        event.id,
        bytes(event.schema).decode(),
        bytes(event.choices).decode(),
        event.until,
        event.several,
        event.tool,
        bytes(event.arguments).decode(),
    )


def answered(step: str, asked: Asked, command: AnswerQuestion) -> QuestionAnswered | PauseResumed:
    """Return the fact that an answer is, to a question or to what a pause waits for.

    Raises:
        WrongAnswerError: it is not taken.
    """
    if asked.tool:
        raise _wrong(asked, "it asks for an approval: approve it or reject it")
    if reason := _misfit(asked, command.answer):
        raise _wrong(asked, reason)
    if asked.paused_at:
        return PauseResumed(step, asked.id, command.answer, command.who or "", command.on_behalf)
    if asked.several > 1:
        _check_people(asked, command)
    left = asked.several - len(asked.by) - 1
    return QuestionAnswered(step, asked.id, command.answer, command.who or "", left, command.on_behalf)


def decided(step: str, asked: Asked, command: DecideApproval) -> CallApproved | CallRejected:
    """Return the fact that a decision is.

    Raises:
        WrongAnswerError: it is not taken.
    """
    if not asked.tool:
        raise _wrong(asked, "it asks for an answer, not for an approval")
    if command.verdict == "rejected":
        if not command.who:
            raise _wrong(asked, "it needs to know who says so")
        return CallRejected(step, asked.id, command.who, command.reason, command.on_behalf)
    arguments = _canonical(msgspec.json.decode(command.arguments))
    is_same = arguments in (_AS_THEY_ARE, _canonical(msgspec.json.decode(asked.arguments)))
    current = argument_digest(asked.tool, asked.arguments.encode())
    if command.digest and command.digest != current:
        raise _wrong(asked, f"the arguments are others than those looked at: they are {asked.arguments} ({current})")
    is_others = bool(asked.edited_by) and person_key(asked.edited_by) != person_key(command.who)
    if is_same and is_others and not command.digest:
        text = f"{asked.edited_by} changed the arguments to {asked.arguments}: say that these are meant, by {current}"
        raise _wrong(asked, text)
    if not is_same:
        if reason := misfit(msgspec.json.decode(arguments), msgspec.json.decode(asked.schema)):
            raise _wrong(asked, reason.replace("the answer", "the arguments", 1))
        if not command.who:
            raise _wrong(asked, "it needs to know who says so")
        changed = msgspec.Raw(arguments)
        return CallApproved(step, asked.id, command.who, changed, asked.several - 1, command.on_behalf)
    _check_people(asked, command)
    left = asked.several - len(asked.by) - 1
    return CallApproved(step, asked.id, command.who, left=left, on_behalf=command.on_behalf)


def argument_digest(tool: str, arguments: bytes) -> str:
    """Return what an approval is bound to: the tool and its arguments, whatever the order of their names."""
    return digest(tool, _canonical(msgspec.json.decode(arguments)))


def _check_people(asked: Asked, command: AnswerQuestion | DecideApproval) -> None:
    if not command.who or not person_key(command.who):
        raise _wrong(asked, "it needs to know who says so")
    for name in (command.on_behalf, command.who):
        if person_key(name) in asked.people:
            raise _wrong(asked, f"{name} has said so already, and {asked.several} different people are wanted")


def _misfit(asked: Asked, given: msgspec.Raw) -> str:
    value = msgspec.json.decode(given)
    choices: list[Any] | None = msgspec.json.decode(asked.choices)
    if choices is not None and _canonical(value) not in [_canonical(choice) for choice in choices]:
        return f"it is none of {asked.choices}"
    return misfit(value, msgspec.json.decode(asked.schema))


def _wrong(asked: Asked, reason: str) -> WrongAnswerError:
    return WrongAnswerError(detail="", question=asked.id, reason=reason)


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _listed(answers: Sequence[str]) -> msgspec.Raw:
    return msgspec.Raw(f"[{','.join(answers)}]".encode())
