"""Where in the log the evidence of a goal's progress is: the outcomes that count for it, and the violations.

Pure: it is told pages of events, the newest first. Invariant: it stops as soon as every outcome that is shown is found.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from perdure.actors.kernel.clock import moment_of
from perdure.actors.state.goal_progress import CriterionProgress, GoalProgress, Violation
from perdure.actors.state.goals import goal_stream
from perdure.store.records import Query, Recorded

MAX_VIOLATIONS: Final = 100
"""Shown of a goal; how many there were is counted."""
_PAGE: Final = 500


class _Outcome(msgspec.Struct, frozen=True):
    decision: int


class _Violated(msgspec.Struct, frozen=True):
    constraint: str
    severity: str
    description: str = ""
    details: str = ""
    decision: int | None = None
    run: str | None = None
    entry: str | None = None


_outcome = msgspec.json.Decoder(_Outcome).decode
_violated = msgspec.json.Decoder(_Violated).decode


class Places:
    """The positions of the outcomes that a goal's progress shows."""

    def __init__(self, progress: GoalProgress) -> None:
        self._progress = progress
        self._wanted = {each.decision for one in progress.criteria for each in one.evidence}
        self._found: dict[int, int] = {}
        self._until: int | None = None

    @property
    def next_page(self) -> Query | None:
        """Which events to add next; None: all is found."""
        if self._wanted <= self._found.keys():
            return None
        stream = goal_stream(self._progress.goal)
        return Query(stream=stream, types=("outcome-recorded",), until=self._until, limit=_PAGE, newest_first=True)

    def add(self, page: Sequence[Recorded]) -> bool:
        """Take in a page; return False when it was the last."""
        for event in page:
            self._until = event.position - 1
            if event.data is not None:
                self._found[_outcome(event.data).decision] = event.position
        return bool(page)

    def placed(self, violations: Sequence[Recorded]) -> GoalProgress:
        """Return the progress with places in the log, and with *violations*, the newest first."""
        shown = tuple(_violation(event) for event in reversed(violations) if event.data is not None)
        criteria = tuple(self._placed(one) for one in self._progress.criteria)
        return msgspec.structs.replace(self._progress, criteria=criteria, newest_violations=shown)

    def _placed(self, one: CriterionProgress) -> CriterionProgress:
        evidence = tuple(
            msgspec.structs.replace(each, position=self._found.get(each.decision)) for each in one.evidence
        )
        return msgspec.structs.replace(one, evidence=evidence)


def violations_of(goal: str) -> Query:
    """Return what asks for the newest violations of a goal's constraints."""
    return Query(stream=goal_stream(goal), types=("constraint-violated",), limit=MAX_VIOLATIONS, newest_first=True)


def _violation(event: Recorded) -> Violation:
    found = _violated(event.data or "{}")
    return Violation(
        constraint=found.constraint,
        severity=found.severity,
        description=found.description,
        details=found.details,
        decision=found.decision,
        run=found.run,
        entry=found.entry,
        position=event.position,
        at=moment_of(event.at),
    )
