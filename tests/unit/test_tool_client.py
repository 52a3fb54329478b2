"""Calls of tools on a server, seen from the caller: what is sent, and what becomes of every kind of answer."""

import asyncio
import json
import logging
from typing import Any

import pytest
import structlog

from perdure import UsageError
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.runtime.serving import extra
from perdure.runtime.serving.client import JsonClient
from perdure.runtime.serving.tool_client import ToolServerClient
from tests.support.http import Scripted

CALL = ToolCall("web", {"q": 1}, uniq_id="u1")
FINE = {"success": True, "output": "found", "error": "", "metadata": {}, "uniq_id": "u1"}


def executed(
    answer: Any, *, status: int = 200, token: str | None = None, **options: Any
) -> tuple[ToolResult, Scripted]:
    """The result of CALL at a server that answers so, and the server."""

    async def main() -> tuple[ToolResult, Scripted]:
        async with Scripted(answer, status=status).opened() as server:
            client = ToolServerClient(server.url + "/", token, default_timeout_seconds=0.2)
            try:
                return await client.execute(CALL, **options), server
            finally:
                await client.aclose()

    return asyncio.run(main())


@pytest.mark.row("A1-14")
def test_a_call_is_sent_as_the_wire_format_says() -> None:
    _, before = executed(FINE, token="T", trajectory_id="a")
    _, after = executed(FINE, trajectory_id="a", timeout_s=9.0, slot_id="slot_2", container_addr="http://c:8080")

    line, headers, _ = before.requests[0]
    assert line == "POST /execute HTTP/1.1"
    assert headers["authorization"] == "Bearer T"
    assert before.body() == {
        "trajectory_id": "a", "tool": {"name": "web", "arguments": {"q": 1}, "uniq_id": "u1"}, "timeout_s": None,
        "slot_id": None, "container_addr": None,
    }  # fmt: skip
    assert list(before.body()) == ["trajectory_id", "tool", "timeout_s", "slot_id", "container_addr"]
    assert after.body() == {
        **before.body(), "timeout_s": 9.0, "slot_id": "slot_2", "container_addr": "http://c:8080",
    }  # fmt: skip
    assert "authorization" not in after.requests[0][1]


@pytest.mark.row("A1-15")
def test_a_server_that_never_answers_is_given_up_with_a_reason() -> None:
    result, server = executed(None)

    assert result.success is False
    assert result.error == f"External tool failed: {server.url} did not answer: no answer within 0.2 s"
    assert result.metadata == {"outcome": "unknown"}
    assert len(server.requests) == 1


@pytest.mark.row("A1-16")
def test_null_means_nothing() -> None:
    result, _ = executed({"success": True, "error": None, "output": None, "metadata": None})

    assert result == ToolResult(success=True, output="", error="", metadata={}, uniq_id="u1")


@pytest.mark.row("A1-17")
@pytest.mark.parametrize("said", [{}, {"uniq_id": None}, {"uniq_id": "somebody else's"}])
def test_the_result_carries_the_id_of_the_call(said: dict[str, Any]) -> None:
    result, _ = executed({"success": True, "output": "found", **said})

    assert result.uniq_id == "u1"


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (401, {"detail": "Missing Authorization header"}, "HTTP 401: Missing Authorization header"),
        (403, {"error": "Invalid token"}, "HTTP 403: Invalid token"),
        (500, b"<html>oops</html>", "HTTP 500: <html>oops</html>"),
        (307, b"", "HTTP 307: no text"),
        (200, b"not json", "the reply is not a tool result: "),
        (200, b"[]", "the reply is not a tool result: "),
        (200, b"{}", "the reply is not a tool result: "),
        (200, b'{"success": "yes"}', "the reply is not a tool result: "),
        (200, b"[" * 100_000, "the reply is not a tool result: "),
    ],
)
def test_an_answer_that_is_no_result_is_a_failure_that_says_why(status: int, answer: Any, expected: str) -> None:
    result, server = executed(answer, status=status)

    assert result.success is False
    assert result.error.startswith(f"External tool failed: {expected}")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_a_failure_that_is_known_to_have_done_nothing() -> None:
    async def main() -> ToolResult:
        async with Scripted(FINE).opened() as server:
            url = server.url
        client = ToolServerClient(url)
        try:
            return await client.execute(CALL)
        finally:
            await client.aclose()

    result = asyncio.run(main())

    assert result.error.startswith("External tool failed: http://127.0.0.1:")
    assert "was not reached: ConnectError" in result.error
    assert result.metadata == {}


def test_a_connection_that_breaks_off_leaves_the_outcome_unknown() -> None:
    async def main() -> ToolResult:
        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(break_off, "127.0.0.1", 0)
        async with server:
            client = ToolServerClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            try:
                return await client.execute(CALL)
            finally:
                await client.aclose()

    result = asyncio.run(main())

    assert "did not answer: RemoteProtocolError" in result.error
    assert result.metadata == {"outcome": "unknown"}


def test_arguments_that_are_no_json_are_a_failure_and_nothing_is_sent() -> None:
    async def main() -> tuple[ToolResult, int]:
        async with Scripted(FINE).opened() as server:
            client = ToolServerClient(server.url)
            try:
                result = await client.execute(ToolCall("web", {"q": object()}, uniq_id="u1"))
                return result, len(server.requests)
            finally:
                await client.aclose()

    result, requests = asyncio.run(main())

    assert (result.success, result.uniq_id, requests) == (False, "u1", 0)
    assert result.error.startswith("External tool failed: ")


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://", "/path"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(UsageError, match="no URL"):
        ToolServerClient(url)


@pytest.mark.parametrize("token", ["hunter2\n", "hun\nter2", "hunter2 ", "hünter2"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        ToolServerClient("http://127.0.0.1:1", token)

    assert str(caught.value) == "a token is printable ASCII characters without a space"


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)

    with pytest.raises(UsageError, match=r"needs httpx2, which is not installed: pip install 'perdure\[serve\]'"):
        JsonClient("http://127.0.0.1:1")


def test_another_missing_module_is_not_taken_for_the_extra() -> None:
    with pytest.raises(ModuleNotFoundError), extra.serve_extra("this"):
        __import__("no_such_module_anywhere")


def client_with_a_token() -> JsonClient:  # apart, so that a traceback does not show this line
    return JsonClient("http://127.0.0.1:1", "hunter2-the-token")


def test_a_token_is_in_no_log_and_no_traceback(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> str:
        client = client_with_a_token()
        try:
            await client.post("/execute", {}, timeout_seconds=5)
        except Exception:
            formatter = structlog.dev.RichTracebackFormatter(show_locals=True, color_system=None, width=200)
            logger = structlog.wrap_logger(
                structlog.PrintLogger(),
                processors=[structlog.dev.ConsoleRenderer(colors=False, exception_formatter=formatter)],
            )
            logger.exception("failed")
        finally:
            await client.aclose()
        return json.dumps([record.getMessage() for record in caplog.records])

    logged = asyncio.run(main())

    out = capsys.readouterr().out
    assert "_asked" in out
    assert "hunter2" not in out
    assert "hunter2" not in logged
