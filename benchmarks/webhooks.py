"""Deliveries that are signed, checked, made durable at FULL and answered, beside an application that only answers.

Both are served by the same uvicorn in a process of their own; this one sends, over connections that are kept, without
an HTTP library that would be measured too.
"""

import asyncio
import hashlib
import hmac
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.rows import Row, Size, against
from perdure import LogReader, Query, Runtime, Settings, WebhookRoute
from perdure.runtime.serving.listening import bind, serving

CONNECTIONS = 64
SECRET = "it is a secret to everybody"  # noqa: S105 - of a benchmark
BODY = b'{"action": "opened", "number": 1347, "repository": {"full_name": "octocat/Hello-World"}, "text": "%s"}' % (
    b"x" * 400
)


def measure(size: Size) -> dict[str, Row]:
    together: list[tuple[float, float]] = []
    alone: list[tuple[float, float]] = []
    for _ in range(size.pick(5, 2)):
        with TemporaryDirectory() as folder:
            durable, bare = (_deliver(kind, Path(folder) / "log.db", size) for kind in ("durable", "bare"))
        together.append((durable[0], bare[0]))
        alone.append((durable[1], bare[1]))
    return {
        "webhooks": against(
            f"deliveries a second, signed, deduplicated and made durable, over {CONNECTIONS} connections",
            "deliveries/s",
            together,
            baseline_is="a starlette application that reads the body and answers 202",
        ),
        "webhook latency": against(
            "one delivery after the other, over one connection",
            "µs",
            alone,
            baseline_is="the same application",
        ),
    }


def _deliver(kind: str, log: Path, size: Size) -> tuple[float, float]:
    """Return deliveries a second over many connections, and microseconds a delivery over one."""
    many, one = size.pick(150, 10), size.pick(300, 20)
    with _served(kind, log) as port:
        asyncio.run(_seconds(port, "warm", 20, 4))
        rate = CONNECTIONS * many / asyncio.run(_seconds(port, "many", many, CONNECTIONS))
        latency = asyncio.run(_seconds(port, "one", one, 1)) / one * 1e6
    if kind == "durable":
        with LogReader.open(log) as reader:
            query = Query(types=("event-published",), limit=100_000)
            assert len(reader.read(query)) == 80 + CONNECTIONS * many + one
    return rate, latency


async def _seconds(port: int, name: str, rounds: int, connections: int) -> float:
    signature = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    length = len(BODY)
    head = (
        f"POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nX-Hub-Signature-256: sha256={signature}"
    )

    async def send(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for round_ in range(rounds):
            writer.write(f"{head}\r\nX-GitHub-Delivery: {name}-{number}-{round_}\r\n\r\n".encode() + BODY)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 202 "), answer
            header = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(header.partition(b":")[2]))
        writer.close()
        await writer.wait_closed()

    started = time.perf_counter()
    await asyncio.gather(*(send(number) for number in range(connections)))
    return time.perf_counter() - started


@contextmanager
def _served(kind: str, log: Path) -> Generator[int]:
    command = [sys.executable, "-m", "benchmarks.webhooks", kind, str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:  # noqa: S603 - this module
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.communicate(b"")


@asynccontextmanager
async def _durable(log: Path) -> AsyncGenerator[int]:
    route = WebhookRoute(source="github", path="/hook", secret=SECRET)
    async with Runtime(log, webhooks=[route], settings=Settings(webhook_port=0, socket=False)) as rt:
        assert rt.webhook_server is not None
        yield rt.webhook_server.port


@asynccontextmanager
async def _bare(_: Path) -> AsyncGenerator[int]:
    async def answer(request: Request) -> Response:
        await request.body()
        return Response(b'{"status":"accepted"}', 202, media_type="application/json")

    bound = bind("127.0.0.1", 0)
    async with serving(Starlette(routes=[Route("/hook", answer, methods=["POST"])]), bound):
        yield bound.getsockname()[1]


async def _serve(kind: str, log: Path) -> None:
    async with (_durable if kind == "durable" else _bare)(log) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2])))
