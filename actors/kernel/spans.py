"""How long code may say that something lasts: limits of time, and sleeps.

Not here: when they are over, which the clock and the log say. Invariant: what is let through, added to any time of this
age, is a date that can be written down and shown. `timedelta.max` is not: one such time in the log would keep it from
being written, and shown, at all.
"""

from datetime import timedelta
from typing import Final

from perdure.store.errors import UsageError

LONGEST: Final = timedelta(days=365_000)
"""About a thousand years; who means for ever leaves the limit out."""


def check_limit(given: timedelta | None, what: str, *, may_be_over: bool = False) -> None:
    """See to it that *given* can be the limit that *what* names.

    Raises:
        UsageError: it is no timedelta, is not more than 0 unless it *may_be_over*, or is longer than a thousand years.
    """
    if given is None:
        return
    if not isinstance(given, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is checked
        raise UsageError(f"{what} is a timedelta such as timedelta(minutes=5), or left out, not {_shown(given)}")
    if given <= timedelta(0) and not may_be_over:
        raise UsageError(f"{what} is more than 0, or left out")
    if abs(given) > LONGEST:
        raise UsageError(f"{what} is at most a thousand years: leave it out for none")


def span_of(given: object, what: str) -> timedelta:
    """Return a time that is given in seconds, or as a timedelta.

    Raises:
        UsageError: it is neither, or is longer than a thousand years.
    """
    longest = LONGEST.total_seconds()
    match given:
        case timedelta() if abs(given) <= LONGEST:
            return given
        case int() | float() if not isinstance(given, bool) and abs(given) <= longest:
            return timedelta(seconds=given)
        case timedelta() | int() | float() if not isinstance(given, bool) and given == given:  # noqa: PLR0124 - NaN is not itself
            raise UsageError(f"{what} takes at most a thousand years")
        case _:
            raise UsageError(f"{what} takes seconds or a timedelta, not {_shown(given)}")


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 100 else f"{text[:99]}…"  # noqa: PLR2004 - enough to know it by
