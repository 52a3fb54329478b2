"""What a person says to a run, taken to where it belongs: by the run's id, or by that of the question.

Not here: what answers a question takes (`actors/workflows/asking.py`). Invariant: input reaches the one question that
it is for, or none; where it could be for several, nothing is recorded.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perdure.actors.workflows.commands import AnswerQuestion, GetRun
from perdure.actors.workflows.errors import QuestionNotOpenError, RunClosedError, UnknownRunError
from perdure.actors.workflows.forms import read_answer
from perdure.actors.workflows.state import RunView
from perdure.runtime.naming import check_speaker
from perdure.runtime.questions import OpenQuestion, Questions
from perdure.store.errors import UsageError
from perdure.store.records import Query, StreamId, stream_id

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach


class InputOutcome(StrEnum):
    """What became of input for a run; only `accepted` has changed anything."""

    ACCEPTED = "accepted"
    """It answered the question."""
    NOT_WAITING = "not_waiting"
    """The run, or the question, is there, and waits for nothing, or no more."""
    AMBIGUOUS = "ambiguous"
    """The run asks more than one thing: say the id of the question."""


async def inject_input(
    reach: "Reach", target: str, content: object, who: str | None, on_behalf: str | None = None
) -> "InputOutcome | Literal[False]":
    """Answer the question that *target* names, or the only one of the run that it names. See `Runtime.inject_input`."""
    check_speaker(who, on_behalf)
    found = await _run_of(reach, target)
    if found is None:
        return False
    view, is_run = found
    wanted = view.questions if is_run else tuple(one for one in view.questions if one == target)
    if len(wanted) != 1:
        return InputOutcome.AMBIGUOUS if wanted else InputOutcome.NOT_WAITING
    question = await _open_question(reach, view.run, wanted[0])
    if question is None:
        return InputOutcome.NOT_WAITING
    return await _say(reach, question, content, who, on_behalf or "")


async def _say(
    reach: "Reach", question: OpenQuestion, content: object, who: str | None, on_behalf: str
) -> InputOutcome:
    meant = content
    if isinstance(content, str) and not question.tool:
        meant = read_answer(content, question.schema, question.choices)
    data = msgspec.Raw(reach.encode(meant, f"the answer to {question.id}"))
    command = AnswerQuestion(question.id, data, who, on_behalf)
    try:
        await reach.ask(StreamId(f"run/{question.run}"), command, principal=who)
    except (QuestionNotOpenError, RunClosedError):
        return InputOutcome.NOT_WAITING  # somebody was quicker
    return InputOutcome.ACCEPTED


async def _run_of(reach: "Reach", target: str) -> tuple[RunView, bool] | None:
    """Return the run that *target* names, and whether it names the run itself and not a question of it."""
    if (view := await _view(reach, target)) is not None:
        return view, True
    parts = target.split(":")
    for length in range(len(parts) - 1, 0, -1):  # a run's id may have a colon, and so may a step's key
        run = ":".join(parts[:length])
        if (view := await _view(reach, run)) is not None and await _was_asked(reach, run, target):
            return view, False
    return None


async def _view(reach: "Reach", run: str) -> RunView | None:
    try:
        view: RunView = await reach.ask(stream_id(f"run/{run}"), GetRun())
    except (UnknownRunError, UsageError):
        return None
    return view


async def _was_asked(reach: "Reach", run: str, question: str) -> bool:
    query = Query(stream=StreamId(f"run/{run}"), types=("question-asked", "pause-reached"))
    while page := await reach.read(query):
        for event in page:
            facts: dict[str, Any] = msgspec.json.decode(event.data or "{}")
            if facts.get("id") == question:
                return True
        query = msgspec.structs.replace(query, after=page[-1].position)
    return False


async def _open_question(reach: "Reach", run: str, question: str) -> OpenQuestion | None:
    found = Questions(StreamId(f"run/{run}"))
    while page := await reach.read(found.next_page):
        found.add(page)
    return next((one for one in found.all if one.id == question), None)
