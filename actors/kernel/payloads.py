"""What may enter the log as a value: JSON, finite, without secrets.

Arguments and results pass through here on their way in and out, live and replayed alike, so that code only ever sees
`decode(encode(value))`. Invariant: no text under a redacted key name and no revealed secret leaves this module.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, Token
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast

import msgspec

from perdure.store.errors import PayloadTooLargeError, UnencodableError, UsageError
from perdure.store.expected import check_fields

T = TypeVar("T")

JsonObject: TypeAlias = dict[str, Any]
JsonArray: TypeAlias = list[Any]

PAYLOAD_LIMIT_BYTES = 8 * 1024 * 1024
"""The hard limit of one value; half the limit of an event, so that arguments and result fit."""

MAX_DEPTH = 250
"""Levels of arrays and objects in one value: with what is put around it, every reader of the log can take it apart."""

REDACTED = "[redacted]"
REDACTED_KEYS = frozenset({
    "password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "authorization", "access_token",
    "refresh_token", "id_token", "client_secret", "private_key", "cookie", "set_cookie", "session_token",
})  # fmt: skip

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")

_encoder = msgspec.json.Encoder()
_stable_encoder = msgspec.json.Encoder(order="deterministic")


class Secret(msgspec.Struct, frozen=True):
    """A reference to a secret by name; the value is never in a message, in the log or in a `repr`.

    A tool that takes a `Secret` calls `reveal()` inside. What it revealed is cut out of its result and its errors.
    """

    name: str = msgspec.field(name="$secret")

    def __post_init__(self) -> None:
        check_fields(self)

    def reveal(self) -> str:
        """Return the value; only inside a tool or a step that the runtime calls.

        Raises:
            UsageError: called elsewhere, or the runtime's `secrets` do not know the name.
        """
        scope = _SCOPE.get()
        if scope is None:
            raise UsageError(f"Secret({self.name!r}).reveal() works only inside a tool or a step")
        return scope.reveal(self.name)


class SecretScope:
    """The secrets that one call has revealed, to be cut out of what it answers.

    Entered, it is the one that `Secret.reveal` uses while the block runs, in this context and in copies of it.
    """

    __slots__ = ("_resolve", "_revealed", "_token")

    def __init__(self, resolve: Callable[[str], str | None]) -> None:
        self._resolve = resolve
        self._revealed: dict[str, str] = {}
        self._token: Token[SecretScope | None]

    def __enter__(self) -> Self:
        self._token = _SCOPE.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _SCOPE.reset(self._token)

    def reveal(self, name: str) -> str:
        """Return the secret's value and remember it for `scrub`.

        Raises:
            UsageError: nobody knows the name.
        """
        value = self._resolve(name)
        if value is None:
            raise UsageError(f"no secret named {name!r}: give it in Runtime(secrets=…) or as an environment variable")
        self._revealed[name] = value
        return value

    def scrub(self, text: str) -> str:
        """Return *text* with every revealed value replaced by the secret's name."""
        for name, value in self._revealed.items():
            if value:
                text = text.replace(value, f"[secret {name}]")
        return text

    def scrub_json(self, data: bytes) -> bytes:
        """Return JSON with every revealed value replaced inside its strings."""
        if not self._revealed:
            return data
        return _encoder.encode(_map_text(msgspec.json.decode(data), self.scrub))


_SCOPE: ContextVar[SecretScope | None] = ContextVar("perdure_secrets", default=None)


class Redaction:
    """Which key names are redacted; matches whole names, whatever their case, with `-` as `_`."""

    __slots__ = ("_names", "_pattern")

    def __init__(self, names: Iterable[str] = REDACTED_KEYS) -> None:
        self._names = frozenset(n.lower().replace("-", "_") for n in names)
        alternatives = "|".join(re.escape(n).replace("_", "[-_]") for n in sorted(self._names))
        self._pattern = re.compile(rf'"(?:{alternatives})"\s*:'.encode(), re.IGNORECASE) if alternatives else None

    def apply(self, data: bytes) -> bytes:
        """Return JSON with the values under redacted names replaced; references to secrets stay."""
        if b":" not in data or self._pattern is None or self._pattern.search(data) is None:
            return data
        return _encoder.encode(self._walk(msgspec.json.decode(data)))

    def _walk(self, value: Any) -> Any:
        match value:
            case dict():
                return {k: self._item(k, v) for k, v in cast("JsonObject", value).items()}
            case list():
                return [self._walk(v) for v in cast("Iterable[Any]", value)]
            case _:
                return value

    def _item(self, key: str, value: Any) -> Any:
        if key.lower().replace("-", "_") not in self._names:
            return self._walk(value)
        if value is None or (isinstance(value, dict) and cast("JsonObject", value).keys() == {"$secret"}):
            return cast("object", value)
        return REDACTED


