"""What a run that failed forgets when it is tried again: the step that it failed of, and what was given up for that.

Pure: it is told the recording. Not here: whether the run may be retried at all (`steering.py`). Invariant: what is left
is a recording that a process could have left behind that died before the failure; where the code has gone on since, the
retry is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from perdure.actors.workflows.errors import ControlRefusedError
from perdure.actors.workflows.events import Reopened, RunRetried
from perdure.actors.workflows.step_record import StepRecord

_PLACES: Final = frozenset({"branches", "timeout", "saga"})
"""Records that stand for other branches, and not for a step of their own."""
_SHOWN: Final = 3

Steps = Mapping[str, StepRecord]
"""The records of a run by key, in the order of their opening."""


def plan_retry(run: str, steps: Steps, failed: str | None) -> RunRetried:
    """Return what a run forgets that failed of the step *failed*, or, where that is None, of an error of its own code.

    Such a run is tried again from the last step of the code that raised, if that failed; otherwise it forgets nothing.

    Raises:
        ControlRefusedError: its code has done something since the failure, which would not fit any more.
    """
    last, above = _where_it_ended(steps)
    if failed is None or failed not in steps:
        failed = last
    else:
        above = list(_places_above(failed))
    if failed is not None and steps[failed].what == "timeout":
        above.insert(0, failed)  # it failed of a limit of time: what it was about was cancelled
    if failed is None and (undone := _undone_at_the_end(steps)) is not None:
        reason = f"it has undone what it had done, the last of it with {undone}: fork it"
        raise ControlRefusedError(run=run, what="retried", reason=reason)
    plan = _Plan(steps, failed, above)
    if since := list(plan.since()):
        more = ", …" if len(since) > _SHOWN else ""
        reason = f"it has gone on since it failed, with {', '.join(since[:_SHOWN])}{more}: fork it"
        raise ControlRefusedError(run=run, what="retried", reason=reason)
    return plan.made()


def _where_it_ended(steps: Steps) -> tuple[str | None, list[str]]:
    """Return the failed step, if one was the last, and the places that failed around the end of the code."""
    ends = {record.branch: key for key, record in steps.items()}
    above: list[str] = []
    key = ends.get("")
    while key is not None and (number := _which_failed(steps[key])) is not None:
        above.insert(0, key)
        key = ends.get(f"{key}.{number}/")
    return (key if key is not None and steps[key].progress == "failed" else None), above


def _undone_at_the_end(steps: Steps) -> str | None:
    """Return the last thing that a run recorded whose own code raised, if a saga was undone with that."""
    last = next((key for key in reversed(list(steps)) if not steps[key].branch), None)
    return last if last is not None and (steps[last].what == "saga" or last.endswith("#undo")) else None


def _which_failed(place: StepRecord) -> int | None:
    return place.failed if place.won is None else place.won


def _is_decided(record: StepRecord) -> bool:
    """Return whether branches were cancelled for a reason that is recorded at their place."""
    has_passed = record.what == "timeout" and record.progress == "failed"
    return record.failed is not None or record.won is not None or has_passed


class _Plan:
    """What is forgotten of a run that ended at one step, or between two."""

    def __init__(self, steps: Steps, failed: str | None, above: list[str]) -> None:
        self._steps = steps
        self._failed = failed
        self._above = above
        """The places in whose branches the run failed, the nearest first."""
        decided = {key for key, record in steps.items() if _is_decided(record) and key not in above}
        self._beside = {
            key: record
            for key, record in steps.items()
            if (places := set(_places_above(key))).intersection(above) and not places & decided
        }
        self._ends = {record.branch: key for key, record in steps.items()}
        """The last record of each branch."""

    def since(self) -> Iterator[str]:
        """Yield what the code has recorded after the failure, and after what was given up because of it."""
        around = self._above if self._failed is None else [self._failed, *self._above]
        stops = {self._steps[key].branch: key for key in around if key in self._steps}
        cut = _cut_places(self._steps, self._beside)
        passed: set[str] = set()
        """Branches that have failed, or have given something up."""
        for key, record in self._steps.items():
            if record.branch in passed:
                yield key
            elif record.branch in stops:
                passed |= {record.branch} if stops[record.branch] == key else set()
            elif key in self._beside and (key in cut or _is_left(record)):
                passed.add(record.branch)

    def made(self) -> RunRetried:
        """Return it as a fact."""
        again, waits, reopened = list[str](), list[str](), list[Reopened]()
        for key, record in self._steps.items():
            if key == self._failed:
                (again if record.what == "step" else waits).append(key)
            elif record.what == "timeout" and self._ends[record.branch] == key and self._is_undone(key, record):
                waits.append(key)  # it begins anew: its time may be over
            elif key not in self._beside:
                continue
            elif record.is_given_up:
                waits.append(key)  # whatever the child came to
            elif record.progress == "cancelled" and record.what == "step":
                reopened.append(Reopened(key, record.name, record.effect, record.attempt))
            elif record.progress == "cancelled":
                waits.append(key)
            elif record.progress == "failed" and self._ends[record.branch] == key:
                (again if record.what == "step" else waits).append(key)
        places = [key for key in self._above if key in self._steps and key not in waits]
        forks = tuple(key for key in places if _which_failed(self._steps[key]) is not None)
        return RunRetried(self._failed, tuple(again), tuple(waits), forks, tuple(reopened))

    def _is_undone(self, key: str, limit: StepRecord) -> bool:
        return limit.progress != "failed" and (key in self._beside or key in self._above)


def given_up(steps: Steps, branch: str) -> list[str]:
    """Return the keys of what was cancelled, or left behind, and not by a failure that the code was told of.

    In *branch* the code is about to go on: nothing that it began there can still be under way.
    """
    decided = {key for key, record in steps.items() if _is_decided(record)}
    ends = {record.branch: key for key, record in steps.items()}
    over = {key for key, record in steps.items() if record.branch == branch}
    return [
        key
        for key, record in steps.items()
        if (
            record.progress == "cancelled"
            or record.is_given_up
            or (_is_left(record) and (ends[record.branch] != key or over.intersection((key, *_places_above(key)))))
            or (record.what == "saga" and record.progress != "completed")
        )
        and not decided.intersection(_places_above(key))
    ]


def _is_left(record: StepRecord) -> bool:
    """Return whether what a record began never came to its end."""
    is_over = record.progress in ("completed", "failed") and not record.is_given_up
    return record.what not in _PLACES and not is_over


def _cut_places(steps: Steps, among: Steps) -> set[str]:
    """Return the places in whose branches something was given up, and that did not end for a reason of their own."""
    return {
        place
        for key, record in among.items()
        if _is_left(record)
        for place in _places_above(key)
        if place in steps and not _is_decided(steps[place])
    }


def _places_above(key: str) -> Iterator[str]:
    """Yield the keys of the places in whose branches a step is: of `a#1.0/b#1.2/c#1` they are `a#1.0/b#1` and `a#1`."""
    path, slash, _ = key.rpartition("/")
    while slash:
        place = path.rpartition(".")[0]
        yield place
        path, slash, _ = place.rpartition("/")
