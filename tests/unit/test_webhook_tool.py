"""Webhooks that go out: signed, tried again under the same id, and known to nobody but the receiver."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook as Official

from perdure import (
    CircuitOpenError,
    Context,
    LogWriteError,
    Query,
    Retry,
    RunFailedError,
    Runtime,
    Secret,
    ToolFailedError,
    UsageError,
    WebhookNotDeliveredError,
    WebhookRefusedError,
    WebhookRoute,
    webhook_tool,
    workflow,
)
from perdure.runtime.web.webhooks.outgoing import webhook_id
from perdure.testing import MemoryDisk
from tests.support.webhooks import ANY_PORT, STANDARD_SECRET, github, payloads, serving

URL = "https://hooks.example.org/T0/B0/path-that-lets-in"
AT_ONCE = Retry(attempts=5, backoff=timedelta(0), never_on=(WebhookRefusedError,))


class Receiver:
    """Answers with one status after the other, the last one again and again, and keeps what it was sent."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None, text: str = "") -> None:
        self.statuses = list(statuses)
        self.headers = headers or {}
        self.text = text
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return httpx2.Response(status, headers=self.headers, text=self.text)

    @property
    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self)


def sent_by(notify: Any, data: object = None, **options: Any) -> tuple[Any, list[str]]:
    """Return what a run got that sends once, and the types and data of its log."""

    @workflow
    async def tell(ctx: Context, data: Any) -> Any:
        return await ctx.call(notify, data)

    async def main() -> tuple[Any, list[str]]:
        async with Runtime("unused", workflows=[tell], log=MemoryDisk().open, **options) as rt:
            handle = await rt.with_options(id="order-7").start(tell, {"order": 7} if data is None else data)
            try:
                found: Any = await handle.result()
            except RunFailedError as failure:
                found = failure
            return found, [f"{event.type} {event.data}" for event in await rt.read(Query())]

    return asyncio.run(main())


def test_the_official_package_accepts_what_is_sent() -> None:
    receiver = Receiver(204)
    notify = webhook_tool("notify", URL, secret=STANDARD_SECRET, transport=receiver.transport)

    found, _ = sent_by(notify)

    (request,) = receiver.requests
    assert Official(STANDARD_SECRET).verify(request.content, dict(request.headers)) == {"order": 7}
    assert (request.method, str(request.url)) == ("POST", URL)
    assert found == {"id": "order-7:notify#1", "status": 204}
    assert request.headers["idempotency-key"] == request.headers["webhook-id"] == "order-7:notify#1"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_what_is_not_taken_is_sent_again_under_the_same_id_and_signed_anew(status: int) -> None:
    receiver = Receiver(status, status, 200)
    times = iter(range(1_700_000_000, 1_700_000_100))
    notify = webhook_tool(
        "notify", URL, secret=STANDARD_SECRET, retry=AT_ONCE, now=lambda: next(times), transport=receiver.transport
    )

    sent_by(notify)

    assert [one.headers["webhook-timestamp"][-2:] for one in receiver.requests] == ["00", "01", "02"]
    assert {one.headers["webhook-id"] for one in receiver.requests} == {"order-7:notify#1"}
    assert len({one.headers["webhook-signature"] for one in receiver.requests}) == 3


def test_a_receiver_that_cannot_be_reached_is_tried_again() -> None:
    tries = []

    def fail(request: httpx2.Request) -> httpx2.Response:
        tries.append(request)
        if len(tries) < 3:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200)

    notify = webhook_tool("notify", URL, retry=AT_ONCE, transport=httpx2.MockTransport(fail))

    found, _ = sent_by(notify)

    assert len(tries) == 3
    assert not isinstance(found, Exception)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_what_is_refused_is_not_sent_again_and_no_redirect_is_followed(status: int) -> None:
    receiver = Receiver(status, headers={"Location": "https://elsewhere.example/"})
    notify = webhook_tool("notify", URL, retry=AT_ONCE, transport=receiver.transport)

    found, _ = sent_by(notify)

    assert len(receiver.requests) == 1
    assert f"hooks.example.org refused the webhook: {status}" in str(found)


def test_a_refusal_opens_no_circuit_and_a_receiver_that_is_down_does() -> None:
    async def main(status: int) -> int:
        receiver = Receiver(status)
        notify = webhook_tool("notify", URL, transport=receiver.transport)
        async with Runtime("unused", tools=[notify], log=MemoryDisk().open) as rt:
            for _ in range(5):
                with pytest.raises((ToolFailedError, CircuitOpenError)):
                    await rt.call(notify, {})
        return len(receiver.requests)

    assert [asyncio.run(main(status)) for status in (400, 500)] == [5, 3]


def test_the_time_that_a_receiver_asks_for_is_waited() -> None:
    receiver = Receiver(503, headers={"Retry-After": "77"})
    notify = webhook_tool("notify", URL, transport=receiver.transport)

    async def main() -> Any:
        async with Runtime("unused", tools=[notify], log=MemoryDisk().open) as rt:
            with pytest.raises(ToolFailedError) as caught:
                await rt.call(notify, {})
            return caught.value.__cause__

    cause = asyncio.run(main())
    assert isinstance(cause, WebhookNotDeliveredError)
    assert cause.retry_after == "77"


