"""The code's side of signals and questions: a recorded wait, from the recording or live to its end.

Not here: what comes and whom it is for (`mailbox.py`). Invariant: each wait has one end at most, and one that is
cancelled is withdrawn before anything else is recorded in its branch.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.actors.kernel.payloads import payload_decoder
from perdure.actors.kernel.spans import check_limit
from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.asking import MAX_PEOPLE
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.events import RunFact
from perdure.actors.workflows.forms import AnswerForm, as_form
from perdure.actors.workflows.mail import (
    QuestionAsked,
    QuestionExpired,
    QuestionWithdrawn,
    SignalAwaited,
    SignalExpired,
    SignalTaken,
    SignalWaitWithdrawn,
)
from perdure.actors.workflows.mailbox import ANSWER, SIGNAL
from perdure.actors.workflows.step_record import StepRecord
from perdure.store.errors import UnencodableError, UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

MAX_QUESTION_BYTES: Final = 32 * 1024
"""Of a question's text, schema and choices together: a page, not a file."""
_MICROSECOND: Final = timedelta(microseconds=1)


async def take_signal(driver: "Driver", branch: Branch, key: str, name: str, of: Any, timeout: timedelta | None) -> Any:
    """Return the value of the next signal called *name*. See `Context.signal`."""
    decoder = payload_decoder(of, f"signal {name!r}")
    until = time_limit(driver, timeout)
    record = branch.take(key, "signal", name)
    missing = StepFailedError(
        step=key, error_type="TimeoutError", error=f"no signal {name!r} came in time", retryable=False
    )
    if record is None:
        await driver.keep_pace()
        driver.note(SignalAwaited(key, branch.path, name, until))
        data = await _next_signal(driver, branch, key, until, missing)
    elif (recorded := ended(driver, branch, record, SignalWaitWithdrawn(key), missing)) is not None:
        data = recorded
    else:
        data = await _next_signal(driver, branch, key, record.until, missing)
    try:
        return decoder.decode(data, key)
    except UnencodableError as error:
        # Whoever sent it could not know the type: the code is told, the same live and replayed.
        raise StepFailedError(step=key, error_type="InvalidSignal", error=str(error), retryable=False) from error


async def _next_signal(
    driver: "Driver", branch: Branch, key: str, until: int | None, missing: StepFailedError
) -> msgspec.Raw:
    while (kept := driver.shell.state.mailbox.matches().get(key)) is None:
        if _is_over(driver, until):
            driver.note(SignalExpired(key))
            driver.arrived()
            raise missing
        await _wait(driver, branch, until, key, SIGNAL, lambda: SignalWaitWithdrawn(key))
    driver.note(SignalTaken(key, kept.id))
    return msgspec.Raw(kept.value.encode())


class Question(msgspec.Struct, frozen=True):
    """What a workflow asks people."""

    text: str
    of: Any
    choices: Sequence[Any] | None
    timeout: timedelta | None
    to: tuple[str, ...]
    several: int | None = None
    """How many different people are to answer; None: one, and the answer is no list."""
    tool: Tool[..., Any] | None = None
    """The tool of a call that is to be approved."""
    arguments: bytes = b"null"
    form: AnswerForm[Any] | None = None
    """What the type and the choices come from, if it is not a plain type."""

    @classmethod
    def of_people(
        cls,
        text: str,
        of: Any,
        choices: Sequence[Any] | None,
        timeout: timedelta | None,
        to: tuple[str, ...],
        several: int | None,
    ) -> "Question":
        """Return the question that asks for a plain type, or for a form.

        Raises:
            UsageError: a form comes with choices of its own.
        """
        form = as_form(of)
        if form is None:
            return cls(text, of, choices, timeout, to, several)
        if choices is not None:
            raise UsageError("choices are of a plain type: say of=Choice(…) and leave choices out")
        return cls(text, form.of, form.choices, timeout, to, several, form=form)

    @property
    def told(self) -> Any:
        """The type of what the workflow gets."""
        return self.of if self.several is None or self.tool is not None else list[self.of]  # type: ignore[name-defined] # a type made at run time

    @property
    def schema(self) -> bytes:
        """The JSON Schema of what a person says: an answer, or the arguments of a call."""
        if self.form is not None:
            return msgspec.json.encode(self.form.schema())
        if self.tool is None:
            return msgspec.json.encode(msgspec.json.schema(self.of))
        return msgspec.json.encode(self.tool.mcp_schema["inputSchema"])


