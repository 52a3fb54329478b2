"""What a runtime is made of, put together, opened and closed in order.

Not here: what an application asks of it (`app.py`). Invariant: whatever fails while it opens, what was opened before
is closed again, the log last.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.tools.invoke import Invoker
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.tools.tool import GetToolStatistics
from perdure.actors.workflows.agents.agent import HOME, Agent
from perdure.actors.workflows.agents.pool import Agents
from perdure.actors.workflows.defined.registry import Workflows
from perdure.actors.workflows.engine import Engine
from perdure.actors.workflows.queue import Queue
from perdure.runtime.attachment import Attachment
from perdure.runtime.clock import HandMoved
from perdure.runtime.control.server import ControlServer
from perdure.runtime.life import RUNTIME, CloseRuntime
from perdure.runtime.opening import begin_life, make_system, start_clock
from perdure.runtime.recovery import Reconciler
from perdure.runtime.rehearsing import CheckedRun, check_runs
from perdure.runtime.sandbox.executor import ToolExecutor
from perdure.runtime.sandbox.tools import RUNTIME as RUNNING
from perdure.runtime.sandbox.wiring import Wiring
from perdure.runtime.settings import Settings
from perdure.runtime.threads import WorkerThreads
from perdure.runtime.views import views
from perdure.store.errors import LogWriteError, PerdureError, UsageError
from perdure.store.looking import LogOnlyRead
from perdure.store.protocols import EventLog
from perdure.store.reader import LogReader
from perdure.store.sqlite import SqliteEventLog

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

_log = logger("perdure.runtime")

OpenLog: TypeAlias = Callable[[Callable[[LogWriteError], None]], Awaitable[EventLog]]
"""Opens a log; it is given whom to tell, before anybody else, that the log takes no more writes."""


class Parts(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """What an application brings along."""

    path: Path
    settings: Settings
    tools: Registry
    agents: Agents
    workflows: Workflows
    queues: dict[str, Queue]
    secrets: Callable[[str], str | None]
    redaction: Redaction
    clock: Clock
    open_log: OpenLog | None
    executor: ToolExecutor | None
    resume: bool


class Machinery:
    """The log, the actors, the engine and what surrounds them; all of it is there once it is open."""

    def __init__(self, home: "Runtime", parts: Parts) -> None:
        self._home = home
        self.parts = parts
        self.is_open = False
        self.failure: LogWriteError | None = None
        """Why the log takes no more writes, since it was last opened."""
        self.log: EventLog
        self.engine: Engine
        self.system: ActorSystem
        self.reconciler: Reconciler
        self.threads: WorkerThreads
        self._pid = 0
        """Of the process that opened it: a forked child has a copy, and neither the lock nor the threads."""
        self._wiring: Wiring | None = None
        self._control: ControlServer | None = None
        self.attachments: list[Attachment] = []
        """What works beside the runs, in the order in which it is opened; closed in the opposite one, before them."""
        self._attached: list[Attachment] = []
        self._turn: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def check_open(self) -> None:
        """Do nothing if it is open, and belongs to this process.

        Raises:
            UsageError: it is not, or does not.
        """
        if not self.is_open:
            raise UsageError("the runtime is not open: write `async with Runtime(…) as rt:` and use rt inside")
        if os.getpid() != self._pid:
            detail = f"process {self._pid} opened this runtime and is its owner: a forked child cannot use it"
            raise UsageError(f"{detail}; read the log with `perdure ps`, or let the parent do the work")

    # Opening

    def turn(self) -> asyncio.Lock:
        """Return what those who open it at the same time take turns by."""
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = (loop, asyncio.Lock())
        return self._turn[1]

    async def open(self) -> None:
        """Open the log and bring back what was going on. See `Runtime.__aenter__`."""
        if self.is_open:
            raise UsageError("this runtime is open already: make another one for another file")
        parts = self.parts
        self._pid, self.failure = os.getpid(), None
        self.log = await self._open_log()
        try:
            if parts.open_log is None:  # only the file's owner, who holds its lock, may have its socket
                self._control = ControlServer.bind(self._home, parts.path, is_wanted=parts.settings.socket)
            await self._wire()
        except BaseException:
            await self._hang_up()
            self._leave_clock()
            await self.log.close()
            raise
        self.is_open = True
        try:
            await self._begin()
        except BaseException:
            await self.close()
            raise
        if self._control is not None:
            self._control.listen()

    async def _open_log(self) -> EventLog:
        parts = self.parts
        if parts.open_log is not None:
            return await parts.open_log(self._log_failed)
        return await SqliteEventLog.open(
            parts.path, synchronous=parts.settings.synchronous, on_failure=self._log_failed, views=views()
        )

    async def _make_engine(self) -> None:
        parts, log = self.parts, self.log
        await start_clock(parts.clock, log)
        self.threads = WorkerThreads(parts.settings.worker_threads)
        if isinstance(parts.clock, HandMoved):
            parts.clock.attach(self._settle)
        invoker = Invoker(self.threads, parts.redaction, parts.secrets, parts.clock)
        invoker.prepare = self._prepare_call
        self.engine = Engine(
            parts.tools,
            parts.workflows,
            invoker,
            parts.clock,
            park_after=parts.settings.park_after,
            max_active=parts.settings.max_active_runs,
            queues=(*parts.queues.values(), *self._home.entry_points.queues()),
            shared=self._home.entry_points.shared(),
        )
        self.engine.agents = parts.agents
        self.engine.goals = self._home.goals.book
        interpreters = self._home.events.interpreters
        self.system = make_system(log, self.engine, parts.tools, parts.clock, parts.settings, interpreters)

    async def _wire(self) -> None:
        await self._make_engine()
        try:
            await self._begin_life()
        except BaseException:
            if self.engine.life:
                await self.engine.stop(0)
            with contextlib.suppress(PerdureError):  # what failed is told already
                await self.system.stop()
            self.threads.close()
            raise

    async def _begin_life(self) -> None:
        parts, log = self.parts, self.log
        await begin_life(log, self.system, self.engine)
        self.reconciler = Reconciler(log, self.engine, parts.clock, interrupted=parts.settings.interrupted)
        if (executor := parts.executor) is not None:
            self._wiring = Wiring(self.engine, parts.tools, parts.redaction, executor.backend, executor.config)
            executor.attach(self._wiring.surroundings(self.system))
            self.engine.on_closed = executor.run_ended

    async def _begin(self) -> None:
        parts = self.parts
        await parts.agents.open(self.threads, parts.clock, self.agent_figures)
        if parts.executor is not None:
            await parts.executor.start(resume=parts.resume)
        if parts.resume:
            await self.reconciler.resume_open()
        else:
            self.engine.queues.open()
        for attachment in self.attachments:
            self._attached.append(attachment)
            await attachment.open()

    def _prepare_call(self) -> None:
        """Set what a tool may find in the context of its call."""
        HOME.set(self.parts.agents)
        if self.parts.executor is not None:
            RUNNING.set(self._home)

    async def agent_figures(self, agent: Agent) -> ToolStatistics:
        """Return the figures of the tool that an agent is called by."""
        figures: ToolStatistics = await self._home.ask(agent.tool.stream(None), GetToolStatistics())
        return figures

    # Closing

    async def close(self) -> None:
        """Stop in good order. See `Runtime.close`."""
        if not self.is_open:
            return
        self.is_open = False
        if os.getpid() != self._pid:
            return
        try:
            if self._control is not None:
                self._control.close_begins()
            while self._attached:
                await self._attached[-1].close()
                self._attached.pop()
            await self.reconciler.stop()
            await self.engine.stop(self.parts.settings.drain.total_seconds())
            await self._hang_up()
            await self._detach()
            self.system.ref(RUNTIME).tell(CloseRuntime())
            await self.system.stop()
        except BaseException:
            await self._cut_short()
            raise
        finally:
            await self._hang_up()
            self.threads.close()
            await self.log.close()
            self._leave_clock()

    async def abandon(self) -> None:
        """End as `kill -9` would. See `Runtime.abandon`."""
        if not self.is_open:
            return
        self.is_open = False
        self.log.abandon()
        if self._control is not None:
            await self._control.abandon()
        self._fail(LogWriteError(detail="the runtime was abandoned"))
        await self._cut_short()
        self.threads.close()
        self._leave_clock()

    async def _cut_short(self) -> None:
        """End at once what is left of it."""
        while self._attached:
            await self._attached.pop().abandon()
        await self.reconciler.stop()
        await self.engine.stop(0)
        await self._detach()
        with contextlib.suppress(LogWriteError):
            await self.system.stop()

    async def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close_begins()
            await control.close()

    async def _detach(self) -> None:
        await self.parts.agents.close()
        if self.parts.executor is not None:
            await self.parts.executor.detach()
        if self._wiring is not None:
            await self._wiring.aclose()

    async def _settle(self) -> bool:
        """Wait until no other thread works for this runtime; return whether one did."""
        return any([await self.log.settle(), await self.threads.flights.settle()])

    def _leave_clock(self) -> None:
        if isinstance(self.parts.clock, HandMoved):
            self.parts.clock.detach(self._settle)

    def _log_failed(self, error: BaseException) -> None:
        _log.error("the log failed: the runtime stops", error=str(error))
        failure = LogWriteError(detail=error.detail if isinstance(error, LogWriteError) else str(error))
        self.failure = failure
        for attachment in self._attached:
            attachment.log_failed()
        if self.is_open:
            self._fail(failure)

    def _fail(self, failure: LogWriteError) -> None:
        self.failure = failure
        self.engine.log_failed(failure)
        if self.parts.executor is not None:
            self.parts.executor.log_failed(failure)

    # Rehearsing

    async def check(self) -> list[CheckedRun]:
        """Play the open runs without opening. See `Runtime.check`."""
        if self.is_open or self.parts.open_log is not None:
            raise UsageError("check() is for a runtime on a file that is not open yet: Runtime('agents.db', …)")
        with LogReader.open(self.parts.path) as reader:
            self.log = LogOnlyRead(reader)
            await self._make_engine()
            try:
                await self.engine.attach(self.system, 0)
                return await check_runs(self.engine, self.log)
            finally:
                await self.engine.stop(0)
                self.threads.close()
                self._leave_clock()
