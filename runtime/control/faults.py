"""Errors between processes: by name from a closed list, with their data. Pure.

The list is the errors that Perdure itself defines. Invariant: nothing is built from a name that is not on it, and of an
error that is not Perdure's only the type is told, since its text may hold anything.
"""

from typing import Any, cast, get_type_hints

import msgspec

from perdure.runtime.control.messages import Fault
from perdure.store.errors import InternalError, PerdureError


def known_errors() -> dict[str, type[PerdureError]]:
    """Return the errors that may travel, by name: those of Perdure, not those of applications."""
    found: dict[str, type[PerdureError]] = {}
    waiting: list[type[PerdureError]] = [PerdureError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.startswith("perdure."):
            found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


def fault_of(error: Exception) -> Fault:
    """Return what is told of *error*: it, or the nearest of Perdure's errors that it is one of."""
    if not isinstance(error, PerdureError):
        detail = f"the owner met an unexpected {type(error).__name__}, which its own log tells more about"
        return Fault("InternalError", {"detail": detail})
    known = known_errors()
    text = str(error)
    if known.get(type(error).__name__) is type(error):
        return Fault(type(error).__name__, {name: _plain(value) for name, value in vars(error).items()}, text)
    kind = next(kind for kind in type(error).__mro__ if known.get(kind.__name__) is kind)
    return Fault(kind.__name__, {"detail": text, "reason": text}, text)


def error_of(fault: Fault) -> PerdureError:
    """Return the error that *fault* tells of."""
    kind = known_errors().get(fault.kind)
    if kind is None:
        return PerdureError(detail=fault.text or f"the owner answered with {fault.kind}")
    try:
        error = kind(**_typed(kind, fault.data))
        str(error)
    except (TypeError, KeyError, ValueError, IndexError, AttributeError, NameError):
        # Another version's error, with other data: its text is better than none.
        return InternalError(detail=fault.text or fault.kind)
    return error


def _typed(kind: type[PerdureError], data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of an error as its class declares them: structs again where it has such."""
    if not any(isinstance(value, (dict, list)) for value in data.values()):
        return data
    hints = get_type_hints(kind)
    return {name: msgspec.convert(value, hints.get(name, Any)) for name, value in data.items()}


def _plain(value: object) -> Any:
    try:
        return cast("object", msgspec.to_builtins(value, str_keys=True))
    except (TypeError, ValueError, RecursionError):
        return str(value)
