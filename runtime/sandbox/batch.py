"""Calls of several trajectories that are sent to the machine together; each goes on when its own have ended.

Order matters here: every intent is durable before its command is sent (unless all are reads), and what happens to one
call, or to one trajectory's slot, is told to that one. Invariant: every call of a batch ends, with a result or without.
"""

from collections.abc import Callable, Sequence

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.slots.calls import ToolResult
from perdure.actors.slots.commands import EndExecution, StartExecution
from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox.backend import Backend, Execution, ExecutionResult, Unfinished
from perdure.runtime.sandbox.lane import Lane, Pending, execution_id
from perdure.runtime.sandbox.pool import Held, SlotPool
from perdure.runtime.sandbox.recording import KNOWN, LOG_FAILED, Recorder
from perdure.runtime.sandbox.results import as_result, cancelled
from perdure.store.errors import PerdureError, StoreError

_log = logger("perdure.slots")

MISSING = "Missing result in batch response"

Part = tuple[Lane, list[Pending], Held]


class Batch:
    """One batch, run once."""

    def __init__(
        self,
        recorder: Recorder,
        backend: Backend,
        pool: SlotPool,
        finish: Callable[[Lane, list[Pending]], None],
        parts: Sequence[Part],
    ) -> None:
        self._recorder = recorder
        self._backend = backend
        self._pool = pool
        self._finish = finish
        self._parts = parts
        self._open: dict[str, tuple[Lane, Pending, Held]] = {}
        """By execution id."""
        self._left: dict[Lane, list[Pending]] = {}

    async def run(self) -> None:
        """Record the intents, send, take the results in.

        Raises:
            LogWriteError: the log failed; nothing more can be recorded of what has not ended.
        """
        for part in self._parts:
            self._intend(*part)
        # Reads too: the machine remembers what it has begun, and would refuse one whose intent was lost with the owner.
        if self._open:
            await self._recorder.durable()
        executions = self._wanted()
        why = await self._perform(executions) if executions else MISSING
        for lane, pending, held in list(self._open.values()):
            self._end(lane, pending, held, await self._outcome(lane, pending, held, why))

    # Intents

    def _intend(self, lane: Lane, calls: list[Pending], held: Held) -> None:
        left = self._left[lane] = []
        for pending in calls:
            if pending.cancelled is not None or self._recorder.is_known(lane, pending):
                self._recorder.refuse(lane, pending, KNOWN)
                continue
            try:
                # The first one's start is one unit with its intent: a slot that was lost meanwhile refuses both.
                also = () if left else (self._start(held, pending),)
                self._recorder.intend(lane, pending, held, *also)
            except StoreError as error:
                self._recorder.tell(lane, pending, error)
            except PerdureError as error:
                self._recorder.refuse(lane, pending, f"Failed to acquire slot: {error}")
            else:
                left.append(pending)
                self._open[_id(lane, pending)] = (lane, pending, held)
        if not left:
            self._finish(lane, calls)

    def _wanted(self) -> list[Execution]:
        """Return what is to be sent; end what nobody wants any more, or has no slot any more."""
        for lane, pending, held in list(self._open.values()):
            if pending.cancelled is not None:
                self._end(lane, pending, held, cancelled(pending.cancelled, was_begun=False))
            elif not self._pool.holds(held.slot, held.lease):
                error = f"slot {held.slot} was lost before the call began"
                self._end(lane, pending, held, ToolResult(success=False, error=error, metadata={"was_begun": False}))
        return [
            Execution(
                slot=held.slot,
                lease=held.lease,
                execution_id=uid,
                tool=pending.work.tool,
                arguments=pending.work.arguments,
                timeout_seconds=pending.work.timeout_seconds,
            )
            for uid, (_, pending, held) in self._open.items()
        ]

    def _start(self, held: Held, pending: Pending) -> tuple[Shell, Command]:
        return self._pool.shell(held.slot), StartExecution(held.lease, pending.work.uniq_id)

    # Results

    async def _perform(self, executions: Sequence[Execution]) -> str:
        """Send the batch and take in what comes; return why results may be missing."""
        results = self._backend.execute_batch(executions)
        try:
            async for result in results:
                self._on_result(result)
        except LOG_FAILED:
            raise
        except Exception as error:  # noqa: BLE001 - told to everybody whose result is missing
            return f"Batch execution failed: {str(error) or type(error).__name__}"
        finally:
            if (close := getattr(results, "aclose", None)) is not None:
                await close()
        return MISSING

    def _on_result(self, result: ExecutionResult) -> None:
        one = self._open.get(result.execution_id)
        if one is None:
            _log.warning("a result that nobody asked for", execution=result.execution_id)
        else:
            self._end(*one, as_result(result))

    async def _outcome(self, lane: Lane, pending: Pending, held: Held, why: str) -> ToolResult:
        """Return what became of a call that the machine said nothing of."""
        try:
            found = await self._backend.outcome(held.slot, _id(lane, pending))
        except Exception as failure:  # noqa: BLE001 - the machine cannot say
            found = Unfinished(f"{type(failure).__name__}: {failure}")
        match found:
            case ExecutionResult():
                return as_result(found)
            case Unfinished(reason=reason):
                return ToolResult(success=False, error=why, metadata={"outcome": "unknown", "reason": reason})
            case None:
                return ToolResult(success=False, error=why, metadata={"outcome": "not begun"})

    def _end(self, lane: Lane, pending: Pending, held: Held, result: ToolResult) -> None:
        """Record how a call ended, let the next one of its slot begin, or its lane go on.

        Raises:
            LogWriteError: the log failed.
        """
        left = self._left[lane]
        is_current = left[0] is pending
        uid = _id(lane, pending)
        del self._open[uid]
        left.remove(pending)
        end = EndExecution(held.lease, pending.work.uniq_id)
        try:
            also = ((self._pool.shell(held.slot), end),) if is_current else ()
            ticket = self._recorder.complete(lane, pending, result, *also)
        except SlotError:  # the slot was quarantined, or its lease ended, while the call ran: the outcome is a fact
            ticket = self._recorder.complete(lane, pending, result)
        self._recorder.forget(held.slot, [uid], ticket)
        if not left:
            self._finish(lane, next(calls for one, calls, _ in self._parts if one is lane))
        elif is_current:
            self._next(held, left[0])

    def _next(self, held: Held, pending: Pending) -> None:
        shell, start = self._start(held, pending)
        try:
            self._pool.shelf.record(held.slot, start)
        except SlotError as error:
            _log.warning("a slot was lost during a batch", slot=shell.stream, reason=str(error))


def _id(lane: Lane, pending: Pending) -> str:
    return execution_id(lane.trajectory, pending.work.uniq_id, pending.work.attempt)
