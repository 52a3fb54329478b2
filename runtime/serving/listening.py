"""A server on a socket of this loop, until it is asked to stop. The one module that knows uvicorn.

uvicorn is kept from the process's signals and from the logging configuration: both belong to who runs the server. The
socket is bound before anything else, so that a port in use is an error of the command line and no surprise later.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from perdure.store.errors import UsageError

DRAIN_SECONDS: Final = 5
"""How long requests in flight may go on after a stop was asked for; then they are cancelled."""

IDLE_SECONDS: Final = 30.0
"""How long a client may take to say what it wants, or take nothing of what it was told; up to twice that."""

_TICK_SECONDS: Final = 0.01


class _Connection(H11Protocol):
    """A connection of a client, which is let go when it stands still: each costs a file, and what waits to be sent."""

    _seen: tuple[object, int] | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        # A request that is not answered yet is the application's, which has limits of its own.
        cycle: Any = self.cycle  # None before the first request
        is_answered = cycle is None or cycle.response_complete
        seen = (cycle, self.transport.get_write_buffer_size()) if is_answered else None
        if seen is not None and seen == self._seen:
            self.transport.abort()
            return
        self._seen = seen
        self._timer = self.loop.call_later(IDLE_SECONDS, self._look)

    def _should_upgrade(self) -> bool:
        return False  # nothing else is spoken here; uvicorn would advise its logs to install something


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to whoever has them."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on *host*; port 0 is any that is free.

    Raises:
        UsageError: it cannot be had; says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.settimeout(0)
    except (OSError, OverflowError) as error:
        bound.close()
        raise UsageError(f"cannot listen on {host} port {port}: {getattr(error, 'strerror', error)}") from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the URL of what listens on a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def serving(app: ASGIApp, bound: socket.socket, *, drain_seconds: int = DRAIN_SECONDS) -> AsyncGenerator[str]:
    """Serve *app* on a bound socket while the block runs, and yield the URL once it listens.

    At the end requests in flight may go on for a while; then they are cancelled.

    Raises:
        UsageError: the application did not start.
    """
    url = url_of(bound)
    server = _Server(
        uvicorn.Config(
            _unambiguous(app),
            http=_Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            loop="none",
            timeout_graceful_shutdown=drain_seconds,
        )
    )
    running = asyncio.create_task(_run(server, bound))
    try:
        while not server.started:
            if running.done():
                raise UsageError(f"the server on {url} did not start") from running.exception()
            await asyncio.sleep(_TICK_SECONDS)
        yield url
    finally:
        server.should_exit = True
        try:
            await asyncio.shield(running) if not running.done() else None
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait((running,))
            bound.close()


def _unambiguous(app: ASGIApp) -> ASGIApp:
    """Return an application that refuses what a proxy before it may take for two requests (RFC 9112, 6.1)."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope.get("headers", ())}
        if {b"content-length", b"transfer-encoding"} <= names:
            await PlainTextResponse("Length of the body?", 400, {"Connection": "close"})(scope, receive, send)
            return
        await app(scope, receive, send)

    return asked


async def _run(server: _Server, bound: socket.socket) -> None:
    quiet = logging.getLogger("uvicorn.error")
    if quiet.level == logging.NOTSET:
        quiet.setLevel(logging.WARNING)
    try:
        await server.serve(sockets=[bound])
    except SystemExit as error:  # uvicorn's way to say that the application did not start; asyncio would end the loop
        raise UsageError(f"the server did not start (uvicorn's code {error.code})") from error
