"""Performs one recorded step: intent, dispatch, retries, doubt, outcome.

Order matters here. The intent is durable before the dispatch (unless the effect is `read`); the outcome is recorded in
one unit with the tool's own account of the call; the workflow may go on before that unit is durable.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.breaker import Admission
from perdure.actors.tools.definition import Done, NotDone, Tool, ToolContext
from perdure.actors.tools.invoke import Ended, ending
from perdure.actors.tools.limits import Gate
from perdure.actors.tools.outcome import Failure, Success
from perdure.actors.tools.retry import Retry, allows, next_due, waits_for_circuit
from perdure.actors.tools.tool import Admit, RecordCancel, RecordFailure, RecordSuccess, Refuse
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.events import (
    AttemptDelayed,
    AttemptFailed,
    AttemptRefused,
    AttemptStarted,
    RunFact,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
    StepKind,
    StepNotDone,
    StepStarted,
)
from perdure.actors.workflows.recording import StepRecord
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.protocols import Ticket

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver, Verdict

RECONCILE_LIMIT = timedelta(seconds=60)
"""How long a tool's `reconcile` may take before a person is asked."""

PROBE_WAIT = SECOND
"""Until the next try when the circuit is half open and its probe is in flight."""

FORCED_WAIT = 60 * SECOND
"""Until the next try when an operator holds the circuit open; giving it back wakes who waits at once."""

_log = structlog.get_logger("perdure.runs")


class StepCall(msgspec.Struct, frozen=True):
    """What a workflow asks for."""

    key: str
    kind: StepKind
    tool: Tool[..., Any]
    arguments: bytes
    digest: str
    retry: Retry
    timeout: timedelta | None
    limit_key: str = ""
    """Whose bucket of the tool's rate limit the call takes its token from."""
    may_fall_back: bool = False
    """Whether another tool stands by: then a refused attempt does not wait."""


