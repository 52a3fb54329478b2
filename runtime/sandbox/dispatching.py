"""From calls that are ready to where they run: slots for lanes, the batch, the tool server, this process.

Order matters here: a slot is granted, and its lease durable, before the machine hears of it. What goes wrong with one
trajectory is told to that one. Invariant: a lane that was handed over here is handed back, whatever happens.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from perdure.actors.kernel.logs import logger
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.commands import LeaveSlot
from perdure.actors.slots.errors import SlotError
from perdure.actors.tools.invoke import ending
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.batch import Batch, Part
from perdure.runtime.sandbox.lane import Lane, Leaving, Pending, execution_id
from perdure.runtime.sandbox.pool import Held, NotWantedError, SlotPool
from perdure.runtime.sandbox.recording import KNOWN, LOG_FAILED, Recorder
from perdure.runtime.sandbox.results import cancelled
from perdure.runtime.sandbox.together import Together
from perdure.store.errors import PerdureError, StoreError, UsageError

if TYPE_CHECKING:
    from perdure.runtime.sandbox.executor import Surroundings

_IN_TURN: ContextVar[tuple[Lane, Pending] | None] = ContextVar("perdure_in_turn", default=None)
"""The call that this code is the tool of, and its lane."""

_log = logger("perdure.slots")


class Dispatcher:
    """Performs what the executor has gathered."""

    def __init__(
        self,
        around: "Surroundings",
        backend: Backend,
        pool: SlotPool,
        recorder: Recorder,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        finished: Callable[[Lane], None],
    ) -> None:
        self._around = around
        self._system = around.system
        self._backend = backend
        self._pool = pool
        self._recorder = recorder
        self._spawn = spawn
        self._finished = finished

    def _finish(self, lane: Lane, calls: list[Pending]) -> None:
        """Hand a lane back, once."""
        if lane.under_way is calls and lane.is_busy:
            self._finished(lane)

    # In slots

    def dispatch(self, group: Sequence[tuple[Lane, list[Pending]]]) -> None:
        """Run calls in the slots of their trajectories; those that have a slot at once go together."""
        going: list[tuple[Lane, list[Pending], Held | None, bool]] = []
        room = self._pool.growth()
        for lane, calls in group:
            try:
                held = self._held(lane) or self._pool.try_take(lane.shell, lane.lease_micros)
            except Exception as error:  # noqa: BLE001 - that is this trajectory's, and the others go on
                self._fail(lane, calls, error, "Failed to acquire slot")
                continue
            # A slot that need only be made is there in a moment: these go with the others.
            is_joining = held is not None or room > 0
            room -= held is None
            going.append((lane, calls, held, is_joining))
        together = self._together(sum(is_joining for *_, is_joining in going))
        for lane, calls, held, is_joining in going:  # in this order they ask for slots
            self._bring(lane, calls, held, together if is_joining else self._together(1))

    def _together(self, expected: int) -> Together:
        return Together(expected, self._system.clock, self._send)

    def _bring(self, lane: Lane, calls: list[Pending], held: Held | None, together: Together) -> None:
        self._spawn(self._guarded(lane, calls, lambda: self._settle_in(lane, calls, held, together)))

    def _held(self, lane: Lane) -> Held | None:
        """Return the slot that the trajectory has.

        Raises:
            SlotError: it has lost it; the next call gets another.
        """
        state = lane.state
        if state.slot is None or state.lease is None:
            return None
        shell = self._pool.shelf.slots.get(state.slot)
        slot = None if shell is None else self._pool.view(shell)
        if slot is not None and slot.lease == state.lease and slot.state == "acquired":
            return Held(state.slot, state.lease, None)
        why = "it is gone" if slot is None else slot.error or f"it is {slot.state}, with lease {slot.lease}"
        self._recorder.record(lane, LeaveSlot(state.slot, state.lease, f"lost: {why}"))
        raise SlotError(detail=f"the trajectory has lost slot {state.slot} ({why}); its next call gets an empty one")

    async def _settle_in(self, lane: Lane, calls: list[Pending], held: Held | None, together: Together) -> None:
        """Bring a lane to its slot, and let it join the others there."""
        settled: Part | None = None
        try:
            held = await self._slot_for(lane, calls, held)
            settled = (lane, calls, held)
        except LOG_FAILED:
            raise
        except Exception as error:  # noqa: BLE001 - that is this trajectory's, and the others go on
            self._fail(lane, calls, error, "Failed to acquire slot")
        finally:
            together.arrive(settled)

    async def _slot_for(self, lane: Lane, calls: list[Pending], held: Held | None) -> Held:
        while held is None:
            try:
                held = await self._pool.take(lane.shell, lane.lease_micros)
            except NotWantedError:
                if all(pending.cancelled is not None for pending in calls):
                    raise
        if held.ticket is not None:
            await held.ticket
            try:
                await self._backend.acquire(held.slot, held.lease)
            except Exception as error:
                self._pool.give_up(held, lane.shell, f"acquire failed: {error}")
                raise
        return held

    def _send(self, parts: Sequence[Part]) -> None:
        batch = Batch(self._recorder, self._backend, self._pool, self._finish, parts)
        self._spawn(self._run(batch, parts))

    async def _run(self, batch: Batch, parts: Sequence[Part]) -> None:
        error: Exception = SlotError(detail="a batch came to no end: this is our bug")
        try:
            await batch.run()
        except Exception as failure:  # noqa: BLE001 - nobody waits for ever, and no lane stands still
            error = failure
        for lane, calls, _ in parts:
            if lane.under_way is calls and lane.is_busy:
                self._fail(lane, calls, error, "Batch execution failed")

    async def _guarded(self, lane: Lane, calls: list[Pending], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - nobody waits for ever, and no lane stands still
            self._fail(lane, calls, error, _failed(calls[0]))

    def _fail(self, lane: Lane, calls: list[Pending], error: Exception, what: str) -> None:
        """Tell the callers that it came to nothing, and hand the lane back."""
        if not isinstance(error, PerdureError):
            _log.error("calls could not be dispatched", trajectory=lane.trajectory, error=repr(error))
        for pending in calls:
            if not pending.is_ended:
                self._fail_one(lane, pending, error, f"{what}: {str(error) or type(error).__name__}")
        self._finish(lane, calls)

    def _fail_one(self, lane: Lane, pending: Pending, error: Exception, text: str) -> None:
        if isinstance(error, LOG_FAILED) or (isinstance(error, StoreError) and not pending.is_begun):
            self._recorder.tell(lane, pending, error)
        elif not pending.is_begun:
            self._recorder.refuse(lane, pending, text)
        else:
            result = ToolResult(success=False, error=text, metadata={"outcome": "unknown"})
            try:
                self._recorder.complete(lane, pending, result)
            except PerdureError as refused:
                self._recorder.tell(lane, pending, refused)

    # Elsewhere

    def elsewhere(self, lane: Lane, calls: list[Pending]) -> None:
        """Call a tool of this process, or on the tool server."""
        self._spawn(self._guarded(lane, calls, lambda: self._elsewhere(lane, calls)))

    async def _elsewhere(self, lane: Lane, calls: list[Pending]) -> None:
        (pending,) = calls
        recorder = self._recorder
        if pending.cancelled is not None or recorder.is_known(lane, pending):
            recorder.refuse(lane, pending, KNOWN)
        else:
            intended = recorder.intend(lane, pending, None)
            if intended is not None and pending.work.effect != "read":
                await intended
            recorder.complete(lane, pending, not_begun(pending) or await self._within_limit(lane, pending))
        self._finish(lane, calls)

    async def _within_limit(self, lane: Lane, pending: Pending) -> ToolResult:
        """Return what a call came to; that it was ended by its limit, or by a cancel, is a result too."""
        loop, seconds = self._system.loop, pending.work.timeout_seconds
        limit = asyncio.timeout(None)

        def abort() -> None:
            with contextlib.suppress(RuntimeError):  # it is over, or its time is
                limit.reschedule(loop.time())

        try:
            async with limit, ending(self._system.clock, limit, timedelta(seconds=seconds)):
                pending.abort = abort
                return await self._call(lane, pending)
        except LOG_FAILED:
            raise
        except Exception as error:  # noqa: BLE001 - that call fails, and the next works
            if pending.cancelled is not None:
                return cancelled(pending.cancelled, was_begun=True)
            is_late = isinstance(error, TimeoutError) and limit.expired()
            said = f"no answer within {seconds:g} s" if is_late else str(error) or type(error).__name__
            return ToolResult(success=False, error=f"{_failed(pending)}: {said}")
        finally:
            pending.abort = None

    async def _call(self, lane: Lane, pending: Pending) -> ToolResult:
        work, around = pending.work, self._around
        call = ToolCall(work.tool, work.arguments, uniq_id=work.uniq_id)
        if work.where == "server" and around.call_server is not None:
            return await around.call_server(call, lane.trajectory, work.timeout_seconds, lane.state.slot)
        if around.call_here is None:
            return ToolResult(success=False, error=f"{work.tool} cannot be called here")
        token = _IN_TURN.set((lane, pending))
        try:
            return await around.call_here(call, lane.trajectory, work.timeout_seconds)
        finally:
            _IN_TURN.reset(token)

    # Ending

    def cancel(self, lane: Lane, pending: Pending) -> None:
        """End a call that was taken out of its lane: where it runs, or before it does."""
        if pending.abort is not None:
            pending.abort()
        elif pending.slot is not None:
            uid = execution_id(lane.trajectory, pending.work.uniq_id, pending.work.attempt)
            self._spawn(self._backend.cancel(pending.slot, uid))
        elif all(one.cancelled is not None for one in lane.under_way):
            self._pool.forgo(lane.shell)

    async def take(self, lane: Lane, slot: str) -> None:
        """Give the trajectory a certain slot.

        Raises:
            SlotTransitionError: it is not free, or the trajectory has one.
            SlotError: there is none of that name.
        """
        await self._slot_for(lane, [], self._pool.take_this(slot, lane.shell, lane.lease_micros))

    async def leave(self, lane: Lane, leaving: Leaving) -> None:
        """Give the trajectory's slot back.

        Raises:
            ResetFailedError: it could not be emptied, and is quarantined.
        """
        slot, lease = lane.state.slot, lane.state.lease
        if slot is None or lease is None or (leaving.lease is not None and leaving.lease != lease):
            return
        try:
            await self._pool.begin_release(Held(slot, lease, None), lane.shell, leaving)
        except SlotError:  # it is somebody else's by now, or quarantined
            self._recorder.record(lane, LeaveSlot(slot, lease, leaving.because))
            await self._recorder.durable()
            return
        await self._pool.finish_release(slot, lease, reset=leaving.reset)


def check_turn(lane: Lane) -> None:
    """Refuse what would wait for itself.

    Raises:
        UsageError: a tool that this trajectory calls asks for the next call of the same trajectory.
    """
    turn = _IN_TURN.get()
    if turn is not None and turn[0] is lane and not turn[1].is_ended:
        tool, name = turn[1].work.tool, lane.trajectory
        detail = f"{tool} is a call of trajectory {name} itself, so that the next call would wait for it without end"
        raise UsageError(f"{detail}: call {tool} in a run, or rt.with_options(conversation={name!r}).call(…)")


def not_begun(pending: Pending) -> ToolResult | None:
    """Return the result of a call that was cancelled while its intent was on its way to the disk, if it was."""
    return None if pending.cancelled is None else cancelled(pending.cancelled, was_begun=False)


def _failed(pending: Pending) -> str:
    return "External tool failed" if pending.work.where == "server" else f"{pending.work.tool} failed"