def encode_payload(
    value: object, *, where: str, redaction: Redaction, stable: bool = False, limit: int = PAYLOAD_LIMIT_BYTES
) -> bytes:
    """Return *value* as JSON, redacted. With *stable*, equal values give equal bytes (keys and sets sorted).

    Raises:
        UnencodableError: the value is not JSON: NaN or infinity, a lone surrogate, an unknown type, names the path; or
            it is nested too deeply.
        PayloadTooLargeError: more than *limit* bytes.
    """
    try:
        data = (_stable_encoder if stable else _encoder).encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise UnencodableError(where=where, detail=str(error)) from error
    if len(data) > limit:
        raise PayloadTooLargeError(where=_largest(value, where), size=len(data), limit=limit)
    if len(data) > MAX_DEPTH and is_deeper(data, MAX_DEPTH):
        raise UnencodableError(where=where, detail=f"it is nested more than {MAX_DEPTH} levels deep")
    if b"null" in data:  # msgspec writes NaN and infinity as null: only then is the value looked at
        _refuse_non_finite(value, where)
    return redaction.apply(data)


def is_deeper(data: bytes, levels: int) -> bool:
    """Return whether JSON has more than so many levels of arrays and objects."""
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    left = _STRING.sub(b"", data).translate(_ONE_KIND, _NO_BRACKETS)  # brackets in texts are none
    for _ in range(levels):
        if not left:
            return False
        left = left.replace(b"[]", b"")  # the innermost level
    return bool(left)


def payload_decoder(kind: Any, where: str) -> "PayloadDecoder[Any]":
    """Return a decoder of JSON to *kind*.

    Raises:
        UsageError: msgspec cannot read the type.
    """
    try:
        decoder = PayloadDecoder(msgspec.json.Decoder(kind))
        # A class that msgspec does not know has a decoder, which refuses everything, but no schema.
        msgspec.json.schema(kind)
        return decoder
    except TypeError as error:
        raise UsageError(
            f"{where} is declared as {kind!r}, which cannot be read back from JSON ({error}): "
            "use builtins, dataclasses or msgspec Structs"
        ) from error


class PayloadDecoder(Generic[T]):
    """Reads payloads of one type."""

    __slots__ = ("_decoder",)

    def __init__(self, decoder: "msgspec.json.Decoder[T]") -> None:
        self._decoder = decoder

    def decode(self, data: bytes | str | msgspec.Raw, where: str) -> T:
        """Return the value.

        Raises:
            UnencodableError: the JSON does not fit the type.
        """
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise UnencodableError(where=where, detail=str(error)) from error


def _refuse_non_finite(value: object, where: str) -> None:
    for path, leaf in _leaves(msgspec.to_builtins(value), where):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise UnencodableError(where=path, detail=f"{leaf} is not JSON: use None, or a text")


def _largest(value: object, where: str) -> str:
    """Return the path of the largest text in *value*, to point at what is too large."""
    texts = ((len(v), p) for p, v in _leaves(msgspec.to_builtins(value), where) if isinstance(v, str))
    return max(texts, default=(0, where))[1]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, object]]:
    match value:
        case dict():
            for key, item in cast("JsonObject", value).items():
                yield from _leaves(item, f"{path}.{key}")
        case list() | tuple() | set() | frozenset():  # msgspec leaves these as they are
            for number, item in enumerate(cast("JsonArray", value)):
                yield from _leaves(item, f"{path}[{number}]")
        case _:
            yield path, value


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {change(k): _map_text(v, change) for k, v in cast("JsonObject", value).items()}
        case list():
            return [_map_text(v, change) for v in cast("Iterable[Any]", value)]
        case _:
            return value
