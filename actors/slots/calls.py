"""What goes between a model and the slots: a tool call and its result, as they stand on the wire. Frozen data.

The field names are a wire format that other programs speak; they are never renamed.
"""

from typing import Any
from uuid import uuid4

import msgspec


def _new_id() -> str:
    return str(uuid4())


class ToolCall(msgspec.Struct, frozen=True):
    """A call as a model asks for it."""

    name: str
    arguments: dict[str, Any] = {}
    raw_text: str = ""
    """The text that it was parsed from."""
    uniq_id: str = msgspec.field(default_factory=_new_id)
    """The same id is executed once, also after a restart."""


class ToolResult(msgspec.Struct, frozen=True):
    """What a call came to; an explanation in place of an exception."""

    success: bool
    output: str = ""
    error: str = ""
    metadata: dict[str, Any] = {}
    uniq_id: str | None = None
