"""Numbered branches that run beside one another: the one mechanism under gather and map.

All end before it ends. When one fails the others are cancelled, and the failure with the lowest number is raised, which
is recorded, so that a replay fails the same way.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any

from perdure.actors.workflows.branch import CURRENT, Branch, guarded
from perdure.actors.workflows.errors import Parked
from perdure.actors.workflows.events import BranchesFailed, BranchesOpened
from perdure.actors.workflows.recording import StepRecord

Start = Callable[[], Coroutine[Any, Any, Any]]


class Fork:
    """Branches opened at one place of the code."""

    def __init__(self, parent: Branch, key: str, starts: Sequence[Start], concurrency: int) -> None:
        self._parent = parent
        self._driver = parent.driver
        self._key = key
        self._starts = starts
        self._concurrency = concurrency
        self._results: list[Any] = [None] * len(starts)
        self._errors: dict[int, BaseException] = {}
        self._running: dict[int, Branch] = {}
        self._next = 0
        self._record: StepRecord | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def join(self) -> list[Any]:
        """Run all branches and return their results in order.

        Raises:
            The failure of the branch with the lowest number among those that failed; the others were cancelled.
        """
        record = self._record = self._parent.take(self._key, "branches", "branches")
        if record is None:
            self._driver.note(BranchesOpened(self._key, self._parent.path, len(self._starts)))
        elif record.count != len(self._starts):
            self._driver.mismatch(self._key, f"the code opens {len(self._starts)} branches", [(self._key, record)])
        if self._recorded_failure is None:
            self._fill()
        else:
            self._open_recorded({self._recorded_failure})
        self._count(before=1)
        cancelled = await self._until_over() if self._running else False
        return self._conclude(is_cancelled=cancelled)

    @property
    def _recorded_failure(self) -> int | None:
        return None if self._record is None else self._record.failed

    # Opening

    def _fill(self) -> None:
        while self._next < len(self._starts) and len(self._running) < self._concurrency:
            self._open(self._next)
            self._next += 1

    def _open_recorded(self, numbers: "set[int] | frozenset[int]" = frozenset()) -> None:
        """Open what former lives opened, and *numbers*, however many at once: replaying is no work. None follows."""
        numbers = numbers | self._driver.recording.branches_of(self._key)
        for number in sorted(numbers):
            if self._next <= number < len(self._starts):
                self._open(number)
        self._next = len(self._starts)

    def _open(self, number: int) -> None:
        # When the fork is known to be over every branch ends where its recording does: one that returned or failed has
        # done so by then, and the others were cancelled there.
        is_over = self._recorded_failure is not None or self._parent.is_replaying
        is_cut = self._parent.is_cut or is_over
        branch = self._running[number] = Branch(self._driver, f"{self._key}.{number}/", is_cut=is_cut)
        context = copy_context()
        context.run(CURRENT.set, branch)
        branch.task = asyncio.get_running_loop().create_task(self._run(branch, number), context=context)
        branch.task.add_done_callback(lambda task: self._ended(number, task))

    async def _run(self, branch: Branch, number: int) -> Any:
        try:
            result = await guarded(self._starts[number](), branch)
        except Exception as error:
            self._driver.check_branch_is_over(branch, error)
            raise
        self._driver.check_branch_is_over(branch)
        return result

    def _count(self, before: int) -> None:
        """Tell the driver how many leaves this fork stands for: its running branches, or its parent."""
        self._driver.count_leaves(max(1, len(self._running)) - before)

    # Ending

    def _ended(self, number: int, task: "asyncio.Task[Any]") -> None:
        before = len(self._running)
        del self._running[number]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._results[number] = task.result()
        else:
            self._errors[number] = error
        if not self._errors:
            self._fill()
        elif self._driver.ending is None:
            self._open_recorded()
            if error is not None and _is_failure(error) and self._recorded_failure is None:
                self._cancel_all()
        self._count(before)
        if not self._running and not self._over.done():
            self._over.set_result(None)

    def _cancel_all(self) -> None:
        """Cancel every branch; those of former lives that wait for a place are replayed up to where they were."""
        self._open_recorded()
        for branch in self._running.values():
            branch.cancel()

    async def _until_over(self) -> bool:
        """Wait until no branch runs; return whether the parent was cancelled meanwhile."""
        cancelled = False
        while not self._over.done():
            try:
                await asyncio.shield(self._over)
            except asyncio.CancelledError:
                self._driver.note_cancel(self._parent)
                cancelled = True
                before = len(self._running)
                self._cancel_all()
                self._count(before)
        return cancelled

    def _conclude(self, *, is_cancelled: bool) -> list[Any]:
        if self._driver.ending is not None:
            raise Parked
        failures = sorted(n for n, e in self._errors.items() if _is_failure(e))
        recorded = self._recorded_failure
        if self._record is not None and recorded is not None:
            if recorded not in failures:
                self._driver.mismatch(self._key, f"branch {recorded} does not fail", [(self._key, self._record)])
            raise self._errors[recorded]
        if is_cancelled or (self._errors and not failures):
            raise self._parent.cut()
        if not failures:
            return self._results
        self._driver.note(BranchesFailed(self._key, failures[0]))
        raise self._errors[failures[0]]


def _is_failure(error: BaseException) -> bool:
    return not isinstance(error, (asyncio.CancelledError, Parked))
