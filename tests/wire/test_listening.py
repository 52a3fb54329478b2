"""Connections of clients that say nothing, take nothing, or say two things at once: over real sockets."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from perdure.runtime.serving import listening
from tests.support.http import listening as served

LARGE = b"x" * 32_000_000
"""More than the two ends of a connection keep for each other."""


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    await (Response(LARGE) if scope["path"] == "/large" else PlainTextResponse("here"))(scope, receive, send)


def asked(sent: bytes, *, before_reading: Callable[[], Awaitable[object]] | None = None) -> bytes:
    """What is answered to some bytes, until the server closes the connection."""

    async def main() -> bytes:
        async with served(_app) as url:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            try:
                writer.write(sent)
                if before_reading is not None:
                    await before_reading()
                async with asyncio.timeout(20):
                    return await reader.read()
            except ConnectionResetError:
                return b"reset"
            finally:
                writer.close()

    return asyncio.run(main())


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:"], ids=["nothing", "half a request"])
def test_who_never_says_what_it_wants_is_let_go(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.1)

    assert asked(sent) in (b"", b"reset")


def test_who_takes_nothing_of_a_large_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.1)
    gone = asyncio.Event()
    lost = listening._Connection.connection_lost

    def told(connection: listening._Connection, why: Exception | None) -> None:
        lost(connection, why)
        gone.set()

    monkeypatch.setattr(listening._Connection, "connection_lost", told)

    answered = asked(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", before_reading=gone.wait)

    assert len(answered) < len(LARGE)


def test_a_request_may_take_longer_than_a_client_may_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.1)

    assert asked(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").endswith(b"here")


def test_a_request_with_two_lengths_is_refused_and_nothing_after_it_is_read() -> None:
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"

    answered = asked(head + smuggled)

    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(b"HTTP/1.1") == 1


def test_an_upgrade_that_is_asked_for_is_passed_over_without_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        answered = asked(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n")

    assert answered.endswith(b"here")
    assert caplog.records == []
