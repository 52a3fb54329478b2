"""Numbered branches that are all to end well: gather and map, and the one branch of a timeout.

All end before it ends. When one fails the others are cancelled, and the failure with the lowest number is raised, which
is recorded, so that a replay fails the same way.
"""

from collections.abc import Sequence
from typing import Any

from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.branches import Branches, Start, is_failure
from perdure.actors.workflows.errors import Parked
from perdure.actors.workflows.events import BranchesFailed, BranchesOpened
from perdure.actors.workflows.step_record import StepRecord


class Fork:
    """Branches opened at one place of the code, a number of them at a time."""

    def __init__(self, parent: Branch, key: str, starts: Sequence[Start], concurrency: int) -> None:
        self._parent = parent
        self._driver = parent.driver
        self._key = key
        self._count = len(starts)
        self._concurrency = concurrency
        self._next = 0
        self._record: StepRecord | None = None
        self._branches = Branches(parent, key, starts, ended=self._ended, interrupted=self._cancel_all)

    async def join(self) -> list[Any]:
        """Run all branches and return their results in order.

        Raises:
            The failure of the branch with the lowest number among those that failed; the others were cancelled.
        """
        record = self._record = self._parent.take(self._key, "branches", "branches")
        if record is None:
            self._driver.note(BranchesOpened(self._key, self._parent.path, self._count))
        elif record.count != self._count:
            self._driver.mismatch(self._key, f"the code opens {self._count} branches", [(self._key, record)])
        if self._recorded_failure is None:
            self._fill()
        else:
            self._open_recorded({self._recorded_failure})
        cancelled = await self._branches.join()
        results = conclude(self._parent, self._key, self._branches, record, is_cancelled=cancelled)
        return [results[number] for number in range(self._count)]

    @property
    def _recorded_failure(self) -> int | None:
        return None if self._record is None else self._record.failed

    def _fill(self) -> None:
        while self._next < self._count and len(self._branches.running) < self._concurrency:
            self._open(self._next)
            self._next += 1

    def _open_recorded(self, numbers: "set[int] | frozenset[int]" = frozenset()) -> None:
        """Open what former lives opened, and *numbers*, however many at once: replaying is no work. None follows."""
        numbers = numbers | self._driver.recording.branches_of(self._key)
        for number in sorted(numbers):
            if self._next <= number < self._count:
                self._open(number)
        self._next = self._count

    def _open(self, number: int) -> None:
        # When the fork is known to be over every branch ends where its recording does: one that returned or failed has
        # done so by then, and the others were cancelled there.
        is_over = self._recorded_failure is not None or self._parent.is_replaying
        self._branches.open(number, is_cut=self._parent.is_cut or is_over)

    def _ended(self, number: int) -> None:
        error = self._branches.errors.get(number)
        if not self._branches.errors:
            self._fill()
        elif self._driver.ending is None:
            self._open_recorded()
            if error is not None and is_failure(error) and self._recorded_failure is None:
                self._cancel_all()

    def _cancel_all(self) -> None:
        """Cancel every branch; those of former lives that wait for a place are replayed up to where they were."""
        self._open_recorded()
        self._branches.cancel()


def conclude(
    parent: Branch, key: str, branches: Branches, record: StepRecord | None, *, is_cancelled: bool
) -> dict[int, Any]:
    """Return the results, now that all branches have ended, or raise what the parent is to get.

    Raises:
        The failure with the lowest number; it is recorded.
        CancelledError: the parent was cancelled while the branches ran.
    """
    driver = parent.driver
    if driver.ending is not None:
        raise Parked
    failures, recorded = branches.failures, None if record is None else record.failed
    if record is not None and recorded is not None:
        if recorded not in failures:
            driver.mismatch(key, f"branch {recorded} does not fail", [(key, record)])
        postpone(parent, is_cancelled=is_cancelled)
        raise branches.errors[recorded]
    # One that failed before a cancel would have recorded so: a failure that is not is of a branch that cleaned up.
    if branches.errors and (not failures or is_cancelled or is_to_be_cut(parent)):
        raise parent.cut()
    if failures:
        driver.note(BranchesFailed(key, failures[0]))
        raise branches.errors[failures[0]]
    postpone(parent, is_cancelled=is_cancelled)
    return branches.results


def is_to_be_cut(parent: Branch) -> bool:
    """Return whether what has not ended by itself in the recording of *parent* was cancelled with it."""
    return parent.is_cut or parent.is_replaying


def postpone(parent: Branch, *, is_cancelled: bool) -> None:
    """Have the parent cancelled at its next call: what it waited for had ended before it was, as the log has it."""
    if is_cancelled:
        parent.is_cut = True
