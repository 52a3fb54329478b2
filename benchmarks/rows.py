"""What a benchmark answers: a figure beside its baseline, with the spread of both. Frozen data and their arithmetic.

Nothing is measured here. Invariant: the ratio is taken sample by sample, each figure against the baseline that was
measured right beside it, so that a machine that slows down for a while moves both.
"""

from collections.abc import Sequence
from statistics import median
from typing import Literal

import msgspec


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    is_quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        """Return a size or a count of repetitions."""
        return quick if self.is_quick else full


class Spread(msgspec.Struct, frozen=True):
    """Repeated measurements of one thing."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: Sequence[float]) -> Spread:
    """Return the median of *samples* and how far they lie apart."""
    return Spread(median(samples), min(samples), max(samples), len(samples))


class Target(msgspec.Struct, frozen=True):
    """What the ratio must be."""

    kind: Literal["at least", "at most"]
    bound: float

    def is_reached(self, ratio: float) -> bool:
        return ratio >= self.bound if self.kind == "at least" else ratio <= self.bound


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    what: str
    unit: str
    figure: Spread
    baseline_is: str | None = None
    baseline: Spread | None = None
    ratio: Spread | None = None
    target: Target | None = None
    is_reached: bool | None = None
    extra: dict[str, float] = {}
    """More figures of the same measurement, by a name that says the unit."""


def against(
    what: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    *,
    baseline_is: str,
    target: Target | None = None,
    extra: dict[str, float] | None = None,
) -> Row:
    """Return the row for pairs of (figure, baseline) that were measured in turns."""
    ratio = spread([figure / baseline for figure, baseline in pairs])
    return Row(
        what=what,
        unit=unit,
        figure=spread([figure for figure, _ in pairs]),
        baseline_is=baseline_is,
        baseline=spread([baseline for _, baseline in pairs]),
        ratio=ratio,
        target=target,
        is_reached=None if target is None else target.is_reached(ratio.median),
        extra=extra or {},
    )
