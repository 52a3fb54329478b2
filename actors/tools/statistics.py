"""The figures of a tool, derived from its state: folds of the log, which a restart does not zero. Pure."""

from collections.abc import Sequence

import msgspec

from perdure.actors.kernel.messages import Moment
from perdure.actors.tools.breaker import Breaker, BreakerPolicy, Circuit, Outcome


class ToolStatistics(msgspec.Struct, frozen=True):
    """The figures of a tool since its first call. Times are seconds."""

    state: str
    """`closed`, `open` or `half_open`; as of now, whether it was called since or not."""
    failures: int
    """Failures in a row."""
    successes: int
    avg_time: float
    calls: int
    """Calls that ended, whatever came of them; neither refused nor cancelled ones."""
    rejected: int
    cancelled: int
    lost: int
    """Calls outside of runs that the process died in."""
    p50: float
    """Of the last hundred calls."""
    p95: float
    last_error: str
    opened_at: float | None
    """When the circuit opened (seconds since 1970 UTC); None unless it is open."""
    retry_after_seconds: float
    """Until a probe may be let through."""
    forced: str
    """What an operator made of the circuit: `open`, `disabled`, or nothing."""


def breaker_now(breaker: Breaker, policy: BreakerPolicy, moment: Moment) -> tuple[Circuit, float]:
    """Return the circuit's state as of *moment*, and the seconds until a probe may be let through.

    A circuit whose time has come is half open, called or not.
    """
    if breaker.circuit is not Circuit.OPEN or breaker.forced:
        return breaker.circuit, 0.0
    left = (breaker.opened_at - moment.steady) / 1e6 + policy.reset_timeout.total_seconds()
    return (Circuit.OPEN, left) if left >= 0 else (Circuit.HALF_OPEN, 0.0)


def percentile(recent: Sequence[Outcome], share: float) -> float:
    """Return the time (seconds) that *share* of the recent calls did not exceed: the nearest rank."""
    if not recent:
        return 0.0
    times = sorted(outcome.micros for outcome in recent)
    rank = max(1, -(-int(share * 1000) * len(times) // 1000))
    return times[rank - 1] / 1e6
