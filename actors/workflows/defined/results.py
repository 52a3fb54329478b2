"""What a step of a definition came to, and what several came to together. Pure data, as it stands in a run's result.

Not here: how a step is performed (`calling.py`). Invariant: what is merged is merged in the order of the definition.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure.actors.workflows.defined.known import Reducer
from perdure.actors.workflows.errors import OrchestrationError


class StepResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a step; `error` and `error_type` only where it failed."""

    step_id: str
    agent: str
    """Who answered: an agent, a tool or a workflow."""
    success: bool
    data: Any
    duration: float
    """Seconds that the attempt took that this is the answer of."""
    error: str | None = None
    error_type: str | None = None

    def as_object(self) -> dict[str, Any]:
        """Return what the step returned if it has keys, and nothing otherwise."""
        data: Any = self.data
        return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


class PathEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the way that a conditional workflow took."""

    step: str
    agent: str
    success: bool
    data: Any


class ItemError(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a map-reduce that failed for good."""

    index: int
    step_id: str
    agent: str
    error: str
    error_type: str


class StepError(msgspec.Struct, frozen=True, kw_only=True):
    """A step that failed for good, beside others."""

    step_id: str
    agent: str
    error: str
    error_type: str


def step_errors(results: Sequence[StepResult]) -> list[StepError]:
    """Return what is told of those that failed beside others."""
    return [
        StepError(step_id=r.step_id, agent=r.agent, error=r.error or "", error_type=r.error_type or "")
        for r in results
        if not r.success
    ]


def item_error(index: int, result: StepResult) -> ItemError:
    """Return what is told of an item that failed."""
    return ItemError(
        index=index,
        step_id=result.step_id,
        agent=result.agent,
        error=result.error or "",
        error_type=result.error_type or "",
    )


def item_errors(results: Sequence[StepResult | None], start: int) -> list[ItemError]:
    """Return what is told of the items that failed; the first of the *results* is that of the item number *start*."""
    numbered = enumerate(results, start)
    return [item_error(n, result) for n, result in numbered if result is not None and not result.success]


class MergeError(OrchestrationError):
    """What the steps returned cannot be merged."""

    message = "the results cannot be merged: {reason}"
    reason: str


def merge(how: str, results: Sequence[StepResult], reducers: Mapping[str, Reducer]) -> Any:
    """Return what successful steps returned as one; those that returned nothing are left out.

    Raises:
        MergeError: two steps gave the same key and that is an error, or a step returned what has no keys.
    """
    given = [result for result in results if result.success and result.data is not None]
    if how in reducers:
        return reducers[how]([result.data for result in given])
    merged: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for result in given:
        data: Any = result.data
        if not isinstance(data, dict):
            reason = f"step {result.step_id} returned a {type(result.data).__name__}, which has no keys"
            raise MergeError(reason=reason, step_id=result.step_id, agent=result.agent)
        for key, value in cast("dict[str, Any]", data).items():
            if key in owner and how == "error":
                reason = f"steps {owner[key]} and {result.step_id} both returned {key!r}"
                raise MergeError(reason=reason, step_id=result.step_id, agent=result.agent)
            if key not in owner or how == "last_wins":
                merged[key] = value
            owner.setdefault(key, result.step_id)
    return merged
