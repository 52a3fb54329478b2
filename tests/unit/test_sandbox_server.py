"""The sandbox server in this process, over a backend without a machine: its wire, its order, its leases."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from perdure.runtime.sandbox.backend import Unfinished
from perdure.runtime.serving.access import Access
from perdure.runtime.serving.sandbox_server import sandbox_server
from tests.support.http import asking
from tests.support.slots import FakeBackend

REPLY_KEYS = ["success", "output", "error", "execution_id", "metadata"]

Scenario = Callable[[httpx2.AsyncClient, FakeBackend], Awaitable[Any]]


def served(scenario: Scenario, **options: Any) -> Any:
    async def main() -> Any:
        backend = FakeBackend()
        async with asking(sandbox_server(backend, slots=3, **options)) as client:
            return await scenario(client, backend)

    return asyncio.run(main())


def posted(path: str, content: Any) -> httpx2.Response:
    async def scenario(client: httpx2.AsyncClient, _: FakeBackend) -> httpx2.Response:
        return await client.post(path, **({"content": content} if isinstance(content, bytes) else {"json": content}))

    response: httpx2.Response = served(scenario)
    return response


def bash(command: str, slot: str = "slot_0", **more: Any) -> dict[str, Any]:
    return {"slot_id": slot, "tool": "bash", "args": {"command": command}, **more}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0)


def test_an_execution_is_answered_with_exactly_its_keys() -> None:
    response = posted("/execute", bash("echo hi", execution_id="e1"))

    assert response.status_code == 200
    assert list(response.json()) == REPLY_KEYS
    assert response.json()["execution_id"] == "e1"
    assert set(response.json()["metadata"]) == {"exit_code", "sandboxed", "network_isolated"}


def test_an_execution_without_an_id_gets_one_and_leaves_nothing_behind() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[str, dict[Any, Any]]:
        return (await client.post("/execute", json=bash("echo"))).json()["execution_id"], backend.outcomes

    execution_id, kept = served(scenario)

    assert len(execution_id) == 36
    assert kept == {}


def test_an_unknown_slot_is_told_in_the_reply_as_the_wire_format_says() -> None:
    response = posted("/execute", bash("echo", "slot_99"))

    assert response.status_code == 200
    assert (response.json()["success"], response.json()["error"]) == (False, "Unknown slot: slot_99")


def test_a_batch_is_answered_in_its_order_whatever_ends_first() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[list[str], list[str]]:
        batch = [bash("hold", execution_id="a"), bash("two", execution_id="b"), bash("x", "slot_1", execution_id="c")]
        reply = asyncio.create_task(client.post("/batch", json=[*batch, bash("y", "nope", execution_id="d")]))
        await until(lambda: backend.ran == ["a", "c"])
        backend.release_held("a")
        return [one["execution_id"] for one in (await reply).json()], backend.ran

    replies, ran = served(scenario)

    assert replies == ["a", "b", "c", "d"]
    assert ran == ["a", "c", "b"]


def test_requests_for_one_slot_are_performed_one_after_another_in_the_order_they_came() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> list[str]:
        first = asyncio.create_task(client.post("/execute", json=bash("hold", execution_id="a")))
        await until(lambda: backend.ran == ["a"])
        others = [asyncio.create_task(client.post("/execute", json=bash("x", execution_id=name))) for name in "bc"]
        for _ in range(50):
            await asyncio.sleep(0)
        assert backend.ran == ["a"]
        backend.release_held("a")
        await asyncio.gather(first, *others)
        return backend.ran

    assert served(scenario) == ["a", "b", "c"]


def test_a_backend_that_raises_fails_its_calls_and_the_next_one_works() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[Any, Any]:
        backend.breaks = True
        broken = (await client.post("/batch", json=[bash("x"), bash("y", "slot_1")])).json()
        backend.breaks = False
        return [one["error"] for one in broken], (await client.post("/execute", json=bash("z"))).json()["success"]

    assert served(scenario) == (["Batch execution failed: kaput"] * 2, True)


@pytest.mark.row("A1-65")
@pytest.mark.parametrize("path", ["/execute", "/batch", "/artifacts/read", "/reset", "/slots/cancel"])
def test_malformed_bodies_are_errors_of_the_caller_and_the_server_goes_on(path: str) -> None:
    bodies = [b"no json", b"", b'"text"', b"7", b"null", b"[" * 50_000]
    if path == "/batch":
        bodies += [b"{}", b"[7]", b'[{"args": null}]', b'[{"timeout": "abc"}]', b'[{"timeout": -1}]']
    else:
        bodies += [b"[]", b'{"slot_id": null, "path": "x", "execution_id": "e"}']
    if path == "/execute":
        bodies += [b'{"args": null}', b'{"timeout": "abc"}', b'{"timeout": true}', b'{"timeout": 1e999}']

    async def scenario(client: httpx2.AsyncClient, _: FakeBackend) -> tuple[list[httpx2.Response], Any]:
        refused = [await client.post(path, content=body) for body in bodies]
        return refused, (await client.post("/execute", json=bash("x"))).json()["success"]

    refused, works_after = served(scenario)

    assert [response.status_code for response in refused] == [400] * len(bodies)
    assert all(response.json()["success"] is False and response.json()["error"] for response in refused)
    assert works_after is True


def test_a_batch_of_more_than_a_slot_can_queue_is_refused_as_a_whole() -> None:
    response = posted("/batch", b"[" + b"{}," * 10_000 + b"{}]")

    assert response.status_code == 413
    assert response.json() == {"success": False, "error": "10001 requests at once: at most 10000"}


def test_texts_of_malformed_bodies_are_those_of_the_wire_format() -> None:
    assert posted("/execute", b"no json").json() == {"success": False, "error": "Invalid JSON"}
    assert posted("/batch", {}).json() == {"success": False, "error": "Expected array of requests"}


def test_health_and_slots_show_what_runs() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[Any, Any]:
        running = asyncio.create_task(client.post("/execute", json=bash("hold", "slot_1", execution_id="a")))
        await until(lambda: backend.ran == ["a"])
        shown = (await client.get("/health")).json(), (await client.get("/slots")).json()
        backend.release_held("a")
        await running
        return shown

    health, slots = served(scenario, bwrap_available=True)

    assert health == {
        "status": "ok", "slots": 3, "available": 2, "executing": 1, "data_dir": "/workspace", "bwrap_available": True,
        "stateful_dir": "/run/perdure",
    }  # fmt: skip
    assert slots["slots"][1] == {
        "slot_id": "slot_1", "state": "executing", "workspace_dir": "/workspace", "current_execution_id": "a",
    }  # fmt: skip
    assert [slot["state"] for slot in slots["slots"]] == ["available", "executing", "available"]


def test_a_reset_is_told_and_an_unknown_slot_is_an_error() -> None:
    done, unknown = posted("/reset", {"slot_id": "slot_0"}), posted("/reset", {"slot_id": "nope"})

    assert (done.status_code, done.json()) == (
        200,
        {"success": True, "output": "Reset workspace for slot_0", "error": "", "execution_id": None, "metadata": {}},
    )
    assert (unknown.status_code, unknown.json()["success"]) == (404, False)
    assert unknown.json()["error"] == "Unknown slot: nope"


def test_a_reset_that_failed_is_no_success() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> httpx2.Response:
        backend.fails_to_reset = True
        return await client.post("/reset", json={"slot_id": "slot_0"})

    response = served(scenario)

    assert (response.status_code, response.json()["success"]) == (500, False)
    assert "a file is left" in response.json()["error"]


def test_artifacts_have_the_status_of_what_went_wrong_and_not_in_the_body() -> None:
    fine = posted("/artifacts/read", {"slot_id": "slot_0", "path": "a.txt", "max_bytes": 3})
    outside = posted("/artifacts/read", {"slot_id": "slot_0", "path": "../x"})
    unknown = posted("/artifacts/list", {"slot_id": "nope"})
    large = posted("/artifacts/archive", {"slot_id": "slot_0", "max_bytes": 1})

    assert (fine.status_code, fine.json()["content"], fine.json()["options"]["max_bytes"]) == (200, "a.txt", 3)
    assert (outside.status_code, outside.json()) == (
        403,
        {"success": False, "error": "Access denied: path outside workspace"},
    )
    assert (unknown.status_code, unknown.json()["error"]) == (404, "Unknown slot: nope")
    assert (large.status_code, large.json()["bytes"]) == (413, 9)


def test_the_same_id_is_executed_once() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[list[str], list[str]]:
        replies = [(await client.post("/execute", json=bash("x", execution_id="e"))).json() for _ in range(2)]
        return [reply["output"] for reply in replies], backend.ran

    assert served(scenario) == (["did x"] * 2, ["e"])


def test_the_same_id_asked_for_while_it_runs_is_executed_once() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[list[str], list[str]]:
        replies = [asyncio.create_task(client.post("/execute", json=bash("hold", execution_id="e"))) for _ in range(2)]
        await until(lambda: backend.ran == ["e"])
        backend.release_held("e")
        return [(await reply).json()["output"] for reply in replies], backend.ran

    assert served(scenario) == (["did hold"] * 2, ["e"])


# Leases


def test_a_slot_that_somebody_holds_is_not_for_those_without_a_lease() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> list[Any]:
        await client.post("/slots/acquire", json={"slot_id": "slot_0", "lease": 4})
        executed = (await client.post("/execute", json=bash("x"))).json()
        reset = await client.post("/reset", json={"slot_id": "slot_0"})
        return [executed["success"], "lease 4 is the newest" in executed["error"], reset.status_code, backend.ran]

    assert served(scenario) == [False, True, 409, []]


def test_a_holder_whose_lease_is_over_moves_nothing_and_ends_nothing() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> list[Any]:
        await client.post("/slots/acquire", json={"slot_id": "slot_0", "lease": 4})
        running = asyncio.create_task(client.post("/execute", json=bash("hold", execution_id="a", lease=4)))
        await until(lambda: backend.ran == ["a"])
        stale = await client.post("/slots/release", json={"slot_id": "slot_0", "lease": 3})
        backend.release_held("a")
        return [stale.status_code, stale.json(), (await running).json()["success"]]

    status, refusal, success = served(scenario)

    assert (status, success) == (409, True)
    assert (refusal["kind"], refusal["data"]) == ("StaleLeaseError", {"slot": "slot_0", "lease": 3, "current": 4})


@pytest.mark.parametrize("move", ["acquire", "release", "reset", "recover", "remove"])
def test_a_slot_that_changes_hands_ends_what_ran_and_what_waited(move: str) -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[list[Any], list[str], Any]:
        await client.post("/slots/acquire", json={"slot_id": "slot_0", "lease": 1})
        batch = [bash("hold", execution_id="a", lease=1), bash("x", execution_id="b", lease=1)]
        first = asyncio.create_task(client.post("/batch", json=batch))
        await until(lambda: backend.ran == ["a"])
        second = asyncio.create_task(client.post("/execute", json=bash("y", execution_id="c", lease=1)))
        await until(lambda: len(backend.told) > 0)
        for _ in range(50):
            await asyncio.sleep(0)
        moved = await client.post(f"/slots/{move}", json={"slot_id": "slot_0", "lease": 2})
        replies = [*(await first).json(), (await second).json()]
        return [(one["execution_id"], one["metadata"]) for one in replies], backend.ran, moved.json()["success"]

    replies, ran, success = served(scenario)

    begun, never = {"cancelled": True, "was_begun": True}, {"cancelled": True, "was_begun": False}
    assert [name for name, _ in replies] == ["a", "b", "c"]
    assert replies[0][1] == begun
    assert replies[2][1] == never
    assert ran == ["a"]
    assert success is True


def test_a_cancel_that_comes_before_the_execution_keeps_it_from_beginning() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> tuple[Any, list[str], Any]:
        await client.post("/slots/cancel", json={"slot_id": "slot_0", "execution_id": "e"})
        reply = (await client.post("/execute", json=bash("x", execution_id="e"))).json()
        outcome = await client.post("/slots/outcome", json={"slot_id": "slot_0", "execution_id": "e"})
        return reply["metadata"], backend.ran, outcome.json()["state"]

    assert served(scenario) == ({"cancelled": True, "was_begun": False}, [], "ended")


def test_an_outcome_is_waited_for_unknown_unfinished_or_there() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> list[str]:
        async def state(execution_id: str, **more: Any) -> str:
            asked = {"slot_id": "slot_0", "execution_id": execution_id, **more}
            found: str = (await client.post("/slots/outcome", json=asked)).json()["state"]
            return found

        running = asyncio.create_task(client.post("/execute", json=bash("hold", execution_id="a", lease=1)))
        await until(lambda: backend.ran == ["a"])
        states = [await state("a"), await state("never")]
        waiting = asyncio.create_task(state("a", wait_seconds=60))
        backend.release_held("a")
        states.append(await waiting)
        await running
        backend.outcomes["slot_0", "lost"] = Unfinished("it died")
        return [*states, await state("lost")]

    assert served(scenario) == ["running", "unknown", "ended", "unfinished"]


def test_results_are_streamed_as_lines_to_who_accepts_them() -> None:
    async def scenario(client: httpx2.AsyncClient, _: FakeBackend) -> tuple[str, int]:
        headers = {"Accept": "application/x-ndjson"}
        reply = await client.post("/batch", json=[bash("x"), bash("y", "slot_1")], headers=headers)
        return reply.headers["content-type"], len(reply.text.splitlines())

    assert served(scenario) == ("application/x-ndjson", 2)


def test_a_token_guards_everything_but_the_health() -> None:
    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> list[int]:
        asked = [await client.get(path) for path in ("/health", "/slots", "/backend")]
        asked += [await client.post(path, content=b"x") for path in ("/execute", "/batch", "/reset", "/slots/acquire")]
        return [response.status_code for response in asked]

    assert served(scenario, access=Access.by_token("T")) == [200, 401, 401, 401, 401, 401, 401]


def test_the_backend_is_started_and_stopped_with_the_server() -> None:
    backends: list[FakeBackend] = []

    async def scenario(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
        backends.append(backend)

    served(scenario)

    assert backends[0].told == [("start",), ("stop",)]
