"""What a call came to: one rule for what counts as a failure, wherever the result comes from. Pure.

A raised exception is a failure. So is a JSON object (returned, or as text) whose `error` says something, which null,
false, 0 and what is empty do not; any other text is not judged. `None` and bytes are failures unless the tool declares
them.
"""

from typing import Any, cast

import msgspec

from perdure.actors.kernel.accounts import place_of

ERROR_TEXT_LIMIT = 4_000
"""Characters kept of an error's text: enough for a person, too little to fill the log."""


class Failure(msgspec.Struct, frozen=True):
    """Why a call failed: the type's name, its bases' names, the text."""

    error_type: str
    message: str
    bases: tuple[str, ...] = ()
    retry_after: float | None = None
    """Seconds that the answer asks to wait before the next attempt."""
    result: bytes | None = None
    """What the call returned all the same, as JSON, where it reported an error."""
    where: str = ""
    """The line of the application that it came from, as `shop.py:12 in pay`."""


class Success(msgspec.Struct, frozen=True):
    """The result of a call, as JSON and as it is read back from that."""

    result: bytes
    value: Any


def reported_error(result: bytes) -> str | None:
    """Return the error that a result reports, or None; *result* is JSON."""
    if b'error\\"' not in result and b'"error"' not in result:
        return None
    value: Any = msgspec.json.decode(result)
    if isinstance(value, str):
        value = _as_object(value)
    error: Any = cast("dict[str, Any]", value).get("error") if isinstance(value, dict) else None
    if not error:
        return None
    return recordable(error if isinstance(error, str) else msgspec.json.encode(error).decode())


def _as_object(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def describe(error: BaseException, text: str | None = None, *, retry_after: float | None = None) -> Failure:
    """Return what is recorded of an exception: names, text and the line that it came from, no traceback."""
    bases = tuple(c.__name__ for c in type(error).__mro__ if c not in (object, BaseException, Exception))
    told = recordable(str(error) if text is None else text)
    return Failure(type(error).__name__, told, bases, retry_after, where=recordable(place_of(error)))


def recordable(text: str) -> str:
    """Return an error's text fit for the log: no lone surrogates, not longer than 4,000 characters."""
    if len(text) > ERROR_TEXT_LIMIT:
        text = f"{text[:ERROR_TEXT_LIMIT]}… ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()
