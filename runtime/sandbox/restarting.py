"""What the executor does first in a new life: every slot and every call of a former one is brought to a known state.

A slot stays with its trajectory, and what is left of its commands is ended before anything else runs there. A call
without an outcome is looked up on the machine; if that does not know, its effect class decides: run again, or doubt.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.shell import Shell
from perdure.actors.slots.commands import (
    CompleteExecution,
    DoubtExecution,
    EndExecution,
    InFlight,
    LeaveSlot,
    SlotView,
)
from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox.backend import Backend, ExecutionResult, Unfinished
from perdure.runtime.sandbox.lane import Lane, Work, execution_id
from perdure.runtime.sandbox.pool import SlotPool
from perdure.runtime.sandbox.results import as_command, as_result
from perdure.runtime.sandbox.traffic import Traffic
from perdure.store.records import Query, stream_id

RUN_ENDS = frozenset({"run-completed", "run-failed", "run-cancelled"})

_log = logger("perdure.slots")


async def go_on(traffic: Traffic, backend: Backend, held: Sequence[SlotView]) -> None:
    """Reconcile slots, then calls; return when every call of a former life has an outcome, is in doubt or queued.

    Raises:
        LogWriteError: the log failed.
    """
    system = traffic.around.system
    await asyncio.gather(*(_recover_slot(traffic.pool, backend, view) for view in held))
    after = ""
    while page := await system.log.open_streams("trajectory/", after=after):
        for row in page:
            shell = (await system.directory.activate_many([row.stream]))[0]
            if isinstance(shell, Shell):
                async with traffic.lanes.use(row.stream.partition("/")[2]) as lane:
                    await _Reconciled(traffic, backend, lane).go_on()
            else:
                _log.error("a trajectory cannot be read", reason=str(shell))
        after = page[-1].stream
    for view in held:
        await _settle_slot(traffic, view)
    await system.log.flush()


async def _recover_slot(pool: SlotPool, backend: Backend, view: SlotView) -> None:
    try:
        await backend.recover(view.slot, view.lease)
        if view.state != "releasing":
            # The crash may have come between the grant and this; the machine does it once.
            await backend.acquire(view.slot, view.lease)
    except Exception as error:  # noqa: BLE001 - nobody may run anything where the former life may still run
        pool.quarantine(view.slot, f"what was left of a former life could not be ended: {error}")


async def _settle_slot(traffic: Traffic, view: SlotView) -> None:
    """Record that nothing runs in a slot any more; finish a release that a crash interrupted."""
    pool = traffic.pool
    shell = pool.shell(view.slot)
    now = pool.view(shell)
    if now.execution is not None and now.state in ("executing", "releasing"):
        pool.shelf.record(now.slot, EndExecution(now.lease, now.execution))
    if now.state == "releasing":
        try:
            await pool.finish_release(now.slot, now.lease, reset=shell.state.is_to_be_reset)
        except SlotError as error:  # it is quarantined by now, and says why
            _log.error("a slot could not be released", slot=now.slot, error=str(error))
    elif now.expires_at is not None and now.state in ("acquired", "executing"):
        pool.leases.renew(now.slot, now.lease)  # the time that this process was down does not count
    elif now.trajectory is not None and await _has_ended(traffic, now.trajectory):
        traffic.run_ended(now.trajectory)  # the process died between the two


async def _has_ended(traffic: Traffic, trajectory: str) -> bool:
    """Return whether the trajectory is that of a run, which has ended."""
    query = Query(stream=stream_id(f"run/{trajectory}"), newest_first=True, limit=1)
    newest = await traffic.around.system.log.read(query)
    return bool(newest) and newest[0].type in RUN_ENDS


class _Reconciled:
    """One trajectory of a former life."""

    def __init__(self, traffic: Traffic, backend: Backend, lane: Lane) -> None:
        self._traffic = traffic
        self._backend = backend
        self._lane = lane

    async def go_on(self) -> None:
        """Bring every call in flight to a known state, in the order they were requested."""
        state = self._lane.state
        await self._check_slot()
        for call in state.in_flight.values():
            if call.execution not in state.in_doubt:
                await self._reconcile(call)

    async def _check_slot(self) -> None:
        """Let go of a slot that somebody else holds, or nobody: the two streams are one unit, but for quarantine."""
        state = self._lane.state
        if state.slot is not None and state.lease is not None and not self._holds(state.slot, state.lease):
            self._traffic.recorder.record(self._lane, LeaveSlot(state.slot, state.lease, "lost during a crash"))

    def _holds(self, slot: str, lease: int | None) -> bool:
        return lease is not None and self._traffic.pool.holds(slot, lease)

    async def _reconcile(self, call: InFlight) -> None:
        recorder, lane = self._traffic.recorder, self._lane
        uid = execution_id(lane.trajectory, call.execution, call.attempt)
        found = await self._outcome(call, uid)
        match found:
            case ExecutionResult():
                done: CompleteExecution = as_command(call.execution, as_result(found), 0, recorder.redaction)
                ticket = recorder.record(lane, msgspec.structs.replace(done, was_recovered=True))
                if call.slot is not None:
                    recorder.forget(call.slot, [uid], ticket)
            case Unfinished(reason=reason) if call.effect == "irreversible":
                recorder.record(lane, DoubtExecution(call.execution, reason))
            case _:
                if call.slot is not None:
                    recorder.forget(call.slot, [uid], None)  # the next attempt has another id
                self._traffic.run_again(lane, self._again(call))

    async def _outcome(self, call: InFlight, uid: str) -> "ExecutionResult | Unfinished | None":
        if call.slot is None:
            return Unfinished("the process ended during the call, and what it calls cannot be asked")
        try:
            found = await self._backend.outcome(call.slot, uid)
        except Exception as error:  # noqa: BLE001 - a machine that cannot say leaves a doubt
            return Unfinished(f"the machine could not be asked: {type(error).__name__}: {error}")
        if found is None and not self._holds(call.slot, call.lease):
            # An emptied slot remembers nothing: that it knows of no such call does not say that there was none.
            return Unfinished("the slot was lost, and with it whatever was known of the call")
        return found

    def _again(self, call: InFlight) -> Work:
        return Work(
            uniq_id=call.execution,
            tool=call.tool,
            arguments=msgspec.json.decode(call.arguments),
            encoded=call.arguments,
            where="slot" if call.slot is not None else self._traffic.admission.place_of(call.tool),
            effect=call.effect,
            timeout_seconds=call.timeout_seconds,
            attempt=call.attempt + 1,
        )
