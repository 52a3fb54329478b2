"""The way from a run that an entry point started to that entry point: it is told of the end, in one unit with it.

The rules are the actors' own (`run.py`, `triggers/entry_point.py`). Invariant: an end is told once; one that could not
be with the end itself, since the entry point was not to be read, is owed and told when the log is opened again.
"""

from typing import TYPE_CHECKING, assert_never

import msgspec

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.triggers.entry_point import NoteRunEnded, entry_stream
from perdure.actors.workflows.children import RunEnd
from perdure.actors.workflows.commands import EndRun, TellEntry
from perdure.actors.workflows.entrance import Entrance
from perdure.actors.workflows.events import RunCancelled, RunCompleted, RunFailed
from perdure.actors.workflows.links import ChildStatus, EntryTold
from perdure.actors.workflows.state import RunState, untold_entry
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError

if TYPE_CHECKING:
    from perdure.actors.kernel.system import ActorSystem
    from perdure.actors.workflows.driver import Driver

_log = logger("perdure.runs")


def execution_of(state: RunState) -> str:
    """Return what its entry point knows a run by: its id, or that of the run that it goes on for."""
    return state.run if state.chain is None else state.chain.first


def handed_on(state: RunState) -> Entrance | None:
    """Return the entrance of the run that a run goes on as: with how that ended before, where it was tried again."""
    told = state.entry_told
    if state.entrance is None or told is None:
        return state.entrance
    return msgspec.structs.replace(state.entrance, before=told.status)


async def end_for_entry(driver: "Driver", fact: RunEnd) -> None:
    """Record how a run ended, and tell the entry point that started it.

    Raises:
        Parked: the log takes no more.
    """
    state: RunState = driver.shell.state
    entry = await _shell(driver) if state.forked_from is None else None
    if entry is None:
        driver.note(fact)
        return
    told, note = _words(driver.shell.state, _status(fact), entry, driver.engine.clock.moment().now)
    driver.record((entry, note), (driver.shell, EndRun(fact, told)))


async def tell_entry(system: "ActorSystem", shell: Shell) -> None:
    """Tell the entry point of a run that has ended, if that is still owed.

    Raises:
        PerdureError: it cannot be read, or the log takes no more.
    """
    owed = untold_entry(shell.state)
    if owed is None:
        return
    entry = await system.directory.bring(entry_stream(owed.entry))
    state: RunState = shell.state
    if untold_entry(state) is not None and state.status in ("completed", "failed", "cancelled"):
        told, note = _words(state, state.status, entry, system.clock.moment().now)
        system.transact(((entry, note), (shell, TellEntry(told))), correlation=state.run, is_refusable=False)


def _words(state: RunState, status: ChildStatus, entry: Shell, now: int) -> tuple[EntryTold, Command]:
    """Return what the run and what the entry point note of the end."""
    assert state.entrance is not None  # noqa: S101 - nobody else comes here
    before = state.entrance.before if state.entry_told is None else state.entry_told.status
    told = EntryTold(state.entrance.entry, status, entry.state.ends + 1, now, state.retries)
    return told, NoteRunEnded(execution_of(state), status, before)


async def _shell(driver: "Driver") -> Shell | None:
    entrance = driver.shell.state.entrance
    assert entrance is not None  # noqa: S101 - nobody else comes here
    try:
        return await driver.engine.system.directory.bring(entry_stream(entrance.entry))
    except (LogWriteError, LogClosedError) as error:
        driver.log_failed(error)
    except PerdureError as error:
        run = driver.run_id
        _log.error(
            "an entry point could not be told how its run ended", entry=entrance.entry, run=run, error=str(error)
        )
        return None


def _status(fact: RunEnd) -> ChildStatus:
    match fact:
        case RunCompleted():
            return "completed"
        case RunFailed():
            return "failed"
        case RunCancelled():
            return "cancelled"
        case _:
            assert_never(fact)
