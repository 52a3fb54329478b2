"""The tool server in this process: its wire, its bounds, and what of a request reaches a tool."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from perdure import Query, Registry, Runtime, ToolContext, UsageError, tool
from perdure.actors.slots.calls import ToolResult
from perdure.runtime.serving.access import Access
from perdure.runtime.serving.exchange import MAX_BODY_BYTES
from perdure.runtime.serving.tool_server import ToolServerConfig, tool_server
from perdure.testing import MemoryDisk
from tests.support.http import asking

RESULT_KEYS = ["success", "output", "error", "metadata", "uniq_id"]


class Desk:
    """Tools that note what they were called with."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()

        @tool(name="web")
        async def web(q: int = 0) -> str:
            self.seen.append(q)
            return f"found {q}"

        @tool(name="where")
        async def where(
            trajectory_id: str | None, slot_id: str | None, task_id: str | None, container_addr: str | None = "default"
        ) -> dict[str, str | None]:
            return {"trajectory": trajectory_id, "slot": slot_id, "task": task_id, "address": container_addr}

        @tool(name="context")
        async def context(context: ToolContext) -> list[str | None]:
            return [context.trajectory, context.tool]

        @tool(name="broken")
        async def broken() -> str:
            raise RuntimeError("boom")

        @tool(name="says_error")
        async def says_error() -> dict[str, str]:
            return {"error": "no such page", "page": "7"}

        @tool(name="own")
        async def own(success: bool) -> ToolResult:
            return ToolResult(success, "out", "" if success else "bad", {"exit_code": 3})

        @tool(name="hold")
        async def hold() -> str:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.gate.wait()
            finally:
                self.running -= 1
            self.seen.append("held")
            return "done"

        @tool(name="lacking", requires_env=["NO_SUCH_VARIABLE_IS_SET"])
        async def lacking() -> str:
            return "never"

        self.registry = Registry([web, where, context, broken, says_error, own, hold, lacking])


def body(name: str, arguments: dict[str, Any] | None = None, uniq_id: str = "u1", **more: Any) -> dict[str, Any]:
    return {"tool": {"name": name, "arguments": arguments or {}, "uniq_id": uniq_id}, **more}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0)


def asked(
    scenario: Callable[[httpx2.AsyncClient, Desk], Awaitable[Any]], config: ToolServerConfig | None = None
) -> Any:
    async def main() -> Any:
        desk = Desk()
        async with asking(tool_server(desk.registry, config=config)) as client:
            return await scenario(client, desk)

    return asyncio.run(main())


