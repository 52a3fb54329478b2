"""What becomes of an actor that failed: restarted from the log with backoff, then parked. Pure.

A failure is a bug (an exception that is no `PerdureError`) in `decide`, `evolve` or an effect. State is never kept
across one: it comes from the log again.
"""

import msgspec

from perdure.actors.kernel.clock import SECOND

BACKOFF_SECONDS = (0.1, 0.5, 2.0, 10.0)
"""Waits before the first, second … restart; one failure more parks the actor."""

FORGIVEN_AFTER = 300 * SECOND
"""A failure this long after the last one (microseconds) counts as the first again."""


class Record(msgspec.Struct, frozen=True):
    """The recent failures of one actor."""

    failures: int = 0
    last_at: int = 0
    reason: str = ""
    is_parked: bool = False


def after_failure(record: Record, reason: str, now: int) -> tuple[Record, float | None]:
    """Return the new record and the seconds to wait before a restart; None parks the actor."""
    failures = 1 if now - record.last_at > FORGIVEN_AFTER else record.failures + 1
    if failures > len(BACKOFF_SECONDS):
        parked = f"{reason} ({failures} failures, the last restarts did not help)"
        return Record(failures, now, parked, is_parked=True), None
    return Record(failures, now, reason), BACKOFF_SECONDS[failures - 1]
