"""When a failed attempt is tried again: pure policy. The wait itself is an event with a due time.

Source of the jitter: M. Brooker, Exponential Backoff And Jitter (full jitter).
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Literal, TypeAlias

import msgspec

from perdure.actors.kernel.spans import check_limit
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

ErrorType: TypeAlias = str | type[BaseException]
"""An error by its class, or by the class's name where it cannot be imported."""

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A longer wait that an answer asks for is cut to this."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how far apart attempts are made."""

    attempts: int = 1
    """Attempts in all, the first one counted; 1 never retries."""
    backoff: timedelta = timedelta(seconds=1)
    """The longest wait before the second attempt; doubled (`factor`) for each further one."""
    factor: float = 2.0
    cap: timedelta = timedelta(seconds=60)
    """No wait is longer."""
    jitter: bool = True
    """Wait a random part of the backoff, so that many callers do not come back at once."""
    total: timedelta | None = None
    """No attempt starts later than this after the first."""
    retry_on: tuple[ErrorType, ...] | None = None
    """The error types that are retried, with those derived from them; None: all that are not in `never_on`."""
    never_on: tuple[ErrorType, ...] = ()
    when: Callable[[BaseException], bool] | None = None
    """Asked last, with the exception itself; asked live only, its answer is what is recorded."""
    on_refusal: Literal["wait", "fail"] | None = None
    """What becomes of an attempt that the open circuit refuses; None: it waits where there are attempts to come."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.attempts < 1:
            raise UsageError("attempts counts the first one: it is at least 1")
        check_limit(self.backoff, "backoff", may_be_over=True)
        check_limit(self.cap, "cap", may_be_over=True)
        if self.backoff < timedelta(0) or self.cap < timedelta(0) or self.factor < 1:
            raise UsageError("backoff and cap are not negative, factor is at least 1")


NO_RETRY = Retry()


def allows(policy: Retry, error_types: tuple[str, ...]) -> bool:
    """Return whether an error, given by the names of its class and its bases, may be tried again."""
    if _names(policy.never_on) & set(error_types):
        return False
    return policy.retry_on is None or bool(_names(policy.retry_on) & set(error_types))


def waits_for_circuit(policy: Retry) -> bool:
    """Return whether an attempt that the open circuit refuses waits for it; it does not count as one."""
    return policy.attempts > 1 if policy.on_refusal is None else policy.on_refusal == "wait"


def _names(types: tuple[ErrorType, ...]) -> set[str]:
    return {kind if isinstance(kind, str) else kind.__name__ for kind in types}


def next_due(
    policy: Retry, *, attempt: int, first_at: int, now: int, chance: float, retry_after: float | None = None
) -> int | None:
    """Return when (microseconds) the attempt after number *attempt* is due, or None if there is none.

    *chance* is a random number in [0, 1), drawn by the caller: the due time is recorded, never drawn again.
    *retry_after* is what the failed attempt's answer asked for, in seconds: no attempt is made sooner.
    """
    if attempt >= policy.attempts:
        return None
    ceiling = min(policy.cap.total_seconds(), _grown(policy, attempt))
    wait = ceiling * (chance if policy.jitter else 1.0)
    if retry_after is not None:
        wait = max(wait, min(retry_after, LONGEST_RETRY_AFTER.total_seconds()))
    due = now + int(wait * 1_000_000)
    if policy.total is not None and due > first_at + policy.total // timedelta(microseconds=1):
        return None
    return due


def _grown(policy: Retry, attempt: int) -> float:
    try:
        return policy.backoff.total_seconds() * policy.factor ** (attempt - 1)
    except OverflowError:  # far beyond any cap
        return float("inf") if policy.backoff else 0.0
