"""From a call as a model asks for it to the work that is done, or to why none is. Decides; dispatches nothing.

Invariant: what is admitted can be written to the log, and says where it runs, how long it may and what a crash means.
"""

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.policy import EFFECTS, SANDBOX_TOOLS, limit, sent_as
from perdure.actors.tools.definition import EffectClass, Tool
from perdure.actors.tools.registry import Registry
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.lane import Where, Work
from perdure.store.errors import PerdureError, UsageError

MAX_UNIQ_ID_LENGTH = 1_000
"""An idempotency key is a run's id and a step's, which its author may have chosen."""


class Admission:
    """Looks calls over."""

    def __init__(
        self, tools: Registry, config: ExecutorConfig, redaction: Redaction, *, default_timeout: float, has_server: bool
    ) -> None:
        self._tools = tools
        self._config = config
        self._redaction = redaction
        self._default_timeout = default_timeout
        self._has_server = has_server

    def admit(self, call: ToolCall, timeout_s: float | None, effect: EffectClass | None) -> Work | ToolResult:
        """Return what to do for *call*, or what its caller is told instead.

        Raises:
            UsageError: there is no such effect class; it would be in the log, where nobody could read it.
        """
        if effect is not None and effect not in get_args(EffectClass):
            raise UsageError(f"effect is one of {', '.join(get_args(EffectClass))}, not {effect!r}")
        try:
            work = _unusable(call) or self._work(call, timeout_s, effect)
        except PerdureError as error:
            work = str(error)
        except Exception as error:  # noqa: BLE001 - a tool that cannot be looked at fails this call, not the next
            work = f"Tool execution error: {str(error) or type(error).__name__}"
        return ToolResult(success=False, error=work) if isinstance(work, str) else work

    def place_of(self, tool: str) -> Where:
        """Return where a tool that needs no slot is called."""
        known: Tool[..., Any] | None = self._tools.get(tool)
        return "server" if known is None or known.offer.external else "here"

    def _work(self, call: ToolCall, timeout_s: float | None, effect: EffectClass | None) -> Work | str:
        tool: Tool[..., Any] | None = self._tools.get(call.name)
        seconds = limit(timeout_s, call.arguments)
        if call.name in SANDBOX_TOOLS and (tool is None or tool.toolset == "sandbox"):
            return self._in_slot(call, seconds, effect)
        if tool is None:
            return f"Unknown tool: {call.name}"
        is_external = tool.offer.external
        if is_external and not self._has_server:
            return f"External tool not available (ToolServer not configured): {call.name}"
        arguments = {key: value for key, value in call.arguments.items() if key != "timeout" or not is_external}
        return Work(
            uniq_id=call.uniq_id,
            tool=call.name,
            arguments=arguments,
            encoded=self._encode(arguments, call.name),
            where="server" if is_external else "here",
            effect=effect or tool.effect,
            timeout_seconds=seconds or self._config.external_timeout_seconds,
        )

    def _in_slot(self, call: ToolCall, seconds: float | None, effect: EffectClass | None) -> Work | str:
        sent = sent_as(call.name, call.arguments, self._config.policy)
        if isinstance(sent, str):
            return sent
        return Work(
            uniq_id=call.uniq_id,
            tool=sent.tool,
            arguments=sent.arguments,
            encoded=self._encode(sent.arguments, call.name),
            where="slot",
            effect=effect or EFFECTS[sent.tool],
            timeout_seconds=seconds or self._default_timeout,
        )

    def _encode(self, arguments: Mapping[str, Any], name: str) -> msgspec.Raw:
        return msgspec.Raw(encode_payload(dict(arguments), where=f"{name}()", redaction=self._redaction))


def _unusable(call: ToolCall) -> str:
    """Return what is wrong with the id or the arguments of a call, whatever their types are, or nothing."""
    uniq_id: Any = call.uniq_id
    arguments: Any = call.arguments
    if not isinstance(uniq_id, str):
        return f"a uniq_id is a text, not {uniq_id!r}"
    if not isinstance(arguments, Mapping):
        return f"arguments are an object with the parameters by name, not {type(arguments).__name__}"
    if not 0 < len(uniq_id) <= MAX_UNIQ_ID_LENGTH:
        return f"a uniq_id has 1 to {MAX_UNIQ_ID_LENGTH} characters, not {len(uniq_id)}"
    if not uniq_id.isprintable():
        return f"a uniq_id has printable characters only, unlike {uniq_id!r}"
    return ""