def call(name: str, arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/execute", json=body(name, arguments, **more))

    response = asked(scenario)
    assert response.status_code == 200
    result: dict[str, Any] = response.json()
    assert list(result) == RESULT_KEYS
    assert result["uniq_id"] == "u1"
    return result


def test_the_open_routes_say_what_the_wire_format_says() -> None:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> tuple[Any, Any]:
        return (await client.get("/")).json(), (await client.get("/health")).json()

    assert asked(scenario) == ({"message": "Atropos-Agent Tool Server"}, {"status": "ok"})


def test_a_call_is_answered_with_exactly_the_keys_of_a_result() -> None:
    assert call("web", {"q": 7}) == {
        "success": True, "output": "found 7", "error": "", "metadata": {}, "uniq_id": "u1",
    }  # fmt: skip


@pytest.mark.row("A1-42")
def test_an_unknown_tool_and_a_failing_one_are_results_and_a_missing_id_is_not() -> None:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/execute", json={"tool": {"name": "web", "arguments": {}}})

    unknown, failing, response = call("nope"), call("broken"), asked(scenario)

    assert (unknown["success"], unknown["error"]) == (False, "Unknown tool: nope")
    assert (failing["success"], failing["error"]) == (False, "Tool execution error: RuntimeError: boom")
    assert response.status_code == 422
    assert "uniq_id" in response.json()["detail"]


def test_arguments_that_do_not_fit_are_an_execution_error() -> None:
    wrong, unknown = call("web", {"q": "seven"}), call("web", {"other": 1})

    assert wrong["error"].startswith("Tool execution error: invalid arguments: ")
    assert unknown["error"].startswith("Tool execution error: invalid arguments: ")


def test_a_tool_that_cannot_be_used_now_is_not_called() -> None:
    assert call("lacking")["error"] == "Tool not available: lacking"


def test_a_reported_error_is_a_failure() -> None:
    told = call("says_error")

    assert (told["success"], told["error"]) == (False, "no such page")
    assert told["output"] == '{"error":"no such page","page":"7"}'


@pytest.mark.parametrize("success", [True, False])
def test_a_result_that_a_tool_makes_itself_is_the_answer(*, success: bool) -> None:
    told = call("own", {"success": success})

    assert told == {
        "success": success, "output": "out", "error": "" if success else "bad", "metadata": {"exit_code": 3},
        "uniq_id": "u1",
    }  # fmt: skip


@pytest.mark.row("A1-39")
@pytest.mark.parametrize("real", [None, "slot_3"])
def test_where_a_trajectory_is_comes_from_the_request_and_never_from_the_model(real: str | None) -> None:
    evil = dict.fromkeys(("trajectory_id", "slot_id", "container_addr", "task_id"), "EVIL")
    where = {} if real is None else {"trajectory_id": "t1", "slot_id": real, "container_addr": "http://c"}

    told, undeclared = call("where", evil, **where), call("web", {"q": 1, **evil}, **where)

    assert "EVIL" not in told["output"]
    if real is None:
        assert told["output"] == '{"trajectory":null,"slot":null,"task":null,"address":"default"}'
    else:
        assert told["output"] == '{"trajectory":"t1","slot":"slot_3","task":"t1","address":"http://c"}'
    assert undeclared["output"] == "found 1"


def test_a_tool_is_told_its_trajectory() -> None:
    assert call("context", trajectory_id="t9")["output"] == '["t9","context"]'


def test_models_are_not_shown_what_the_server_fills_in_nor_what_is_not_available() -> None:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> Any:
        return (await client.get("/tools")).json()

    listed = {one["function"]["name"]: one["function"]["parameters"] for one in asked(scenario)["tools"]}

    assert (listed["where"]["properties"], listed["where"]["required"]) == ({}, [])
    assert list(listed["web"]["properties"]) == ["q"]
    assert "lacking" not in listed


@pytest.mark.row("A1-38")
@pytest.mark.parametrize(
    ("token", "header", "status", "detail"),
    [
        (None, None, 200, None),
        (None, "Bearer anything", 200, None),
        ("T", None, 401, "Missing Authorization header"),
        ("T", "Basic T", 401, "Invalid Authorization header"),
        ("T", "Bearer wrong", 403, "Invalid token"),
        ("T", "Bearer T", 200, None),
        ("T", "bearer T", 200, None),
    ],
)
def test_the_matrix_of_who_may_call(token: str | None, header: str | None, status: int, detail: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}

    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[httpx2.Response, list[Any]]:
        return await client.post("/execute", json=body("web", {"q": 5}), headers=headers), desk.seen

    response, seen = asked(scenario, ToolServerConfig(access=Access.by_token(token)))

    assert response.status_code == status
    assert response.json().get("detail") == detail
    assert seen == ([5] if status == 200 else [])


def test_with_a_token_the_list_of_tools_needs_it_too() -> None:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> list[int]:
        with_it = {"Authorization": "Bearer T"}
        responses = [await client.get(path) for path in ("/", "/health", "/tools")]
        return [response.status_code for response in [*responses, await client.get("/tools", headers=with_it)]]

    assert asked(scenario, ToolServerConfig(access=Access.by_token("T"))) == [200, 200, 401, 200]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"{}", 422),
        (b'{"tool": null}', 400),
        (b'{"tool": {"name": 5, "uniq_id": "u"}}', 400),
        (b'{"tool": {"name": "web", "arguments": null, "uniq_id": "u"}}', 400),
        (b'{"tool": {"name": "web", "uniq_id": "u"}, "timeout_s": "abc"}', 400),
        (b'{"tool": {"name": "web", "uniq_id": "u"}, "timeout_s": -1}', 400),
        (b'{"tool": {"name": "web", "uniq_id": "u"}, "timeout_s": NaN}', 400),
        (b'{"tool": {"name": "web", "uniq_id": "\xff"}}', 400),
        (b"[" * 200_000, 400),
        (b'{"tool": {"name": "web", "uniq_id": "u", "arguments": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_002, 400),
        (b'"' + b"x" * MAX_BODY_BYTES + b'"', 413),
    ],
)
def test_a_body_that_is_no_request_is_an_error_of_the_caller_in_json(content: bytes, status: int) -> None:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> tuple[httpx2.Response, httpx2.Response]:
        refused = await client.post("/execute", content=content)
        return refused, await client.post("/execute", json=body("web"))

    refused, after = asked(scenario)

    assert refused.status_code == status
    assert refused.json()["detail"]
    assert after.json()["success"] is True


