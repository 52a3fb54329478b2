"""Performs one recorded step: intent, dispatch, retries, outcome.

Order matters here. The intent is durable before the dispatch (unless the effect is `read`); the outcome is recorded in
one unit with the tool's own account of the call; the workflow may go on before that unit is durable.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.context import ToolContext, call_deadline
from perdure.actors.tools.definition import Done
from perdure.actors.tools.invoke import Ended
from perdure.actors.tools.outcome import Failure, Success
from perdure.actors.tools.retry import allows, next_due
from perdure.actors.workflows.admission import Asked, Entrance
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.calls import StepCall, replayed
from perdure.actors.workflows.doubt import WHY_STUCK, judged, resolve_doubt, verdict_of_a_person
from perdure.actors.workflows.errors import StepFailedError
from perdure.actors.workflows.events import AttemptFailed, StepCancelled, StepInDoubt, StepStarted
from perdure.actors.workflows.progress import Progress
from perdure.actors.workflows.step_record import StepRecord
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.protocols import Ticket

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.endings import Verdict

_log = logger("perdure.runs")


async def begin_step(driver: "Driver", branch: Branch, call: StepCall, shell: Shell | None) -> "Done | Step":
    """Return the result of a step if the recording has it, or the step that is to be performed."""
    if driver.engine.system.log.is_congested:
        await driver.keep_pace()
    record = branch.take(call.key, "step", call.tool.name, call.digest, data=call.arguments)
    if record is not None and record.progress in ("completed", "failed", "cancelled"):
        try:
            return Done(replayed(record, call, branch))
        except PerdureError as error:
            if isinstance(error, StepFailedError):
                raise
            asked = f"the recorded result does not fit the declared type ({error})"
            driver.mismatch(call.key, asked, [(call.key, record)])
    if record is not None and branch.is_cut:
        if call.fate is not None:
            call.fate.was_dispatched = record.was_dispatched
        driver.note(StepCancelled(call.key, record.attempt, stopped=record.progress == "backing_off"))
        raise branch.cut()
    driver.at_edge(stands_still=record is not None and record.in_doubt and bool(call.undoes))
    return Step(Progress(driver, branch, call, record, shell))


class Step:
    """One step of a run on its way to an outcome."""

    __slots__ = ("_call", "_driver", "_entrance", "_is_stuck", "_progress")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._driver = progress.driver
        self._call = progress.call
        self._entrance = Entrance(progress)
        self._is_stuck = False
        """Whether it failed for good, and only a person can have it tried again."""

    def perform(self) -> Coroutine[Any, Any, Any]:
        """Return the step's result, as it is read back from the log.

        Raises:
            StepFailedError: it failed for good.
            CancelledError: the run, or this branch, is cancelled.
            Parked: the run leaves memory.
        """
        record = self._progress.record
        return self._perform(self._start() if record is None else self._go_on(record))

    def perform_after(self, verdict: "Verdict", shell: Shell | None) -> Coroutine[Any, Any, Any]:
        """Go on after a `Standstill`, since a person has said what became of the step; see `perform`."""
        self._progress.shell = shell
        return self._perform(self._after(judged(self._progress, verdict)))

    # One coroutine from the beginning to the end: a run that waits in a tool holds every one on the way there.
    async def _perform(self, beginning: Coroutine[Any, Any, Done | Asked]) -> Any:
        try:
            begun = await beginning
            del beginning  # it is over, and would be held as well
            while not isinstance(begun, Done):
                admission, ticket = begun
                if not admission.is_admitted:
                    waited = await self._entrance.wait_out(admission, ticket)
                    if isinstance(waited, tuple):
                        begun = waited
                    else:
                        begun = await self._fail(waited, retryable=True, is_told=True)
                    continue
                if admission.delay:
                    ticket = await self._entrance.delay(admission.delay)
                ended = await self._dispatch(ticket)
                self._entrance.leave()
                begun = await self._settle(ended)
            return begun.result
        finally:
            self._entrance.leave()
            self._progress.take_back()
            if self._call.fate is not None:
                self._call.fate.was_dispatched = self._progress.was_dispatched

    # Intent

    def _start(self) -> Coroutine[Any, Any, Asked]:
        call = self._call
        started = StepStarted(
            call.key, self._progress.branch.path, call.kind, call.tool.name, call.effect,
            msgspec.Raw(call.arguments), call.digest, call.undoes, call.stuck == "pivot",
        )  # fmt: skip
        return self._entrance.ask(started)

    async def _go_on(self, record: StepRecord) -> Done | Asked:
        if record.stuck:
            return await self._stand_still()
        if record.progress == "backing_off":
            await self._progress.wait(record.due)
            return await self._entrance.again(has_token=record.has_token)
        if record.effect == "irreversible" and not record.known_not_done:
            resolved = await resolve_doubt(self._progress, is_noted=record.in_doubt)
            if isinstance(resolved, Done):
                return resolved
        return await self._entrance.again()

    # Dispatch

    async def _dispatch(self, ticket: Ticket | None) -> Ended:
        call, driver = self._call, self._driver
        try:
            if ticket is not None and call.effect != "read":
                # Durable before visible: the intent is on disk before the effect leaves the process.
                await ticket
            self._progress.was_dispatched = True
            return await driver.engine.invoker.invoke(call.tool, call.arguments, self._context(), call.timeout)
        except (LogWriteError, LogClosedError) as error:  # of the ticket: what the tool raises is an outcome
            driver.log_failed(error)
        except asyncio.CancelledError:
            self._progress.give_up(stopped=call.tool.is_async)
            raise

    def _context(self) -> ToolContext:
        call, driver, progress = self._call, self._driver, self._progress
        timeout, end = call.timeout, None if call.must_end else driver.deadline
        return ToolContext(
            progress.call_id,
            call.tool.name,
            progress.call_id,
            progress.attempt,
            driver.run_id,
            trajectory=driver.conversation,
            deadline=None if timeout is None and end is None else call_deadline(progress.now, timeout, end),
            principal=driver.principal,
        )

    # Outcome

    async def _settle(self, ended: Ended) -> Done | Asked:
        """Record how an attempt ended; return the result, or how the next attempt begins."""
        if isinstance(ended.outcome, Success):
            self._progress.complete(ended.outcome.result, ended.micros)
            return Done(ended.outcome.value)
        if ended.timed_out and self._call.effect == "irreversible":
            return await self._settle_doubt(ended, ended.outcome)
        return await self._retry_or_fail(ended, ended.outcome)

    async def _settle_doubt(self, ended: Ended, failure: Failure) -> Done | Asked:
        self._progress.report(ended, StepInDoubt(self._call.key, self._progress.attempt, failure.message))
        resolved = await resolve_doubt(self._progress, is_noted=True)
        if isinstance(resolved, Done):
            return resolved
        if resolved is None:
            return await self._entrance.again()
        # It did not happen: an attempt that failed, of which the tool was told.
        return await self._retry_or_fail(ended, failure, is_told=True)

    async def _retry_or_fail(self, ended: Ended, failure: Failure, *, is_told: bool = False) -> Done | Asked:
        progress, retry = self._progress, self._call.retry
        retryable = failure.error_type not in ("InvalidArgumentsError", "InvalidResult")
        may_retry = retryable and allows(retry, (failure.error_type, *failure.bases))
        if may_retry and retry.when is not None and ended.cause is not None:
            may_retry = _agrees(retry.when, ended.cause)
        due = self._next_due(failure)
        if due is None or not may_retry:
            return await self._fail(ended, retryable=retryable, is_told=is_told)
        fact = AttemptFailed(self._call.key, progress.attempt, failure.error_type, failure.message, due)
        progress.report(ended, fact, is_told=is_told)
        progress.attempt += 1
        await progress.wait(due)
        return await self._entrance.again()

    async def _fail(self, ended: Ended, *, retryable: bool, is_told: bool = False) -> Done | Asked:
        """Record that the step failed for good; one that must not is left to a person."""
        progress, call, failure = self._progress, self._call, ended.outcome
        assert isinstance(failure, Failure)  # noqa: S101 - the callers have a failure in hand
        if not call.stuck:
            raise progress.fail(ended, failure, retryable=retryable, is_told=is_told) from ended.cause
        reason = f"{WHY_STUCK[call.stuck]}: {failure.error_type}: {failure.message}"
        progress.report(ended, StepInDoubt(call.key, progress.attempt, reason, call.stuck), is_told=is_told)
        return await self._stand_still()

    async def _stand_still(self) -> Done | Asked:
        self._is_stuck = True
        return await self._after(await verdict_of_a_person(self._progress))

    async def _after(self, verdict: Done | None) -> Done | Asked:
        """Return the result that a person gave, or begin another attempt: they say that it did not happen."""
        if verdict is not None:
            return verdict
        if self._is_stuck:
            self._is_stuck = False
            self._progress.begin_round()
        return await self._entrance.again()

    def _next_due(self, failure: Failure) -> int | None:
        return next_due(
            self._call.retry,
            attempt=self._progress.attempt - self._progress.base,
            first_at=self._progress.first_at,
            now=self._progress.now,
            chance=random.random(),  # noqa: S311 - spreads load, guards nothing
            retry_after=failure.retry_after,
        )


def _agrees(when: Callable[[BaseException], bool], error: BaseException) -> bool:
    try:
        return bool(when(error))
    except Exception as failure:  # noqa: BLE001 - whatever it raises, it does not agree
        _log.warning("a retry's condition raised", error=f"{type(failure).__name__}: {failure}")
        return False
