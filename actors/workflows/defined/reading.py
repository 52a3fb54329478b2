"""Reads definitions from JSON, TOML and plain data, and tells everything that does not fit, with its path.

Only the shape is checked here, field by field; what the names in a definition stand for is `checking.py`'s matter.
Invariant: whatever is read, the answer is a definition or `InvalidDefinitionError`.
"""

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.workflows.defined.errors import Fault, InvalidDefinitionError
from perdure.actors.workflows.defined.model import WorkflowDefinition
from perdure.actors.workflows.defined.wording import kind_of, nearest, under
from perdure.store.errors import PayloadTooLargeError, UnencodableError, UsageError
from perdure.store.expected import checked_function

Source: TypeAlias = str | bytes | os.PathLike[str] | Mapping[str, Any] | WorkflowDefinition
"""A definition, plain data, the text of one in JSON or TOML, or the path of a file of these."""

LONGEST: Final = 1024 * 1024
"""Bytes of a definition: each run carries it."""

_DEEPEST: Final = 64
"""Objects within objects, in arguments and metadata."""


@checked_function
def load_definition(source: Source) -> WorkflowDefinition:
    """Read a definition from whatever it is in; a text is a path when it ends with .json or .toml.

    Raises:
        InvalidDefinitionError: it does not fit; names every fault with its path.
        UsageError: a path ends with neither .json nor .toml.
        OSError: the file cannot be read.
    """
    if isinstance(source, (WorkflowDefinition, Mapping)):
        return from_data(source)
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_path(source)):
        path = Path(source)
        if path.suffix.lower() not in (".json", ".toml"):  # never the log, whose locks would fall with any close
            raise UsageError(f"a file of a definition ends with .json or .toml, which {path.name} does not")
        return (from_toml if path.suffix.lower() == ".toml" else from_json)(path.read_bytes())
    text = _text(source)
    return from_json(text) if text.lstrip().startswith(("{", "[")) else from_toml(text)


def _is_path(source: str) -> bool:
    return "\n" not in source and source.lower().endswith((".json", ".toml"))


def from_json(source: str | bytes) -> WorkflowDefinition:
    """Read a definition from JSON.

    Raises:
        InvalidDefinitionError: it is not JSON, or does not fit.
    """
    return from_data(_parsed(source, "JSON", lambda text: json.loads(text, parse_constant=_refuse_constant)))


def from_toml(source: str | bytes) -> WorkflowDefinition:
    """Read a definition from TOML; its dates become texts.

    Raises:
        InvalidDefinitionError: it is not TOML, or does not fit.
    """
    return from_data(_parsed(source, "TOML", lambda text: msgspec.to_builtins(tomllib.loads(text))))


def from_data(source: Any) -> WorkflowDefinition:
    """Read a definition from plain data, such as what a request carried, or from one that was made in Python.

    Raises:
        InvalidDefinitionError: it does not fit; names every fault with its path.
    """
    plain = _as_json(source)
    faults: list[Fault] = []
    read = _shaped(plain, WorkflowDefinition, "", faults)
    if read is None:
        raise InvalidDefinitionError(workflow_id=_id_of(plain), faults=tuple(faults))
    return cast("WorkflowDefinition", read)


def _text(source: str | bytes) -> str:
    try:
        return source if isinstance(source, str) else bytes(source).decode()
    except UnicodeDecodeError as error:
        raise InvalidDefinitionError(faults=(Fault("", f"it is not text in UTF-8: {error}"),)) from error