def test_neither_the_url_nor_the_secret_is_in_the_log() -> None:
    receiver = Receiver(400, text=f"bad signature by {STANDARD_SECRET} for {URL}")
    notify = webhook_tool("notify", Secret("HOOK_URL"), secret=Secret("HOOK_KEY"), transport=receiver.transport)

    _, log = sent_by(notify, secrets={"HOOK_URL": URL, "HOOK_KEY": STANDARD_SECRET})

    text = "\n".join(log)
    assert len(receiver.requests) == 1
    assert "bad signature by [secret HOOK_KEY]" in text
    for hidden in (STANDARD_SECRET, "path-that-lets-in", receiver.requests[0].headers["webhook-signature"]):
        assert hidden not in text


def test_it_is_signed_as_github_signs_or_bears_a_token() -> None:
    receiver = Receiver(200)
    signed = webhook_tool("signed", URL, secret="s3cret", scheme="github", transport=receiver.transport)
    bearing = webhook_tool("bearing", URL, secret="t0ken", scheme="bearer", transport=receiver.transport)

    sent_by(signed)
    sent_by(bearing)

    first, second = receiver.requests
    expected = github(first.content, secret="s3cret")["X-Hub-Signature-256"]
    assert first.headers["x-hub-signature-256"] == expected
    assert second.headers["authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("ftp://host/x", {}, "the URL of a webhook is https://HOST/PATH"),
        ("https://user:hunter2@host/x", {}, "without a user and a password"),
        ("nonsense hunter2", {}, "the URL of a webhook is"),
        (URL, {"secret": ""}, "is empty"),
        (URL, {"secret": "hunter2!"}, "is base64"),
        (URL, {"secret": "hunter2 ", "scheme": "bearer"}, "printable ASCII"),
        (URL, {"scheme": "md5"}, "one of 'standard', 'github', 'bearer'"),
    ],
)
def test_what_cannot_be_sent_is_refused_when_it_is_made(url: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        webhook_tool("notify", url, **options)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["run 1:a#1", "ä:b#1", "x" * 200])
def test_a_key_that_no_header_can_carry_is_taken_by_its_digest(key: str) -> None:
    assert webhook_id(key).startswith("msg_")
    assert webhook_id(key) == webhook_id(key) != webhook_id(key + "2")


def test_a_webhook_that_was_sent_and_not_recorded_is_sent_again_under_its_id(tmp_path: Path) -> None:
    receiver = Receiver(200)
    lives: list[Runtime] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        response = receiver(request)
        if len(receiver.requests) == 1:  # the answer is on its way when the process ends: nobody will know of it
            lives[0]._log.abandon()
        return response

    notify = webhook_tool("notify", URL, secret=STANDARD_SECRET, transport=httpx2.MockTransport(answer))

    @workflow
    async def tell(ctx: Context) -> int:
        return (await ctx.call(notify, {"n": 1})).status

    async def first_life() -> None:
        lives.append(await Runtime(tmp_path / "log.db", workflows=[tell]).open())
        handle = await lives[0].with_options(id="r").start(tell)
        with pytest.raises(LogWriteError):
            await handle.result()
        await lives[0].abandon()

    async def second_life() -> int:
        async with Runtime(tmp_path / "log.db", workflows=[tell]) as rt:
            return await rt.run("r", tell).result()

    asyncio.run(first_life())
    assert asyncio.run(second_life()) == 200
    assert [one.headers["webhook-id"] for one in receiver.requests] == ["r:notify#1"] * 2
    for request in receiver.requests:
        Official(STANDARD_SECRET).verify(request.content, dict(request.headers))


def test_what_goes_out_comes_in_at_another_runtime_once(tmp_path: Path) -> None:
    route = WebhookRoute(source="peer", path="/peer", secret=STANDARD_SECRET, scheme="standard")

    async def main() -> None:
        async with serving(tmp_path / "in.db", [route]) as (rt, _):
            assert rt.webhook_server is not None
            notify = webhook_tool("notify", f"{rt.webhook_server.url}/peer", secret=STANDARD_SECRET)

            @workflow
            async def tell(ctx: Context) -> int:
                return (await ctx.call(notify, {"n": 1})).status

            async with Runtime(tmp_path / "out.db", workflows=[tell], settings=ANY_PORT) as out:
                assert await (await out.start(tell)).result() == 202
            assert await payloads(rt) == [{"n": 1}]

    asyncio.run(main())


def test_a_payload_is_sent_as_the_json_that_the_log_has() -> None:
    receiver = Receiver(200)
    notify = webhook_tool("notify", URL, transport=receiver.transport)

    sent_by(notify, {"a": [1, None], "token": "hidden"})

    assert json.loads(receiver.requests[0].content) == {"a": [1, None], "token": "[redacted]"}
