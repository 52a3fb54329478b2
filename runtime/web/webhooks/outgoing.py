"""Webhooks that go out: a tool that sends a signed request, and that a workflow calls as a durable step.

Not here: when it is sent again (`actors/tools/retry.py`). Invariants: every attempt of one call, before and after a
crash, has the same id, so that the receiver can tell; neither the URL nor a secret is in the log.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import msgspec

from perdure.actors.kernel.payloads import Secret
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.decorator import tool
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.retry import Retry
from perdure.runtime.serving.extra import serve_extra
from perdure.runtime.web.webhooks.errors import WebhookNotDeliveredError, WebhookRefusedError
from perdure.store.errors import UsageError
from perdure.store.expected import checked_function

if TYPE_CHECKING:
    import httpx2

OutgoingScheme: TypeAlias = Literal["standard", "github", "bearer"]
"""How a request is signed: as the receiver verifies it."""

WEBHOOK_RETRY: Final = Retry(
    attempts=10,
    backoff=timedelta(seconds=5),
    factor=4,
    cap=timedelta(hours=6),
    never_on=(WebhookRefusedError, UsageError),
)
"""Ten attempts within about a day: a receiver may be down for a night."""

WEBHOOK_BREAKER: Final = BreakerPolicy(excluded=("WebhookRefusedError", "UsageError"))
"""A receiver that refuses one request is not down."""

_AGAIN: Final = frozenset({408, 425, 429})
_CONNECT_SECONDS: Final = 10.0
_ANSWER_BYTES: Final = 2_000
"""Of an answer; the rest is not read."""
_ID: Final = re.compile(r"[!-~]{1,128}")


class WebhookReceipt(msgspec.Struct, frozen=True):
    """What became of a webhook: the receiver took it."""

    id: str
    """What it was called: the same in every attempt."""
    status: int
    """What the receiver answered, 200 to 299."""


@checked_function
def webhook_tool(  # noqa: PLR0913 - what a webhook may be, all but the first two by keyword
    name: str,
    url: str | Secret,
    *,
    secret: str | Secret | None = None,
    scheme: OutgoingScheme = "standard",
    retry: Retry = WEBHOOK_RETRY,
    timeout: float = 20.0,
    now: Callable[[], float] = time.time,
    transport: "httpx2.AsyncBaseTransport | None" = None,
) -> Tool[[Any], WebhookReceipt]:
    """Return a tool that posts its one argument as JSON to a URL: `await ctx.call(notify, {"order": 7})`.

    It is idempotent: after a crash it is sent again under the same id, the header `webhook-id` (and `idempotency-key`),
    by which the receiver knows it. 2xx is delivered; 408, 425, 429, 5xx and no answer are tried again as *retry* says,
    not before the time that the receiver asks for; everything else, redirects too, fails for good.

    Args:
        name: of the tool, in the log.
        url: where to; a `Secret` where the URL itself lets in.
        secret: what to sign with, better a `Secret`; None sends it unsigned.
        scheme: `standard` (Standard Webhooks, the secret is base64), `github` (`X-Hub-Signature-256`) or `bearer`.
        retry: when it is sent again.
        timeout: seconds that one attempt may take.
        now: the time that is signed, in seconds since 1970: the receiver compares it with its own clock.
        transport: another way than the network, such as `httpx2.ASGITransport`.

    Raises:
        UsageError: the URL or the secret cannot be one, or the extra `serve` is not installed.
    """
    with serve_extra("a webhook that goes out"):
        import_module("httpx2")
        import_module("standardwebhooks")

    if scheme not in get_args(OutgoingScheme):
        raise UsageError(f"the scheme of {name} is one of {', '.join(get_args(OutgoingScheme))}, not {scheme!r}")
    if isinstance(url, str):
        _host(url)
    if isinstance(secret, str):
        _signed(scheme, secret, "check", b"", 1)

    @tool(name=name, effect="idempotent", retry=retry, timeout=timeout, breaker=WEBHOOK_BREAKER)
    async def send(context: ToolContext, payload: Any) -> WebhookReceipt:
        """Send a webhook."""
        target, key = _value(url), None if secret is None else _value(secret)
        body = msgspec.json.encode(payload)
        id = webhook_id(context.idempotency_key)
        headers = {"content-type": "application/json", "webhook-id": id, "idempotency-key": id}
        if key is not None:
            headers |= _signed(scheme, key, id, body, int(now()))
        status = await _post(target, headers, body, transport)
        return WebhookReceipt(id, status)

    return send


def webhook_id(idempotency_key: str) -> str:
    """Return what a webhook is called: the key of its call, by its digest where no header could carry it."""
    if _ID.fullmatch(idempotency_key):
        return idempotency_key
    return f"msg_{hashlib.blake2b(idempotency_key.encode(), digest_size=16).hexdigest()}"


def _value(text: str | Secret) -> str:
    return text if isinstance(text, str) else text.reveal()


def _signed(scheme: OutgoingScheme, secret: str, id: str, body: bytes, at: int) -> dict[str, str]:
    if not secret:
        raise UsageError("the secret of a webhook is empty: leave it out to send it unsigned")
    match scheme:
        case "standard":
            from standardwebhooks import Webhook  # noqa: PLC0415 - an extra

            from perdure.runtime.web.webhooks.signatures import standard_key  # noqa: PLC0415 - an extra

            signature = Webhook(standard_key(secret)).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
            return {"webhook-timestamp": str(at), "webhook-signature": signature}
        case "github":
            digest = hmac.digest(secret.encode(), body, "sha256").hex()
            return {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": id}
        case "bearer":
            if not re.fullmatch(r"[!-~]+", secret):
                raise UsageError("a bearer token is printable ASCII characters without a space")
            return {"authorization": f"Bearer {secret}"}


def _host(url: str) -> str:
    import httpx2  # noqa: PLC0415 - an extra

    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        # It is not in the text: it may let in by itself.
        raise UsageError("the URL of a webhook is https://HOST/PATH, without a user and a password") from None
    return parsed.host


async def _post(url: str, headers: dict[str, str], body: bytes, transport: "httpx2.AsyncBaseTransport | None") -> int:
    import httpx2  # noqa: PLC0415 - an extra

    host = _host(url)
    try:
        async with (
            httpx2.AsyncClient(
                transport=transport,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),  # the whole is limited by the tool
            ) as client,
            client.stream("POST", url, headers=headers, content=body) as response,
        ):
            if response.is_success:
                return response.status_code
            text = f"{response.status_code} {await _beginning(response)}".strip()
            if response.status_code in _AGAIN or response.is_server_error:
                again = response.headers.get("retry-after")
                raise WebhookNotDeliveredError(host=host, detail=text, retry_after=again)
            raise WebhookRefusedError(host=host, detail=text, status=response.status_code)
    except httpx2.TransportError as error:
        detail = f"{type(error).__name__} {error}".strip()
        raise WebhookNotDeliveredError(host=host, detail=detail, retry_after=None) from error


async def _beginning(response: "httpx2.Response") -> str:
    parts = bytearray()
    async for part in response.aiter_bytes():
        parts += part
        if len(parts) >= _ANSWER_BYTES:
            break
    return " ".join(parts[:_ANSWER_BYTES].decode("utf-8", "replace").split())[:200]
