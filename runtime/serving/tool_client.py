"""Calls of tools that live on a tool server: one request a call, never repeated.

Whatever goes wrong with a call is its result, with a text that says what. A request that may have arrived is not made
again: the caller who knows the tool's effect class decides.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.runtime.serving.client import JsonClient, Reply
from perdure.runtime.serving.errors import NoAnswerError, ServingError
from perdure.runtime.serving.payloads import LenientToolResult, ToolCallPayload, ToolServerExecuteRequest

if TYPE_CHECKING:
    import httpx2

GRACE_SECONDS: Final = 2.0
"""What a server gets beyond the limit of a call, to say itself that the time is over."""

_OK: Final = 200
_decode = msgspec.json.Decoder(LenientToolResult).decode


class ToolServerClient:
    """A tool server by its URL. Close it with `aclose`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        default_timeout_seconds: float = 30.0,
        transport: "httpx2.AsyncBaseTransport | None" = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: of the server; a slash at its end is passed over.
            token: sent as a bearer token; none when it is empty.
            default_timeout_seconds: how long a call may take that says nothing of its own.
            transport: another way than the network: `httpx2.ASGITransport(app)` for a server in this process.

        Raises:
            UsageError: httpx2 is missing, or it is no URL.
        """
        self._client = JsonClient(url, token, transport=transport)
        self._default = default_timeout_seconds

    @property
    def url(self) -> str:
        """Of the server, without a slash at its end."""
        return self._client.url

    async def aclose(self) -> None:
        """Close what is open to the server."""
        await self._client.aclose()

    async def execute(
        self,
        call: ToolCall,
        *,
        trajectory_id: str | None = None,
        timeout_s: float | None = None,
        slot_id: str | None = None,
        container_addr: str | None = None,
    ) -> ToolResult:
        """Make *call* and return what it came to; never raises for what goes wrong with it.

        A failure that begins with `External tool failed: ` is of the way there. Where the tool may have run all the
        same, `metadata` says `"outcome": "unknown"`. Cancelling closes the connection: for the server, a cancel.
        """
        request = ToolServerExecuteRequest(
            trajectory_id=trajectory_id,
            tool=ToolCallPayload.of(call),
            timeout_s=timeout_s,
            slot_id=slot_id,
            container_addr=container_addr,
        )
        limit = self._default if timeout_s is None else timeout_s + GRACE_SECONDS
        try:
            reply = await self._client.post("/execute", request, timeout_seconds=limit)
            return _read(reply, call.uniq_id)
        except NoAnswerError as error:
            return _failed(call, str(error), is_known=False)
        except (ServingError, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            return _failed(call, str(error) or type(error).__name__, is_known=True)


def _read(reply: Reply, uniq_id: str) -> ToolResult:
    if reply.status != _OK:
        return _failed(uniq_id, f"HTTP {reply.status}: {reply.detail()}", is_known=reply.status < 500)  # noqa: PLR2004
    try:
        return _decode(reply.body).result(uniq_id)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return _failed(uniq_id, f"the reply is not a tool result: {error}", is_known=False)


def _failed(call: ToolCall | str, text: str, *, is_known: bool) -> ToolResult:
    uniq_id = call if isinstance(call, str) else call.uniq_id
    metadata = {} if is_known else {"outcome": "unknown"}
    return ToolResult(success=False, error=f"External tool failed: {text}", metadata=metadata, uniq_id=uniq_id)
