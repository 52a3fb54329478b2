"""The way between the actors of runs that know one another: starts of children, ends for parents, runs that go on anew.

The rules are the actors' own (`children.py`, `run.py`). Invariant: what two runs record of one another is one unit; an
end that could not be, since the parent was not to be read, is owed and told when the log is opened again.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.shell import Shell
from perdure.actors.state.operations import shelf_or_empty
from perdure.actors.workflows.children import RunEnd, continued_id, ending
from perdure.actors.workflows.commands import (
    CancelRun,
    ChildReported,
    Conclude,
    EndChild,
    EndRun,
    Note,
    StartRun,
    TellParent,
)
from perdure.actors.workflows.entering import end_for_entry, handed_on, tell_entry
from perdure.actors.workflows.errors import RunContinuedError
from perdure.actors.workflows.events import RunParked
from perdure.actors.workflows.links import Chain, ChildStarted, Parent, ParentTold, RunContinued
from perdure.actors.workflows.mail import SignalReceived
from perdure.actors.workflows.mailbox import Kept
from perdure.actors.workflows.state import RunState, owes, report
from perdure.actors.workflows.steering import PAUSED
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.records import StreamId

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.engine import Engine

_log = logger("perdure.runs")


class Succession(msgspec.Struct, frozen=True):
    """The input with which a run goes on anew."""

    input: bytes
    digest: str


class Kin:
    """Parents, children and successors of the runs of an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.lenders: set[str] = set()
        """Runs in memory that only wait for their children, to whom they lend their places."""
        self.expecting: set[str] = set()
        """Those of them that nothing else wakes for as long as they stay in memory."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way between runs."""
        return bool(self._tasks)

    async def shell(self, run: str) -> Shell:
        """Return the actor of a run, which need not have started; it is in memory as long as nothing is awaited.

        Raises:
            UnknownTagError, UndecodableEventError, ActorFailedError: it cannot be read.
            LogWriteError, LogClosedError: the log failed.
        """
        return await self._engine.system.directory.bring(StreamId(f"run/{run}"))

    # Children

    def start(self, driver: "Driver", started: ChildStarted, child: Shell, data: bytes, deadline: int | None) -> None:
        """Start a child: one unit with what the parent records of it.

        Raises:
            Parked: the log takes no more.
        """
        parent = Parent(driver.run_id, started.step, started.is_awaited)
        start = StartRun(
            started.workflow,
            msgspec.Raw(data),
            started.digest,
            self._engine.life,
            deadline,
            driver.conversation,
            driver.principal,
            parent=parent,
            entrance=driver.shell.state.entrance,
        )
        moves = ((driver.shell, Note(started)), (child, start))
        driver.record(*moves, principal=driver.principal, causation=_newest(driver.shell))

    async def end(self, driver: "Driver", fact: RunEnd) -> None:
        """Record how a run ended, and tell the parent that awaits it, or the entry point that started it.

        Raises:
            Parked: the log takes no more.
        """
        parent = driver.shell.state.parent
        if parent is None and driver.shell.state.entrance is not None:
            await end_for_entry(driver, fact)
            return
        shell = None if parent is None or not parent.is_awaited else await self._parent(driver, parent.run)
        if shell is None or parent is None or driver.shell.state.is_parent_told:
            driver.note(fact)
            return
        told = ending(driver.run_id, parent.step, fact)
        moves = ((driver.shell, EndRun(fact, ParentTold(parent.run, parent.step))), (shell, EndChild(told)))
        driver.record(*moves, causation=_newest(driver.shell))

    async def _parent(self, driver: "Driver", run: str) -> Shell | None:
        try:
            return await self.shell(run)
        except (LogWriteError, LogClosedError) as error:
            driver.log_failed(error)
        except PerdureError as error:
            _log.error("a run could not be told how its child ended", run=run, child=driver.run_id, error=str(error))
            return None

    def reported(self, shell: Shell, effect: ChildReported) -> None:
        """Hand the end of a child to the code that awaits it, waking it if it sleeps."""
        driver = self._engine.driver(shell.state.run)
        if driver is not None:
            driver.offspring.reported(effect.ended)
        else:
            self._engine.resumer.resume_soon(shell.stream)

    def cancel(self, run: str, reason: str) -> None:
        """Ask a run, or the one that it goes on as, to be cancelled; in the background."""
        self._spawn(self._cancel(run, reason))

    async def _cancel(self, run: str, reason: str) -> None:
        following: str | None = run
        while following is not None:
            run, following = following, None
            try:
                await self._engine.system.ref(StreamId(f"run/{run}")).ask(CancelRun(reason), correlation=run)
            except RunContinuedError as error:
                following = error.following

    # What is owed after the end

    def conclude(self, shell: Shell, effect: Conclude | None = None) -> None:
        """Settle what an ended run owes: who started it is told, its children are cancelled; in the background."""
        del effect
        if owes(shell.state):
            self._spawn(self._conclude(shell))

    async def _conclude(self, shell: Shell) -> None:
        shell.pins += 1
        try:
            await self._tell(shell)
            await tell_entry(self._engine.system, shell)
            state: RunState = shell.state
            for child in state.children.awaited.values():
                await self._cancel(child, f"run {state.run}, which awaits it, is {state.status}")
        finally:
            shell.pins -= 1

    async def _tell(self, shell: Shell) -> None:
        state: RunState = shell.state
        if report(state) is None or state.parent is None:
            return
        parent = await self.shell(state.parent.run)
        if (told := report(shell.state)) is not None:
            moves = ((shell, TellParent()), (parent, EndChild(told)))
            causation = _newest(shell)
            self._engine.system.transact(moves, correlation=state.run, causation=causation, is_refusable=False)

    # Going on anew

    async def succeed(self, driver: "Driver", succession: Succession) -> None:
        """End a run that goes on as a new one: one unit with the start of the new one, which gets the unread signals.

        A run that is to be cancelled meanwhile ends as cancelled, and one that is paused goes on when it is resumed.

        Raises:
            Parked: the log takes no more.
        """
        chain = driver.shell.state.chain
        first, number = (driver.run_id, 1) if chain is None else (chain.first, chain.number)
        shell = driver.shell
        while shell.state.status != "unborn":
            number += 1
            shell = await self._successor(driver, continued_id(first, number))
        if (fact := driver.cancelled()) is not None:
            await self.end(driver, fact)
            return
        state: RunState = driver.shell.state
        if state.paused is not None:
            driver.note(RunParked(state.deadline, PAUSED))  # it comes here again once it is let go
            return
        start = StartRun(
            state.workflow,
            msgspec.Raw(succession.input),
            succession.digest,
            self._engine.life,
            state.deadline,
            driver.conversation,
            driver.principal,
            place=state.place,
            parent=state.parent,
            chain=Chain(first, state.run, number),
            mail=(
                *_moved(state.mailbox.kept),
                *state.events.moved(driver.recording.began_at),
                *shelf_or_empty(state.shelf).moved(),
            ),
            entrance=handed_on(state),
        )
        moves = ((driver.shell, EndRun(RunContinued(shell.state.run))), (shell, start))
        driver.record(*moves, principal=driver.principal, causation=_newest(driver.shell))

    async def _successor(self, driver: "Driver", run: str) -> Shell:
        try:
            return await self.shell(run)
        except (LogWriteError, LogClosedError) as error:
            driver.log_failed(error)

    # Background

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._engine.is_stopping:
            work.close()
            return  # it is owed, and done when the log is opened again
        task = self._engine.system.loop.create_task(work, name="perdure kin")
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._engine.check_idle()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a run could not be told of another", error=str(error), exception=account_of(error))

    async def stop(self) -> None:
        """Tell nobody any more: what is owed is told in the next life."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _newest(shell: Shell) -> str:
    # An event that caused itself would send whoever follows causes round in circles: it is the one before.
    return f"{shell.stream}#{shell.version}"


def _moved(kept: tuple[Kept, ...]) -> tuple[SignalReceived, ...]:
    """Return signals as they come to another run, in their order; those without an id of their own get new ones."""
    return tuple(
        SignalReceived(f"#{n}" if one.id.startswith("#") else one.id, one.name, msgspec.Raw(one.value.encode()), one.at)
        for n, one in enumerate(kept, 1)
    )
