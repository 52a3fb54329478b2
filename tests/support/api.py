"""What the tests of the HTTP API share: an application, its API in this process, and the same on a socket."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2

from perdure import Context, Runtime, Settings, tool, workflow
from perdure.actors.state.goal_model import Criterion, Goal
from perdure.actors.triggers.kinds import Schedule
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.serving.listening import bind, serving
from perdure.runtime.web.api.application import HttpApi
from perdure.runtime.web.api.limits import ApiLimits
from perdure.runtime.web.api.roles import Tokens
from perdure.runtime.web.making import adopt

READ, OPERATE, ADMIN = "read-0123456789abcdef", "operate-0123456789abcdef", "admin-0123456789abcdef"
TOKENS = Tokens.of([f"read:rita:{READ}", f"operate:otto:{OPERATE}", f"admin:ada:{ADMIN}"])


@tool(effect="read")
async def look(name: str) -> str:
    return f"{name} looked at"


@tool(effect="irreversible")
async def pay(amount: int) -> str:
    return f"receipt {amount}"


@workflow
async def double(ctx: Context, n: int = 1) -> int:
    await ctx.call(look, str(n))
    return 2 * n


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("on purpose")


@workflow
async def asks(ctx: Context, text: str = "which?") -> Any:
    return await ctx.ask(text, of=str)


@workflow
async def buys(ctx: Context, amount: int = 3) -> str:
    approval = await ctx.approval(text="buy it?").of(pay, amount)
    return await ctx.call_approved(approval) if approval.is_approved else approval.outcome


@workflow
async def listens(ctx: Context) -> Any:
    return await ctx.signal("go", of=int)


@workflow
async def naps(ctx: Context, seconds: float = 3600.0) -> str:
    await ctx.sleep(timedelta(seconds=seconds))
    return "rested"


@workflow
async def ticks(ctx: Context, event: dict[str, Any]) -> str:
    return "ticked"


OFTEN = EntryPoint("often", ticks, Schedule(every=timedelta(hours=1)))
BY_HAND = EntryPoint("by-hand", double)
RICH = Goal(id="rich", name="Rich", criteria=[Criterion(id="c1", description="money", target="90%")])
WORKFLOWS = [double, fails, asks, buys, listens, naps, ticks]


async def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def api_of(rt: Runtime, tokens: Tokens | None = None, limits: ApiLimits | None = None, **more: Any) -> HttpApi:
    """The API of a runtime that is not open, with other limits than usual."""
    api = HttpApi(tokens, limits=limits, **more)
    adopt(api, rt, rt._machinery, webhooks=False)
    return api


@asynccontextmanager
async def asking(api: HttpApi, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of *api* in this process."""
    transport = httpx2.ASGITransport(api, raise_app_exceptions=True)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000", **options) as client:
        yield client


class Opened:
    """A runtime, its API, and a client of it."""

    def __init__(self, rt: Runtime, api: HttpApi, client: httpx2.AsyncClient) -> None:
        self.rt = rt
        self.api = api
        self.client = client

    async def get(self, path: str, **params: Any) -> Any:
        reply = await self.client.get(path, params=params)
        assert reply.status_code < 300, reply.text
        return reply.json()

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        reply = await self.client.post(path, json={} if body is None else body)
        assert reply.status_code < 300, reply.text
        return reply.json()

    async def refused(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """The status and the name of the error of a request that is refused, whose body has the one shape."""
        reply = await self.client.request(method, path, **more)
        problem = reply.json()
        assert reply.headers["content-type"] == "application/problem+json"
        assert problem["status"] == reply.status_code
        assert problem["type"] == f"urn:perdure:problem:{problem['error']}"
        return reply.status_code, problem["error"]


@asynccontextmanager
async def opened(
    path: Path, tokens: Tokens | None = None, limits: ApiLimits | None = None, **parts: Any
) -> AsyncGenerator[Opened]:
    """A runtime on *path* with the workflows above, its API, and a client."""
    settings = Settings(socket=False, webhook_port=None, drain=timedelta(seconds=1))
    rt = Runtime(path, **{"tools": [look, pay], "workflows": WORKFLOWS, "settings": settings, **parts})
    api = api_of(rt, tokens, limits)
    async with rt, asking(api) as client:
        yield Opened(rt, api, client)


@contextmanager
def on_a_socket(path: Path, tokens: Tokens | None = None, **parts: Any) -> Generator[str]:
    """The URL of the same on a socket, served by another thread."""
    ready: list[str] = []
    told, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        settings = Settings(socket=False, webhook_port=None, drain=timedelta(seconds=1))
        rt = Runtime(path, **{"tools": [look, pay], "workflows": WORKFLOWS, "settings": settings, **parts})
        api = api_of(rt, tokens)
        async with serving(api, bind("127.0.0.1", 0), drain_seconds=1) as url, rt:
            ready.append(url)
            told.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            told.set()

    thread = threading.Thread(target=run)
    thread.start()
    told.wait()
    try:
        yield ready[0]
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join()
