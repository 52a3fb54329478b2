"""The HTTP API in this process: what it does, whom it lets in, how it says no."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from perdure import EntryPoint, Runtime, Secret, Settings, UsageError, Webhook
from perdure.runtime.web.api.application import HttpApi
from perdure.runtime.web.api.limits import ApiLimits
from perdure.runtime.web.api.roles import Tokens
from perdure.runtime.web.api.table import TABLE
from tests.support.api import (
    ADMIN,
    BY_HAND,
    OFTEN,
    OPERATE,
    READ,
    RICH,
    TOKENS,
    Opened,
    asking,
    bearer,
    double,
    look,
    opened,
    ticks,
    until,
)

Scenario = Callable[[Opened], Awaitable[Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def served(path: Path, scenario: Scenario, **parts: Any) -> Any:
    async def main() -> Any:
        async with opened(path, **parts) as api:
            return await scenario(api)

    return asyncio.run(main())


def test_a_run_is_started_waited_for_and_looked_at(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        reply = await api.client.post("/v1/runs", json={"workflow": "double", "input": {"n": 21}, "id": "r1"})
        again = await api.post("/v1/runs", {"workflow": "double", "input": {"n": 21}, "id": "r1"})
        result = await api.get("/v1/runs/r1/result", wait=60)
        return reply, again, result, await api.get(reply.headers["location"])

    reply, again, result, looked = served(path, scenario)

    assert (reply.status_code, reply.json(), reply.headers["location"]) == (202, {"run": "r1"}, "/v1/runs/r1")
    assert again == {"run": "r1"}
    assert (result["status"], result["result"], result["steps_done"]) == ("completed", 42, 1)
    assert looked == result


def test_a_run_that_has_not_ended_is_answered_with_202(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "asks", "id": "r1"})
        await api.rt.until_idle()
        return (await api.client.get("/v1/runs/r1/result")).status_code

    assert served(path, scenario) == 202


def test_a_run_that_failed_says_why(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "fails", "id": "r1"})
        return await api.get("/v1/runs/r1/result", wait=60)

    found = served(path, scenario)

    assert (found["status"], found["error_type"], found["error"]) == ("failed", "ValueError", "on purpose")
    assert found["result"] is None


def test_a_run_is_steered(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "listens", "id": "r1"})
        await api.rt.until_idle()
        said = [
            await api.post("/v1/runs/r1/pause", {"reason": "lunch"}),
            await api.post("/v1/runs/r1/pause"),
            (await api.get("/v1/runs/r1"))["paused"],
            await api.post("/v1/runs/r1/resume"),
            await api.post("/v1/runs/r1/signals", {"name": "go", "value": 7, "id": "s1"}),
            (await api.get("/v1/runs/r1/result", wait=60))["result"],
        ]
        await api.post("/v1/runs", {"workflow": "listens", "id": "r2"})
        said.append(await api.post("/v1/runs/r2/cancel", {"reason": "no more"}))
        said.append((await api.get("/v1/runs/r2/result", wait=60))["status"])
        said.append(await api.refused("POST", "/v1/runs/r2/pause"))
        return said

    assert served(path, scenario) == [
        {"changed": True}, {"changed": False}, "lunch", {"changed": True}, {"changed": True}, 7,
        {"changed": True}, "cancelled", (409, "RunClosedError"),
    ]  # fmt: skip


def test_a_run_is_retried_and_forked(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "double", "id": "r1", "input": {"n": 2}})
        await api.get("/v1/runs/r1/result", wait=60)
        fork = await api.post("/v1/runs/r1/fork", {"step": "look#1", "changed": {"n": 5}, "id": "r2"})
        (checkpoint,) = (await api.get("/v1/runs/r1/checkpoints"))["checkpoints"]
        await api.post("/v1/runs/r1/fork", {"checkpoint": checkpoint["id"], "id": "r4"})
        neither = await api.refused("POST", "/v1/runs/r1/fork", json={})
        await api.post("/v1/runs", {"workflow": "fails", "id": "r3"})
        await api.get("/v1/runs/r3/result", wait=60)
        retried = await api.post("/v1/runs/r3/retry")
        result = await api.get("/v1/runs/r2/result", wait=60)
        assert ((await api.get("/v1/runs/r4/result", wait=60))["result"], neither[0]) == (4, 422)
        return fork, result["result"], retried["run"], await api.refused("POST", "/v1/runs/r1/retry")

    assert served(path, scenario) == ({"run": "r2"}, 10, "r3", (409, "ControlRefusedError"))


def test_people_answer_approve_and_reject_in_their_own_names(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        for run, workflow in (("a", "asks"), ("b", "buys"), ("c", "buys")):
            await api.post("/v1/runs", {"workflow": workflow, "id": run})
        await api.rt.until_idle()
        asked = {one["run"]: one for one in (await api.get("/v1/questions"))["questions"]}
        a, b, c = (f"/v1/runs/{run}/questions/{quote(asked[run]['id'], safe='')}" for run in "abc")
        wrong = await api.refused("POST", f"{a}/answer", json={"value": 7})
        await api.post(f"{a}/answer", {"value": "that one", "who": "ada"})
        await api.post(f"{b}/approve", {"who": "bob", "digest": asked["b"]["digest"]})
        await api.post(f"{c}/reject", {"who": "cleo", "reason": "too much"})
        results = [(await api.get(f"/v1/runs/{run}/result", wait=60))["result"] for run in "abc"]
        events = (await api.get("/v1/events", types=["question-answered", "call-approved", "call-rejected"]))["events"]
        again = await api.refused("POST", f"{a}/answer", json={"value": "x"})
        return wrong, results, [event["principal"] for event in events], again

    wrong, results, principals, again = served(path, scenario, tokens=None)

    assert wrong == (422, "WrongAnswerError")
    assert results == ["that one", "receipt 3", "rejected"]
    assert principals == ["ada", "bob", "cleo"]
    assert again[0] == 409


def test_what_a_nameless_token_passes_on_is_recorded_as_passed_on_by_it(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        api.client.headers.update(bearer(OPERATE))
        await api.post("/v1/runs", {"workflow": "asks", "id": "a"})
        await api.rt.until_idle()
        (asked,) = (await api.get("/v1/questions"))["questions"]
        await api.post(f"/v1/runs/a/questions/{quote(asked['id'], safe='')}/answer", {"value": "x", "who": "ada"})
        events = (await api.get("/v1/events", types=["run-started", "question-answered"]))["events"]
        return [event["principal"] for event in events]

    tokens = Tokens.of([f"operate:{OPERATE}"])

    assert served(path, scenario, tokens=tokens) == ["api-operate", "ada via api-operate"]


def test_runs_are_listed_in_pages_and_by_what_they_are(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        for number in range(5):
            await api.post("/v1/runs", {"workflow": "double", "id": f"d{number}"})
        await api.post("/v1/runs", {"workflow": "asks", "id": "q"})
        await api.post("/v1/entry-points/by-hand/trigger", {"id": "e"})
        await api.rt.until_idle()
        pages: list[list[str]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await api.get("/v1/runs", limit=3, **cursor)
            pages.append([one["run"] for one in page["runs"]])
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
        filters = [{"is_open": "true"}, {"workflow": "asks"}, {"status": "waiting"}, {"entry": "by-hand"}]
        found = [[one["run"] for one in (await api.get("/v1/runs", **each))["runs"]] for each in filters]
        statuses = {one["run"]: one["status"] for one in (await api.get("/v1/runs"))["runs"]}
        return pages, found, statuses

    pages, found, statuses = served(path, scenario, entry_points=[BY_HAND])

    assert [run for page in pages for run in page] == ["e", "q", "d4", "d3", "d2", "d1", "d0"]
    assert found == [["q"], ["q"], ["q"], ["e"]]
    assert (statuses["e"], statuses["q"], statuses["d0"]) == ("completed", "waiting", "completed")


def test_events_are_read_in_pages_in_both_directions(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        for number in range(7):
            await api.post("/v1/events", {"type": "tick", "data": number})
        forth: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = await api.get("/v1/events", types="event-published", limit=3, after=after)
            forth += [event["data"]["data"] for event in page["events"]]
            after = page["next"]
        back: list[Any] = []
        until: dict[str, Any] = {}
        while True:
            page = await api.get("/v1/events", types="event-published", limit=3, newest_first="true", **until)
            back += [event["data"]["data"] for event in page["events"]]
            if page["next"] is None:
                return forth, back
            until = {"until": page["next"]}

    assert served(path, scenario) == (list(range(7)), list(reversed(range(7))))


def test_an_event_is_published_once_by_its_id(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        first = await api.post("/v1/events", {"type": "order.paid", "data": {"amount": 3}, "id": "e1"})
        again = await api.post("/v1/events", {"type": "order.paid", "data": {"amount": 3}, "id": "e1"})
        other = await api.refused("POST", "/v1/events", json={"type": "order.paid", "data": 4, "id": "e1"})
        history = await api.get("/v1/history", types="order.paid")
        return first, again, other, [event["data"] for event in history["events"]]

    assert served(path, scenario) == (
        {"is_new": True}, {"is_new": False}, (409, "PublicationConflictError"), [{"amount": 3}],
    )  # fmt: skip


def test_the_ways_in_are_listed_and_triggered(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        entries = (await api.get("/v1/entry-points"))["entry_points"]
        await api.post("/v1/entry-points/by-hand/trigger", {"id": "t1", "data": {"n": 4}})
        await api.get("/v1/runs/t1/result", wait=60)
        result = await api.get("/v1/entry-points/by-hand/results/t1")
        paused = await api.post("/v1/schedules/often/pause", {"reason": "night"})
        (schedule,) = (await api.get("/v1/schedules"))["schedules"]
        fired = await api.post("/v1/schedules/often/fire")
        unknown = await api.refused("POST", "/v1/entry-points/none/trigger", json={})
        figures = await api.get("/v1/statistics/entry-points")
        return entries, result, paused, schedule, fired, unknown, figures

    entries, result, paused, schedule, fired, unknown, figures = served(path, scenario, entry_points=[BY_HAND, OFTEN])

    assert [(one["id"], one["kind"], one["workflow"]) for one in entries] == [
        ("by-hand", "manual", "double"), ("often", "schedule", "ticks"),
    ]  # fmt: skip
    assert (result["success"], result["output"], result["correlation"]) == (True, 8, "t1")
    assert (paused, schedule["is_paused"], schedule["because"]) == ({"changed": True}, True, "night")
    assert fired["run"].startswith("often:")
    assert unknown == (404, "UnknownEntryPointError")
    assert figures["by-hand"]["total_executions"] == 1


def test_state_and_goals_are_read_and_only_an_admin_writes(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        api.client.headers.update(bearer(OPERATE))
        refused = await api.refused("POST", "/v1/state/values", json={"values": {"a": 1}})
        api.client.headers.update(bearer(ADMIN))
        await api.post("/v1/state/values", {"values": {"a": 1, "b": [2]}})
        taken = (await api.client.delete("/v1/state/values/a")).json()
        api.client.headers.update(bearer(READ))
        values = (await api.get("/v1/state/values"))["values"]
        changes = (await api.get("/v1/state/changes", limit=1))["changes"]
        goals = (await api.get("/v1/goals"))["goals"]
        progress = await api.get("/v1/goals/rich")
        return refused, taken, values, changes, goals, progress["overall"], await api.refused("GET", "/v1/goals/poor")

    refused, taken, values, changes, goals, overall, unknown = served(path, scenario, tokens=TOKENS, goals=[RICH])

    assert refused == (403, "ForbiddenError")
    assert (taken, values) == ({"changed": True}, {"b": [2]})
    assert [(one["key"], one["who"], "new" in one) for one in changes] == [("a", "ada", False)]
    assert ([one["id"] for one in goals], overall, unknown) == (["rich"], 0.0, (404, "UnknownGoalError"))


def test_a_conversation_is_looked_at(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "double", "id": "r1", "conversation": "c1"})
        await api.get("/v1/runs/r1/result", wait=60)
        found = await api.get("/v1/conversations/c1")
        runs = (await api.get("/v1/conversations/c1/runs"))["runs"]
        listed = (await api.get("/v1/conversations"))["conversations"]
        return found["status"], [one["run"] for one in runs], listed, await api.refused("GET", "/v1/conversations/c2")

    assert served(path, scenario) == ("completed", ["r1"], ["c1"], (404, "UnknownConversationError"))


def test_input_reaches_the_run_that_asks_and_says_when_none_does(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "asks", "id": "r1"})
        await api.rt.until_idle()
        taken = await api.post("/v1/inputs", {"target": "r1", "content": "hello"})
        await api.get("/v1/runs/r1/result", wait=60)
        late = await api.post("/v1/inputs", {"target": "r1", "content": "hello"})
        return taken, late, await api.refused("POST", "/v1/inputs", json={"target": "nobody", "content": ""})

    taken, late, unknown = served(path, scenario)

    assert (taken, late) == ({"outcome": "accepted"}, {"outcome": "not_waiting"})
    assert unknown == (404, "UnknownTargetError")


def test_a_circuit_is_forced_by_an_admin_alone(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        body = {"to": "open", "reason": "it costs too much"}
        api.client.headers.update(bearer(OPERATE))
        refused = await api.refused("POST", "/v1/circuits/look", json=body)
        api.client.headers.update(bearer(ADMIN))
        await api.post("/v1/circuits/look", body)
        circuits = (await api.get("/v1/circuits"))["circuits"]
        return refused, {one["circuit"]: one["forced"] for one in circuits}

    refused, forced = served(path, scenario, tokens=TOKENS)

    assert refused == (403, "ForbiddenError")
    assert forced == {"look": "open", "pay": None}


@pytest.mark.parametrize("given", [{"text": {"$secret": "HOME"}}, {"text": [{"a": {"$secret": "HOME"}}]}])
def test_only_an_admin_names_secrets(path: Path, given: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with opened(path, TOKENS) as api:
            body = {"workflow": "asks", "id": "r", "input": given}

            for token, expected in ((OPERATE, (403, "ForbiddenError")), (ADMIN, (422, "InvalidArgumentsError"))):
                refused = await api.refused("POST", "/v1/runs", json=body, headers=bearer(token))
                assert refused == expected

    asyncio.run(scenario())


def test_without_tokens_everybody_on_this_machine_operates_and_nobody_is_admin(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "double"})
        return await api.refused("POST", "/v1/circuits/look", json={"to": "open", "reason": "x"})

    assert served(path, scenario) == (403, "ForbiddenError")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 401),
        ("Bearer ", 401),
        ("Bearer wrong-0123456789abcdef", 401),
        (f"Basic {READ}", 401),
        (READ, 401),
        (f"Bearer {READ}", 200),
        (f"bearer   {READ}", 200),
        ("Bearer \xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9", 401),
    ],
)
def test_who_has_no_token_is_not_let_in(path: Path, header: str | None, expected: int) -> None:
    async def scenario(api: Opened) -> Any:
        headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
        return await api.client.get("/v1/runs", headers=headers)

    reply = served(path, scenario, tokens=TOKENS)

    assert reply.status_code == expected
    assert ("www-authenticate" in reply.headers) == (expected == 401)
    assert READ not in reply.text


def test_a_reader_looks_and_moves_nothing(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        api.client.headers.update(bearer(READ))
        await api.get("/v1/runs")
        return await api.refused("POST", "/v1/runs", json={"workflow": "double"})

    assert served(path, scenario, tokens=TOKENS) == (403, "ForbiddenError")


def test_a_body_of_one_who_may_not_is_not_read(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        async def endless() -> Any:
            yield pytest.fail("the body was read")

        return (await api.client.post("/v1/runs", content=endless())).status_code

    assert served(path, scenario, tokens=TOKENS) == 401


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("localhost:8000", None, 200),
        ("127.0.0.1:8000", None, 200),
        ("[::1]:8000", None, 200),
        ("evil.example", None, 403),
        ("localhost:8000", "http://localhost:8000", 200),
        ("localhost:8000", "https://evil.example", 403),
        ("localhost:8000", "null", 403),
    ],
)
@pytest.mark.parametrize("asked", ["/v1/runs", "/health", "/ready", "/openapi.json"])
def test_pages_of_others_are_refused_on_this_machine(
    path: Path, asked: str, host: str, origin: str | None, expected: int
) -> None:
    async def scenario(api: Opened) -> Any:
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        return (await api.client.get(asked, headers=headers)).status_code

    assert served(path, scenario) == expected


def test_without_tokens_any_host_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="give it tokens"):
        HttpApi(hosts=None)


def test_nothing_is_published_that_a_delivery_could_be_taken_for(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        body = {"type": "webhook_received", "data": {}, "id": "github:d1"}
        refused = await api.refused("POST", "/v1/events", json=body)
        return refused, (await api.get("/v1/events", types="event-published"))["events"]

    assert served(path, scenario) == ((422, "InvalidBodyError"), [])


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"{", "application/json", (400, "InvalidJsonError")),
        (b"\xff\xfe", "application/json", (400, "InvalidJsonError")),
        (b"", "application/json", (400, "InvalidJsonError")),
        (b'{"workflow": "double"', "application/json", (400, "InvalidJsonError")),
        (b'{"workflow": "double", "input": {"n": ' + b"[" * 100_000, "application/json", (400, "InvalidJsonError")),
        (b'{"workflow": 7}', "application/json", (422, "InvalidBodyError")),
        (b"{}", "application/json", (422, "InvalidBodyError")),
        (b'{"workflow": "double", "more": 1}', "application/json", (422, "InvalidBodyError")),
        (b'{"workflow": "double", "input": {"n": "x"}}', "application/json", (422, "InvalidArgumentsError")),
        (b'{"workflow": "double", "id": "a b"}', "application/json", (422, "InvalidBodyError")),
        (b'{"workflow": "none"}', "application/json", (404, "UnknownWorkflowError")),
        (b'{"workflow": "double", "queue": "none"}', "application/json", (422, "UsageError")),
        (b'{"workflow": "double"}', "text/plain", (415, "UnsupportedMediaTypeError")),
        (b"workflow=double", "application/x-www-form-urlencoded", (415, "UnsupportedMediaTypeError")),
        (b'{"workflow": "double"}', "", (415, "UnsupportedMediaTypeError")),
        (b'{"workflow": "' + b"x" * 2000 + b'"}', "application/json", (413, "BodyTooLargeError")),
    ],
)
def test_a_body_that_does_not_fit_starts_nothing(path: Path, body: bytes, kind: str, expected: tuple[int, str]) -> None:
    limit = 200_000 if len(body) > 100_000 else 1000

    async def scenario(api: Opened) -> Any:
        headers = {"Content-Type": kind} if kind else {}
        refused = await api.refused("POST", "/v1/runs", content=body, headers=headers)
        return refused, (await api.get("/v1/runs"))["runs"]

    assert served(path, scenario, limits=ApiLimits(body_bytes=limit)) == (expected, [])


def test_a_body_without_a_length_is_cut_off_where_it_is_too_large(path: Path) -> None:
    sent: list[int] = []

    async def scenario(api: Opened) -> Any:
        async def much() -> Any:
            for _ in range(100):
                sent.append(1)
                yield b"x" * 100

        headers = {"Content-Type": "application/json"}
        return await api.refused("POST", "/v1/runs", content=much(), headers=headers)

    assert served(path, scenario, limits=ApiLimits(body_bytes=1000)) == (413, "BodyTooLargeError")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=0", 422), ("limit=1001", 422), ("limit=x", 422), ("limit=1&limit=2", 422), ("limit=null", 422),
        ("unknown=1", 422), ("status=dead", 422), ("is_open=maybe", 422), ("cursor=-1", 422), ("is_open=1", 422),
        ("cursor=999999999999999999", 200), ("status=failed&status=blocked", 200), ("is_open=false", 200),
    ],
)  # fmt: skip
def test_a_query_fits_or_is_refused(path: Path, query: str, expected: int) -> None:
    async def scenario(api: Opened) -> Any:
        return (await api.client.get(f"/v1/runs?{query}")).status_code

    assert served(path, scenario) == expected


@pytest.mark.parametrize(
    ("method", "asked", "expected", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("GET", "/v1", 404, None),
        ("GET", "/v1/runs/", 404, None),
        ("GET", "/v1/runs//result", 404, None),
        ("GET", "/v1/runs/x/y/z", 404, None),
        ("DELETE", "/v1/runs", 405, "GET, POST"),
        ("POST", "/v1/runs/x", 405, "GET"),
        ("POST", "/v1/events/stream", 405, "GET"),
        ("POST", "/health", 405, "GET"),
        ("GET", "/v1/runs/%ff", 422, None),
        ("GET", "/v1/runs/a%20b", 422, None),
        ("GET", f"/v1/runs/{'x' * 129}", 422, None),
    ],
)
def test_a_path_that_is_not_there_is_told_so(
    path: Path, method: str, asked: str, expected: int, allow: str | None
) -> None:
    async def scenario(api: Opened) -> Any:
        reply = await api.client.request(method, asked)
        return reply.status_code, reply.headers.get("allow"), reply.headers["content-type"]

    assert served(path, scenario) == (expected, allow, "application/problem+json")


def test_an_id_may_have_any_character_that_ids_have(path: Path) -> None:
    id = "".join(chr(code) for code in range(ord("!"), ord("~") + 1))

    async def scenario(api: Opened) -> Any:
        reply = await api.client.post("/v1/runs", json={"workflow": "double", "id": id})
        return (await api.get(reply.headers["location"]))["run"]

    assert served(path, scenario) == id


def test_a_bug_is_a_500_that_tells_nothing_but_its_type(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise KeyError("the password is swordfish")

    monkeypatch.setattr(Runtime, "questions", broken)

    async def scenario(api: Opened) -> Any:
        return await api.client.get("/v1/questions")

    reply = served(path, scenario)

    assert (reply.status_code, reply.json()["error"]) == (500, "InternalError")
    assert "swordfish" not in reply.text
    assert "KeyError" in reply.text


def test_it_is_ready_only_while_the_runtime_is_open(path: Path) -> None:
    async def main() -> Any:
        rt = Runtime(path, tools=[look])
        api = rt.http_api()
        said: list[Any] = []
        async with asking(api) as client:

            async def look_at_it() -> None:
                ready = await client.get("/ready")
                health = await client.get("/health")
                runs = await client.get("/v1/runs")
                said.append((ready.status_code, ready.json()["status"], health.status_code, runs.status_code))

            await look_at_it()
            async with rt:
                await look_at_it()
            await look_at_it()
            return said

    assert asyncio.run(main()) == [(503, "opening", 200, 503), (200, "ready", 200, 200), (503, "draining", 200, 503)]


def test_a_runtime_that_is_opened_again_is_served_again(path: Path) -> None:
    async def main() -> Any:
        rt = Runtime(path, tools=[look], workflows=[double])
        api = rt.http_api()
        statuses: list[str] = []
        async with asking(api) as client:
            for number in range(2):
                await rt.open()
                await client.post("/v1/runs", json={"workflow": "double", "id": f"r{number}"})
                statuses.append((await client.get(f"/v1/runs/r{number}/result?wait=60")).json()["status"])
                await rt.close()
        return statuses

    assert asyncio.run(main()) == ["completed", "completed"]


def test_who_waits_is_told_when_the_runtime_closes(path: Path) -> None:
    async def main() -> Any:
        async with opened(path) as api:
            await api.post("/v1/runs", {"workflow": "asks", "id": "r1"})
            waiting = asyncio.create_task(api.client.get("/v1/runs/r1/result?wait=60"))
            await until(lambda: api.api.statistics().at_once == 1)
            await api.rt.close()
            reply = await waiting
            return reply.status_code, reply.json()["error"], "retry-after" in reply.headers

    assert asyncio.run(main()) == (503, "ServerDrainingError", True)


def test_too_many_requests_at_once_are_turned_away(path: Path) -> None:
    async def main() -> Any:
        async with opened(path, limits=ApiLimits(requests=2)) as api:
            await api.post("/v1/runs", {"workflow": "asks", "id": "r1"})
            waits = [asyncio.create_task(api.client.get("/v1/runs/r1/result?wait=60")) for _ in range(2)]
            await until(lambda: api.api.statistics().at_once == 2)
            refused = await api.refused("GET", "/v1/runs/r1")
            await api.rt.run("r1").cancel("enough")
            await asyncio.gather(*waits)
            return refused, (await api.client.get("/v1/runs/r1")).status_code

    assert asyncio.run(main()) == ((503, "TooManyRequestsError"), 200)


def test_no_token_no_body_and_no_query_is_in_a_line_of_the_log(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(api: Opened) -> Any:
        api.api.logs_requests = True
        api.client.headers.update(bearer(ADMIN))
        await api.post("/v1/runs", {"workflow": "double", "input": {"n": 1}, "id": "r1", "conversation": "quietly"})
        await api.client.get("/v1/runs?workflow=quietly&password=swordfish")
        await api.client.get("/v1/runs", headers=bearer("wrong-0123456789abcdef"))

    served(path, scenario, tokens=TOKENS)
    out, err = capsys.readouterr()

    assert "/v1/runs" in out + err
    assert [word for word in (ADMIN, "wrong-012", "swordfish", "quietly") if word in out + err] == []


def test_deliveries_are_counted_and_are_lines_of_the_log_by_the_path_of_their_route(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = EntryPoint("hook", ticks, Webhook("/t/{team}", secret=Secret("HOOK"), scheme="bearer"))

    async def main() -> tuple[int, int]:
        settings = Settings(socket=False, webhook_port=None)
        rt = Runtime(path, entry_points=[hook], secrets={"HOOK": "sesame"}, settings=settings)
        api = rt.http_api(webhooks=True)
        api.logs_requests = True
        async with rt, asking(api) as client:
            await client.post("/t/blue?a=b", json=1, headers=bearer("sesame"))
            await client.post("/t/blue", json=1)
            await client.post("/u", json=1)
        figures = api.statistics()
        return figures.requests, figures.refused

    assert asyncio.run(main()) == (3, 2)
    lines = [line for line in capsys.readouterr().out.splitlines() if " request " in line]
    assert [("path=/t/{team}" in line, "path=other" in line, line[-3:]) for line in lines] == [
        (True, False, "202"),
        (True, False, "401"),
        (False, True, "404"),
    ]


def test_tokens_are_nowhere_but_as_digests() -> None:
    api = HttpApi(TOKENS)

    assert READ not in repr(TOKENS) + repr(vars(api))
    assert READ not in str(TOKENS.known)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["root:0123456789abcdef"], "line 1 of the tokens: a line is ROLE:TOKEN"),
        (["read"], "line 1 of the tokens: a line is ROLE:TOKEN"),
        (["", "# one", "read:short"], "line 3 of the tokens: a token has at least 16 characters"),
        (["read:a b:0123456789abcdef"], "line 1 of the tokens: a name is"),
        (["read:0123456789 abcdef"], "line 1 of the tokens: a token is printable ASCII"),
        (["read:0123456789abcdef", "admin:0123456789abcdef"], "line 2 of the tokens: the same token"),
    ],
)
def test_a_line_that_is_no_token_is_named_and_not_shown(lines: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Tokens.of(lines)

    assert said in str(refused.value)
    assert [
        token for line in lines if (token := line.rpartition(":")[2]) in str(refused.value) and len(token) > 8
    ] == []


def test_the_api_is_asked_for_before_the_runtime_is_open(path: Path) -> None:
    async def main() -> None:
        async with Runtime(path, tools=[look]) as rt:
            rt.http_api()

    with pytest.raises(UsageError, match="before the runtime is open"):
        asyncio.run(main())


def test_ids_of_operations_are_told_apart() -> None:
    ids = [one.id for one in TABLE]

    assert sorted(set(ids)) == sorted(ids)


def test_a_body_that_is_nested_too_deeply_is_never_our_fault(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        found: set[int] = set()
        for depth in range(900, 1000, 5):  # where it can be read, or only just not any more
            for token in (OPERATE, ADMIN):
                headers = {**bearer(token), "Content-Type": "application/json"}
                body = b'{"type": "t", "data": %s}' % (b"[" * depth + b"]" * depth)
                found.add((await api.client.post("/v1/events", content=body, headers=headers)).status_code)
        return found

    assert served(path, scenario, tokens=TOKENS) == {400, 422}


def test_what_a_proxy_may_read_otherwise_is_refused(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        packed = await api.client.post("/v1/events", json={"type": "t"}, headers={"Content-Encoding": "gzip"})
        twice = [("Authorization", f"Bearer {token}") for token in (READ, ADMIN)]
        return packed.status_code, (await api.client.get("/v1/runs", headers=twice)).status_code

    assert served(path, scenario) == (415, 401)


def test_a_text_that_is_read_as_json_names_no_secret_either(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "asks", "id": "a"})
        await api.rt.until_idle()
        return await api.refused("POST", "/v1/inputs", json={"target": "a", "content": '{"$secret": "HOME"}'})

    assert served(path, scenario) == (403, "ForbiddenError")
