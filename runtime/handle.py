"""A handle to a run: what the application may ask of it. Knows the run by its id; keeps nothing alive."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from perdure.actors.kernel.payloads import PayloadDecoder
from perdure.actors.workflows.commands import AnswerQuestion, CancelRun, GetRun, SendSignal, SettleStep
from perdure.actors.workflows.errors import RunBlockedError, RunCancelledError, RunFailedError
from perdure.actors.workflows.events import StepCompleted, StepFailed, StepNotDone
from perdure.actors.workflows.run import RunView
from perdure.runtime.naming import check_principal, check_signal
from perdure.store.records import Query, Recorded, StreamId

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

R = TypeVar("R")


class _Started(msgspec.Struct, frozen=True):
    """Of a `step-started`, what tells which tool it calls."""

    step: str
    tool: str


class RunHandle(Generic[R]):
    """A run, as seen from outside; every answer is durable before it is given."""

    def __init__(self, runtime: "Runtime", run_id: str, decoder: "PayloadDecoder[R] | None") -> None:
        self._runtime = runtime
        self._decoder = decoder
        self.id = run_id
        """The run's id: the same in every life of the runtime."""
        self._stream = StreamId(f"run/{run_id}")

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"

    async def status(self) -> RunView:
        """Return how the run stands.

        Raises:
            UnknownRunError: there is no such run.
        """
        view: RunView = await self._runtime.ask(self._stream, GetRun())
        return view

    async def result(self) -> R:
        """Wait for the run's end and return its result, as it is read from the log.

        Cancelling the wait does not cancel the run.

        Raises:
            RunFailedError: the workflow raised.
            RunCancelledError: the run was cancelled.
            RunBlockedError: the run is parked until somebody acts: its code changed, or it kills the process.
            LogWriteError: the log failed; open it again and ask by the same id.
            UnknownRunError: there is no such run.
            UsageError: the runtime was closed meanwhile.
        """
        view = await self.status()
        if not view.is_closed and view.status != "blocked":
            ended = self._runtime.until_ended(self.id)
            view = await self.status()  # it may have ended since it was asked first
            if not view.is_closed and view.status != "blocked":
                view = await ended
        return self._unwrap(view)

    def _unwrap(self, view: RunView) -> R:
        match view.status:
            case "failed":
                raise RunFailedError(run=self.id, error_type=view.error_type, error=view.error)
            case "cancelled":
                raise RunCancelledError(run=self.id, reason=view.error)
            case "blocked":
                raise RunBlockedError(run=self.id, kind=view.error_type, account=view.error)
            case _:
                decoder = self._decoder or PayloadDecoder(msgspec.json.Decoder(Any))
                return decoder.decode(view.result, f"the result of run {self.id}")

    async def cancel(self, reason: str = "cancelled by the application") -> bool:
        """Ask for the run to be cancelled; return False when it was closed already.

        The request is durable when this returns; the end comes when the code's `finally` blocks have run. Async steps
        are cancelled; a thread goes on to its end, and its result is ignored, which `step-cancelled` says.

        Raises:
            UnknownRunError: there is no such run.
        """
        is_open: bool = await self._runtime.ask(self._stream, CancelRun(reason))
        return is_open

    async def signal(self, name: str, value: object = None, *, id: str | None = None, who: str | None = None) -> bool:
        """Send the run a signal, which `ctx.signal(name, …)` takes; durable when this returns.

        Signals of a name are taken in the order of sending, each once. One that nobody waits for yet is kept. With an
        *id* of the caller's, sending it again (the last 1,000 ids are remembered) changes nothing and returns False.

        Raises:
            RunClosedError: the run has ended.
            SignalRefusedError: the run keeps as many signals as it may, or the value is too large.
            SignalConflictError: the id was another signal's.
            UsageError: the name, the id or *who* cannot be one.
            UnencodableError: the value cannot be recorded.
            UnknownRunError: there is no such run.
        """
        check_signal(name, id)
        check_principal(who)
        data = msgspec.Raw(self._runtime.encode(value, f"the signal {name}"))
        is_new: bool = await self._runtime.ask(self._stream, SendSignal(name, data, id), principal=who)
        return is_new

    async def answer(self, question: str, value: object, *, who: str | None = None) -> None:
        """Answer a question of the run, by its id (`Runtime.questions`); durable when this returns.

        *who* is written down as the principal of the answer, not checked.

        Raises:
            WrongAnswerError: it is not what was asked for; nothing was recorded, and the question stays open.
            QuestionNotOpenError: it was answered, has expired or was withdrawn, or was never asked.
            RunClosedError: the run has ended.
            UnencodableError: the value cannot be recorded.
            UnknownRunError: there is no such run.
        """
        check_principal(who)
        data = msgspec.Raw(self._runtime.encode(value, f"the answer to {question}"))
        await self._runtime.ask(self._stream, AnswerQuestion(question, data), principal=who)

    async def settle_done(self, step: str, result: object = None) -> None:
        """Say that a step in doubt happened, with this result; the run goes on with it.

        Raises:
            NotInDoubtError: the step is not in doubt.
            UnencodableError: the result cannot be recorded, or is not of the type that the tool declares.
        """
        data = msgspec.Raw(self._runtime.encode(result, f"the result of {step}"))
        await self._check_result(step, data)
        await self._runtime.ask(self._stream, SettleStep(step, StepCompleted(step, data, 0, 0)))

    async def _check_result(self, step: str, data: msgspec.Raw) -> None:
        # What does not fit the tool's declared type would only be found when the run reads it, and block it for good.
        query = Query(stream=self._stream, types=("step-started",))
        while page := await self._runtime.read(query):
            for event in page:
                started = msgspec.json.decode(event.data or "{}", type=_Started)
                if started.step == step:
                    self._runtime.check_result(started.tool, data, step)
                    return
            query = msgspec.structs.replace(query, after=page[-1].position)

    async def settle_not_done(self, step: str, *, because: str = "settled by the application") -> None:
        """Say that a step in doubt did not happen; it is dispatched again.

        Raises:
            NotInDoubtError: the step is not in doubt.
        """
        await self._runtime.ask(self._stream, SettleStep(step, StepNotDone(step, because)))

    async def settle_failed(self, step: str, error: str) -> None:
        """Say that a step in doubt failed; the workflow gets a `StepFailedError`.

        Raises:
            NotInDoubtError: the step is not in doubt.
        """
        fact = StepFailed(step, "SettledAsFailed", error, retryable=False, attempt=0, micros=0)
        await self._runtime.ask(self._stream, SettleStep(step, fact))

    async def history(self, *, after: int = 0, limit: int = 1000) -> list[Recorded]:
        """Return a page of the run's durable events in their order, those after the position *after*."""
        return await self._runtime.read(Query(stream=self._stream, after=after, limit=limit))
