"""One tool call outside of a run: guarded by the tool's actor and recorded, but never made again after a crash.

Its intent is durable before the tool runs (unless its effect is `read`). A crash in between leaves a `call-lost`.
"""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import uuid_utils

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.breaker import Admission
from perdure.actors.tools.context import ToolContext, call_deadline
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.errors import (
    BulkheadFullError,
    CircuitOpenError,
    RateLimitedError,
    ToolError,
    ToolFailedError,
)
from perdure.actors.tools.invoke import Ended
from perdure.actors.tools.limits import Gate
from perdure.actors.tools.outcome import Failure, Success
from perdure.actors.tools.tool import Admit, RecordCancel, RecordFailure, RecordSuccess, Refuse
from perdure.actors.workflows.engine import Engine
from perdure.store.codec import BLOB_THRESHOLD_BYTES, OptionalPayload
from perdure.store.errors import UsageError
from perdure.store.protocols import Ticket


class DirectCall(msgspec.Struct, frozen=True):
    """A call as it was asked for."""

    tool: Tool[..., Any]
    arguments: bytes
    timeout: timedelta | None = None
    conversation: str | None = None
    limit_key: str = ""
    principal: str | None = None


async def call_tool(engine: Engine, call: DirectCall) -> Success:
    """Make *call* once, or its tool's fallback where it is refused or fails; its outcome is durable on return.

    Raises:
        CircuitOpenError, RateLimitedError, BulkheadFullError: refused; the tool was not called.
        ToolFailedError: it failed; the original exception is the cause.
        InvalidArgumentsError: the arguments do not fit the fallback.
        LogWriteError: the log failed meanwhile; an async tool was cancelled.
        UsageError: the runtime was closed meanwhile; an async tool was cancelled.
    """
    try:
        return await _guarded(engine, call)
    except ToolError:
        fallback = call.tool.fallback
        if fallback is None:
            raise
        fallback.check_arguments(call.arguments)
        return await _guarded(engine, msgspec.structs.replace(call, tool=fallback))


async def _guarded(engine: Engine, call: DirectCall) -> Success:
    shell = await engine.toolbox.shell(call.tool, call.conversation)
    shell.pins += 1  # the actor stays until it was told how the call ended
    try:
        return await _in_turn(engine, shell, call)
    finally:
        shell.pins -= 1


async def _in_turn(engine: Engine, shell: Shell, call: DirectCall) -> Success:
    attempt = _Attempt(engine, shell, call)
    if call.tool.concurrency is None:
        return await attempt.make()
    gate = engine.toolbox.gate(call.tool, shell.stream)
    if gate.is_full:
        raise await attempt.turned_away(gate)
    try:
        await attempt.enter()
        return await attempt.make()
    finally:
        attempt.leave()


