"""What goes on in an executor from a start to its end: calls in their lanes, how they are sent, ended and given up.

It neither opens nor closes anything by itself: the executor does. Invariant: whoever waits for a call of an open or
ended traffic is told something.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from perdure.actors.kernel.logs import logger
from perdure.actors.slots.calls import ToolResult
from perdure.actors.tools.registry import Registry
from perdure.runtime.sandbox.admission import Admission
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.dispatching import Dispatcher
from perdure.runtime.sandbox.lane import Errand, Lane, Leaving, Pending, Work
from perdure.runtime.sandbox.lanes import Lanes
from perdure.runtime.sandbox.pool import SlotPool
from perdure.runtime.sandbox.recording import Recorder
from perdure.runtime.sandbox.statistics import SlotStatistics
from perdure.runtime.sandbox.window import Window
from perdure.store.errors import LogWriteError, PerdureError, StoreError, UsageError

if TYPE_CHECKING:
    from perdure.runtime.sandbox.executor import Surroundings

BY_CALLER = "its caller gave it up"

CLOSED = "the runtime was closed: open it and call again with the same id"

_log = logger("perdure.slots")


class Traffic:
    """The calls of one life of an executor."""

    def __init__(self, around: "Surroundings", backend: Backend, tools: Registry, config: ExecutorConfig) -> None:
        system = around.system
        self.around = around
        self._config = config
        self.admission = Admission(
            tools,
            config,
            around.redaction,
            default_timeout=backend.default_timeout_seconds,
            has_server=around.call_server is not None,
        )
        self.lanes = Lanes(system)
        self.pool = SlotPool(system, backend, system.clock, config)
        self.pool.leases.on_expired = self._expired
        self.pool.upkeep.on_lost = self._lost
        self.recorder = Recorder(system, backend, around.redaction, self.lanes)
        self._dispatcher = Dispatcher(around, backend, self.pool, self.recorder, self._spawn, self._finished)
        self.window = Window(system.clock, config, self._send)
        self.is_open = False
        """Whether it takes calls."""
        self.is_resuming = True
        """Whether calls of a former life that may run again do so by themselves."""
        self._left_alone: dict[tuple[str, str], Work] = {}
        """Those that do not, by trajectory and `uniq_id`."""
        self.failure: LogWriteError | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._batches = 0

    def check_open(self) -> None:
        """Refuse what comes before the start or after the end.

        Raises:
            RuntimeError: it is not started.
            LogWriteError: the log failed.
        """
        if self.failure is not None:
            raise self.failure
        if not self.is_open:
            raise UsageError("ToolExecutor not started (call start() first)")

    # Ending

    async def leave_all(self) -> None:
        """Let everything that is queued end, then give every slot back, emptied."""
        self.is_open = False
        for view in self.pool.views():
            if view.trajectory is not None and self.lanes.find(view.trajectory) is None:
                async with self.lanes.use(view.trajectory):  # one that was not heard of in this life
                    pass
        if self.failure is None:  # else nobody goes on with what is queued
            leaving = [self.leave(lane, Leaving(reset=True, because="closed")) for lane in self.lanes]
            self.window.flush()
            await asyncio.gather(*leaving, return_exceptions=True)

    def log_failed(self, error: LogWriteError) -> None:
        """Tell everybody who waits, and let everything that was begun end."""
        self.failure = error
        self.is_open = False
        self._tell_all(error)
        for task in list(self._tasks):
            task.cancel()

    async def end_all(self, error: PerdureError) -> None:
        """Tell everybody who waits, and end everything that was begun."""
        self.is_open = False
        self.window.close()
        self._tell_all(error)
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(self._tasks)

    def _tell_all(self, error: PerdureError) -> None:
        for lane in self.lanes:
            waiting = [*lane.by_id.values(), *lane.queue]
            lane.queue.clear()
            for one in waiting:
                if not one.done.done():
                    one.done.set_exception(error)
                    one.done.exception()  # nobody need wait for it

    async def let_go(self) -> None:
        """Close what stands behind it. Idempotent."""
        self.is_open = False
        self.window.close()
        await self.pool.close()
        await self.recorder.close()
        self.lanes.clear()

    # Calls

    def run_again(self, lane: Lane, work: Work) -> None:
        """Queue a call of a former life, or leave it alone until somebody asks for it."""
        if self.is_resuming:
            self._enqueue(lane, work)
        else:
            self._left_alone[lane.trajectory, work.uniq_id] = work

    async def resume(self) -> None:
        """Queue the calls that were left alone."""
        self.is_resuming = True
        for trajectory, uniq_id in list(self._left_alone):
            async with self.lanes.use(trajectory) as lane:
                work = self._left_alone.pop((trajectory, uniq_id), None)
                if work is not None and self.is_open:
                    self._enqueue(lane, work)

    def join(self, lane: Lane, work: Work) -> Pending:
        """Return the call that is under way with this id, or queue it."""
        work = self._left_alone.pop((lane.trajectory, work.uniq_id), work)
        pending = lane.by_id.get(work.uniq_id)
        if pending is None:
            return self._enqueue(lane, work)
        if pending.cancelled == BY_CALLER and not pending.is_begun:
            pending.cancelled = None  # somebody else wants it
        return pending

    def _enqueue(self, lane: Lane, work: Work) -> Pending:
        """Queue a call behind the others of its trajectory."""
        pending = Pending(work)
        lane.by_id[work.uniq_id] = pending
        lane.queue.append(pending)
        if not lane.is_busy:
            self.window.add(lane)
        return pending

    async def wait(self, lane: Lane, pending: Pending) -> ToolResult:
        """Wait for the result of a call; when nobody waits any more, it is given up."""
        pending.waiters += 1
        try:
            return await asyncio.shield(pending.done)
        except asyncio.CancelledError:
            if pending.waiters == 1 and not pending.done.done():
                self.cancel(lane, pending, BY_CALLER)
            raise
        finally:
            pending.waiters -= 1
            self.renew(lane)

    def cancel(self, lane: Lane, pending: Pending, reason: str) -> None:
        """Withdraw a call, or end it if it has begun."""
        if pending.is_ended or pending.cancelled is not None:
            return
        pending.cancelled = reason
        if lane.withdraw(pending):
            self.recorder.refuse(lane, pending, "")
        else:
            self._dispatcher.cancel(lane, pending)

    # Going on

    def _send(self, lanes: Sequence[Lane]) -> None:
        """Dispatch what waits at the head of lanes, in batches that are not too large."""
        most = room = max(1, self._config.max_batch_size)
        group: list[tuple[Lane, list[Pending]]] = []
        for lane in lanes:
            if lane.is_busy or not lane.queue:
                continue
            lane.is_busy = True
            head = lane.queue[0]
            if isinstance(head, Errand):
                lane.queue.popleft()
                self._begin(lane, head)
                continue
            calls = lane.ready(room)
            if calls[0].work.where != "slot":
                self._dispatcher.elsewhere(lane, calls)
                continue
            group.append((lane, calls))
            room -= len(calls)
            if room <= 0:
                self._dispatch(group)
                group, room = [], most
        if group:
            self._dispatch(group)

    def _dispatch(self, group: Sequence[tuple[Lane, list[Pending]]]) -> None:
        self._batches += 1
        self._dispatcher.dispatch(group)

    def _finished(self, lane: Lane) -> None:
        """Go on with a lane whose work has ended."""
        lane.is_busy = False
        lane.under_way = []
        if lane.queue:
            self.window.go_on(lane)
        else:
            self.lanes.let_go(lane)

    # Slots

    def leave(self, lane: Lane, leaving: Leaving) -> "asyncio.Future[None]":
        """Queue the wish to give the slot back, behind the calls; return when that is done."""
        return self._send_on(lane, lambda: self._dispatcher.leave(lane, leaving))

    def take(self, lane: Lane, slot: str) -> "asyncio.Future[None]":
        """Queue the wish for a certain slot, behind the calls; return when the trajectory has it."""
        return self._send_on(lane, lambda: self._dispatcher.take(lane, slot))

    def _send_on(self, lane: Lane, perform: Callable[[], Awaitable[None]]) -> "asyncio.Future[None]":
        errand = Errand(perform)
        lane.queue.append(errand)
        if not lane.is_busy:
            self.window.go_on(lane)
        return errand.done

    def _begin(self, lane: Lane, errand: Errand) -> None:
        def ended(_: object) -> None:
            if not errand.done.done():  # the task was cancelled before its first turn: its code has told nobody
                errand.done.set_exception(self.failure or UsageError(CLOSED))
                errand.done.exception()

        self._task(self._perform(lane, errand)).add_done_callback(ended)

    async def _perform(self, lane: Lane, errand: Errand) -> None:
        done = errand.done
        try:
            await errand.perform()
        except BaseException as error:
            if not done.done():
                is_ended = isinstance(error, asyncio.CancelledError)
                done.set_exception(self.failure or UsageError(CLOSED) if is_ended else error)
                done.exception()
            if not isinstance(error, Exception):
                raise
        else:
            if not done.done():
                done.set_result(None)
        finally:
            self._finished(lane)

    def run_ended(self, run: str) -> None:
        """Give the slot of a run's own trajectory back, now that the run has ended; its files stay while they can."""
        if any(view.trajectory == run for view in self.pool.views()):
            self._spawn(self._end_run(run))

    async def _end_run(self, run: str) -> None:
        async with self.lanes.use(run) as lane:
            self.cancel_all(lane, "its run has ended")
            self.leave(lane, Leaving(reset=False, because="run ended"))

    def cancel_all(self, lane: Lane, reason: str) -> None:
        """Withdraw or end every call of a lane."""
        for pending in lane.calls():
            self.cancel(lane, pending, reason)

    def renew(self, lane: Lane) -> None:
        """Note that the holder was heard of, where its lease ends."""
        state = lane.state
        if self.is_open and lane.lease_micros and state.slot is not None and state.lease is not None:
            self.pool.leases.renew(state.slot, state.lease, lane.lease_micros)

    def _expired(self, slot: str, trajectory: str, lease: int) -> None:
        lane = self.lanes.find(trajectory)
        if lane is not None and any(pending.waiters for pending in lane.calls()):
            self.pool.leases.renew(slot, lease, lane.lease_micros)  # its holder waits for an answer: it is there
            return
        _log.warning("a lease is over", slot=slot, trajectory=trajectory, lease=lease)
        self._spawn(self._expire(trajectory, lease))

    async def _expire(self, trajectory: str, lease: int) -> None:
        async with self.lanes.use(trajectory) as lane:
            if not self.is_open:
                return
            self.cancel_all(lane, "its lease is over")
            self.leave(lane, Leaving(reset=True, because="lease expired", lease=lease))

    def _lost(self, slot: str, trajectory: str) -> None:
        """End what still runs in a slot that its holder has lost."""
        lane = self.lanes.find(trajectory)
        for pending in [] if lane is None else lane.calls():
            if lane is not None and pending.slot == slot:
                self.cancel(lane, pending, "its slot was quarantined")

    # Looking

    def queue_size(self) -> int:
        """Return how many calls wait for their turn."""
        return sum(len(lane.queue) for lane in self.lanes)

    def statistics(self, requests: int, errors: int) -> SlotStatistics:
        """Return the figures."""
        return SlotStatistics(
            slots=dict(Counter(view.state for view in self.pool.views())),
            queued=self.queue_size(),
            running=sum(not pending.is_ended for lane in self.lanes for pending in lane.under_way),
            waiting=self.pool.waiting,
            trajectories=len(self.lanes),
            batches=self._batches,
            requests=requests,
            errors=errors,
            is_started=self.is_open,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._task(work)

    def _task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self.around.system.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, StoreError):
            _log.error("the executor failed at a piece of work", error=f"{type(error).__name__}: {error}")
