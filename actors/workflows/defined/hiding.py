"""Redaction of definitions: what they send as constants is data; their paths and ids are not, whatever they are called.

Pure. Invariant: a definition that was redacted says the same of who is called, with what of the data, and when.
"""

from typing import Any, TypeAlias, cast

import msgspec

from perdure.actors.kernel.payloads import Redaction

Fields: TypeAlias = dict[str, Any]


def redacted(definition: Any, redaction: Redaction) -> Any:
    """Return a definition as plain data, with its metadata and the constants of its steps redacted."""
    plain: Any = msgspec.to_builtins(definition)
    if not isinstance(plain, dict):
        return plain
    fields = cast("Fields", plain)
    steps = [redacted_step(step, redaction) for step in fields.get("steps", ())]
    return {**fields, "metadata": _hidden(fields.get("metadata", {}), redaction), "steps": steps}


def redacted_step(step: Fields, redaction: Redaction) -> Fields:
    """Return the same of a step as plain data."""
    return {**step, "arguments": _hidden(step.get("arguments", {}), redaction)}


def _hidden(value: Any, redaction: Redaction) -> Any:
    return msgspec.json.decode(redaction.apply(msgspec.json.encode(value)))
