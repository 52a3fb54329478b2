"""When a failed attempt is tried again: pure policy. The wait itself is an event with a due time.

Source of the jitter: M. Brooker, Exponential Backoff And Jitter (full jitter).
"""

from datetime import timedelta

import msgspec

from perdure.store.errors import UsageError


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
    retry_on: tuple[str, ...] | None = None
    """Names of the error types that are retried; None: all that are not in `never_on`."""
    never_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError("attempts counts the first one: it is at least 1")
        if self.backoff < timedelta(0) or self.cap < timedelta(0) or self.factor < 1:
            raise UsageError("backoff and cap are not negative, factor is at least 1")


NO_RETRY = Retry()


def allows(policy: Retry, error_types: tuple[str, ...]) -> bool:
    """Return whether an error, given by the names of its class and its bases, may be tried again."""
    if any(name in policy.never_on for name in error_types):
        return False
    return policy.retry_on is None or any(name in policy.retry_on for name in error_types)


def next_due(policy: Retry, *, attempt: int, first_at: int, now: int, chance: float) -> int | None:
    """Return when (microseconds) the attempt after number *attempt* is due, or None if there is none.

    *chance* is a random number in [0, 1), drawn by the caller: the due time is recorded, never drawn again.
    """
    if attempt >= policy.attempts:
        return None
    ceiling = min(policy.cap.total_seconds(), _grown(policy, attempt))
    due = now + int(ceiling * (chance if policy.jitter else 1.0) * 1_000_000)
    if policy.total is not None and due > first_at + policy.total // timedelta(microseconds=1):
        return None
    return due


def _grown(policy: Retry, attempt: int) -> float:
    try:
        return policy.backoff.total_seconds() * policy.factor ** (attempt - 1)
    except OverflowError:  # far beyond any cap
        return float("inf") if policy.backoff else 0.0
