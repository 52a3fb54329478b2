"""What is recorded of a delivery: the data of its event `webhook_received`. Pure.

Invariant: what proves who the sender is, and what lets it in elsewhere, is not in it.
"""

from collections.abc import Iterable
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec

from perdure.actors.kernel.payloads import REDACTED

MAX_DEPTH: Final = 200
"""Levels of a payload: what is nested deeper is kept as text, since not every reader of the log could take it apart."""

_TELLING: Final = (
    "signature", "hmac", "authorization", "x-auth", "token", "secret", "cookie", "session", "credential", "password",
    "api-key", "apikey", "access-key", "auth-key",
)  # fmt: skip
"""In the name of a header that is not written down."""


class DeliveryData(msgspec.Struct, frozen=True):
    """The data of a delivery's event."""

    path: str
    method: str
    headers: dict[str, str]
    """With small letters in their names; those that prove or let in are `[redacted]`."""
    payload: Any
    """The JSON of the body; `{}` if empty, `{"raw_body": text}` if it is not JSON, too deep, or names a secret."""
    query_params: dict[str, Any]
    """A text for each name; a list of them where it was given more than once."""
    path_params: dict[str, str]


def payload_of(body: bytes) -> Any:
    """Return what a body says."""
    if not body:
        return {}
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _raw(body)
    may_be_deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH
    if may_be_deep and _is_deep(payload):
        return _raw(body)
    may_name_one = b"$secret" in body or b"\\u" in body  # which may be a letter of it
    return _raw(body) if may_name_one and _names_secret(payload) else payload


def _raw(body: bytes) -> dict[str, Any]:
    try:
        return {"raw_body": body.decode()}
    except UnicodeDecodeError:
        return {"raw_body": body.decode(errors="backslashreplace")}


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _names_secret(value: Any) -> bool:
    """Return whether there is a reference to a secret in a payload: a tool that takes one would be given the value."""
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict) and "$secret" in one:
            return True
        left.extend(_inside(one))
    return False


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("Iterable[Any]", value) if isinstance(value, list) else ()


def recorded_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that may be written down; one that came more than once is joined by commas."""
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()  # noqa: PLW2901 - HTTP's names have no case
        if any(word in name for word in _TELLING):
            found[name] = REDACTED
        else:
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def query_params(query: str) -> dict[str, Any]:
    """Return the parameters of a query string."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