async def ask_people(driver: "Driver", branch: Branch, key: str, question: Question) -> Any:
    """Return the answer to a question. See `Context.ask`."""
    text, choices, timeout, to = question.text, question.choices, question.timeout, question.to
    question_id, several = f"{driver.run_id}:{key}", 1 if question.several is None else question.several
    decoder = payload_decoder(question.told, f"the answer to {text!r}")
    schema, tool = question.schema, question.tool
    allowed = driver.engine.encode(None if choices is None else list(choices), f"the choices of {text!r}")
    if len(text.encode()) + len(schema) + len(allowed) + len(question.arguments) > MAX_QUESTION_BYTES:
        raise UsageError(f"a question with its type, choices and arguments is at most {MAX_QUESTION_BYTES} bytes")
    if not 1 <= several <= MAX_PEOPLE:
        raise UsageError(f"several is from 1 to {MAX_PEOPLE} people")
    if choices is not None and not choices:
        raise UsageError("a question without choices cannot be answered: leave choices out to take whatever fits")
    until, made_of = time_limit(driver, timeout), _digest(question, schema, allowed)
    name = "ask" if tool is None else tool.name
    record = branch.take(key, "question", name, made_of)
    missing = StepFailedError(
        step=key, error_type="TimeoutError", error=f"nobody answered in time: {text}", retryable=False
    )
    if record is None:
        await driver.keep_pace()
        asked = QuestionAsked(
            key, branch.path, question_id, text, msgspec.Raw(schema), msgspec.Raw(allowed), to, made_of, until,
            several, "" if tool is None else tool.name, msgspec.Raw(question.arguments),
        )  # fmt: skip
        driver.note(asked)
        data = await next_answer(driver, branch, key, until, missing)
    elif (recorded := ended(driver, branch, record, QuestionWithdrawn(key, question_id), missing)) is not None:
        data = recorded
    else:
        data = await next_answer(driver, branch, key, record.until, missing)
    if question.several == 1 and tool is None:
        data = msgspec.Raw(b"[%b]" % bytes(data))
    try:
        return decoder.decode(data, key)
    except UnencodableError as error:  # the schema allowed what the type does not, such as a pattern of another dialect
        raise StepFailedError(step=key, error_type="InvalidAnswer", error=str(error), retryable=False) from error


def _digest(question: Question, schema: bytes, allowed: bytes) -> str:
    if question.tool is not None:
        return digest(question.tool.name, question.arguments)
    wanted = b"" if question.several is None else b"x%d" % question.several
    return digest(question.text, schema + allowed + wanted)


async def next_answer(
    driver: "Driver", branch: Branch, key: str, until: int | None, missing: StepFailedError, on: str = ANSWER
) -> msgspec.Raw:
    """Return the last word that people say to the question of a step; *on* is what the run then waits on.

    Raises:
        StepFailedError: *missing*, when nobody said it in time.
        CancelledError: the branch was cancelled; the question is withdrawn.
        Parked: the run leaves memory.
    """
    question = f"{driver.run_id}:{key}"
    while (answer := driver.answer(key)) is None:
        is_open = key in driver.shell.state.mailbox.questions
        if is_open and _is_over(driver, until):
            driver.note(QuestionExpired(key, question))
            raise missing
        # One that is answered already is only not yet durable: the answer is on its way.
        due = until if is_open else None
        await _wait(driver, branch, due, key, on, lambda: QuestionWithdrawn(key, question))
    return answer


async def _wait(
    driver: "Driver", branch: Branch, due: int | None, key: str, on: str, withdrawn: Callable[[], RunFact]
) -> None:
    try:
        await driver.wait(branch, due, key, on)
    except asyncio.CancelledError:
        if driver.engine.is_loop_ending:
            raise  # a task that ends with anything but its cancellation would be reported by the loop
        if driver.ending is not None:
            raise Parked from None
        driver.note(withdrawn())
        driver.arrived()  # a signal that was for this wait is for the next one
        raise


def ended(
    driver: "Driver", branch: Branch, record: StepRecord, withdrawn: RunFact, missing: StepFailedError
) -> msgspec.Raw | None:
    """Return what a recorded wait got; None when it goes on.

    Raises:
        StepFailedError, CancelledError: it ended without, or ends here.
    """
    match record.progress:
        case "completed":
            return record.result
        case "failed":
            raise missing
        case "cancelled":
            raise branch.cut()
        case _ if branch.is_cut:
            driver.note(withdrawn)
            driver.arrived()
            raise branch.cut()
        case _:
            return None


def time_limit(driver: "Driver", timeout: timedelta | None) -> int | None:
    """Return when a wait that begins now is over; None: never.

    Raises:
        UsageError: the timeout is not more than 0.
    """
    if timeout is None:
        return None
    check_limit(timeout, "timeout")
    return driver.engine.clock.moment().now + timeout // _MICROSECOND


def _is_over(driver: "Driver", until: int | None) -> bool:
    return until is not None and until <= driver.engine.clock.moment().now
