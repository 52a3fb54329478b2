"""Performs one recorded step: intent, dispatch, retries, outcome.

Order matters here. The intent is durable before the dispatch (unless the effect is `read`); the outcome is recorded in
one unit with the tool's own account of the call; the workflow may go on before that unit is durable.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.context import ToolContext, call_deadline
from perdure.actors.tools.definition import Done
from perdure.actors.tools.invoke import Ended
from perdure.actors.tools.outcome import Failure, Success
from perdure.actors.tools.retry import allows, next_due
from perdure.actors.workflows.admission import Asked, Entrance
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.calls import StepCall, replayed
from perdure.actors.workflows.doubt import resolve_doubt
from perdure.actors.workflows.errors import StepFailedError
from perdure.actors.workflows.events import AttemptFailed, StepCancelled, StepInDoubt, StepStarted
from perdure.actors.workflows.progress import Progress
from perdure.actors.workflows.recording import StepRecord
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.protocols import Ticket

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

_log = structlog.get_logger("perdure.runs")


async def perform_step(driver: "Driver", branch: Branch, call: StepCall, shell: Shell | None) -> Any:
    """Return the result of a step: from the recording if it is finished there, by performing it otherwise."""
    if driver.engine.system.log.is_congested:
        await driver.keep_pace()
    record = branch.take(call.key, "step", call.tool.name, call.digest, data=call.arguments)
    if record is not None and record.progress in ("completed", "failed", "cancelled"):
        try:
            return replayed(record, call, branch)
        except PerdureError as error:
            if isinstance(error, StepFailedError):
                raise
            asked = f"the recorded result does not fit the declared type ({error})"
            driver.mismatch(call.key, asked, [(call.key, record)])
    if record is not None and branch.is_cut:
        driver.note(StepCancelled(call.key, record.attempt, stopped=record.progress == "backing_off"))
        raise branch.cut()
    return await Step(Progress(driver, branch, call, record, shell)).perform()


class Step:
    """One step of a run on its way to an outcome."""

    __slots__ = ("_call", "_driver", "_entrance", "_progress")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._driver = progress.driver
        self._call = progress.call
        self._entrance = Entrance(progress)

    async def perform(self) -> Any:
        """Return the step's result, as it is read back from the log.

        Raises:
            StepFailedError: it failed for good.
            CancelledError: the run, or this branch, is cancelled.
            Parked: the run leaves memory.
        """
        try:
            return await self._perform()
        finally:
            self._entrance.leave()
            self._progress.take_back()

    async def _perform(self) -> Any:
        record = self._progress.record
        begun = await self._start() if record is None else await self._go_on(record)
        while not isinstance(begun, Done):
            admission, ticket = begun
            if not admission.is_admitted:
                begun = await self._entrance.wait_out(admission, ticket)
                continue
            if admission.delay:
                ticket = await self._entrance.delay(admission.delay)
            ended = await self._dispatch(ticket)
            self._entrance.leave()
            begun = await self._settle(ended)
        return begun.result

    # Intent

    async def _start(self) -> Asked:
        call = self._call
        started = StepStarted(
            call.key, self._progress.branch.path, call.kind, call.tool.name, call.tool.effect,
            msgspec.Raw(call.arguments), call.digest,
        )  # fmt: skip
        return await self._entrance.ask(started)

    async def _go_on(self, record: StepRecord) -> Done | Asked:
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
            if ticket is not None and call.tool.effect != "read":
                # Durable before visible: the intent is on disk before the effect leaves the process.
                await ticket
            return await driver.engine.invoker.invoke(call.tool, call.arguments, self._context(), call.timeout)
        except (LogWriteError, LogClosedError) as error:  # of the ticket: what the tool raises is an outcome
            driver.log_failed(error)
        except asyncio.CancelledError:
            self._progress.give_up(stopped=call.tool.is_async)
            raise

    def _context(self) -> ToolContext:
        call, driver, progress = self._call, self._driver, self._progress
        return ToolContext(
            progress.call_id,
            call.tool.name,
            progress.call_id,
            progress.attempt,
            driver.run_id,
            trajectory=driver.conversation,
            deadline=call_deadline(progress.now, call.timeout, driver.deadline),
            principal=driver.principal,
        )

    # Outcome

    async def _settle(self, ended: Ended) -> Done | Asked:
        """Record how an attempt ended; return the result, or how the next attempt begins."""
        if isinstance(ended.outcome, Success):
            self._progress.complete(ended.outcome.result, ended.micros)
            return Done(ended.outcome.value)
        if ended.timed_out and self._call.tool.effect == "irreversible":
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

    async def _retry_or_fail(self, ended: Ended, failure: Failure, *, is_told: bool = False) -> Asked:
        progress, retry = self._progress, self._call.retry
        retryable = failure.error_type not in ("InvalidArgumentsError", "InvalidResult")
        may_retry = retryable and allows(retry, (failure.error_type, *failure.bases))
        if may_retry and retry.when is not None and ended.cause is not None:
            may_retry = _agrees(retry.when, ended.cause)
        due = self._next_due(failure)
        if due is None or not may_retry:
            raise progress.fail(ended, failure, retryable=retryable, is_told=is_told) from ended.cause
        fact = AttemptFailed(self._call.key, progress.attempt, failure.error_type, failure.message, due)
        progress.report(ended, fact, is_told=is_told)
        progress.attempt += 1
        await progress.wait(due)
        return await self._entrance.again()

    def _next_due(self, failure: Failure) -> int | None:
        return next_due(
            self._call.retry,
            attempt=self._progress.attempt,
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
