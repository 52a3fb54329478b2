"""The executor: calls of trajectories in, results out; batches them by a short window and keeps each one's order.

It never raises for what goes wrong with a call: that is its result. Invariants: a call's intent is durable before it is
dispatched, its outcome before its caller is told, and one `uniq_id` of a trajectory is executed once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.tools.definition import EffectClass
from perdure.actors.tools.registry import Registry
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.dispatching import check_turn
from perdure.runtime.sandbox.files import Files
from perdure.runtime.sandbox.finding import find_call, known_result
from perdure.runtime.sandbox.lane import Leaving, Work
from perdure.runtime.sandbox.pool import SlotPool
from perdure.runtime.sandbox.restarting import go_on
from perdure.runtime.sandbox.statistics import SlotStatistics
from perdure.runtime.sandbox.traffic import CLOSED, Traffic
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)
from perdure.store.errors import LogWriteError, PerdureError, UsageError
from perdure.store.expected import checked_but

LATENCIES_KEPT = 1_000

BY_CALLER = "its caller gave it up"

CallHere = Callable[[ToolCall, str, float], Awaitable[ToolResult]]
"""Calls a tool of this process: the call, the trajectory, the limit in seconds."""

CallServer = Callable[[ToolCall, str, float, str | None], Awaitable[ToolResult]]
"""Calls a tool on the tool server: the call, the trajectory, the limit in seconds, the slot."""

_log = logger("perdure.slots")


class Surroundings(msgspec.Struct, frozen=True, eq=False):
    """What a runtime lends to its executor."""

    system: ActorSystem
    redaction: Redaction
    call_here: CallHere | None = None
    call_server: CallServer | None = None


@checked_but("__init__")
class ToolExecutor:
    """Runs the tool calls of trajectories, in slots and elsewhere.

    `Runtime(sandbox=…)` makes one and keeps it as `rt.executor`.
    """

    def __init__(self, backend: Backend, tools: Registry, config: ExecutorConfig | None = None) -> None:
        self.backend = backend
        self.config = config or ExecutorConfig()
        self._tools = tools
        self._around: Surroundings | None = None
        """Those of the runtime that it belongs to; None: it belongs to none that is open."""
        self._traffic: Traffic | None = None
        self._turn: asyncio.Lock
        """Of starting and closing, which take a while."""
        self.total_requests = 0
        self.total_errors = 0
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)

    # Starting and stopping

    def attach(self, around: Surroundings) -> None:
        """Take what a runtime lends; once in a runtime's life."""
        self._around = around
        self._turn = asyncio.Lock()

    async def start(self, *, resume: bool = True) -> None:
        """Bring back the slots and trajectories of the log and take calls. Idempotent.

        What became of calls of a former life is found out in any case. Those that may run again do so now; without
        *resume* when they are made again, or `resume` is called.

        Raises:
            UsageError: it belongs to no open runtime.
            SandboxUnavailableError: this machine cannot isolate commands as asked.
            LogWriteError: the log failed.
        """
        if self._around is None:
            raise UsageError("this executor belongs to no runtime: pass the backend to one, Runtime(…, sandbox=…)")
        async with self._turn:
            if self._traffic is not None:
                return
            await self.backend.start()
            traffic = self._traffic = Traffic(self._around, self.backend, self._tools, self.config)
            traffic.is_resuming = resume
            try:
                await self._bring_back(traffic)
            except BaseException:
                await traffic.end_all(UsageError("the executor could not be started"))
                await self._let_go(traffic)
                raise

    async def _bring_back(self, traffic: Traffic) -> None:
        system = traffic.around.system
        traffic.window.hold()  # nothing is sent before every slot of the former life is in a known state
        await system.log.flush()
        held = await traffic.pool.open()
        await go_on(traffic, self.backend, held)
        if traffic.failure is not None:
            raise traffic.failure
        if self._around is None:
            raise UsageError(CLOSED)
        traffic.is_open = True
        traffic.window.release()
        await traffic.pool.make_ready()

    async def resume(self) -> None:
        """Run the calls again that `start(resume=False)` left alone, each trajectory's in their order.

        Raises:
            RuntimeError: it is not started.
        """
        await self._open().resume()

    def run_ended(self, run: str) -> None:
        """Give the slot of a run's own trajectory back, now that the run has ended; its files stay while they can."""
        if self._traffic is not None and self._traffic.is_open:
            self._traffic.run_ended(run)

    async def close(self) -> None:
        """Finish what is queued, then release every slot, emptied. `start` works again after it.

        Whoever calls meanwhile gets a result or an error, never silence.
        """
        if not self._is_attached:
            return
        async with self._turn:
            traffic = self._traffic
            if traffic is None or not self._is_attached:  # its runtime may have been closed meanwhile
                return
            try:
                await traffic.leave_all()
            finally:
                await self._let_go(traffic)

    async def detach(self) -> None:
        """Stop with the runtime: what runs is ended, and slots stay with their trajectories until the next start."""
        if self._around is None:
            return
        self._around = None
        if self._traffic is not None:
            await self._end(self._traffic)  # also what a `close` or a `start` that has begun waits for
        async with self._turn:
            if self._traffic is not None:
                await self._end(self._traffic)
                await self._let_go(self._traffic)

    @staticmethod
    async def _end(traffic: Traffic) -> None:
        await traffic.end_all(traffic.failure or UsageError(CLOSED))

    async def _let_go(self, traffic: Traffic) -> None:
        await traffic.let_go()
        self._traffic = None
        await self.backend.stop()

    @property
    def _is_attached(self) -> bool:
        return self._around is not None

    def log_failed(self, error: LogWriteError) -> None:
        """Stop: nothing that happens now can be recorded. Whoever waits is told, what runs is ended."""
        if self._traffic is not None:
            self._traffic.log_failed(error)

    def _open(self) -> Traffic:
        if self._traffic is None:
            raise UsageError("ToolExecutor not started (call start() first)")
        self._traffic.check_open()
        return self._traffic

    # Calls

    async def execute(
        self,
        trajectory_id: str,
        call: ToolCall,
        timeout_s: float | None = None,
        *,
        effect: EffectClass | None = None,
        lease_seconds: float | None = None,
        principal: str | None = None,
    ) -> ToolResult:
        """Run one call of a trajectory, after those made before it; its result is durable on return.

        The same `uniq_id` in the same trajectory is executed once, also after a restart: the result comes from the log.
        Cancelled before the call was dispatched, it never runs; after that its command is ended, and that is recorded.

        Args:
            trajectory_id: whose slot it runs in.
            call: what to run; the arguments are a model's, and are not trusted.
            timeout_s: the limit in seconds, within 1 to 600; else the argument `timeout`, else the backend's.
            effect: what a crash means for it; of a command `irreversible` unless said otherwise.
            lease_seconds: how long the trajectory keeps its slot when it is not heard of; None: until it is released.
            principal: who asks, as the log is to name them.

        Raises:
            RuntimeError: the executor is not started.
            UsageError: no trajectory can be called so, or the runtime was closed meanwhile.
            LogWriteError, BacklogFullError: the log refused.
        """
        traffic = self._open()
        began = time.monotonic()
        self.total_requests += 1
        try:
            work = traffic.admission.admit(call, timeout_s, effect)
            if isinstance(work, ToolResult):
                result = work
            else:
                work = msgspec.structs.replace(work, principal=principal)
                result = await self._execute(traffic, trajectory_id, work, lease_seconds)
        except PerdureError:
            self.total_errors += 1
            raise
        finally:
            self.latencies_s.append(time.monotonic() - began)
        if not result.success:
            self.total_errors += 1
        return msgspec.structs.replace(result, uniq_id=call.uniq_id)

    async def _execute(
        self, traffic: Traffic, trajectory_id: str, work: Work, lease_seconds: float | None
    ) -> ToolResult:
        async with traffic.lanes.use(trajectory_id) as lane:
            traffic.check_open()  # it may have been closed while the trajectory was read
            check_turn(lane)
            if lease_seconds is not None:
                lane.lease_micros = int(lease_seconds * SECOND)
            traffic.renew(lane)
            if (result := await known_result(traffic.around.system, lane, work.uniq_id)) is not None:
                return result
            traffic.check_open()  # from here on nothing is awaited before the call is in its lane
            if work.uniq_id not in lane.by_id and traffic.queue_size() >= self.config.max_queued:
                return ToolResult(success=False, error=f"{self.config.max_queued} calls wait already: try again later")
            return await traffic.wait(lane, traffic.join(lane, work))

    # Files

    async def read_artifact(
        self,
        trajectory_id: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> ArtifactReadResponsePayload:
        """Return a file of the trajectory's workspace; what goes wrong is in the reply."""
        traffic = self._open()
        async with traffic.lanes.use(trajectory_id) as lane:
            return await self._files(traffic).read(
                lane, path, encoding=encoding, max_bytes=max_bytes, include_sha256=include_sha256
            )

    async def list_artifacts(
        self, trajectory_id: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> ArtifactListResponsePayload:
        """Return what is in a folder of the trajectory's workspace, in the same way."""
        traffic = self._open()
        async with traffic.lanes.use(trajectory_id) as lane:
            return await self._files(traffic).list(lane, path, recursive=recursive, max_entries=max_entries)

    async def archive_artifacts(
        self,
        trajectory_id: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> ArtifactArchiveResponsePayload:
        """Return a folder of the trajectory's workspace as a tar.gz, in the same way."""
        traffic = self._open()
        async with traffic.lanes.use(trajectory_id) as lane:
            return await self._files(traffic).archive(
                lane, path, archive_format=archive_format, max_bytes=max_bytes, max_entries=max_entries
            )

    def _files(self, traffic: Traffic) -> Files:
        return Files(traffic.around.system, self.backend)

    # Slots

    async def take_slot(self, trajectory_id: str, slot: str) -> None:
        """Give a trajectory this very slot, before anybody who waits for one: for operators. Durable on return.

        Raises:
            SlotTransitionError: the slot is not free, or keeps another trajectory's files; or it has a slot already.
            SlotError: there is no such slot.
        """
        traffic = self._open()
        async with traffic.lanes.use(trajectory_id) as lane:
            traffic.check_open()
            await asyncio.shield(traffic.take(lane, slot))  # in its turn, so that nothing is sent there too early

    async def release_trajectory(
        self,
        trajectory_id: str,
        *,
        reset_workspace: bool = False,
        cancel: bool = False,
        because: str = "released",
        principal: str | None = None,
    ) -> None:
        """Give a trajectory's slot back, once its calls have ended; with *cancel*, end them. Durable on return.

        Without *reset_workspace* the files stay for this trajectory alone: if it comes back before anybody else needed
        the slot it finds them. Without a slot nothing happens. Once asked for, it is done, whoever waits for it.

        Raises:
            RuntimeError: the executor is not started.
            ResetFailedError: the workspace could not be emptied; the slot is quarantined.
        """
        traffic = self._open()
        async with traffic.lanes.use(trajectory_id) as lane:
            traffic.check_open()
            check_turn(lane)
            if cancel:
                traffic.cancel_all(lane, "its trajectory was released")
            leaving = Leaving(reset=reset_workspace, because=because, principal=principal)
            await asyncio.shield(traffic.leave(lane, leaving))

    async def find(self, uniq_id: str) -> ToolResult | None:
        """Return what became of a call of an open trajectory, waiting for it where it runs; None: it never began.

        Raises:
            ExecutionInDoubtError: it was begun, and nobody knows how it ended.
        """
        traffic = self._open()
        found = await find_call(traffic.around.system, traffic.lanes, uniq_id)
        return await traffic.wait(*found) if isinstance(found, tuple) else found

    # Looking

    @property
    def pool(self) -> SlotPool:
        """The slots.

        Raises:
            RuntimeError: the executor is not started.
        """
        return self._open().pool

    def queue_size(self) -> int:
        """Return how many calls wait for their turn."""
        return 0 if self._traffic is None else self._traffic.queue_size()

    def statistics(self) -> SlotStatistics:
        """Return the figures."""
        requests, errors = self.total_requests, self.total_errors
        return (
            SlotStatistics(requests=requests, errors=errors)
            if self._traffic is None
            else self._traffic.statistics(requests, errors)
        )

    def status(self) -> dict[str, Any]:
        """Return the figures that the executor's server shows."""
        return self.statistics().as_status()
