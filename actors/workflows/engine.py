"""The runs of one runtime: starts, resumes, interrupts and settles them, and tells those who wait for their ends.

Resuming is not a special path: a run that was just started, one that slept and one that a crash interrupted all go
through `drive`, with more or less recorded (`resuming.py`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Effect
from perdure.actors.kernel.payloads import encode_payload
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem, Interpreter
from perdure.actors.state.goals import GoalBook
from perdure.actors.tools.invoke import Invoker
from perdure.actors.tools.registry import Registry
from perdure.actors.triggers.exchange import Exchange
from perdure.actors.workflows.agents.pool import Agents
from perdure.actors.workflows.beside import BesideRuns
from perdure.actors.workflows.commands import (
    Arrived,
    ChildReported,
    Conclude,
    Enqueue,
    Interrupt,
    Launch,
    Pause,
    Settled,
    Wake,
)
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.driver import Driver
from perdure.actors.workflows.endings import Abandoned, Ending, Pausing, Suspending
from perdure.actors.workflows.errors import UnknownWorkflowError
from perdure.actors.workflows.failures import Failures
from perdure.actors.workflows.idling import only_expect
from perdure.actors.workflows.kin import Kin
from perdure.actors.workflows.lines import queued
from perdure.actors.workflows.queue import Queue
from perdure.actors.workflows.queues import Queues, Shared
from perdure.actors.workflows.recording import Recording
from perdure.actors.workflows.resuming import Resumer
from perdure.actors.workflows.state import ATTENTION, CLOSED, RunState, view
from perdure.actors.workflows.steering import is_held
from perdure.actors.workflows.toolbox import Toolbox
from perdure.actors.workflows.waiters import Waiters
from perdure.store.errors import LogWriteError, PerdureError, UsageError

T = TypeVar("T")


_log = logger("perdure.runs")


class Engine:
    """Drives the runs that are in memory."""

    def __init__(  # noqa: PLR0913 - what it is made of, made in one place
        self,
        tools: Registry,
        workflows: Mapping[str, Workflow[..., Any]],
        invoker: Invoker,
        clock: Clock,
        *,
        park_after: timedelta,
        max_active: int,
        queues: Iterable[Queue] = (),
        shared: Shared | None = None,
    ) -> None:
        self.toolbox = Toolbox(tools)
        self.resumer = Resumer(self)
        self.kin = Kin(self)
        self.exchange = Exchange(clock)
        self.exchange.on_idle = self.check_idle
        self.queues = Queues(self, queues, shared)
        self.workflows = workflows
        self.agents: Agents
        """Whom steps of definitions call."""
        self.goals = GoalBook()
        """What runs may pursue."""
        self.invoker = invoker
        self.redaction = invoker.redaction
        self.clock = clock
        self.park_after = park_after // timedelta(microseconds=1)
        self.life = 0
        """The position at which this life of the runtime began: tells its calls from those of former ones."""
        self.system: ActorSystem
        self._drivers: dict[str, Driver] = {}
        self.failures = Failures()
        self.waiters = Waiters()
        self.beside = BesideRuns(lambda: self.system.loop)
        self._max_active = max_active
        self._sentinel: asyncio.Task[Any]
        self._is_stopping = False
        self._idle: Answer[None] | None = None
        self.on_parked: Callable[[int], None] = lambda _: None
        """Told the time at which a run that left memory wants to be woken."""
        self.on_closed: Callable[[str], None] = lambda _: None
        """Told the run that has ended for good, which is durable."""

    @property
    def interpreters(self) -> Mapping[type[Effect], Interpreter]:
        """The effects of runs, and what performs them."""
        return {
            Launch: self._launch, Interrupt: self._interrupt, Settled: self._settled, Arrived: self._arrived,
            Pause: self._pause, Wake: self._wake, Enqueue: self._enqueue,
            ChildReported: self.kin.reported, Conclude: self.kin.conclude,
        }  # fmt: skip

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._is_stopping

    @property
    def is_loop_ending(self) -> bool:
        """Whether somebody cancels all tasks of the loop, as `asyncio.run` does when its coroutine has ended."""
        return self._sentinel.cancelling() > 0

    def __len__(self) -> int:
        """Return how many runs are in memory with their code."""
        return len(self._drivers)

    async def attach(self, system: ActorSystem, life: int) -> None:
        """Take up the work on a log; the actors of all registered tools are in memory on return."""
        self.system, self.life = system, life
        self._sentinel = system.loop.create_task(asyncio.Event().wait(), name="perdure sentinel")
        self.exchange.attach(system)
        await self.toolbox.attach(system)

    def workflow(self, name: str) -> Workflow[..., Any]:
        """Return a registered workflow.

        Raises:
            UnknownWorkflowError: there is none of that name.
        """
        try:
            return self.workflows[name]
        except KeyError:
            known = ", ".join(sorted(self.workflows)) or "none"
            raise UnknownWorkflowError(workflow=name, known=known) from None

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as JSON, redacted.

        Raises:
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        return encode_payload(value, where=where, redaction=self.redaction)

    # Starting

    def _launch(self, shell: Shell, effect: Launch) -> None:
        if shell.state.paused is not None:
            return  # it was paused before its code came to run
        if not self.room:
            self.resumer.defer(shell.stream)
        elif effect.is_fork:
            self.resumer.resume_soon(shell.stream)  # what it takes over has to be read
        else:
            given = self.workflow(shell.state.workflow).decode_input(effect.input)
            recording = Recording()
            recording.began_at = effect.position
            self.drive(shell, recording, given, effect.principal)

    def _enqueue(self, shell: Shell, effect: Enqueue) -> None:
        state, place = shell.state, effect.place
        if state.status == "queued":
            self.queues.add([queued(state.run, place, effect.at)])
            if state.deadline is not None:
                self.on_parked(state.deadline)

    def drive(self, shell: Shell, recording: Recording, given: dict[str, Any], principal: str | None) -> Driver | None:
        """Run the code of a run whose start, or resume, is durable."""
        state = shell.state
        if self._is_stopping or state.run in self._drivers or state.status in CLOSED:
            return None
        workflow = self.workflow(state.workflow)
        driver = Driver(self, shell, workflow, given, recording, principal)
        self._drivers[state.run] = driver
        self.queues.entered(state.run, state.place)
        driver.launch()
        return driver

    def has(self, run: str) -> bool:
        """Return whether the run's code is in memory."""
        return run in self._drivers

    def driver(self, run: str) -> Driver | None:
        """Return what runs the code of a run, if that is in memory."""
        return self._drivers.get(run)

    @property
    def places(self) -> int:
        """How many runs may be in memory at the same time."""
        return self._max_active

    @property
    def room(self) -> int:
        """How many more runs may come into memory; one that only waits for its children lends them its place."""
        return max(0, self._max_active - len(self._drivers) + len(self.kin.lenders))

    # Interrupting

    def _interrupt(self, shell: Shell, effect: Interrupt) -> None:
        del effect
        driver = self._drivers.get(shell.state.run)
        if driver is not None:
            driver.cancel(shell.state.cancel_reason)
        elif shell.state.status in CLOSED:  # it waited for its turn: there is no code to tell
            self.queues.discard(shell.state.run, shell.state.place)
            self._is_durable(shell)
        else:
            self.resumer.resume_soon(shell.stream)  # its code takes itself down where its recording ends

    def _pause(self, shell: Shell, effect: Pause) -> None:
        del effect
        driver = self._drivers.get(shell.state.run)
        if driver is not None and shell.state.paused is not None:
            driver.stop_at_next_step(Pausing())

    def _wake(self, shell: Shell, effect: Wake) -> None:
        del effect
        if shell.state.status == "queued":
            self.queues.add([queued(shell.state.run, shell.state.place, self.clock.moment().now)])
        elif shell.state.run not in self._drivers:  # one that is still leaving finds at its end that it may go on
            self.resumer.resume_soon(shell.stream)

    def _settled(self, shell: Shell, effect: Settled) -> None:
        driver = self._drivers.get(shell.state.run)
        if driver is not None:
            driver.settled(effect.step, effect.verdict)
        else:
            self._wake_sleeper(shell)

    def _arrived(self, shell: Shell, effect: Arrived) -> None:
        driver = self._drivers.get(shell.state.run)
        if driver is not None:
            driver.arrived(effect.answer)
        else:
            self._wake_sleeper(shell)

    def _wake_sleeper(self, shell: Shell) -> None:
        if shell.state.status != "queued":  # one that was retried and waits for its turn finds it then
            self.resumer.resume_soon(shell.stream)

    # Ends

    def ended(self, driver: Driver) -> None:
        """Take a driver out of memory; tell those who wait once its end is durable."""
        self._drivers.pop(driver.run_id, None)
        self.resumer.fill_places()
        self.queues.left(driver.run_id, driver.shell.state.place)
        self.check_idle()
        shell = driver.shell
        barrier = self.system.log.barrier()
        if barrier is None:
            self._is_durable(shell)
        else:
            shell.pins += 1
            barrier.on_settled(lambda ticket: self._unpin(shell, ticket.error))

    def _unpin(self, shell: Shell, error: BaseException | None) -> None:
        shell.pins -= 1
        if error is None:
            self._is_durable(shell)
        else:
            self.waiters.tell(shell.state.run, error)

    def _is_durable(self, shell: Shell) -> None:
        state = shell.state
        if state.status in CLOSED or state.status == "blocked":
            self.waiters.tell(state.run, view(state))
            if state.status in CLOSED:
                self.on_closed(state.run)
        elif state.status == "waiting" and self._may_go_on(state) and not self._is_stopping:
            self.resumer.resume_soon(shell.stream)  # somebody cancelled, settled or told it while it was leaving
            return
        elif state.status == "waiting" and state.wake_at is not None:
            self.on_parked(state.wake_at)
        if not self._is_stopping:
            self.system.directory.passivate(shell)

    def _may_go_on(self, state: RunState) -> bool:
        """Return whether a run that waits has already got what it waits for."""
        if is_held(state, self.clock.moment().now):
            return False
        is_settled = state.waits_on == ATTENTION and not any(flight.in_doubt for flight in state.in_flight.values())
        is_due = state.wake_at is not None and state.wake_at <= self.clock.moment().now
        return is_settled or is_due

    def has_paused(self, shell: Shell) -> None:
        """Tell those who wait for it that a run has paused itself, once that is durable."""
        answer = self.waiters.take_pause_of(shell.state.run)
        if answer is not None:
            self.system.reply(answer, view(shell.state), self.system.log.barrier())

    def until_idle(self) -> Answer[None]:
        """Return the answer to come when no run in memory can go on by itself, and none is being brought back."""
        self._idle = self._idle or Answer()
        idle = self._idle
        self.check_idle()
        return idle

    def check_idle(self) -> None:
        """Tell those who wait for it when there is nothing going on any more."""
        if self._idle is None or self.resumer.is_busy or self.kin.is_busy or self.exchange.is_busy:
            return
        if self._drivers:
            if not only_expect(self._drivers.values(), self.kin):
                return
            if (barrier := self.system.log.barrier()) is not None:
                barrier.on_settled(lambda _: self.check_idle())  # it may come to something for one of them
                return
        idle, self._idle = self._idle, None
        idle.set()

    def abandoned(self, driver: Driver, error: PerdureError) -> None:
        """Tell those who wait for a run that the log failed."""
        self.waiters.tell(driver.run_id, error)

    def log_failed(self, error: LogWriteError) -> None:
        """Take every run down as it is and tell those who wait: nothing can be recorded any more."""
        self._is_stopping = True
        self._take_down(self._drivers.values(), Abandoned())
        self.beside.cancel()
        self.waiters.tell_all(lambda _: error)

    # Stop

    async def stop(self, drain_seconds: float) -> None:
        """Let steps in flight end for a while, then take every run down; their code goes on in the next life."""
        self._is_stopping = True
        self.queues.stop()
        self.beside.cancel_waits()
        await self.exchange.stop()
        await self.resumer.stop()
        await self.kin.stop()
        tasks = {d.task for d in self._drivers.values() if d.task is not None}
        for driver in list(self._drivers.values()):
            if driver.run_id in self.kin.expecting:
                driver.consider_parking()  # it waits, and is not to be brought back before a child has ended
            driver.stop_at_next_step()
        await _settle(tasks | self.beside.effects, drain_seconds)
        self._take_down(self._drivers.values(), Suspending())
        self.beside.cancel()
        await _settle(tasks | self.beside.all, None)
        self._sentinel.cancel()
        self.waiters.tell_all(_closed_while_open)

    def _take_down(self, drivers: Iterable[Driver], ending: Ending) -> None:
        for driver in list(drivers):
            driver.take_down(ending)


async def _settle(tasks: "set[asyncio.Task[Any]]", timeout: float | None) -> None:
    pending = {task for task in tasks if not task.done()}
    if pending:
        await asyncio.wait(pending, timeout=timeout)


def _closed_while_open(run: str) -> UsageError:
    return UsageError(f"the runtime was closed while run {run} was open; open it again and ask")
