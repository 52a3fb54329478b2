"""Reading what a request says: names in its path, its query, its body, each checked against a type. Nothing lenient.

Invariant: whatever comes in either fits the description or is refused with a status and a reason; a body that is too
large, or never ends, is not kept.
"""

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import inspect
from starlette.requests import Request

from perdure.runtime.web.api.endpoint import JSON, PATH_TYPES, Endpoint, Name
from perdure.runtime.web.api.limits import ApiLimits
from perdure.runtime.web.api.problems import Refused

Way: TypeAlias = Literal["text", "json", "texts"]
"""How a parameter of a query is read."""

_NO_CONTENT: Final = {"0", None}


def read_path(endpoint: Endpoint, parts: Iterable[str]) -> dict[str, str]:
    """Return the names in a path, whose *parts* are as they were sent.

    Raises:
        Refused: one cannot be a name.
    """
    found: dict[str, str] = {}
    for name, part in zip(endpoint.names, parts, strict=True):
        try:
            text = unquote_to_bytes(part).decode()
            found[name] = msgspec.convert(text, PATH_TYPES.get(name, Name))
        except UnicodeDecodeError:
            raise Refused(422, "InvalidPathError", f"{name} is not UTF-8") from None
        except msgspec.ValidationError as error:
            raise Refused(422, "InvalidPathError", f"{name}: {error}") from None
    return found


def read_query(request: Request, kind: type[msgspec.Struct] | None) -> Any:
    """Return the query of a request as a *kind*; None: it may have none.

    Raises:
        Refused: it has names that are not known, one twice that may be there once, or a value that does not fit.
    """
    ways = {} if kind is None else _ways(kind)
    given: dict[str, Any] = {}
    for name in request.query_params:
        texts = request.query_params.getlist(name)
        if name not in ways:
            known = ", ".join(ways) or "none"
            raise Refused(422, "InvalidQueryError", f"there is no parameter {name!r} here; there are: {known}")
        if ways[name] == "texts":
            given[name] = texts
        elif len(texts) > 1:
            raise Refused(422, "InvalidQueryError", f"{name} stands there twice")
        else:
            given[name] = texts[0] if ways[name] == "text" else _value(name, texts[0])
    if kind is None:
        return None
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Refused(422, "InvalidQueryError", str(error)) from None


def _value(name: str, text: str) -> Any:
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = None
    if not isinstance(value, (bool, int)):
        raise Refused(422, "InvalidQueryError", f"{name} is a whole number, or true or false, not {text[:50]!r}")
    return value


@cache
def _ways(kind: type[msgspec.Struct]) -> dict[str, Way]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)  # noqa: S101 - the table has nothing else
    return {field.encode_name: _way(field.type) for field in info.fields}


def _way(kind: inspect.Type) -> Way:
    if isinstance(kind, inspect.UnionType):
        kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, (inspect.VarTupleType, inspect.ListType)):
        return "texts"
    return "json" if isinstance(kind, (inspect.IntType, inspect.BoolType)) else "text"


class Bodies:
    """The bodies of a server that are on their way."""

    def __init__(self) -> None:
        self.bytes_at_once = 0


async def read_body(request: Request, kind: type[msgspec.Struct] | None, limits: ApiLimits, bodies: Bodies) -> Any:
    """Return the body of a request as a *kind*; None: it may have none.

    Raises:
        Refused: it is too large or too slow, no JSON, or does not fit; or too much is on its way beside it.
        ClientDisconnect: who sent it left before its end.
    """
    body = await _bytes(request, limits, bodies)
    if kind is None:
        if body:
            raise Refused(422, "InvalidBodyError", "there is no body here")
        return None
    if not body and not _has_required(kind):
        return kind()
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != JSON or request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "UnsupportedMediaTypeError", f"a body is {JSON}, as it stands", {"Accept": JSON})
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(422, "InvalidBodyError", str(error)) from None
    except RecursionError:
        raise Refused(400, "InvalidJsonError", "the body is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(400, "InvalidJsonError", f"the body is not JSON: {error}") from None


def check_names_no_secret(body: object) -> None:
    """Check that what was sent names no secret: a tool would be given the value, and whoever asks chooses the tool.

    However deep it is nested: what comes after says that it is too deep.

    Raises:
        Refused: it has an object with the key `$secret`.
    """
    left: list[Any] = [body]
    while left:
        one = left.pop()
        if isinstance(one, msgspec.Struct):
            left.extend(getattr(one, name) for name in one.__struct_fields__)
        elif isinstance(one, (list, tuple)):
            left.extend(cast("list[object]", one))
        elif isinstance(one, dict):
            if "$secret" in one:
                raise Refused(403, "ForbiddenError", "a reference to a secret ($secret) takes the role admin")
            left.extend(cast("dict[str, object]", one).values())


def read_text(text: object) -> object:
    """Return what a text says that is JSON, as a question may read it; any other thing as it is."""
    if not isinstance(text, str):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text


def _has_required(kind: type[msgspec.Struct]) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))


async def _bytes(request: Request, limits: ApiLimits, bodies: Bodies) -> bytes:
    said = request.headers.get("content-length")
    if said is not None and said.isdecimal() and int(said[:20]) > limits.body_bytes:
        raise _too_large(limits)
    if said in _NO_CONTENT and "transfer-encoding" not in request.headers:
        return b""
    parts = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                parts += part
                bodies.bytes_at_once += len(part)
                if len(parts) > limits.body_bytes:
                    raise _too_large(limits)
                if bodies.bytes_at_once > limits.bytes_at_once:
                    headers = {"Retry-After": "1", "Connection": "close"}
                    raise Refused(503, "TooManyRequestsError", "too much is being sent at once", headers)
    except TimeoutError:
        detail = f"the body did not come within {limits.body_seconds:g} s"
        raise Refused(408, "SlowRequestError", detail, {"Connection": "close"}) from None
    finally:
        bodies.bytes_at_once -= len(parts)
    return bytes(parts)


def _too_large(limits: ApiLimits) -> Refused:
    detail = f"the body is over {limits.body_bytes} bytes"
    return Refused(413, "BodyTooLargeError", detail, {"Connection": "close"})
