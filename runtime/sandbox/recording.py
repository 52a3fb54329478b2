"""Intents and outcomes of calls on their way into the log, and to those who wait for them.

It dispatches nothing. Invariants: a call whose intent the log did not take is not begun; a caller is told an outcome
when it is durable, and what the log has of it.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.calls import ToolResult
from perdure.actors.slots.commands import CancelExecution, RecordFile, RequestExecution
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.lane import Lane, Pending
from perdure.runtime.sandbox.lanes import Lanes
from perdure.runtime.sandbox.pool import Held
from perdure.runtime.sandbox.results import as_command, cancelled, told
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.protocols import Ticket

_log = logger("perdure.slots")

LOG_FAILED = (LogWriteError, LogClosedError)
"""After these nothing can be recorded any more."""

KNOWN = "this call was begun before, and how it ended is not known here"


class Recorder:
    """Writes down what calls come to."""

    def __init__(self, system: ActorSystem, backend: Backend, redaction: Redaction, lanes: Lanes) -> None:
        self._system = system
        self._backend = backend
        self.redaction = redaction
        self._lanes = lanes
        self._forgetting: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until the machine was told what it may forget."""
        while self._forgetting:
            await asyncio.wait(self._forgetting)

    def tell(self, lane: Lane, pending: Pending, result: ToolResult | BaseException) -> None:
        """Give whoever waits for a call what there is for them."""
        if lane.by_id.get(pending.work.uniq_id) is pending:
            del lane.by_id[pending.work.uniq_id]
        if not pending.done.done():
            if isinstance(result, ToolResult):
                pending.done.set_result(result)
            else:
                pending.done.set_exception(result)
                pending.done.exception()  # nobody need wait for it
        self._lanes.let_go(lane)

    def refuse(self, lane: Lane, pending: Pending, error: str) -> None:
        """Say that nothing was done; nothing is recorded, so that the same id may be used again."""
        reason = pending.cancelled
        result = ToolResult(success=False, error=error) if reason is None else cancelled(reason, was_begun=False)
        self.tell(lane, pending, result)

    # Intents

    def is_known(self, lane: Lane, pending: Pending) -> bool:
        """Return whether the log has this very attempt of a call already, so that it must not be dispatched."""
        state, work = lane.state, pending.work
        flight = state.in_flight.get(work.uniq_id)
        return work.uniq_id in state.ended or (flight is not None and flight.attempt >= work.attempt)

    def intend(self, lane: Lane, pending: Pending, held: Held | None, *also: tuple[Shell, Command]) -> Ticket | None:
        """Record that a call is about to be dispatched.

        Raises:
            SlotError: the slot is lost.
            PerdureError: the log refused. In both cases nothing has happened.
        """
        work = pending.work
        slot, lease = (held.slot, held.lease) if held is not None else (None, None)
        request = RequestExecution(
            work.uniq_id, work.tool, work.encoded, work.effect, work.timeout_seconds, slot, lease, work.attempt
        )
        moves = ((lane.shell, request), *also)
        ticket = self._system.transact(moves, correlation=lane.trajectory, principal=work.principal).ticket
        pending.is_begun, pending.slot = True, slot
        pending.began_at = self._system.clock.moment().steady
        return ticket

    # Outcomes

    def complete(self, lane: Lane, pending: Pending, result: ToolResult, *also: tuple[Shell, Command]) -> Ticket | None:
        """Record how a call ended, and tell its caller once that is durable.

        Raises:
            PerdureError: one of the actors, or the log, refused; nothing has happened.
        """
        work, said = pending.work, result
        end: Command
        if pending.cancelled is not None and result.metadata.get("cancelled"):
            was_begun = bool(result.metadata.get("was_begun", True))
            end = CancelExecution(work.uniq_id, pending.cancelled, was_begun=was_begun)
            said = cancelled(pending.cancelled, was_begun=was_begun)
        else:
            micros = self._system.clock.moment().steady - pending.began_at
            end = as_command(work.uniq_id, result, micros, self.redaction)
            said = told(end)
        ticket = self.record(lane, end, *also)
        pending.is_ended = True
        self._record_file(lane, pending, result)
        if ticket is None:
            self.tell(lane, pending, said)
        else:
            ticket.on_settled(lambda t: self.tell(lane, pending, said if t.error is None else t.error))
        return ticket

    def record(self, lane: Lane, command: Command, *also: tuple[Shell, Command]) -> Ticket | None:
        """Record a fact of a trajectory, with what belongs to it.

        Raises:
            PerdureError: one of the actors, or the log, refused; nothing has happened.
        """
        moves = ((lane.shell, command), *also)
        return self._system.transact(moves, correlation=lane.trajectory, is_refusable=False).ticket

    def _record_file(self, lane: Lane, pending: Pending, result: ToolResult) -> None:
        work = pending.work
        if not result.success or work.where != "slot" or work.tool not in ("write_file", "read_file"):
            return
        is_in = work.tool == "write_file"
        text = str(work.arguments.get("content", "")) if is_in else result.output
        data = text.encode("utf-8", "backslashreplace")
        # The machine knows the bytes of the file; a text is only what could be read of them.
        sha256, size = result.metadata.get("sha256"), result.metadata.get("size")
        fact = RecordFile(
            "in" if is_in else "out",
            str(result.metadata.get("path") or work.arguments.get("path", "")),
            sha256 if isinstance(sha256, str) else hashlib.sha256(data).hexdigest(),
            size if isinstance(size, int) else len(data),
        )
        try:
            self.record(lane, fact)
        except PerdureError as error:
            _log.warning("a file could not be recorded", trajectory=lane.trajectory, reason=str(error))

    # What the machine keeps

    def forget(self, slot: str, executions: Sequence[str], ticket: Ticket | None) -> None:
        """Let the machine drop what it keeps of calls, once *ticket* says that the log has it."""

        def forget(ticket: Ticket | None) -> None:
            if ticket is None or ticket.error is None:
                task = self._system.loop.create_task(self._forget(slot, executions))
                self._forgetting.add(task)
                task.add_done_callback(self._forgetting.discard)

        if ticket is None:
            forget(None)
        else:
            ticket.on_settled(forget)

    async def _forget(self, slot: str, executions: Sequence[str]) -> None:
        try:
            await self._backend.forget(slot, executions)
        except Exception as error:  # noqa: BLE001 - it keeps a little more than it need
            _log.warning("outcomes could not be forgotten", slot=slot, error=f"{type(error).__name__}: {error}")

    async def durable(self) -> None:
        """Wait until everything recorded up to now is durable.

        Raises:
            LogWriteError: it could not be made durable.
        """
        if (barrier := self._system.log.barrier()) is not None:
            await barrier
