"""Having something done in a log: by its owner, where one runs, and otherwise by this process, which owns it meanwhile.

Invariant: it is done by exactly one of them. Where the owner went away before it answered, that is said, and nothing is
done a second time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.hosting import log_to_stderr, recorder
from perdure.runtime.cli.loading import Application
from perdure.runtime.control.connection import connect
from perdure.runtime.control.errors import NotOwnedError, OwnerUnreachableError
from perdure.runtime.reach import Reach
from perdure.store.errors import PerdureError, StoreLockedError

E = TypeVar("E")
T = TypeVar("T")

_PATIENCE_SECONDS: Final = 1.0
"""Another command owns the log for some milliseconds: this one waits for it."""
_PAUSE_SECONDS: Final = 0.02


class Acted(msgspec.Struct, Generic[T], frozen=True):
    """What was answered, and whether a running owner did it: then its runs go on by themselves."""

    answer: T
    by_owner: bool

    def then(self, what: str, db: Path) -> str:
        """Return what is left to do for somebody after this, for the end of a line: nothing where an owner runs."""
        return "" if self.by_owner else f"; {what} with: perdure resume FILE.py --db {db}"


def act(
    db: Path, work: Callable[[Reach], Awaitable[T]], what: str = "change it", *, application: Application | None = None
) -> Acted[T]:
    """Do *work* with the runtime that owns the log, or with one of this process that only records.

    *work* gets something with the methods of `Runtime` and must not keep it. With nobody there, runs are told what they
    are told when their code is resumed; *application* has the code that the request itself needs, such as the workflow
    that is started.

    Args:
        db: the log, which is there.
        work: what to do: `lambda rt: rt.run("r1").cancel("no longer needed")`.
        what: how the refusal calls it: `pause its runs`.
        application: see above.

    Raises:
        Failure: another process owns the log, and cannot be asked from here.
        ConnectionLostError: the owner went away before it answered.
        PerdureError: as *work*.
    """
    log_to_stderr()

    async def here() -> Acted[T]:
        async with recorder(db, application) as rt:
            return Acted(await work(rt), by_owner=False)

    return asyncio.run(_act(db, work, what, here))


def ask_owner(db: Path, work: Callable[[Reach], Awaitable[T]], what: str = "change it") -> Acted[T] | None:
    """Do *work* with the runtime that owns the log; None where there is none.

    Raises:
        As `act`.
    """
    log_to_stderr()

    async def nothing() -> None:
        return None

    return asyncio.run(_act(db, work, what, nothing))


async def _act(
    db: Path, work: Callable[[Reach], Awaitable[T]], what: str, otherwise: Callable[[], Awaitable[E]]
) -> Acted[T] | E:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            async with connect(db, wait=timedelta(seconds=_PATIENCE_SECONDS)) as owner:
                return Acted(await work(owner), by_owner=True)
        except OwnerUnreachableError as error:
            problem: PerdureError = error
        except NotOwnedError:
            try:
                return await otherwise()
            except StoreLockedError as error:
                problem = error  # somebody was quicker
        if loop.time() >= give_up_at:
            raise Failure(f"{problem}; it alone may {what}: ask it in its application, or stop it", Exit.OWNED)
        await asyncio.sleep(_PAUSE_SECONDS)
