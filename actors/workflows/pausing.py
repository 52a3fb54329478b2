"""A workflow that pauses itself until somebody resumes it with an answer: the code's side, and the rules of the resume.

Not the pause of an operator, who holds a run wherever it is (`steering.py`). Invariant: a pause is a recorded wait like
a question to people, so it is answered once, and what came before it is never made again.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.actors.kernel.messages import Decision, Moment
from perdure.actors.kernel.payloads import payload_decoder
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.commands import AnswerQuestion, UnpauseRun
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import ControlRefusedError, StepFailedError
from perdure.actors.workflows.forms import as_form
from perdure.actors.workflows.mail import PauseReached, QuestionWithdrawn
from perdure.actors.workflows.mailbox import Mailbox, answer
from perdure.actors.workflows.steering import PAUSED, steer
from perdure.actors.workflows.waiting import MAX_QUESTION_BYTES, ended, next_answer, time_limit
from perdure.store.errors import UnencodableError, UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.state import RunState

MAX_NAME: Final = 100
"""Of a place at which a workflow pauses itself."""


class PausePlace(msgspec.Struct, frozen=True, eq=False):
    """Where a workflow pauses itself, and what it is to be resumed with."""

    name: str
    result: object = None
    """What the workflow has come to so far, for those who look at it."""
    of: Any = Any
    """The type of the answer, or an `AnswerForm`."""
    text: str = ""
    to: Sequence[str] = ()
    timeout: timedelta | None = None

    @property
    def schema(self) -> bytes:
        """The JSON Schema of the answer, its choices included."""
        form = as_form(self.of)
        schema = msgspec.json.schema(self.of) if form is None else form.schema()
        if form is not None and form.choices is not None:
            schema = {"enum": list(form.choices)}
        return msgspec.json.encode(schema)

    @property
    def kind(self) -> Any:
        """The type of what the code gets."""
        form = as_form(self.of)
        return self.of if form is None else form.of


async def pause_at(driver: "Driver", branch: Branch, key: str, place: PausePlace) -> Any:
    """Return what the run is resumed with. See `Context.pause`."""
    name, text = place.name, place.text
    if not (0 < len(name) <= MAX_NAME and name.isprintable()):
        raise UsageError(f"a pause is called 1 to {MAX_NAME} printable characters, not {name!r}")
    decoder = payload_decoder(place.kind, f"the answer to the pause {name!r}")
    schema, until = place.schema, time_limit(driver, place.timeout)
    if len(text.encode()) + len(schema) > MAX_QUESTION_BYTES:
        raise UsageError(f"the text and the type of a pause are at most {MAX_QUESTION_BYTES} bytes")
    question, made_of = f"{driver.run_id}:{key}", digest(name, schema)
    missing = StepFailedError(
        step=key, error_type="TimeoutError", error=f"nobody resumed it in time: {name}", retryable=False
    )
    record = branch.take(key, "pause", name, made_of)
    if record is None:
        await driver.keep_pace()
        result = msgspec.Raw(driver.engine.encode(place.result, f"what {name} had come to"))
        to = tuple(place.to)
        driver.note(
            PauseReached(key, branch.path, question, name, msgspec.Raw(schema), made_of, result, text, to, until)
        )
        driver.engine.has_paused(driver.shell)
        data = await next_answer(driver, branch, key, until, missing, PAUSED)
    elif (recorded := ended(driver, branch, record, QuestionWithdrawn(key, question), missing)) is not None:
        data = recorded
    else:
        data = await next_answer(driver, branch, key, record.until, missing, PAUSED)
    try:
        return decoder.decode(data, key)
    except UnencodableError as error:  # the schema allowed what the type does not
        raise StepFailedError(step=key, error_type="InvalidAnswer", error=str(error), retryable=False) from error


def unpause(state: "RunState", status: str, command: UnpauseRun, moment: Moment) -> Decision[Any]:
    """Return what it leads to that somebody has a run go on, that an operator holds or that has paused itself.

    One that is both is let go by the operator's resume, and resumed where it paused itself when that brings an answer.

    Raises:
        RunClosedError: it has ended.
        ControlRefusedError, WrongAnswerError, QuestionNotOpenError: it takes no such answer; nothing was recorded.
    """
    freed = steer(state, command, moment)
    has_answer = command.answer is not None or bool(command.at)
    if not has_answer and (freed.reply or not state.mailbox.pauses):
        return freed
    is_due = bool(freed.events) and status != "blocked"
    done = _resumed(state.run, "running" if is_due else status, state.mailbox, command, moment)
    return Decision((*freed.events, *done.events), reply=True, effects=(*freed.effects, *done.effects))


def _resumed(run: str, status: str, box: Mailbox, command: UnpauseRun, moment: Moment) -> Decision[None]:
    places = [asked for asked in box.pauses.values() if command.at in ("", asked.paused_at)]
    if len(places) != 1:
        names = ", ".join(asked.paused_at for asked in box.pauses.values())
        reason = f"it is paused at {names}: say at which of them" if places else "it is not paused"
        raise ControlRefusedError(run=run, what=f"resumed at {command.at}" if command.at else "resumed", reason=reason)
    said = msgspec.Raw((command.answer or "null").encode())
    return answer(run, status, box, AnswerQuestion(places[0].id, said, command.who), moment)
