"""The parameters and the result of a function as msgspec types, read from its type hints.

It calls nothing. Invariant: what was recorded as arguments fits the parameters, or is refused by name.
"""

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.actors.kernel.payloads import PayloadDecoder, payload_decoder
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.errors import InvalidArgumentsError
from perdure.store.errors import StoreError, UsageError


class Signature:
    """The parameters of a function as a msgspec type: binds, validates, describes."""

    def __init__(self, function: Callable[..., Any], name: str, *, skip: int = 0) -> None:
        """Read the type hints of *function*, passing over its first *skip* parameters.

        Raises:
            UsageError: a hint cannot be read, or a parameter has no name.
        """
        self._name = name
        hints = _hints(function, name)
        self.context_name: str | None = None
        self._names: list[str] = []
        self._optional: list[str] = []
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in list(inspect.signature(function).parameters.values())[skip:]:
            hint = hints.get(parameter.name, Any)
            if hint is ToolContext:
                self.context_name = parameter.name
            else:
                fields.append(_field(parameter, hint, name))
                self._names.append(parameter.name)
                if parameter.default is not inspect.Parameter.empty:
                    self._optional.append(parameter.name)
        self._struct = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self._decoder = payload_decoder(self._struct, f"a parameter of {name}")
        declared = hints.get("return", Any)
        self.result_decoder: PayloadDecoder[Any] = payload_decoder(declared, f"the result of {name}")
        self.declares_none = "return" in hints and _admits(declared, type(None))
        self.declares_bytes = _admits(declared, bytes) or _admits(declared, bytearray)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that a caller gives."""
        return tuple(self._names)

    def takes(self, *names: str) -> bool:
        """Return whether arguments of these names, and of no others, can be given."""
        return set(self._names) - set(self._optional) <= set(names) <= set(self._names)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name.

        Raises:
            InvalidArgumentsError: too many, or one given twice.
        """
        if not args:
            return kwargs
        if len(args) > len(self._names):
            reason = f"it takes {len(self._names)} arguments, {len(args)} were given"
            raise InvalidArgumentsError(detail="", tool=self._name, reason=reason)
        given = dict(zip(self._names, args, strict=False))
        if not kwargs:
            return given
        if twice := given.keys() & kwargs.keys():
            raise InvalidArgumentsError(detail="", tool=self._name, reason=f"{min(twice)!r} is given twice")
        return {**given, **kwargs}

    def decode(self, data: bytes | msgspec.Raw) -> dict[str, Any]:
        """Return the arguments by name from JSON; those left out stay out, so that the function's defaults apply.

        Raises:
            InvalidArgumentsError: they do not fit.
        """
        given = msgspec.structs.asdict(self._decode(data))
        for name in self._optional:
            if given[name] is msgspec.UNSET:
                del given[name]
        return given

    def check(self, data: bytes) -> None:
        """Check that arguments in JSON fit.

        Raises:
            InvalidArgumentsError: they do not.
        """
        self._decode(data)

    def _decode(self, data: bytes | msgspec.Raw) -> msgspec.Struct:
        try:
            given: msgspec.Struct = self._decoder.decode(data, self._name)
        except StoreError as error:
            reason = str(error.__cause__ or error)
            raise InvalidArgumentsError(detail="", tool=self._name, reason=reason) from error
        return given

    def json_schema(self) -> dict[str, Any]:
        """Return the parameters as a JSON schema object."""
        (schema,), components = msgspec.json.schema_components([self._struct], ref_template="#/$defs/{name}")
        root = dict(components.pop(self._struct.__name__)) if "$ref" in schema else dict(schema)
        root.pop("title", None)
        root.setdefault("properties", {})
        root.setdefault("required", [])
        return {**root, "$defs": components} if components else root


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        detail = f"the type hints of {name} cannot be read ({error}): use names that the module defines"
        raise UsageError(detail) from error


def _field(parameter: inspect.Parameter, hint: Any, name: str) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise UsageError(f"{name} has the parameter {parameter}: name every parameter, so that a call can be recorded")
    if parameter.default is inspect.Parameter.empty:
        return parameter.name, hint
    return parameter.name, hint | msgspec.UnsetType, msgspec.UNSET


def _admits(hint: Any, kind: type) -> bool:
    return hint is kind or (hint is None and kind is type(None)) or kind in typing.get_args(hint)
