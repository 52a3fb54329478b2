"""What the tests of servers share: a server in this process, asked as over HTTP, and one that says what it is told."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from perdure.runtime.serving.listening import bind, serving

BASE = "http://127.0.0.1:9002"

Asgi = Callable[..., Awaitable[None]]


@asynccontextmanager
async def asking(app: Any, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of *app*, whose start and end are performed too."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url=BASE, **options) as client,
    ):
        yield client


@asynccontextmanager
async def listening(app: Any) -> AsyncGenerator[str]:
    """The URL of *app* on a port of this machine."""
    async with serving(app, bind("127.0.0.1", 0), drain_seconds=1) as url:
        yield url


class Scripted:
    """A server on a socket that notes what it was sent and answers with what it is given; None: never."""

    def __init__(self, answer: bytes | dict[str, Any] | None = None, *, status: int = 200) -> None:
        self.status = status
        self.answer = json.dumps(answer).encode() if isinstance(answer, dict) else answer
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((head[0], headers, body))
            if self.answer is None:
                await reader.read()
            else:
                length = f"HTTP/1.1 {self.status} OK\r\nConnection: close\r\nContent-Length: {len(self.answer)}\r\n\r\n"
                writer.write(length.encode() + self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def opened(self) -> "AsyncGenerator[Scripted]":
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            self.url = f"http://{host}:{port}"
            yield self

    def body(self, number: int = 0) -> Any:
        return json.loads(self.requests[number][2])
