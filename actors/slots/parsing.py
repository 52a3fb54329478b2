r"""Tool calls as models write them in text, and results as they are shown to models. Pure.

Not a parser of XML: a block goes from an opening tag to the first closing one, so JSON that holds a closing tag writes
it `<\/tool_call>`. Invariant: no text makes it raise, and each character is looked at a bounded number of times.
"""

import json
import re
from typing import Any

import msgspec

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.store.expected import checked_function

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"
_NAMED = re.compile(r"([A-Za-z0-9_.:\-]+)\s*(\{.*)", re.DOTALL)


@checked_function
def has_tool_call(text: str) -> bool:
    """Return whether an opening tag is in *text*; the call may still be incomplete."""
    return _OPEN in text


@checked_function
def parse_tool_calls(text: str) -> list[ToolCall]:
    """Return the calls of all complete `<tool_call>…</tool_call>` blocks, in order; never raises.

    A block holds `{"name": …, "arguments": {…}}`, with an optional `uniq_id` or `id`, or `name{…}` with the arguments.
    One that holds anything else is passed over.
    """
    calls: list[ToolCall] = []
    start = text.find(_OPEN)
    while start >= 0:
        begin = start + len(_OPEN)
        end = text.find(_CLOSE, begin)
        if end < 0:  # no block after this one is complete either
            break
        call = _call(text[begin:end].strip())
        if call is not None:
            calls.append(call)
        start = text.find(_OPEN, end + len(_CLOSE))
    return calls


def _call(body: str) -> ToolCall | None:
    if body.startswith("{"):
        return _wrapped(body)
    named = _NAMED.fullmatch(body)
    arguments = None if named is None else _object(named[2])
    if named is None or arguments is None:
        return None
    return ToolCall(named[1], arguments, raw_text=body)


def _wrapped(body: str) -> ToolCall | None:
    found = _object(body)
    name = None if found is None else found.get("name")
    if found is None or not isinstance(name, str) or not name.strip():
        return None
    arguments = _convert(found.get("arguments", {}))
    if arguments is None:
        return None
    id = found.get("uniq_id") or found.get("id")
    if isinstance(id, str):
        return ToolCall(name, arguments, raw_text=body, uniq_id=id)
    return ToolCall(name, arguments, raw_text=body)


def _convert(value: Any) -> dict[str, Any] | None:
    try:
        return msgspec.convert(value, dict[str, Any])
    except msgspec.ValidationError:
        return None


def _object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: half of a surrogate pair
        return None


def to_xml(result: ToolResult) -> str:
    r"""Return *result* as a model is shown it: `<tool_response>{…}</tool_response>`.

    `success` and `output` always stand there, `uniq_id`, `error` and `metadata` where they say something. A closing tag
    inside of the JSON is written `<\/tool_response>`, the same to a JSON reader: output cannot end its own block.
    """
    shown: dict[str, Any] = {"success": result.success, "output": result.output}
    if result.uniq_id:
        shown["uniq_id"] = result.uniq_id
    if result.error:
        shown["error"] = result.error
    if result.metadata:
        shown["metadata"] = result.metadata
    text = json.dumps(shown).replace("</tool_response", "<\\/tool_response")
    return f"<tool_response>{text}</tool_response>"
