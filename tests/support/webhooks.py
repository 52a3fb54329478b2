"""What the tests of webhooks share: senders that sign, and a runtime that listens on a port of this machine."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from standardwebhooks import Webhook as Sender

from perdure import Query, Recorded, Runtime, Settings, WebhookRoute

SECRET = "it is a secret to everybody"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ANY_PORT = Settings(webhook_port=0, socket=False)


def github(body: bytes, id: str | None = None, *, secret: str = SECRET) -> dict[str, str]:
    """Return the headers with which GitHub sends a body."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    named = {} if id is None else {"X-GitHub-Delivery": id}
    return {"X-Hub-Signature-256": f"sha256={signature}", **named}


def standard(body: bytes, id: str, *, at: float | None = None, secret: str = STANDARD_SECRET) -> dict[str, str]:
    """Return the headers with which a sender of Standard Webhooks sends a body, made by the official package."""
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    signature = Sender(secret).sign(id, moment, body.decode())
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": signature,
    }


def stripe(body: bytes, *, at: float, secret: str = SECRET) -> dict[str, str]:
    """Return the headers with which Stripe sends a body."""
    digest = hmac.new(secret.encode(), f"{int(at)}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={int(at)},v1={'0' * 64},v1={digest},v0=abc"}


def slack(body: bytes, *, at: float, secret: str = SECRET) -> dict[str, str]:
    """Return the headers with which Slack sends a body."""
    digest = hmac.new(secret.encode(), f"v0:{int(at)}:".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": str(int(at)), "X-Slack-Signature": f"v0={digest}"}


@asynccontextmanager
async def serving(
    path: Path, routes: Iterable[WebhookRoute] = (), **options: Any
) -> AsyncGenerator[tuple[Runtime, httpx2.AsyncClient]]:
    """Yield a runtime that listens for webhooks, and a client that speaks to it over a socket."""
    options.setdefault("settings", ANY_PORT)
    async with Runtime(path, webhooks=routes, **options) as rt:
        assert rt.webhook_server is not None
        async with httpx2.AsyncClient(base_url=rt.webhook_server.url, trust_env=False) as client:
            yield rt, client


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    """Return once something is so."""
    while not await is_so():  # noqa: ASYNC110 - it comes over a socket, or from the disk
        await asyncio.sleep(0.001)


async def received(rt: Runtime) -> list[Recorded]:
    """Return the recorded deliveries, oldest first."""
    return await rt.read(Query(types=("event-published",)))


async def payloads(rt: Runtime) -> list[Any]:
    """Return what the recorded deliveries carried."""
    return [data_of(event)["payload"] for event in await received(rt)]


def data_of(event: Recorded) -> dict[str, Any]:
    """Return the data of a recorded delivery's event."""
    assert event.data is not None
    data: dict[str, Any] = json.loads(event.data)["data"]
    return data