class _Attempt:
    """One call on its way to an outcome."""

    def __init__(self, engine: Engine, shell: Shell, call: DirectCall) -> None:
        self._engine = engine
        self._shell = shell
        self._call = call
        self._id = str(uuid_utils.uuid7())
        self._place: Gate | None = None
        """Where it holds a place, as long as it holds one."""

    async def enter(self, *, again: bool = False) -> None:
        """Wait for a place at the tool and take it."""
        gate = self._engine.toolbox.gate(self._call.tool, self._shell.stream)
        await gate.enter(again=again)
        self._place = gate

    def leave(self) -> None:
        """Give the place back, if it holds one."""
        gate, self._place = self._place, None
        if gate is not None:
            gate.leave()
        self._engine.toolbox.settle_gate(self._shell.stream)

    async def make(self) -> Success:
        """Ask for admission, call, record; see `call_tool`."""
        tool, engine = self._call.tool, self._engine
        intent = None if tool.effect == "read" else tool.effect
        asked = Admit(self._id, engine.life, intent, self._call.limit_key)
        done = engine.system.transact(((self._shell, asked),), correlation=self._id, principal=self._call.principal)
        admission: Admission = done.replies[0]
        if not admission.is_admitted:
            if done.ticket is not None:
                await done.ticket
            raise await self._refusal(admission)
        return await self._invoke(admission, None if intent is None else done.ticket)

    async def turned_away(self, gate: Gate) -> BulkheadFullError:
        """Record that there was no place at the tool, and return what the caller is told."""
        reason = f"{gate.running} calls run and {gate.waiting} wait"
        refuse = Refuse(self._id, reason, "bulkhead")
        done = self._engine.system.transact(
            ((self._shell, refuse),), correlation=self._id, principal=self._call.principal
        )
        if done.ticket is not None:
            await done.ticket
        return BulkheadFullError(tool=self._call.tool.name, reason=reason)

    async def _refusal(self, admission: Admission) -> ToolError:
        name, wait = self._call.tool.name, admission.retry_after / SECOND
        if admission.refused_by == "rate":
            return RateLimitedError(tool=name, reason=admission.reason, retry_after_seconds=wait)
        position = await self._engine.toolbox.opened_by(self._shell.stream)
        reason = f"open since position {position}: {admission.reason}"
        return CircuitOpenError(tool=name, reason=reason, position=position, retry_after_seconds=wait)

    async def _invoke(self, admission: Admission, intended: Ticket | None) -> Success:
        engine, call, generation = self._engine, self._call, admission.generation
        try:
            if admission.delay:
                await engine.beside.run(self._await_turn(admission.delay), is_wait=True)
            if intended is not None:
                await intended  # Durable before visible: the intent is on disk before the effect leaves the process.
            timeout = call.timeout or call.tool.timeout
            context = self._context(timeout)
            ended = await engine.beside.run(engine.invoker.invoke(call.tool, call.arguments, context, timeout))
        except asyncio.CancelledError:
            self._report(RecordCancel(self._id, generation, 0))
            if engine.is_stopping and not _is_cancelled():
                raise UsageError(f"the runtime was closed during this call of {call.tool.name}") from None
            raise
        before = self._shell.state.breaker.generation
        ticket = self._report(_record(self._id, generation, ended))
        if self._shell.state.breaker.generation != before:  # this very outcome has moved it
            engine.toolbox.circuit_moved(self._shell.stream)
        if ticket is not None:
            await ticket
        match ended.outcome:
            case Success() as success:
                return success
            case Failure(error_type=kind, message=text, result=result):
                shown = None if result is None else result.decode()
                raise ToolFailedError(tool=call.tool.name, error_type=kind, reason=text, result=shown) from ended.cause

    async def _await_turn(self, delay: int) -> None:
        """Wait for a token that is spoken for; meanwhile the place at the tool is somebody else's."""
        holds_place = self._place is not None
        self.leave()
        await _pause(self._engine, delay)
        if holds_place:
            await self.enter(again=True)
        if self._engine.is_stopping:
            raise asyncio.CancelledError  # what has not begun does not begin

    def _context(self, timeout: timedelta | None) -> ToolContext:
        call = self._call
        return ToolContext(
            self._id,
            call.tool.name,
            self._id,
            1,
            trajectory=call.conversation,
            deadline=call_deadline(self._engine.clock.moment().now, timeout),
            principal=call.principal,
        )

    def _report(self, command: Command) -> Ticket | None:
        moves = ((self._shell, command),)
        done = self._engine.system.transact(
            moves, correlation=self._id, principal=self._call.principal, is_refusable=False
        )
        return done.ticket


async def _pause(engine: Engine, micros: int) -> None:
    """Wait on the runtime's clock."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = engine.clock.call_after(micros, lambda: None if over.done() else over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _record(call: str, generation: int, ended: Ended) -> RecordSuccess | RecordFailure:
    match ended.outcome:
        case Failure(error_type=kind, message=text, bases=bases, result=result):
            return RecordFailure(call, generation, ended.micros, kind, text, bases, _kept(result))
        case Success(result=result):
            return RecordSuccess(call, generation, ended.micros, _kept(result))


def _kept(result: bytes | None) -> OptionalPayload:
    """Return a result that is too large to be handed to a model, which is kept so that it can be had again."""
    if result is None or len(result) <= BLOB_THRESHOLD_BYTES:
        return msgspec.UNSET
    return msgspec.Raw(result)
