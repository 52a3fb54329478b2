"""The tool server: tools of this process for executors elsewhere, over HTTP.

The wire is that of `payloads.py`. Past the checks of who asks and what, every answer to `POST /execute` is a 200 with a
result: what goes wrong with a call is told in it.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.actors.tools.registry import Registry
from perdure.runtime.app import Runtime
from perdure.runtime.serving.access import Access, first_token
from perdure.runtime.serving.exchange import answer, application, detail_shape, read, unless_left
from perdure.runtime.serving.payloads import ToolServerExecuteRequest
from perdure.runtime.serving.tool_calls import GuardedCaller, PlainCaller, ToolCalls
from perdure.store.errors import UsageError

MESSAGE: Final = "Atropos-Agent Tool Server"
"""What `GET /` says: a part of the wire format."""


class ToolServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a tool server."""

    access: Access = Access()
    max_concurrency: int = 16
    """Calls that run at the same time; more wait."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read TOOL_SERVER_TOKEN and TOOL_SERVER_MAX_CONCURRENCY.

        Raises:
            UsageError: the concurrency is no number from 1 on.
        """
        access = Access.by_token(first_token([environ.get("TOOL_SERVER_TOKEN")]))
        said = environ.get("TOOL_SERVER_MAX_CONCURRENCY", "").strip()
        if said and (not said.isdecimal() or int(said) < 1):
            raise UsageError(f"TOOL_SERVER_MAX_CONCURRENCY is a number from 1 on, not {said!r}")
        return cls(access=access, max_concurrency=int(said) if said else 16)


def tool_server(
    tools: Registry | None = None, *, runtime: Runtime | None = None, config: ToolServerConfig | None = None
) -> Starlette:
    """Return a tool server as an ASGI application.

    Args:
        tools: what it offers; those of the runtime when left out.
        runtime: an open runtime that the calls go through, so that circuits and limits apply and calls are in the log.
            Without one, calls are made and nothing is recorded.
        config: who may ask, and how many calls run at once; everybody and 16 when left out.

    Raises:
        UsageError: neither tools nor a runtime; or fewer than one call at once.
    """
    settings = config or ToolServerConfig()
    offered = tools if tools is not None else runtime.tools if runtime is not None else None
    if offered is None:
        raise UsageError("say what to offer: tool_server(Registry([…])), or tool_server(runtime=rt)")
    if settings.max_concurrency < 1:
        raise UsageError("max_concurrency is at least 1")
    plain = PlainCaller() if runtime is None else None
    calls = ToolCalls(offered, plain or GuardedCaller(_given(runtime)), settings.max_concurrency)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        if plain is not None:
            plain.close()

    routes = ToolRoutes(calls)
    return application(
        [
            Route("/", routes.root),
            Route("/health", routes.health),
            Route("/tools", routes.tools),
            Route("/execute", routes.execute, methods=["POST"]),
        ],
        settings.access,
        detail_shape,
        lifespan,
    )


def _given(runtime: Runtime | None) -> Runtime:
    assert runtime is not None  # noqa: S101 - asked above
    return runtime


class ToolRoutes:
    """The routes of a tool server."""

    def __init__(self, calls: ToolCalls) -> None:
        self._calls = calls

    async def root(self, _: Request) -> Response:
        """Say what this is."""
        return answer({"message": MESSAGE})

    async def health(self, _: Request) -> Response:
        """Say that it lives."""
        return answer({"status": "ok"})

    async def tools(self, _: Request) -> Response:
        """List the tools."""
        body: dict[str, Any] = {"tools": self._calls.definitions()}
        return answer(body)

    async def execute(self, request: Request) -> Response:
        """Make a call; who leaves before its end cancels it."""
        asked = await read(request, ToolServerExecuteRequest)
        return answer(await unless_left(request, self._calls.execute(asked)))
