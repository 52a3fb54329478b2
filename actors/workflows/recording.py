"""What a run has done so far, by step: read from the log once, when the run resumes, and consumed by its code.

Not an actor's state: results live here only while they are being replayed. Invariant: a recorded step is handed out
once, to the branch that recorded it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from perdure.actors.kernel.messages import Event
from perdure.actors.state.seen import Sighting
from perdure.actors.workflows.folding import StepFold
from perdure.actors.workflows.step_record import StepRecord


class Recording:
    """The recorded steps of a run."""

    __slots__ = ("_left", "_taken", "_versions", "began_at", "sightings", "steps")

    def __init__(
        self, events: Iterable[tuple[Event, int]] = (), inherited: Iterable[Sequence[tuple[Event, int]]] = ()
    ) -> None:
        """Fold *events* with their times, of a fork on top of what it has *inherited*, its oldest ancestor first."""
        self.began_at = 0
        """The position at which the run was started: it gets the events published after that."""
        self.sightings: list[Sighting] | None = None
        """What a synchronized run has seen of values that others may change."""
        nothing: dict[str, Any] = {}
        self.steps: dict[str, StepRecord] = nothing
        self._versions: dict[str, tuple[int, dict[str, int]]] = nothing
        """The versions that were chosen, and how much each branch had recorded by then."""
        self._taken: dict[str, int] = nothing
        """How much each branch was handed."""
        self._left: dict[str, int] = nothing
        if events or inherited:  # a run that starts has nothing, and one empty dictionary for all of it
            self._fold(events, inherited)

    def _fold(self, events: Iterable[tuple[Event, int]], inherited: Iterable[Sequence[tuple[Event, int]]]) -> None:
        fold = StepFold()
        for part in inherited:
            for event, at in part:
                fold.add(event, at)
            fold.keep_finished()
        for event, at in events:
            fold.add(event, at)
        self.steps, self._versions, self.sightings = fold.steps, fold.versions, fold.sightings
        self._taken, self._left = {}, {}
        for record in self.steps.values():
            self._left[record.branch] = self._left.get(record.branch, 0) + 1

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, key: str) -> StepRecord | None:
        """Hand out the record of a step, once."""
        record = self.steps.pop(key, None)
        if record is not None:
            self._left[record.branch] -= 1
            if self._versions:
                self._taken[record.branch] = self._taken.get(record.branch, 0) + 1
        return record

    def version(self, name: str, branch: str) -> int | None:
        """Return which version of a change was chosen; 0 where *branch* had gone on before anybody chose."""
        if (chosen := self._versions.get(name)) is None:
            return None
        number, recorded = chosen
        return 0 if self._taken.get(branch, 0) < recorded.get(branch, 0) else number

    def has_left_in(self, branch: str) -> bool:
        """Return whether *branch* has recorded what it was not yet handed."""
        return bool(self._left.get(branch))

    def branches_of(self, fork: str) -> set[int]:
        """Return the numbers of the branches of *fork* that have anything left."""
        prefix = f"{fork}."
        paths = (path for path, count in self._left.items() if count and path.startswith(prefix))
        return {int(path[len(prefix) :].partition("/")[0]) for path in paths}

    def left_in(self, branch: str) -> list[tuple[str, StepRecord]]:
        """Return what *branch* has recorded and not yet been handed."""
        if not self._left.get(branch):
            return []
        return [(key, record) for key, record in self.steps.items() if record.branch == branch]
