"""The code of a run played against its recording, up to where it would go on: whether new code fits old runs.

Nothing is called, recorded or waited for: a branch ends where its recording does. Invariant: a rehearsal says of a
recording what a resume with the same code would find.
"""

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from typing import Literal, NoReturn, TypeAlias, cast

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import Transaction
from perdure.actors.workflows.branch import CURRENT, Branch
from perdure.actors.workflows.doubt import Standstill
from perdure.actors.workflows.driver import Driver
from perdure.actors.workflows.errors import Parked
from perdure.actors.workflows.events import RunBlocked, RunFailed
from perdure.actors.workflows.step_record import StepRecord

Verdict: TypeAlias = Literal["fits", "differs", "needs an upcaster", "has no code"]
UNREADABLE = "the recorded result does not fit the declared type"
"""How the account of a step begins whose result the new code cannot read."""


class Rehearsed(msgspec.Struct, frozen=True):
    """What a rehearsal found."""

    verdict: Verdict
    step: str = ""
    """Where the code differs from what is recorded."""
    account: str = ""
    """Both, side by side; of code that fits, what would become of it now if it does not wait for anything."""


class Rehearsal(Driver):
    """A driver that stops where the recording ends; one rehearsal each."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._differs_at = ""
        self._is_unreadable = False

    async def rehearse(self) -> Rehearsed:
        """Play the code and return what was found."""
        context = copy_context()
        context.run(CURRENT.set, self._root)
        loop = asyncio.get_running_loop()
        if self.deadline is not None and self.deadline <= self.engine.clock.moment().now:
            self._expire()
        task = self._root.task = loop.create_task(self._outcome(), context=context)
        self.task = cast("asyncio.Task[None]", task)
        await asyncio.wait([task])
        self._clear()
        self.offspring.close()
        fact = None if task.cancelled() else task.result()
        match fact:
            case RunBlocked(account=account):
                verdict: Verdict = "needs an upcaster" if self._is_unreadable else "differs"
                return Rehearsed(verdict, self._differs_at, account)
            case RunFailed(error_type=kind, error=error) if not self._root.is_at_edge:
                return Rehearsed("fits", account=f"it would fail now: {kind}: {error}")
            case _:
                return Rehearsed("fits")

    # Where a branch would go beyond the recording

    def at_edge(self, *, stands_still: bool = False) -> None:
        """End the branch: what comes now is not recorded.

        Raises:
            Standstill: others go first, which may be recorded.
            Parked: always else.
        """
        if stands_still:
            raise Standstill
        _leave()

    def record(
        self, *moves: tuple[Shell, Command], principal: str | None = None, causation: str | None = None
    ) -> Transaction:
        """End the branch: it would record something.

        Raises:
            Parked: always.
        """
        del moves, principal, causation
        _leave()

    async def wait(self, branch: Branch, *args: object, **options: object) -> None:
        """End the branch: it would wait.

        Raises:
            Parked: always.
        """
        del branch, args, options
        _leave()

    def mismatch(self, key: str, asked: str, recorded: Sequence[tuple[str, StepRecord]], data: bytes = b"") -> NoReturn:
        """Take note of where the code differs; see `Driver.mismatch`.

        Raises:
            Parked: always.
        """
        if self.ending is None:
            first = recorded if self._suspected is None else self._suspected[2]
            self._differs_at = first[0][0] if first else key
            self._is_unreadable = asked.startswith(UNREADABLE)
        super().mismatch(key, asked, recorded, data)


def _leave() -> NoReturn:
    """End the branch whose code runs, for good: what it does to clean up is not recorded either.

    Raises:
        Parked: always.
    """
    if (branch := CURRENT.get()) is not None:
        branch.is_at_edge = True
    raise Parked
