"""How long an answer asks to be left alone: `Retry-After`, wherever a client library puts it. Pure.

Source: RFC 9110, section 10.2.3: seconds, or an HTTP date.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any


def asked_wait(error: BaseException, now: int) -> float | None:
    """Return the seconds that *error* asks to wait, or None; *now* is microseconds since 1970 UTC.

    Looked for as the error's `retry_after` or `retry_after_seconds`, then in the headers of its `response` and its own.
    """
    for name in ("retry_after_seconds", "retry_after"):
        if (value := _attribute(error, name)) is not None:
            return seconds_of(value, now)
    for holder in (_attribute(error, "response"), error):
        get = getattr(_attribute(holder, "headers"), "get", None)
        if callable(get) and (value := get("Retry-After") or get("retry-after")) is not None:
            return seconds_of(value, now)
    return None


def _attribute(thing: object, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody else's error: whatever it raises, it says nothing
        return None


def seconds_of(value: object, now: int) -> float | None:
    """Return a `Retry-After` value as seconds from *now*, or None where it cannot be read as one."""
    match value:
        case bool() | None:
            return None
        case int() | float():
            return float(value) if 0 <= value < float("inf") else None
        case timedelta():
            return max(0.0, value.total_seconds())
        case str():
            return _text_seconds(value.strip(), now)
        case _:
            return None


def _text_seconds(text: str, now: int) -> float | None:
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.fromtimestamp(now / 1e6, UTC)).total_seconds())