def test_a_body_without_a_length_is_bounded_too() -> None:
    async def chunks() -> Any:
        for _ in range(MAX_BODY_BYTES // 1_000_000 + 1):
            yield b"x" * 1_000_000

    async def scenario(client: httpx2.AsyncClient, _: Desk) -> httpx2.Response:
        return await client.post("/execute", content=chunks())

    assert asked(scenario).status_code == 413


def test_an_unknown_route_and_a_wrong_method_are_said_in_json() -> None:
    async def scenario(client: httpx2.AsyncClient, _: Desk) -> list[tuple[int, Any]]:
        found = [await client.get("/nope"), await client.get("/execute"), await client.post("/tools")]
        return [(response.status_code, response.json()["detail"]) for response in found]

    assert asked(scenario) == [(404, "Not Found"), (405, "Method Not Allowed"), (405, "Method Not Allowed")]


@pytest.mark.row("A1-40")
def test_a_call_that_takes_too_long_fails_and_names_its_limit() -> None:
    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[Any, int]:
        response = await client.post("/execute", json=body("hold", timeout_s=0.05))
        return response.json(), desk.running

    told, running = asked(scenario)

    assert (told["success"], told["error"]) == (False, "Tool execution error: TimeoutError: no result within 0.05 s")
    assert running == 0


@pytest.mark.row("A1-41")
def test_no_more_calls_run_at_once_than_were_allowed() -> None:
    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[int, int, list[bool]]:
        sent = [client.post("/execute", json=body("hold", uniq_id=f"u{n}")) for n in range(20)]
        calls = [asyncio.create_task(one) for one in sent]
        await until(lambda: desk.running >= 16)
        for _ in range(100):  # every chance for a seventeenth
            await asyncio.sleep(0)
        at_once = desk.running
        desk.gate.set()
        return at_once, desk.most, [response.json()["success"] for response in await asyncio.gather(*calls)]

    assert asked(scenario) == (16, 16, [True] * 20)


def test_a_call_that_gets_no_place_in_time_was_not_made_and_may_be_made_again() -> None:
    config = ToolServerConfig(max_concurrency=1)

    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[Any, Any, list[Any]]:
        first = asyncio.create_task(client.post("/execute", json=body("hold", uniq_id="a")))
        await until(lambda: desk.running > 0)
        refused = await client.post("/execute", json=body("web", {"q": 3}, uniq_id="b", timeout_s=0.05))
        desk.gate.set()
        await first
        again = await client.post("/execute", json=body("web", {"q": 3}, uniq_id="b", timeout_s=0.05))
        return refused.json(), again.json(), desk.seen

    refused, again, seen = asked(scenario, config)

    assert refused["error"] == "Tool execution error: web: no place at the server within 0.05 s; try again later"
    assert (again["success"], seen) == (True, ["held", 3])


def test_the_same_id_of_the_same_trajectory_is_made_once() -> None:
    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[list[Any], list[Any]]:
        where = ({"trajectory_id": "t1"}, {"trajectory_id": "t1"}, {"trajectory_id": "t2"})
        responses = [await client.post("/execute", json=body("web", {"q": 2}, **more)) for more in where]
        return [response.json()["output"] for response in responses], desk.seen

    assert asked(scenario) == (["found 2"] * 3, [2, 2])


def test_the_same_id_asked_for_twice_at_once_is_made_once() -> None:
    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[list[Any], list[Any]]:
        calls = [asyncio.create_task(client.post("/execute", json=body("hold"))) for _ in range(3)]
        await until(lambda: desk.running > 0)
        desk.gate.set()
        return [response.json()["output"] for response in await asyncio.gather(*calls)], desk.seen

    assert asked(scenario) == (["done"] * 3, ["held"])


def test_an_id_that_was_used_for_another_call_is_refused() -> None:
    async def scenario(client: httpx2.AsyncClient, desk: Desk) -> tuple[Any, list[Any]]:
        await client.post("/execute", json=body("web", {"q": 1}))
        return (await client.post("/execute", json=body("web", {"q": 2}))).json(), desk.seen

    told, seen = asked(scenario)

    assert told["error"] == "Tool execution error: uniq_id u1 was used before for another call"
    assert seen == [1]


def test_calls_through_a_runtime_are_recorded_and_guarded() -> None:
    desk_of: list[Desk] = []

    async def main() -> tuple[list[str], list[str]]:
        desk_of.append(desk := Desk())
        async with Runtime("agents.db", log=MemoryDisk().open, tools=desk.registry.in_order()) as rt:
            async with asking(tool_server(runtime=rt)) as client:
                told = [
                    (await client.post("/execute", json=body("broken", uniq_id=f"u{n}", trajectory_id="t1"))).json()
                    for n in range(4)
                ]
            events = [event.type for event in await rt.read(Query(limit=100))]
        return [one["error"] for one in told], events

    errors, events = asyncio.run(main())

    assert errors[:3] == ["Tool execution error: RuntimeError: boom"] * 3
    assert errors[3].startswith("Tool execution error: Circuit breaker open for broken")
    assert events.count("call-failed") == 3
    assert events.count("call-refused") == 1


@pytest.mark.parametrize(("value", "expected"), [("", 16), ("3", 3)])
def test_the_environment_says_the_concurrency(value: str, expected: int) -> None:
    config = ToolServerConfig.from_environment({"TOOL_SERVER_MAX_CONCURRENCY": value, "TOOL_SERVER_TOKEN": "T"})

    assert config.max_concurrency == expected
    assert config.access == Access.by_token("T")


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_concurrency_that_is_no_number_from_one_on_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="TOOL_SERVER_MAX_CONCURRENCY is a number from 1 on"):
        ToolServerConfig.from_environment({"TOOL_SERVER_MAX_CONCURRENCY": value})


def test_a_server_needs_something_to_offer() -> None:
    with pytest.raises(UsageError, match="say what to offer"):
        tool_server()
