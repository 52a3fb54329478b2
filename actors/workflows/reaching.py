"""How the code of a run comes to speak to another actor, within a call that is no wait: it is brought into memory.

Invariant: what happens meanwhile to the run (a cancel, its leaving memory, a log that fails) ends the call before
anything is recorded of it.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from perdure.actors.kernel.shell import Shell
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.errors import Parked
from perdure.store.errors import LogClosedError, LogWriteError
from perdure.store.records import StreamId

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

T = TypeVar("T")


async def reach(driver: "Driver", branch: Branch, stream: StreamId) -> Shell:
    """Return an actor, brought into memory if need be; nothing may be awaited before it is spoken to.

    Raises:
        Parked: the run leaves memory, or the log failed.
        CancelledError: the branch was cancelled meanwhile.
    """
    directory = driver.engine.system.directory
    if (shell := directory.active(stream)) is None:
        shell = await passing(driver, branch, directory.bring(stream))
    if driver.ending is not None:
        raise Parked
    return shell


async def passing(driver: "Driver", branch: Branch, work: Awaitable[T]) -> T:
    """Return what *work* comes to, which is short and of which nothing is recorded.

    Raises:
        Parked, CancelledError: as `reach`.
    """
    try:
        return await work
    except asyncio.CancelledError:
        interrupted(driver, branch)
        raise
    except (LogWriteError, LogClosedError) as error:
        driver.log_failed(error)


def interrupted(driver: "Driver", branch: Branch) -> None:
    """Take note that a call was cancelled.

    Raises:
        Parked: no recorded fact explains it.
    """
    if driver.engine.is_loop_ending:
        return  # a task that ends with anything but its cancellation would be reported by the loop
    driver.note_cancel(branch)
    if driver.ending is not None:
        raise Parked from None
