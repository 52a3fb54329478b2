"""Tool calls as a model makes them: a name and JSON in, a text out, whatever happens. Pure, but for the call itself.

A model cannot handle an exception; it can read why something did not work. The texts are a contract.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.tools.errors import (
    BulkheadFullError,
    CircuitOpenError,
    InvalidArgumentsError,
    RateLimitedError,
    ToolError,
    ToolFailedError,
    UnknownToolError,
)
from perdure.store.codec import BLOB_THRESHOLD_BYTES
from perdure.store.errors import PayloadTooLargeError, UnencodableError

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.options import OptionValues

PREVIEW_CHARACTERS = 2_000
"""Of a result that is too large to hand to a model."""


def parse_arguments(tool: str, arguments: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; models send them as a JSON text.

    Raises:
        InvalidArgumentsError: it is not a JSON object.
    """
    if isinstance(arguments, Mapping):
        return dict(arguments)
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # also lone surrogates, and too many brackets
        raise InvalidArgumentsError(detail="", tool=tool, reason=f"they are not a JSON object: {error}") from error


def text_of(result: bytes, error: str = "") -> str:
    """Return what a model is shown of a result: a text as it is, anything else as JSON; a large one as a preview.

    The preview of a large result that reports an *error* says so.
    """
    value: Any = msgspec.json.decode(result) if result[:1] == b'"' else None
    text = value if isinstance(value, str) else result.decode()
    if len(result) <= BLOB_THRESHOLD_BYTES:
        return text
    shown: dict[str, object] = {
        **({"error": error} if error else {}),
        "preview": text[:PREVIEW_CHARACTERS],
        "truncated": True,
        "bytes": len(result),
        "sha256": hashlib.sha256(result).hexdigest(),
    }
    return _json(shown)


def text_of_error(error: ToolError) -> str:
    """Return what a model is told of a call that came to nothing."""
    match error:
        case UnknownToolError(tool=tool):
            return _json({"error": f"Unknown tool: {tool}"})
        case CircuitOpenError(tool=tool, reason=reason, retry_after_seconds=wait):
            text = (
                f"{tool} is temporarily unavailable: its circuit breaker is OPEN ({reason}). "
                "Retry in a few minutes, or use another tool."
            )
            body = {"error": text, "circuit_breaker": True, "tool_name": tool, "retry_after_s": round(wait, 3)}
            return _json(body)
        case RateLimitedError(tool=tool, retry_after_seconds=wait):
            return _json(
                {"error": str(error), "rate_limited": True, "tool_name": tool, "retry_after_s": round(wait, 3)}
            )
        case BulkheadFullError(tool=tool):
            return _json({"error": str(error), "overloaded": True, "tool_name": tool})
        case ToolFailedError(result=str() as result, reason=reason):
            return text_of(result.encode(), reason)
        case ToolFailedError(error_type=kind, reason=reason):
            return _json({"error": f"Tool execution failed: {kind}: {reason}"})
        case InvalidArgumentsError(tool=tool, reason=reason):
            return _json({"error": f"Invalid arguments for {tool}: {reason}"})
        case _:
            return _json({"error": str(error)})


def _json(value: Mapping[str, object]) -> str:
    return msgspec.json.encode(value).decode()


async def dispatched(
    runtime: "Runtime", name: str, arguments: str | bytes | Mapping[str, Any], options: "OptionValues"
) -> str:
    """Make a call as a model asks for it and return what the model is told. See `Runtime.dispatch`."""
    try:
        tool = runtime.tools[name]
        data = tool.encode_arguments((), parse_arguments(name, arguments), runtime.redaction)
        success = await runtime.call_encoded(tool, data, options)
    except ToolError as error:
        return text_of_error(error)
    except (PayloadTooLargeError, UnencodableError) as error:
        return text_of_error(InvalidArgumentsError(detail="", tool=name, reason=str(error)))
    return text_of(success.result)
