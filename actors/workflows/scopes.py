"""Branches of which one may end the others: a race, and a coroutine with a limit of time.

The driver's clock only wakes a limit. Invariant: who won, and that a limit has passed, is recorded before anything that
follows from it, and what a replay finds recorded it does not decide again.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from perdure.actors.kernel.clock import Clock, Timer
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.branches import Branches, Start, is_failure
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.events import BranchesOpened, RaceWon, TimeoutPassed, TimeoutSet
from perdure.actors.workflows.fork import conclude, is_to_be_cut, postpone
from perdure.actors.workflows.step_record import StepRecord

_MICROSECOND = timedelta(microseconds=1)


class Race:
    """Branches of which the first that ends, with a result or with a failure, is the only one that counts."""

    def __init__(self, parent: Branch, key: str, starts: Sequence[Start]) -> None:
        self._parent = parent
        self._driver = parent.driver
        self._key = key
        self._count = len(starts)
        self._winner: int | None = None
        self._is_interrupted = False
        self._branches = Branches(parent, key, starts, ended=self._ended, interrupted=self._interrupted)

    async def join(self) -> tuple[int, Any]:
        """Run all branches until one has ended and the others are cancelled; return its number and its result.

        Raises:
            The winner's failure. What the others raise while they clean up is dropped.
        """
        record = self._parent.take(self._key, "branches", "branches")
        if record is None:
            self._driver.note(BranchesOpened(self._key, self._parent.path, self._count))
        elif record.count != self._count:
            self._driver.mismatch(self._key, f"the code opens {self._count} branches", [(self._key, record)])
        else:
            self._winner = record.won
        is_over = self._winner is not None or is_to_be_cut(self._parent)
        for number in range(self._count):
            self._branches.open(number, is_cut=is_over)
        is_cancelled = await self._branches.join()
        return self._conclude(record, is_cancelled=is_cancelled)

    def _ended(self, number: int) -> None:
        error = self._branches.errors.get(number)
        if self._winner is not None or self._driver.ending is not None or self._is_interrupted:
            return
        if (error is None or is_failure(error)) and not is_to_be_cut(self._parent):
            self._winner = number
            with contextlib.suppress(Parked):  # the log failed, and the code is being taken down
                self._driver.note(RaceWon(self._key, number))
            self._branches.cancel()

    def _interrupted(self) -> None:
        self._is_interrupted = True
        self._branches.cancel()

    def _conclude(self, record: StepRecord | None, *, is_cancelled: bool) -> tuple[int, Any]:
        if self._driver.ending is not None:
            raise Parked
        if self._winner is None:
            raise self._parent.cut()
        error = self._branches.errors.get(self._winner)
        if isinstance(error, asyncio.CancelledError) and record is not None:
            self._driver.mismatch(self._key, f"branch {self._winner} does not end", [(self._key, record)])
        postpone(self._parent, is_cancelled=is_cancelled)
        if error is not None:
            raise error
        return self._winner, self._branches.results[self._winner]


class Limit:
    """One branch that is cancelled when its time has passed."""

    def __init__(self, parent: Branch, key: str, start: Start, limit: timedelta) -> None:
        self._parent = parent
        self._driver = parent.driver
        self._key = key
        self._limit = limit
        self._has_passed = False
        self._branches = Branches(parent, key, [start], ended=lambda _: None, interrupted=self._interrupted)

    async def join(self) -> Any:
        """Return what the branch returns.

        Raises:
            StepFailedError: the time passed first; the branch was cancelled, and what it raised meanwhile is the cause.
            Whatever the branch raises in time.
        """
        record = self._parent.take(self._key, "timeout", "timeout")
        self._has_passed = record is not None and record.progress == "failed"
        is_over = self._has_passed or (record is not None and record.failed is not None) or is_to_be_cut(self._parent)
        due = 0 if record is None else record.due
        if record is None or (not due and not is_over):  # a fork that takes over what was done within it begins it anew
            due = self._driver.engine.clock.moment().now + self._limit // _MICROSECOND
            self._driver.note(TimeoutSet(self._key, self._parent.path, due))
        self._branches.open(0, is_cut=is_over)
        if not is_over:
            self._driver.limits.add(self, due)
        try:
            is_cancelled = await self._branches.join()
        finally:
            self._driver.limits.discard(self)
        if self._has_passed and self._driver.ending is None:
            postpone(self._parent, is_cancelled=is_cancelled)
            raise self._passed() from self._branches.errors.get(0)
        return conclude(self._parent, self._key, self._branches, record, is_cancelled=is_cancelled)[0]

    def _passed(self) -> StepFailedError:
        error = f"it was not over within {self._limit.total_seconds():g} s"
        return StepFailedError(step=self._key, error_type="TimeoutError", error=error, retryable=False)

    def pass_(self) -> None:
        """Cancel the branch because its time is over; one that is over, or is cancelled, is left as it is."""
        if self._driver.ending is None and self._branches.running and not self._has_passed:
            self._has_passed = True
            self._driver.limits.discard(self)
            with contextlib.suppress(Parked):  # the log failed, and the code is being taken down
                self._driver.note(TimeoutPassed(self._key))
            self._branches.cancel()

    def holds(self, path: str) -> bool:
        """Return whether a branch is the one that has this limit, or was opened by it."""
        return path.startswith(f"{self._key}.")

    def _interrupted(self) -> None:
        self._driver.limits.discard(self)
        self._branches.cancel()


class Limits:
    """The limits of a run whose branches run: the clock ends them, and a run that leaves memory comes back for them.

    One that was over before this life began passes only where its branch comes to the end of its recording: the branch
    may have ended in time, of which nothing is recorded.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: dict[Limit, tuple[int, Timer]] = {}
        self._overdue: dict[Limit, int] = {}

    @property
    def dues(self) -> list[int]:
        """When they pass, in microseconds."""
        return [*(due for due, _ in self._timers.values()), *self._overdue.values()]

    def add(self, limit: Limit, due: int) -> None:
        """Have *limit* pass at *due*."""
        if due <= self._clock.moment().now:
            self._overdue[limit] = due
        else:
            self._timers[limit] = (due, self._clock.call_at(due, limit.pass_))

    def reached(self, path: str) -> None:
        """Take note that the branch at *path* has come to something that is not recorded, or has no end there."""
        for limit in self._overdue:
            if limit.holds(path):
                asyncio.get_running_loop().call_soon(limit.pass_)

    def discard(self, limit: Limit) -> None:
        """Let *limit* pass no more."""
        self._overdue.pop(limit, None)
        if (armed := self._timers.pop(limit, None)) is not None:
            armed[1].cancel()
