"""Whether a value fits a JSON Schema, of the kind that msgspec makes of a Python type.

So an answer is checked where it is given, without the code that asked. It is not a general validator: keywords that
msgspec does not write are not looked at. Pure; the invariant: a value that the type reads fits its schema.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import msgspec

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "null": (type(None),), "boolean": (bool,), "string": (str,), "integer": (int,), "number": (int, float),
    "array": (list,), "object": (dict,),
}  # fmt: skip
_FORMATS: Final[dict[str, type]] = {
    "date-time": datetime, "date": date, "time": time, "duration": timedelta, "uuid": UUID, "decimal": Decimal,
}  # fmt: skip


def misfit(value: Any, schema: dict[str, Any]) -> str:
    """Return why *value*, decoded JSON, does not fit *schema*; empty when it does."""
    return next(_misfits(value, schema, schema.get("$defs", {}), "the answer"), "")


def _misfits(  # noqa: C901 - one case a keyword, and one a kind of value
    value: Any, schema: dict[str, Any], defs: dict[str, Any], path: str
) -> Iterator[str]:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        found = [next(_misfits(value, one, defs, path), "") for one in schema["anyOf"]]
        if all(found):
            yield found[0] if len(found) == 1 else f"{path} fits none of its {len(found)} forms: {'; '.join(found)}"
        return
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield f"{path} is none of {msgspec.json.encode(schema['enum']).decode()}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{path} is not {msgspec.json.encode(schema['const']).decode()}"
    if "type" in schema and not _is_of(value, schema["type"]):
        yield f"{path} is not of the type {schema['type']}"
        return
    given: Any = value  # that checkers do not narrow to a list of nobody knows what
    match value:
        case str():
            yield from _text(value, schema, path)
        case bool() | None:
            pass
        case int() | float():
            yield from _number(value, schema, path)
        case list():
            yield from _array(given, schema, defs, path)
        case _:
            yield from _object(value, schema, defs, path)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _is_of(value: Any, kind: str | list[str]) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    return any(isinstance(value, _TYPES[k]) and not (isinstance(value, bool) and k != "boolean") for k in kinds)


def _text(value: str, schema: dict[str, Any], path: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", len(value)):
        yield f"{path} has {len(value)} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path} does not match {schema['pattern']}"
    kind = bytes if schema.get("contentEncoding") == "base64" else _FORMATS.get(schema.get("format", ""))
    if kind is not None:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            yield f"{path}: {error}"


def _number(value: float, schema: dict[str, Any], path: str) -> Iterator[str]:
    is_in = (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and ("multipleOf" not in schema or value % schema["multipleOf"] == 0)
    )
    if not is_in:
        yield f"{path} is out of range: {value}"


def _array(value: list[Any], schema: dict[str, Any], defs: dict[str, Any], path: str) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", len(value)):
        yield f"{path} has {len(value)} items"
    first = schema.get("prefixItems", [])
    rest = schema.get("items", {})
    for number, item in enumerate(value):
        one = first[number] if number < len(first) else rest
        if isinstance(one, dict):
            yield from _misfits(item, cast("dict[str, Any]", one), defs, f"{path}[{number}]")


def _object(value: dict[str, Any], schema: dict[str, Any], defs: dict[str, Any], path: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path} has no {name}"
    if len(value) < schema.get("minProperties", 0) or len(value) > schema.get("maxProperties", len(value)):
        yield f"{path} has {len(value)} fields"
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from _misfits(item, known[name], defs, f"{path}.{name}")
        elif others is False:
            yield f"{path} has an unknown field {name}"
        elif isinstance(others, dict):
            yield from _misfits(item, cast("dict[str, Any]", others), defs, f"{path}.{name}")
