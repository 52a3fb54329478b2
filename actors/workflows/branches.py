"""The tasks that one place of the code opens beside one another, until the last of them has ended.

The one mechanism under gather, map, race and timeout; what an end means is theirs. Invariant: none of the tasks is left
running when `join` returns, and the driver knows how many branches could still be at work.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any

from perdure.actors.workflows.branch import CURRENT, Branch, guarded
from perdure.actors.workflows.errors import Parked

Start = Callable[[], Coroutine[Any, Any, Any]]


class Branches:
    """Branches of a branch, by number."""

    __slots__ = ("_ended", "_interrupted", "_key", "_over", "_parent", "_starts", "errors", "results", "running")

    def __init__(
        self,
        parent: Branch,
        key: str,
        starts: Sequence[Start],
        *,
        ended: Callable[[int], None],
        interrupted: Callable[[], None],
    ) -> None:
        self._parent = parent
        self._key = key
        self._starts = starts
        self._ended = ended
        """Told the number of a branch that has ended: it may open others, or cancel them."""
        self._interrupted = interrupted
        """Told that the parent is cancelled: it is to cancel the branches."""
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running: dict[int, Branch] = {}
        self.results: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}

    def open(self, number: int, *, is_cut: bool) -> None:
        """Start the code of a branch; with *is_cut* it ends, cancelled, where its recording does."""
        branch = self.running[number] = self._parent.child(f"{self._key}.{number}/", number, is_cut=is_cut)
        context = copy_context()
        context.run(CURRENT.set, branch)
        branch.task = asyncio.get_running_loop().create_task(self._run(branch, number), context=context)
        branch.task.add_done_callback(lambda task: self._has_ended(number, task))

    async def _run(self, branch: Branch, number: int) -> Any:
        driver = self._parent.driver
        try:
            result = await guarded(self._starts[number](), branch)
        except Exception as error:
            driver.check_branch_is_over(branch, error)
            raise
        driver.check_branch_is_over(branch)
        return result

    def _has_ended(self, number: int, task: "asyncio.Task[Any]") -> None:
        before = len(self.running)
        del self.running[number]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.results[number] = task.result()
        else:
            self.errors[number] = error
        self._ended(number)
        self._count(before)
        if not self.running and not self._over.done():
            self._over.set_result(None)

    def cancel(self) -> None:
        """Cancel those that run, each once."""
        for branch in self.running.values():
            branch.cancel()

    async def join(self) -> bool:
        """Wait until none runs; return whether the parent was cancelled meanwhile.

        Raises:
            Parked: a branch left memory.
        """
        self._count(before=1)
        is_cancelled = False
        while self.running:
            try:
                await self._wait()
            except asyncio.CancelledError:
                self._parent.driver.note_cancel(self._parent)
                is_cancelled = True
                if before := len(self.running):
                    self._interrupted()
                    self._count(before)
                    self._parent.driver.consider_parking()
        if any(isinstance(error, Parked) for error in self.errors.values()):
            raise Parked  # one that leaves memory has all of it leave; in a rehearsal it came to its edge
        return is_cancelled

    async def _wait(self) -> None:
        """Wait until none runs; a cancel that is on its way here keeps the run in memory."""
        joins, over = self._parent.driver.joins, asyncio.shield(self._over)
        joins[over] = None
        try:
            await over
        finally:
            joins.pop(over, None)

    def _count(self, before: int) -> None:
        """Tell the driver how many leaves stand here: the running branches, or their parent."""
        self._parent.driver.count_leaves(max(1, len(self.running)) - before)

    # Ends

    @property
    def failures(self) -> list[int]:
        """The branches whose own code failed, the lowest number first."""
        return sorted(number for number, error in self.errors.items() if is_failure(error))


def is_failure(error: BaseException) -> bool:
    """Return whether a branch that ended with *error* failed, as opposed to being cancelled or parked."""
    return not isinstance(error, (asyncio.CancelledError, Parked))