class Step:
    """One step of a run on its way to an outcome."""

    __slots__ = (
        "_attempt", "_branch", "_call", "_call_id", "_doubt_is_noted", "_driver", "_first_at", "_generation",
        "_is_admitted", "_place", "_record", "_shell",
    )  # fmt: skip

    def __init__(
        self, driver: "Driver", branch: Branch, call: StepCall, record: StepRecord | None, shell: Shell | None
    ) -> None:
        self._driver = driver
        self._branch = branch
        self._call = call
        self._call_id = f"{driver.run_id}:{call.key}"
        self._record = record
        self._attempt = 1 if record is None else record.attempt
        self._first_at = driver.engine.clock.moment().now if record is None else record.at
        self._shell = shell
        """The tool's actor; None for a function, which has none."""
        self._generation = 0
        self._is_admitted = False
        """Whether the tool let an attempt through and was not yet told how it ended."""
        self._place: Gate | None = None
        """Where it holds a place, as long as it holds one."""
        self._doubt_is_noted = record is not None and record.in_doubt

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
            self._leave()
            self._take_back()

    async def _perform(self) -> Any:
        begun = await self._start() if self._record is None else await self._go_on(self._record)
        if isinstance(begun, Done):
            return begun.result
        admission, ticket = begun
        while True:
            if not admission.is_admitted:
                admission, ticket = await self._refused(admission, ticket)
                continue
            if admission.delay:
                ticket = await self._delay(admission.delay)
            ended = await self._dispatch(ticket)
            self._leave()
            if isinstance(ended.outcome, Success):
                self._complete(ended.outcome.result, ended.micros)
                return ended.outcome.value
            if ended.timed_out and self._call.tool.effect == "irreversible":
                self._report(ended, StepInDoubt(self._call.key, self._attempt, ended.outcome.message))
                self._doubt_is_noted = True
                settled = await self._resolve_doubt()
                if isinstance(settled, Done):
                    return settled.result
                if settled is None:
                    admission, ticket = await self._again()
                else:  # it did not happen: an attempt that failed, of which the tool was told
                    admission, ticket = await self._retry_or_fail(ended, ended.outcome, is_told=True)
                continue
            admission, ticket = await self._retry_or_fail(ended, ended.outcome)

    # Intent

    async def _start(self) -> "tuple[Admission, Ticket | None]":
        call = self._call
        started = StepStarted(
            call.key, self._branch.path, call.kind, call.tool.name, call.tool.effect, msgspec.Raw(call.arguments),
            call.digest,
        )  # fmt: skip
        return await self._admit(started)

    async def _go_on(self, record: StepRecord) -> "Done | tuple[Admission, Ticket | None]":
        if record.progress == "backing_off":
            await self._wait(record.due)
            return await self._again(has_token=record.has_token)
        if record.effect == "irreversible" and not record.known_not_done:
            settled = await self._resolve_doubt()
            if isinstance(settled, Done):
                return settled
        return await self._again()

    async def _again(self, *, has_token: bool = False) -> "tuple[Admission, Ticket | None]":
        return await self._admit(AttemptStarted(self._call.key, self._attempt), has_token=has_token)

    async def _admit(
        self, fact: StepStarted | AttemptStarted, *, has_token: bool = False
    ) -> "tuple[Admission, Ticket | None]":
        """Record the intent, and ask the tool's guard in the same unit; wait for a place at the tool before that."""
        shell = self._shell
        if shell is None:
            return Admission(is_admitted=True, generation=0), self._driver.note(fact).ticket
        if self._call.tool.concurrency is not None:
            gate = self._driver.engine.gate(self._call.tool, shell.stream)
            if gate.is_full:
                return self._turn_away(shell, fact, gate)
            await self._enter(gate)
        asked = Admit(self._call_id, self._driver.engine.life, key=self._call.limit_key, has_token=has_token)
        done = self._driver.note(fact, (shell, asked))
        admission: Admission = done.replies[1]
        self._generation, self._is_admitted = admission.generation, admission.is_admitted
        return admission, done.ticket

    def _turn_away(
        self, shell: Shell, fact: StepStarted | AttemptStarted, gate: Gate
    ) -> "tuple[Admission, Ticket | None]":
        reason = f"{gate.running} calls run and {gate.waiting} wait"
        done = self._driver.note(fact, (shell, Refuse(self._call_id, reason, "bulkhead")))
        return Admission(is_admitted=False, generation=0, reason=reason, refused_by="bulkhead"), done.ticket

    async def _enter(self, gate: Gate) -> None:
        try:
            await gate.enter()
        except asyncio.CancelledError:
            if self._record is not None or self._attempt > 1:
                self._give_up(stopped=True)
            self._driver.note_cancel(self._branch)
            if self._driver.ending is not None:
                raise Parked from None
            raise
        self._place = gate
        if self._driver.ending is not None:
            raise Parked  # the runtime stops: what has not begun does not begin

    def _leave(self) -> None:
        gate, self._place = self._place, None
        if gate is not None and self._shell is not None:
            gate.leave()
            self._driver.engine.settle_gate(self._shell.stream)

    def _take_back(self) -> None:
        """Tell the tool of a probe that leaves without an outcome: it must not hold its place for ever."""
        if not self._is_admitted or self._shell is None:
            return
        if any(call == self._call_id for call, _ in self._shell.state.breaker.probes):
            cancel = RecordCancel(self._call_id, self._generation, 0)
            with contextlib.suppress(LogWriteError, LogClosedError):  # then this life is over, and its probes are
                self._driver.engine.system.transact(
                    ((self._shell, cancel),), correlation=self._driver.run_id, is_refusable=False
                )

    async def _delay(self, delay: int) -> "Ticket | None":
        """Wait for a token of the rate limit that is spoken for; until then the attempt has not begun."""
        until = self._driver.engine.clock.moment().now + delay
        self._driver.note(AttemptDelayed(self._call.key, self._attempt, until))
        await self._wait(until)
        # After a crash in the wait the attempt is made; after one in the call its effect class decides: say which.
        return self._driver.note(AttemptStarted(self._call.key, self._attempt)).ticket

    async def _refused(self, admission: Admission, ticket: "Ticket | None") -> "tuple[Admission, Ticket | None]":
        call, now = self._call, self._driver.engine.clock.moment().now
        self._leave()
        is_forced = self._shell is not None and self._shell.state.breaker.forced == "open"
        due = now + (admission.retry_after or (FORCED_WAIT if is_forced else PROBE_WAIT))
        too_late = call.retry.total is not None and due > self._first_at + call.retry.total // timedelta(microseconds=1)
        is_circuit = admission.refused_by == "circuit"
        if too_late or call.may_fall_back or (is_circuit and not waits_for_circuit(call.retry)):
            refusal = await self._refusal(admission, ticket)
            raise self._failed(Ended(refusal, 0), refusal, retryable=True, is_told=True)
        self._driver.note(AttemptRefused(call.key, self._attempt, admission.reason, due))
        await self._wait_for_circuit(due) if is_circuit else await self._wait(due)
        return await self._again()

    async def _refusal(self, admission: Admission, ticket: "Ticket | None") -> Failure:
        """Return what the workflow is told of a refusal: why, and since when."""
        call, wait = self._call, admission.retry_after / SECOND
        again = f"; try again in {wait:.1f} s" if wait else ""
        if admission.refused_by != "circuit" or self._shell is None:
            kind = "RateLimitedError" if admission.refused_by == "rate" else "BulkheadFullError"
            return Failure(kind, f"{call.tool.name}: {admission.reason}{again}")
        try:
            if ticket is not None:
                await self._driver.durable(ticket)  # what opened it may still be on its way to the disk
            position = await self._driver.engine.opened_by(self._shell.stream)
        except asyncio.CancelledError:
            self._give_up(stopped=True)
            raise
        since = f"open since position {position}: {admission.reason}"
        return Failure("CircuitOpenError", f"Circuit breaker open for {call.tool.name}: {since}{again}")

    async def _wait_for_circuit(self, due: int) -> None:
        """Wait until *due*, or until the circuit moves: a probe may have closed it long before."""
        shell = self._shell
        if shell is None:
            return
        gate = self._driver.engine.gate(self._call.tool, shell.stream)
        unwatch = gate.watch(lambda: self._driver.wake(self._call.key))
        try:
            await self._wait(due)
        finally:
            unwatch()
            self._driver.engine.settle_gate(shell.stream)

    async def _wait(self, due: int | None) -> None:
        """Wait between attempts until *due*, or with None for a verdict on the attempt in doubt.

        Raises:
            CancelledError, Parked: as `perform`.
        """
        try:
            await self._driver.wait(self._branch, due, self._call.key)
        except asyncio.CancelledError:
            self._give_up(stopped=due is not None)
            raise

    def _give_up(self, *, stopped: bool) -> None:
        """Record that the step is cancelled, and tell the tool of an attempt that it let through.

        Raises:
            Parked: it is not, the run leaves memory: the next life decides by the step's effect class.
        """
        self._driver.note_cancel(self._branch)
        if self._driver.engine.is_loop_ending:
            return  # a task that ends with anything but its cancellation would be reported by the loop
        if self._driver.ending is not None:
            raise Parked from None
        cancel = RecordCancel(self._call_id, self._generation, 0)
        told = self._told(cancel) if self._is_admitted else ()
        self._driver.note(StepCancelled(self._call.key, self._attempt, stopped), *told)

    # Dispatch

    async def _dispatch(self, ticket: "Ticket | None") -> Ended:
        call, driver = self._call, self._driver
        context = ToolContext(self._call_id, call.tool.name, self._call_id, self._attempt, driver.run_id)
        try:
            if ticket is not None and call.tool.effect != "read":
                # Durable before visible: the intent is on disk before the effect leaves the process.
                await ticket
            return await driver.engine.invoker.invoke(call.tool, call.arguments, context, call.timeout)
        except (LogWriteError, LogClosedError) as error:  # of the ticket: what the tool raises is an outcome
            driver.log_failed(error)
        except asyncio.CancelledError:
            self._give_up(stopped=call.tool.is_async)
            raise

    # Outcome

    def _told(self, command: Command) -> Sequence[tuple[Shell, Command]]:
        self._is_admitted = False
        return () if self._shell is None else ((self._shell, command),)

    def _complete(self, result: bytes, micros: int) -> None:
        call = self._call
        told = self._told(RecordSuccess(self._call_id, self._generation, micros))
        self._note_outcome(StepCompleted(call.key, msgspec.Raw(result), self._attempt, micros), told)

    def _report(self, ended: Ended, fact: StepInDoubt | AttemptFailed | StepFailed, *, is_told: bool = False) -> None:
        """Record how an attempt ended, and tell the tool, unless it was told before."""
        failure = ended.outcome
        assert isinstance(failure, Failure)  # noqa: S101 - the callers have a failure in hand
        command = RecordFailure(
            self._call_id, self._generation, ended.micros, failure.error_type, failure.message, failure.bases
        )
        self._note_outcome(fact, () if is_told else self._told(command))

    def _note_outcome(self, fact: RunFact, told: Sequence[tuple[Shell, Command]]) -> None:
        """Record an outcome; wake those whom the circuit refused when this very outcome has moved it."""
        before = [shell.state.breaker.generation for shell, _ in told]
        self._driver.note(fact, *told)
        for generation, (shell, _) in zip(before, told, strict=True):
            if shell.state.breaker.generation != generation:
                self._driver.engine.circuit_moved(shell.stream)

    async def _retry_or_fail(
        self, ended: Ended, failure: Failure, *, is_told: bool = False
    ) -> "tuple[Admission, Ticket | None]":
        call, attempt = self._call, self._attempt
        retryable = failure.error_type not in ("InvalidArgumentsError", "InvalidResult")
        may_retry = retryable and allows(call.retry, (failure.error_type, *failure.bases))
        if may_retry and call.retry.when is not None and ended.cause is not None:
            may_retry = _agrees(call.retry.when, ended.cause)
        now, chance = self._driver.engine.clock.moment().now, random.random()  # noqa: S311 - spreads load, guards nothing
        due = next_due(
            call.retry,
            attempt=attempt,
            first_at=self._first_at,
            now=now,
            chance=chance,
            retry_after=failure.retry_after,
        )
        if due is None or not may_retry:
            raise self._failed(ended, failure, retryable=retryable, is_told=is_told) from ended.cause
        fact = AttemptFailed(call.key, attempt, failure.error_type, failure.message, due)
        self._report(ended, fact, is_told=is_told)
        self._attempt += 1
        await self._wait(due)
        return await self._again()

    def _failed(self, ended: Ended, failure: Failure, *, retryable: bool, is_told: bool = False) -> StepFailedError:
        """Record that the step failed for good and return what the workflow is told."""
        call = self._call
        fact = StepFailed(call.key, failure.error_type, failure.message, retryable, self._attempt, ended.micros)
        self._report(ended, fact, is_told=is_told)
        return failed(fact)

    # Doubt

    async def _resolve_doubt(self) -> "Done | NotDone | None":
        """Find out whether the call happened; ask the tool, then a person.

        Returns:
            Done: it happened, with this result. NotDone: the tool says that it did not. None: a person says so.
        """
        call, driver = self._call, self._driver
        answer, reason = await self._reconcile()
        if (verdict := driver.verdict(call.key)) is not None:
            return self._judged(verdict)  # a person was faster
        if isinstance(answer, _Happened):
            self._complete(answer.result, 0)
            return Done(answer.value)
        if isinstance(answer, NotDone):
            driver.note(StepNotDone(call.key, "reconcile"))
            self._doubt_is_noted = False
            return answer
        if not self._doubt_is_noted:
            driver.note(StepInDoubt(call.key, self._attempt, reason))
        self._doubt_is_noted = False
        while (verdict := driver.verdict(call.key)) is None:
            await self._wait(None)
        return self._judged(verdict)

    def _judged(self, verdict: "Verdict") -> Done | None:
        match verdict:
            case StepCompleted(result=result):
                return Done(self._call.tool.result_decoder.decode(result, self._call.key))
            case StepFailed():
                raise failed(verdict)
            case StepNotDone():
                return None

    async def _reconcile(self) -> "tuple[_Happened | NotDone | None, str]":
        """Return what the tool's reconcile says; None when it cannot say, and why."""
        tool, clock = self._call.tool, self._driver.engine.clock
        if tool.reconcile is None:
            return None, "the process ended during the call, and the tool has no reconcile"
        try:
            async with asyncio.timeout(None) as limit, ending(clock, limit, RECONCILE_LIMIT):
                answer = await tool.reconcile(self._call_id)
            return self._understood(answer)
        except asyncio.CancelledError:
            self._give_up(stopped=False)
            raise
        except Exception as error:  # noqa: BLE001 - a reconcile that fails leaves the doubt, and says so
            return None, f"reconcile failed: {type(error).__name__}: {error}"

    def _understood(self, answer: object) -> "tuple[_Happened | NotDone | None, str]":
        tool = self._call.tool
        match answer:
            case Done(result=result):
                data = self._driver.engine.encode(result, f"what {tool.name}'s reconcile returned")
                return _Happened(data, tool.result_decoder.decode(data, f"what {tool.name}'s reconcile returned")), ""
            case NotDone():
                return answer, ""
            case _:
                return None, f"reconcile returned {type(answer).__name__}: return Done(result) or NotDone()"


class _Happened(msgspec.Struct, frozen=True):
    """A reconciliation found the result of a call."""

    result: bytes
    value: Any


def _agrees(when: Callable[[BaseException], bool], error: BaseException) -> bool:
    try:
        return bool(when(error))
    except Exception as failure:  # noqa: BLE001 - whatever it raises, it does not agree
        _log.warning("a retry's condition raised", error=f"{type(failure).__name__}: {failure}")
        return False


def failed(fact: StepFailed) -> StepFailedError:
    """Return the error that the workflow gets for a failed step."""
    return StepFailedError(step=fact.step, error_type=fact.error_type, error=fact.error, retryable=fact.retryable)


def replayed(record: StepRecord, call: StepCall, branch: Branch) -> Any:
    """Return the recorded result of a finished step, or raise its recorded end.

    Raises:
        StepFailedError, CancelledError: as it ended live.
        UnencodableError: the result no longer fits the declared type.
    """
    if record.progress == "failed":
        raise StepFailedError(
            step=call.key, error_type=record.error_type, error=record.error, retryable=record.retryable
        )
    if record.progress == "cancelled":
        raise branch.cut()
    return call.tool.result_decoder.decode(record.result, call.key)


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
    return await Step(driver, branch, call, record, shell).perform()
