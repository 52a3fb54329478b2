"""What the webhooks are served by: an ASGI application that can be had before there is a log, and the runtime's server.

The server is there when there are routes and a port to serve them on. Invariant: once `close` returns, nothing more is
accepted, and what was accepted is durable.
"""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from perdure.runtime.serving.extra import serve_extra
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class WebhookApp:
    """An ASGI application that refuses everything with 503 until it is given the routes' own."""

    def __init__(self) -> None:
        self.routes: ASGIApp | None = None

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif self.routes is not None:
            await self.routes(scope, receive, send)
        elif scope["type"] == "http":
            from perdure.runtime.serving.exchange import answer  # noqa: PLC0415 - an extra

            refused = answer({"error": "The runtime is not open"}, 503, {"Retry-After": "5"})
            await refused(scope, receive, send)


@checked_but("__init__")
class WebhookServer:
    """A server that listens from `open` to `close`."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        """The port that it listens on; once it is open, a real one in place of 0."""
        self.url = ""
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<WebhookServer {self.url or 'closed'}>"

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return bool(self.url)

    async def open(self, app: "ASGIApp") -> None:
        """Listen.

        Raises:
            UsageError: the port cannot be had, or a package is missing; says which.
        """
        with serve_extra("a webhook server"):
            from perdure.runtime.serving.listening import bind, serving  # noqa: PLC0415 - an extra

        bound = bind(self.host, self.port)
        try:
            self.url = await self._stack.enter_async_context(serving(app, bound))
        except BaseException:
            bound.close()
            raise
        self.port = bound.getsockname()[1]

    async def close(self) -> None:
        """Listen no more; deliveries on their way are answered first. Idempotent."""
        self.url = ""
        await self._stack.aclose()


async def _live(receive: "Receive", send: "Send") -> None:
    """Take part in the start and the end of a server: there is nothing to do, the runtime has its own."""
    while True:
        message: Any = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
