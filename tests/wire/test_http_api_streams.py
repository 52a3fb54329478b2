"""The log as server-sent events, over a socket: from any position, again after a break, readers that leave or stall."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure import Runtime, Settings
from perdure.runtime.serving.listening import bind, serving
from perdure.runtime.web.api.limits import ApiLimits
from tests.support.api import TOKENS, api_of, asks, look, opened, until


class Stream:
    """A reader of a stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next block of lines, by field; a comment is under the empty name."""
        found: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return found
            name, _, text = line.partition(":")
            found[name] = text.removeprefix(" ")
        raise EOFError

    async def event(self) -> dict[str, str]:
        while "data" not in (block := await self.block()):
            pass
        return block

    async def to_its_end(self) -> None:
        while True:
            await self.block()


class Served:
    """A runtime, its API on a socket."""

    def __init__(self, rt: Runtime, api: Any, url: str, client: httpx2.AsyncClient) -> None:
        self.rt = rt
        self.api = api
        self.url = url
        self.client = client

    @asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncGenerator[Stream]:
        async with self.client.stream("GET", f"/v1/events/stream?{query}", headers=headers) as response:
            yield Stream(response)

    async def quiet(self) -> None:
        """Return once no stream is open any more."""
        await until(lambda: not self.api.statistics().streams)


def over_a_socket(path: Path, scenario: Callable[[Served], Awaitable[Any]], limits: ApiLimits | None = None) -> Any:
    async def main() -> Any:
        rt = Runtime(path, tools=[look], workflows=[asks], settings=Settings(socket=False, drain=timedelta(seconds=1)))
        api = api_of(rt, limits=limits)
        async with (
            serving(api, bind("127.0.0.1", 0), drain_seconds=1) as url,
            rt,
            httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
        ):
            return await scenario(Served(rt, api, url, client))

    return asyncio.run(main())


async def publish(served: Served, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await served.rt.publish("tick", number)


TICKS = "types=event-published"


def test_a_stream_begins_at_any_position_and_goes_on_with_what_comes(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        await publish(served, 3)
        async with served.stream(f"{TICKS}&after=0") as stream:
            past = [await stream.event() for _ in range(3)]
            await publish(served, 2, first=3)
            new = [await stream.event() for _ in range(2)]
        return stream.response.headers["content-type"], [*past, *new]

    kind, events = over_a_socket(tmp_path / "a.db", scenario)

    assert kind.startswith("text/event-stream")
    assert [json.loads(event["data"])["data"]["data"] for event in events] == list(range(5))
    assert [json.loads(event["data"])["position"] for event in events] == [int(event["id"]) for event in events]
    assert {event["event"] for event in events} == {"event-published"}


def test_without_a_position_it_begins_now(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        await publish(served, 3)
        async with served.stream(TICKS) as stream:
            await stream.block()  # it has begun
            await publish(served, 1, first=3)
            return await stream.event()

    assert json.loads(over_a_socket(tmp_path / "a.db", scenario)["data"])["data"]["data"] == 3


@pytest.mark.row("A3-27")
def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(tmp_path: Path) -> None:
    async def scenario(served: Served) -> list[int]:
        seen: list[int] = []
        last = "0"
        for round_ in range(5):
            await publish(served, 7, first=7 * round_)
            async with served.stream(f"{TICKS}&after=999999", **{"Last-Event-ID": last}) as stream:
                for _ in range(7 if round_ == 4 else 5):
                    event = await stream.event()
                    seen.append(json.loads(event["data"])["data"]["data"])
                    last = event["id"]
            await served.quiet()
        async with served.stream(TICKS, **{"Last-Event-ID": last}) as stream:
            while len(seen) < 35:
                seen.append(json.loads((await stream.event())["data"])["data"]["data"])
        return seen

    assert over_a_socket(tmp_path / "a.db", scenario) == list(range(35))


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 30, "٣"])
def test_a_last_event_id_that_is_no_position_is_refused(tmp_path: Path, given: str) -> None:
    async def main() -> Any:
        async with opened(tmp_path / "a.db") as api:
            reply = await api.client.get("/v1/events/stream", headers={b"Last-Event-ID": given.encode()})
            return reply.status_code, reply.json()["error"]

    assert asyncio.run(main()) == (422, "InvalidHeaderError")


def test_filters_leave_out_the_rest(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        await served.rt.publish("one", 1)
        await served.rt.publish("two", 2)
        await served.rt.publish("one", 3)
        async with served.stream(f"{TICKS}&stream=topic/one&after=0") as stream:
            return [json.loads((await stream.event())["data"])["data"]["data"] for _ in range(2)]

    assert over_a_socket(tmp_path / "a.db", scenario) == [1, 3]


def test_a_stream_in_which_nothing_happens_says_that_it_is_alive(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        async with served.stream("types=never") as stream:
            await stream.block()
            return [await stream.block() for _ in range(3)]

    limits = ApiLimits(heartbeat_seconds=0.01)

    assert over_a_socket(tmp_path / "a.db", scenario, limits) == [{"": "alive"}] * 3


def test_heartbeats_lose_no_event(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        async with served.stream(TICKS) as stream:
            await stream.block()
            found: list[int] = []
            for number in range(20):
                await stream.block()  # a heartbeat, or the event before
                await publish(served, 1, first=number)
            while len(found) < 1 or found[-1] != 19:
                found.append(json.loads((await stream.event())["data"])["data"]["data"])
            return found

    found = over_a_socket(tmp_path / "a.db", scenario, ApiLimits(heartbeat_seconds=0.005))

    assert found == sorted(set(found))


def test_who_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        async def one() -> None:
            async with served.stream("after=0") as stream:
                await stream.event()

        before = len(asyncio.all_tasks())
        await asyncio.gather(*(one() for _ in range(20)))
        await served.quiet()
        await served.client.aclose()
        await until(lambda: len(asyncio.all_tasks()) <= before)
        return served.api.statistics().at_once

    assert over_a_socket(tmp_path / "a.db", scenario) == 0


def test_who_waits_for_a_run_and_leaves_stops_waiting_and_not_the_run(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        run = await served.rt.start(asks)
        asked = asyncio.create_task(served.client.get(f"/v1/runs/{run.id}/result?wait=60"))
        await until(lambda: served.api.statistics().at_once == 1)
        asked.cancel()
        await until(lambda: served.api.statistics().at_once == 0)
        return (await run.status()).status

    assert over_a_socket(tmp_path / "a.db", scenario) == "waiting"


def test_the_runtimes_end_ends_the_streams(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        async with served.stream() as stream:
            await stream.block()
            closing = asyncio.create_task(served.rt.close())
            with pytest.raises(EOFError):
                await stream.to_its_end()
            await closing
        ready = await served.client.get("/ready")
        return ready.status_code, ready.json()["status"]

    assert over_a_socket(tmp_path / "a.db", scenario) == (503, "draining")


def test_more_streams_than_there_may_be_are_turned_away(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        async with served.stream() as one, served.stream() as two:
            await one.block()
            await two.block()
            third = await served.client.get("/v1/events/stream")
        await served.quiet()
        async with served.stream() as again:
            return third.status_code, third.json()["error"], again.response.status_code

    found = over_a_socket(tmp_path / "a.db", scenario, ApiLimits(streams=2))

    assert found == (503, "TooManyStreamsError", 200)


def stalled(url: str) -> socket.socket:
    """A reader that has asked for everything and takes nothing."""
    host, port = url.removeprefix("http://").split(":")
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asking.connect((host, int(port)))
    asking.sendall(f"GET /v1/events/stream?after=0 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return asking


def test_a_reader_that_takes_nothing_slows_nobody_and_is_let_go(tmp_path: Path) -> None:
    big = "x" * 60_000

    async def scenario(served: Served) -> Any:
        with stalled(served.url):
            await until(lambda: served.api.statistics().streams == 1)
            for number in range(200):  # 12 MB, which no buffer of a socket holds
                await served.rt.publish("tick", [number, big])
            async with served.stream(f"{TICKS}&after=0") as stream:
                others = [json.loads((await stream.event())["data"])["data"]["data"][0] for _ in range(200)]
            await served.quiet()
        return others

    assert over_a_socket(tmp_path / "a.db", scenario, ApiLimits(stalled_seconds=0.5)) == list(range(200))


def test_a_slow_reader_gets_everything_and_little_is_read_ahead_for_it(tmp_path: Path) -> None:
    read_ahead: list[int] = []
    big = "x" * 30_000

    async def scenario(served: Served) -> Any:
        await asyncio.gather(*(served.rt.publish("tick", [number, big]) for number in range(300)))
        reads = served.rt._log.read

        async def counted(query: Any) -> Any:
            found = await reads(query)
            read_ahead.append(len(found))
            return found

        served.rt._log.read = counted  # type: ignore[method-assign]
        async with served.stream(f"{TICKS}&after=0") as stream:
            found = []
            for _ in range(300):
                await asyncio.sleep(0)
                found.append(json.loads((await stream.event())["data"])["data"]["data"][0])
        return sorted(found)

    assert over_a_socket(tmp_path / "a.db", scenario) == list(range(300))
    assert max(read_ahead) <= 20


def test_a_stream_takes_a_token(tmp_path: Path) -> None:
    async def main() -> Any:
        async with opened(tmp_path / "a.db", TOKENS) as api:
            return (await api.client.get("/v1/events/stream")).status_code

    assert asyncio.run(main()) == 401


def test_bodies_that_are_too_much_together_are_turned_away_until_the_others_have_come(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        host, port = served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/events HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 900\r\n\r\n{' ' * 800}".encode())
        body = {"type": "a", "data": "x" * 300}
        while (turned_away := await served.client.post("/v1/events", json=body)).status_code == 200:
            pass  # the first one has not come yet
        writer.close()
        while (taken := await served.client.post("/v1/events", json=body)).status_code == 503:
            pass  # nor left
        return turned_away.status_code, turned_away.json()["error"], taken.status_code

    found = over_a_socket(tmp_path / "a.db", scenario, ApiLimits(bytes_at_once=1000))

    assert found == (503, "TooManyRequestsError", 200)


def test_a_body_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async def scenario(served: Served) -> Any:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/runs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        writer.write(f'{head}Content-Length: 100\r\n\r\n{{"work'.encode())
        answer = await reader.read()
        writer.close()
        return answer

    answer = over_a_socket(tmp_path / "a.db", scenario, ApiLimits(body_seconds=0.05))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"SlowRequestError" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/runs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET " + b"/x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda sent: sent[:20].hex(),
)
def test_what_is_no_request_leaves_the_server_as_it_was(tmp_path: Path, sent: bytes) -> None:
    async def scenario(served: Served) -> Any:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionResetError:  # it was not read to its end
            answer = b""
        writer.close()
        alive = await served.client.get("/health")
        return answer[:12], alive.status_code

    answer, alive = over_a_socket(tmp_path / "a.db", scenario)

    assert alive == 200
    assert answer[9:12] in (b"", b"400", b"403", b"404", b"431")
