"""A handle to a run: what the application may ask of it. Knows the run by its id; keeps nothing alive."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from perdure.actors.kernel.payloads import PayloadDecoder
from perdure.actors.workflows.commands import (
    AnswerQuestion,
    CancelRun,
    DecideApproval,
    GetRun,
    PauseRun,
    SendSignal,
    SettleStep,
    UnpauseRun,
)
from perdure.actors.workflows.errors import RunBlockedError, RunCancelledError, RunFailedError
from perdure.actors.workflows.events import StepCompleted, StepFailed, StepNotDone
from perdure.actors.workflows.state import RunView
from perdure.runtime.checkpoints import Checkpoint, find_checkpoint, read_checkpoints
from perdure.runtime.naming import check_principal, check_signal, check_speaker
from perdure.runtime.steering import ForkRequest
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but
from perdure.store.records import Query, Recorded, StreamId

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach

R = TypeVar("R")


@checked_but("__init__")
class RunHandle(Generic[R]):
    """A run, as seen from outside; every answer is durable before it is given."""

    def __init__(self, runtime: "Reach", run_id: str, decoder: "PayloadDecoder[R] | None") -> None:
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
        return self._unwrap(await self._runtime.ended(self.id))

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

    async def cancel(self, reason: str = "cancelled by the application", *, who: str | None = None) -> bool:
        """Ask for the run to be cancelled; return False when it was closed already.

        The request is durable when this returns; the end comes when the code's `finally` blocks have run. Async steps
        are cancelled; a thread goes on to its end, and its result is ignored, which `step-cancelled` says.

        Raises:
            UnknownRunError: there is no such run.
        """
        check_principal(who)
        is_open: bool = await self._runtime.ask(self._stream, CancelRun(reason), principal=who)
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

    async def answer(
        self, question: str, value: object, *, who: str | None = None, on_behalf: str | None = None
    ) -> None:
        """Answer a question of the run, by its id (`Runtime.questions`); durable when this returns.

        *who* is written down as the principal of the answer, not checked, and *on_behalf* whose answer they pass on:
        where several people are wanted, both have had their word by that.

        Raises:
            WrongAnswerError: it is not what was asked for; nothing was recorded, and the question stays open.
            QuestionNotOpenError: it was answered, has expired or was withdrawn, or was never asked.
            RunClosedError: the run has ended.
            UnencodableError: the value cannot be recorded.
            UnknownRunError: there is no such run.
        """
        check_speaker(who, on_behalf)
        data = msgspec.Raw(self._runtime.encode(value, f"the answer to {question}"))
        command = AnswerQuestion(question, data, who, on_behalf or "")
        await self._runtime.ask(self._stream, command, principal=who)

    async def approve(
        self,
        question: str,
        *,
        who: str,
        arguments: Mapping[str, object] | None = None,
        digest: str = "",
        on_behalf: str | None = None,
    ) -> None:
        """Approve the call that a run asks for, with other *arguments* if they are given; durable when this returns.

        What others approved before is void when the arguments change. Where somebody else changed them, *digest*
        (`OpenQuestion.digest`) has to say which ones are meant. *on_behalf* is as of `answer`.

        Raises:
            WrongAnswerError: it is no approval, the arguments do not fit, or *who* has approved it already.
            QuestionNotOpenError, RunClosedError, UnencodableError, UnknownRunError: as `answer`.
        """
        check_speaker(who, on_behalf)
        given = msgspec.Raw(self._runtime.encode(arguments, f"the arguments of {question}"))
        command = DecideApproval(question, "approved", who, given, digest=digest, on_behalf=on_behalf or "")
        await self._runtime.ask(self._stream, command, principal=who)

    async def reject(self, question: str, reason: str = "", *, who: str, on_behalf: str | None = None) -> None:
        """Reject the call that a run asks for: it is not made, whoever approved it. Durable when this returns.

        Raises:
            WrongAnswerError: it is no approval.
            QuestionNotOpenError, RunClosedError, UnknownRunError: as `answer`.
        """
        check_speaker(who, on_behalf)
        command = DecideApproval(question, "rejected", who, reason=reason, on_behalf=on_behalf or "")
        await self._runtime.ask(self._stream, command, principal=who)

    async def pause(self, because: str = "paused by the application", *, who: str | None = None) -> bool:
        """Stop the run where it is, until `resume`; return False when it was paused already. Durable on return.

        Steps in flight end, no other one starts, and neither time nor a signal nor an answer wakes it, also after a
        restart; what comes is kept. Its deadline still counts. A cancel ends the pause. Child runs go on.

        Raises:
            RunClosedError: the run has ended.
            ControlRefusedError: it is cleaning up, since it is being cancelled or its deadline has passed.
            UnknownRunError: there is no such run.
        """
        check_principal(who)
        has_changed: bool = await self._runtime.ask(self._stream, PauseRun(because), principal=who)
        return has_changed

    async def resume(self, answer: object = UNSET, *, at: str = "", who: str | None = None) -> bool:
        """Let a paused run go on; return False when it was not paused. Durable on return.

        One whose steps have not all ended since it was paused goes on when they have. A workflow that has paused itself
        (`ctx.pause`, a step with `pause`) goes on with *answer*, null when left out; one that an operator holds as well
        is first let go, and resumed where it paused itself if there is an answer.

        Args:
            answer: what `ctx.pause` returns, or what is put into the data of a definition.
            at: where it has paused itself, where that is more than one place.
            who: who says so; written down, not checked.

        Raises:
            ControlRefusedError: there is an answer, and the run has not paused itself, or at several places.
            WrongAnswerError: the answer does not fit; nothing was recorded.
            QuestionNotOpenError: the time in which it could be resumed has passed.
            RunClosedError: the run has ended.
            UnencodableError: the answer cannot be recorded.
            UnknownRunError: there is no such run.
        """
        check_principal(who)
        given = None if answer is UNSET else self._runtime.encode(answer, f"the answer to {self.id}").decode()
        has_changed: bool = await self._runtime.ask(self._stream, UnpauseRun(given, at, who), principal=who)
        return has_changed

    async def retry(self, *, who: str | None = None) -> str | None:
        """Have the run tried again from the step that it failed of; return that step's key. Durable on return.

        The same run goes on: what it has finished holds, the failed step is made anew, and steps beside it that were
        cancelled because of it go on as after a crash. A run that raised an error of its own code goes on from the last
        step of that code if that one failed, and otherwise where it raised: that helps once the code is another one.
        Also a run that is blocked, as poison or because its code did not fit, is tried again. One that came through a
        queue waits there for its turn.

        Raises:
            ControlRefusedError: it has neither failed nor is it blocked, its deadline has passed, or it has gone on
                since the failure, with a compensation for example: fork it. Or it is a child whose parent was told.
            UnknownRunError: there is no such run.
        """
        check_principal(who)
        return await self._runtime.retry_run(self.id, who)

    async def checkpoints(self) -> list[Checkpoint]:
        """Return the places at which the run had just finished something, oldest first; `fork` begins at any of them.

        A fork has those of the run that it comes from before its own.

        Raises:
            UnknownRunError: there is no such run.
        """
        return await read_checkpoints(self._runtime, self.id)

    async def checkpoint(self, id: str) -> Checkpoint:
        """Return a checkpoint of the run by its id.

        Raises:
            UnknownCheckpointError: the run has none of that id.
            UnknownRunError: there is no such run.
        """
        return await find_checkpoint(self._runtime, self.id, id)

    async def fork(
        self,
        step: str = "",
        *,
        checkpoint: str = "",
        changed: Mapping[str, object] | None = None,
        id: str | None = None,
        deadline: timedelta | None = None,
        who: str | None = None,
    ) -> "RunHandle[R]":
        """Start another run that begins where this one was before *step*; durable on return.

        It takes over what this run had finished by then, without a copy, and makes everything else anew: *step*, and
        what was in flight beside it. Its steps have idempotency keys of its own. Published events it gets from where
        this run stood with them; signals that came for this run, and were not taken by then, are not for it.

        Args:
            step: the key of a step, as `history` and `perdure show` have it.
            checkpoint: in place of a step: the id of a checkpoint, after which the new run begins.
            changed: arguments of the workflow that are other than this run's, by name; of a definition, entries of its
                data. Where they change a step that is taken over, the new run is blocked, and says so.
            id: of the new run; a UUIDv7 when left out.
            deadline: how long the new run may take; this run's deadline is not taken over.
            who: who asks; this run's principal when left out.

        Raises:
            UnknownRunError, UnknownStepError, UnknownCheckpointError: there is no such run, or no such place in it.
            ControlRefusedError: the run was cleaning up by then, or a call had been approved and not been made.
            InvalidArgumentsError, UnencodableError: the changed input does not fit the workflow.
            RunConflictError: the id belongs to another run.
            UsageError: the id cannot be one, or the place is not said by exactly one of step and checkpoint.
        """
        check_principal(who)
        if bool(step) == bool(checkpoint):
            raise UsageError("a fork begins before a step, or at a checkpoint: say one of fork('key'), checkpoint='ID'")
        data = self._runtime.encode(dict(changed or {}), "the changed input")
        asked = ForkRequest(step, data, id, deadline, who, checkpoint)
        return RunHandle(self._runtime, await self._runtime.fork_run(self.id, asked), self._decoder)

    async def settle_done(self, step: str, result: object = None, *, who: str | None = None) -> None:
        """Say that a step in doubt happened, with this result; the run goes on with it.

        Raises:
            NotInDoubtError: the step is not in doubt.
            UnencodableError: the result cannot be recorded, or is not of the type that the tool declares.
        """
        check_principal(who)
        data = msgspec.Raw(self._runtime.encode(result, f"the result of {step}"))
        await self._runtime.check_settlement(self.id, step, data)
        await self._runtime.ask(self._stream, SettleStep(step, StepCompleted(step, data, 0, 0)), principal=who)

    async def settle_not_done(
        self, step: str, *, because: str = "settled by the application", who: str | None = None
    ) -> None:
        """Say that a step in doubt did not happen; it is dispatched again.

        Raises:
            NotInDoubtError: the step is not in doubt.
        """
        check_principal(who)
        await self._runtime.ask(self._stream, SettleStep(step, StepNotDone(step, because)), principal=who)

    async def settle_failed(self, step: str, error: str, *, who: str | None = None) -> None:
        """Say that a step in doubt failed; the workflow gets a `StepFailedError`.

        Raises:
            NotInDoubtError: the step is not in doubt.
        """
        check_principal(who)
        fact = StepFailed(step, "SettledAsFailed", error, retryable=False, attempt=0, micros=0)
        await self._runtime.ask(self._stream, SettleStep(step, fact), principal=who)

    async def history(self, *, after: int = 0, limit: int = 1000) -> list[Recorded]:
        """Return a page of the run's durable events in their order, those after the position *after*."""
        return await self._runtime.read(Query(stream=self._stream, after=after, limit=limit))
