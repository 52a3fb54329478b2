"""Who waits, in this process, for runs to end or to pause themselves. Nothing of it is recorded.

Not here: when a run has ended, which the engine says once it is durable. Invariant: who waits for an end is told once,
how the run ended or why this life of the runtime cannot know.
"""

from collections.abc import Callable

from perdure.actors.kernel.answer import Answer
from perdure.actors.workflows.state import RunView


class Waiters:
    """The answers that are to come, one a run."""

    __slots__ = ("_for_ends", "_for_pauses")

    def __init__(self) -> None:
        self._for_ends: dict[str, Answer[RunView]] = {}
        self._for_pauses: dict[str, Answer[RunView]] = {}

    def end_of(self, run: str) -> Answer[RunView]:
        """Return the answer to come when the run is closed or blocked."""
        return self._for_ends.setdefault(run, Answer())

    def pause_of(self, run: str) -> Answer[RunView]:
        """Return the answer to come when the run pauses itself; none comes if it ends first."""
        return self._for_pauses.setdefault(run, Answer())

    def take_pause_of(self, run: str) -> Answer[RunView] | None:
        """Return the answer that somebody waits for, to be given by the caller; None if nobody does."""
        return self._for_pauses.pop(run, None)

    def tell(self, run: str, outcome: RunView | BaseException) -> None:
        """Tell those who wait for the end of a run."""
        self._for_pauses.pop(run, None)
        answer = self._for_ends.pop(run, None)
        if answer is None:
            return
        if isinstance(outcome, BaseException):
            answer.set_error(outcome)
        else:
            answer.set(outcome)

    def tell_all(self, error_of: Callable[[str], BaseException]) -> None:
        """Tell everybody who waits for an end why none will come, by the run."""
        for run in list(self._for_ends):
            self.tell(run, error_of(run))