def _parsed(source: str | bytes, form: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(_text(source))
    except (ValueError, RecursionError) as error:  # both JSON's and TOML's errors are ValueErrors
        if isinstance(error, InvalidDefinitionError):
            raise
        raise InvalidDefinitionError(faults=(Fault("", f"it is not {form}: {error}"),)) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _id_of(source: Any) -> str:
    found: Any = cast("dict[str, Any]", source).get("id") if isinstance(source, Mapping) else None
    return found if isinstance(found, str) else "?"


def _as_json(source: Any) -> Any:
    """Return *source* as it would be read from JSON, so that a definition is the same wherever it was made.

    Raises:
        InvalidDefinitionError: it cannot be written as JSON, or is too large.
    """
    try:
        plain = msgspec.json.decode(encode_payload(source, where="", redaction=Redaction(()), limit=LONGEST))
        if not _is_deep(plain, _DEEPEST):
            return plain
        fault = Fault("", f"it is more than {_DEEPEST} objects deep")
    except UnencodableError as error:
        fault = Fault(str(error.where).removeprefix("."), f"it cannot be written as JSON: {error.detail}")
    except PayloadTooLargeError as error:
        fault = Fault(
            str(error.where).removeprefix("."), f"the definition is {error.size} bytes, the limit is {LONGEST}"
        )
    id = source.id if isinstance(source, WorkflowDefinition) and isinstance(source.id, str) else _id_of(source)  # pyright: ignore[reportUnnecessaryIsInstance] # not checked yet
    raise InvalidDefinitionError(workflow_id=id, faults=(fault,))


def _is_deep(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if not isinstance(value, list):
        return False
    return left == 0 or any(_is_deep(each, left - 1) for each in cast("Sequence[Any]", value))


# Field by field, so that all faults are told and not only the first: msgspec stops there.


class _Field(msgspec.Struct, frozen=True):
    """How one field of a struct is read."""

    name: str
    wire: str
    kind: Any
    is_required: bool
    struct: type[msgspec.Struct] | None = None
    """What an object in it is read as."""
    is_many: bool = False


@cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, _Field]:
    hints = get_type_hints(struct)
    made: dict[str, _Field] = {}
    for field in msgspec.structs.fields(struct):
        kind = hints[field.name]
        options = get_args(kind) if get_origin(kind) in (Union, UnionType, tuple) else (kind,)
        inner = next((o for o in options if isinstance(o, type) and issubclass(o, msgspec.Struct)), None)
        is_many = inner is not None and get_origin(kind) is tuple
        made[field.encode_name] = _Field(field.name, field.encode_name, kind, field.required, inner, is_many)
    return made


def _shaped(value: Any, struct: type[msgspec.Struct], at: str, faults: list[Fault]) -> msgspec.Struct | None:
    """Return *value* as a *struct*, or None with more *faults*."""
    if not isinstance(value, Mapping):
        faults.append(Fault(at, f"it is an object, not {kind_of(value)}"))
        return None
    given, fields, before = cast("Mapping[str, Any]", value), _fields(struct), len(faults)
    faults.extend(Fault(under(at, key), _unknown(str(key), fields)) for key in given if key not in fields)
    faults.extend(
        Fault(under(at, f.wire), "it is missing") for f in fields.values() if f.is_required and f.wire not in given
    )
    read = {f.name: _read(given[f.wire], f, under(at, f.wire), faults) for f in fields.values() if f.wire in given}
    return None if len(faults) > before else struct(**read)


def _read(value: Any, field: _Field, at: str, faults: list[Fault]) -> Any:
    if field.struct is not None and field.is_many:
        if isinstance(value, (list, tuple)):
            items = enumerate(cast("Sequence[Any]", value))
            return tuple(_shaped(each, field.struct, f"{at}[{number}]", faults) for number, each in items)
        faults.append(Fault(at, f"it is a list, not {kind_of(value)}"))
        return None
    if field.struct is not None and isinstance(value, Mapping):
        return _shaped(value, field.struct, at, faults)
    if get_origin(field.kind) is dict and isinstance(value, Mapping):
        return {key: _convert(each, get_args(field.kind)[1], under(at, key), faults) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType, reportUnknownArgumentType] # any JSON
    return _convert(value, field.kind, at, faults)


def _convert(value: Any, kind: Any, at: str, faults: list[Fault]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        _, _, inner = str(error).partition(" - at `$")
        words = _words(kind)
        if isinstance(value, str) and (values := _values(kind)):
            faults.append(Fault(at, f"{value!r} is none of its values; {nearest(value, values)}"))
        else:
            faults.append(Fault(f"{at}{inner.rstrip('`')}", f"it is {words}, not {kind_of(value)}"))
        return None


def _values(kind: Any) -> tuple[str, ...]:
    """Return the words that a field may have, where only some are allowed."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(value for option in get_args(kind) for value in _values(option))


def _words(kind: Any) -> str:
    """Return what a type is to somebody who writes JSON."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(option) for option in get_args(kind) if option is not type(None)))
    names: dict[object, str] = {
        str: "a text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        tuple: "a list",
    }
    found = names.get(get_origin(kind) or kind, "a text" if get_origin(kind) is Literal else "an object")
    return f"{found} of texts" if get_args(kind)[:1] == (str,) and found == "a list" else found


def _unknown(key: str, fields: Mapping[str, Any]) -> str:
    return f"there is no such field; {nearest(key, fields)}"
