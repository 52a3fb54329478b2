"""Deliveries that come in while the runtime closes, while its log fails, and while it cannot keep up."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure import Context, EntryPoint, Query, Runtime, Webhook, WebhookRoute, workflow
from perdure.runtime.web.webhooks import receiving
from perdure.testing import MemoryDisk
from tests.support.webhooks import ANY_PORT, received, serving, until

OPEN = WebhookRoute(source="open", path="/open")
SENDERS = 8


@workflow
async def take(ctx: Context, event: dict[str, Any]) -> Any:
    return event["data"]["payload"]


HOOK = EntryPoint("hook", take, trigger=Webhook("/hook"))


class Senders:
    """Send one delivery after the other over connections of their own until nobody listens any more."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.accepted: list[str] = []
        self.refused: list[str] = []

    async def are_busy(self) -> bool:
        return len(self.accepted) >= 5 * SENDERS

    async def send(self, sender: int) -> None:
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as client:
            for number in range(10_000):
                id = f"{sender}-{number}"
                try:
                    answer = await client.post("/hook", json=id, headers={"X-Delivery-Id": id})
                except httpx2.ConnectError:
                    return
                except httpx2.TransportError:
                    self.refused.append(id)
                    continue
                assert answer.status_code in (202, 503)
                (self.accepted if answer.status_code == 202 else self.refused).append(id)


@pytest.mark.row("A3-98")
def test_a_delivery_during_a_stop_is_either_refused_or_processed(tmp_path: Path) -> None:
    async def stop() -> list[str]:
        rt = Runtime(tmp_path / "log.db", workflows=[take], entry_points=[HOOK], settings=ANY_PORT)
        async with rt:
            assert rt.webhook_server is not None
            senders = Senders(rt.webhook_server.url)
            tasks = [asyncio.create_task(senders.send(number)) for number in range(SENDERS)]
            await until(senders.are_busy)
            await rt.close()
            await asyncio.gather(*tasks)
        return senders.accepted

    async def look() -> tuple[list[str], list[str]]:
        async with Runtime(tmp_path / "log.db", workflows=[take], entry_points=[HOOK], settings=ANY_PORT) as rt:
            events = [json.loads(event.data or "")["data"]["payload"] for event in await received(rt)]

            async def are_done() -> bool:
                return len(await rt.read(Query(types=("run-completed",)))) == len(events)

            await until(are_done)
            runs = [str(event.stream) for event in await rt.read(Query(types=("run-started",)))]
            return events, runs

    accepted = asyncio.run(stop())
    events, runs = asyncio.run(look())

    assert sorted(events) == sorted(accepted)
    assert sorted(runs) == sorted(f"run/hook:{id}" for id in accepted)


@asynccontextmanager
async def half_sent(rt: Runtime) -> AsyncGenerator[asyncio.StreamReader]:
    """Send half a delivery."""
    assert rt.webhook_server is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", rt.webhook_server.port)
    writer.write(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123")
    await writer.drain()

    async def is_there() -> bool:
        return rt.webhooks.statistics().at_once > 0

    await until(is_there)
    yield reader
    writer.close()
    await writer.wait_closed()


def test_a_delivery_that_is_half_sent_when_the_stop_begins_is_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, _), half_sent(rt) as reader:
            await rt.close()
            answer = await reader.read()

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in answer.lower()

    asyncio.run(main())


def test_a_stop_that_is_told_twice_refuses_what_is_half_sent_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, _), half_sent(rt) as reader:
            rt.webhooks.log_failed()
            first, second = asyncio.create_task(rt.webhooks.close()), asyncio.create_task(rt.webhooks.close())
            await asyncio.gather(first, second)
            answer = await reader.read()

        assert answer.count(b"HTTP/1.1 503 ") == 1

    asyncio.run(main())


def test_an_abandoned_runtime_accepts_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client), half_sent(rt):
            await rt.abandon()

            with pytest.raises(httpx2.ConnectError):
                await client.post("/open")

    asyncio.run(main())


def test_while_the_log_fails_nothing_is_accepted(tmp_path: Path) -> None:
    disk = MemoryDisk()

    async def main() -> None:
        async with serving(tmp_path, [OPEN], log=disk.open) as (_, client):
            first = await client.post("/open", json=1)
            disk.fail_next(OSError(28, "No space left on device"))
            later = [await client.post("/open", json=2) for _ in range(2)]

        assert first.status_code == 202
        assert [(one.status_code, one.headers["retry-after"]) for one in later] == [(503, "5")] * 2

    async def look() -> int:
        async with serving(tmp_path, [OPEN], log=disk.open) as (rt, client):
            assert (await client.post("/open", json=2)).status_code == 202
            return len(await received(rt))

    with pytest.raises(Exception, match="No space left"):
        asyncio.run(main())
    assert asyncio.run(look()) == 2


def test_over_the_bound_deliveries_are_asked_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MAX_AT_ONCE", 1)

    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            async with half_sent(rt):
                over = await client.post("/open", json=1)
                await rt.close()

            assert over.status_code == 503

    asyncio.run(main())


def test_bodies_over_the_bound_are_asked_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MAX_BYTES_AT_ONCE", 100)

    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (_, client):
            answers = [await client.post("/open", content=b"x" * size) for size in (100, 101, 100)]

            assert [answer.status_code for answer in answers] == [202, 503, 202]

    asyncio.run(main())


def test_a_body_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "BODY_SECONDS", 0.01)

    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, _):
            assert rt.webhook_server is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", rt.webhook_server.port)
            writer.write(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()

            assert answer.startswith(b"HTTP/1.1 408 ")

    asyncio.run(main())
