"""Deliveries over a real socket: what is accepted, what is refused, and what of it is in the log."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from structlog.testing import capture_logs

from perdure import Context, Runtime, Secret, Settings, UsageError, WebhookRoute, WebhookStatistics, workflow
from perdure.runtime.serving.listening import bind
from perdure.runtime.web.webhooks.route import MAX_BODY_BYTES
from tests.support.http import listening
from tests.support.webhooks import (
    ANY_PORT,
    SECRET,
    STANDARD_SECRET,
    data_of,
    github,
    payloads,
    received,
    serving,
    slack,
    standard,
    stripe,
)

OPEN = WebhookRoute(source="open", path="/open")
SIGNED = WebhookRoute(source="github", path="/github", secret=SECRET)


@pytest.mark.row("A3-86")
def test_a_delivery_is_accepted_and_is_an_event_of_its_source(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            answer = await client.post("/open?a=1&b=x&b=y&c=", json={"n": 1}, headers={"X-Kind": "push"})

            assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
            (event,) = await received(rt)
            recorded = json.loads(event.data or "")
            assert (event.stream, recorded["source"]) == ("topic/webhook_received", "open")
            data = recorded["data"]
            assert data.pop("headers")["x-kind"] == "push"
            assert data == {
                "path": "/open",
                "method": "POST",
                "payload": {"n": 1},
                "query_params": {"a": "1", "b": ["x", "y"], "c": ""},
                "path_params": {},
            }
            (told,) = await rt.events.history("webhook_received")
            assert told.to_dict().items() >= {"type": "webhook_received", "stream_id": "open"}.items()
            assert told.to_dict()["data"]["payload"] == {"n": 1}

    asyncio.run(main())


@pytest.mark.row("A3-87")
@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", {}),
        (b"hello", {"raw_body": "hello"}),
        (b'[1, {"a": null}]', [1, {"a": None}]),
        (b"null", None),
        (b'{"a": 1', {"raw_body": '{"a": 1'}),
        (b"1e999", {"raw_body": "1e999"}),
        (b"\xff\x00", {"raw_body": "\\xff\x00"}),
        (b'[{"$secret": "HOME"}]', {"raw_body": '[{"$secret": "HOME"}]'}),
        (b'{"a": {"\\u0024secret": "HOME"}}', {"raw_body": '{"a": {"\\u0024secret": "HOME"}}'}),
        (b'{"a": "$secret \\u0041"}', {"a": "$secret A"}),
        (b"[" * 300 + b"]" * 300, {"raw_body": "[" * 300 + "]" * 300}),
        (b'{"a": 12345678901234567890123}', {"a": 12345678901234567890123}),
    ],
)
def test_a_body_is_kept_as_what_it_is(body: bytes, payload: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            answer = await client.post("/open", content=body)

            assert answer.status_code == 202
            assert await payloads(rt) == [payload]

    asyncio.run(main())


@pytest.mark.row("A3-88")
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda signature: signature, 202),
        (lambda signature: "sha256=" + "0" * 64, 401),
        (lambda signature: None, 401),
        (lambda signature: "sha256=" + signature[7:].upper(), 202),
        (lambda signature: b"sha256=\xe4\xf6\xfc", 401),
        (lambda signature: signature[:-1], 401),
        (lambda signature: "", 401),
    ],
    ids=["right", "wrong", "missing", "upper-case", "non-ASCII", "short", "empty"],
)
def test_a_signature_decides(change: Any, status: int, tmp_path: Path) -> None:
    body = b'{"action": "opened"}'
    signature = change(github(body)["X-Hub-Signature-256"])
    headers = {} if signature is None else {"X-Hub-Signature-256": signature}

    async def main() -> None:
        async with serving(tmp_path / "log.db", [SIGNED]) as (rt, client):
            answer = await client.post("/github", content=body, headers=headers)

            refusal = {"error": "Invalid signature"}
            assert (answer.status_code, answer.json()) == (status, refusal if status == 401 else {"status": "accepted"})
            assert len(await received(rt)) == (status == 202)

    asyncio.run(main())


def test_who_sets_a_route_up_is_told_once_what_is_wrong_and_never_the_secret(tmp_path: Path) -> None:
    wrong = {"X-Hub-Signature-256": "sha256=" + "0" * 64}

    async def main() -> list[Any]:
        async with serving(tmp_path / "log.db", [SIGNED]) as (_, client):
            with capture_logs() as logged:
                for headers in ({}, wrong, {}, wrong):
                    await client.post("/github", content=b"{}", headers=headers)
            return [line for line in logged if line["event"].startswith("a delivery is not signed")]

    missing, other = asyncio.run(main())

    assert (missing["path"], missing["reason"][:41]) == ("/github", "there is no header x-hub-signature-256, w")
    assert "another secret or scheme" in other["reason"]
    assert SECRET not in str([missing, other])


@pytest.mark.parametrize("status", [202, 401])
@pytest.mark.parametrize("scheme", ["standard", "stripe", "slack", "bearer"])
def test_every_other_scheme_decides_too(scheme: Any, status: int, tmp_path: Path) -> None:
    body = b'{"id": "evt_1", "event_id": "Ev1"}'
    sent = body if status == 202 else body + b" "
    now = time.time()
    signed: dict[str, tuple[str, dict[str, str]]] = {
        "standard": (STANDARD_SECRET, standard(body, "msg_1")),
        "stripe": (SECRET, stripe(body, at=now)),
        "slack": (SECRET, slack(body, at=now)),
        "bearer": ("t0ken", {"Authorization": f"Bearer {'t0ken' if status == 202 else 'other'}"}),
    }
    secret, headers = signed[scheme]

    async def main() -> None:
        route = WebhookRoute(source="x", path="/x", secret=secret, scheme=scheme)
        async with serving(tmp_path / "log.db", [route]) as (rt, client):
            answer = await client.post("/x", content=sent, headers=headers)

            assert answer.status_code == status
            assert len(await received(rt)) == (status == 202)

    asyncio.run(main())


def test_a_signed_delivery_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    body = b"{}"
    route = WebhookRoute(source="x", path="/x", secret=STANDARD_SECRET, scheme="standard")

    async def main() -> None:
        async with serving(tmp_path / "log.db", [route]) as (rt, client):
            answer = await client.post("/x", content=body, headers=standard(body, "msg_1", at=time.time() - 900))

            assert (answer.status_code, answer.json()) == (401, {"error": "Timestamp outside of the tolerance"})
            assert await received(rt) == []

    asyncio.run(main())


def test_the_url_of_slacks_events_is_confirmed_and_recorded_nowhere(tmp_path: Path) -> None:
    body = b'{"type": "url_verification", "challenge": "3eZbrw1a"}'
    route = WebhookRoute(source="slack", path="/slack", secret=SECRET, scheme="slack")

    async def main() -> None:
        async with serving(tmp_path / "log.db", [route]) as (rt, client):
            answer = await client.post("/slack", content=body, headers=slack(body, at=time.time()))

            assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1a"})
            assert await received(rt) == []

    asyncio.run(main())


@pytest.mark.row("A3-89")
def test_an_empty_secret_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the secret of webhook /github is empty"):
        WebhookRoute(source="github", path="/github", secret="")
    with pytest.raises(ValueError, match="is empty"):
        WebhookRoute(source="github", path="/github", secret=(SECRET, ""))

    async def main(secrets: dict[str, str]) -> None:
        route = WebhookRoute(source="github", path="/github", secret=Secret("HOOK"))
        async with Runtime(tmp_path / "log.db", webhooks=[route], secrets=secrets, settings=ANY_PORT):
            pass

    with pytest.raises(UsageError, match=r"the secret of webhook /github is empty: Secret\('HOOK'\) has no value"):
        asyncio.run(main({"HOOK": ""}))
    with pytest.raises(UsageError, match=r"signed with Secret\('HOOK'\), which has no value"):
        asyncio.run(main({}))


@pytest.mark.row("A3-90")
def test_a_signed_post_and_an_open_get_share_a_path(tmp_path: Path) -> None:
    routes = [
        WebhookRoute(source="signed", path="/hook", secret=SECRET),
        WebhookRoute(source="open", path="/hook", methods=("GET",)),
    ]

    async def main() -> None:
        async with serving(tmp_path / "log.db", routes) as (rt, client):
            answers = [
                await client.post("/hook", content=b"{}", headers=github(b"{}")),
                await client.post("/hook", content=b"{}"),
                await client.get("/hook"),
                await client.put("/hook"),
            ]

            assert [answer.status_code for answer in answers] == [202, 401, 202, 405]
            assert {name.strip() for name in answers[3].headers["allow"].split(",")} >= {"GET", "POST"}
            sources = [json.loads(event.data or "")["source"] for event in await received(rt)]
            assert sources == ["signed", "open"]

    asyncio.run(main())


@pytest.mark.parametrize("other", ["/hook/{id}", "/hook/{name}"])
def test_two_routes_for_the_same_deliveries_are_refused(other: str, tmp_path: Path) -> None:
    routes = [
        WebhookRoute(source="a", path="/hook/{id}", secret=SECRET),
        WebhookRoute(source="b", path=other),
    ]

    async def main() -> None:
        async with Runtime(tmp_path / "log.db", webhooks=routes, settings=ANY_PORT):
            pass

    with pytest.raises(UsageError, match="two webhooks take POST"):
        asyncio.run(main())


@pytest.mark.row("A3-91")
def test_a_parameter_of_the_path_is_in_the_event(tmp_path: Path) -> None:
    routes = [
        WebhookRoute(source="any", path="/t/{id}"),
        WebhookRoute(source="new", path="/t/new"),
        WebhookRoute(source="file", path="/files/{name:path}"),
    ]

    async def main() -> None:
        async with serving(tmp_path / "log.db", routes) as (rt, client):
            for path in ("/t/42", "/t/new", "/files/a/b%20c", "/t/4/2", "/t/42/"):
                await client.post(path)

            found = [(json.loads(e.data or "")["source"], data_of(e)["path_params"]) for e in await received(rt)]
            assert found == [("any", {"id": "42"}), ("new", {}), ("file", {"name": "a/b c"})]
            assert data_of((await received(rt))[0])["path"] == "/t/42"

    asyncio.run(main())


@pytest.mark.row("A3-92")
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_over_the_limit_is_refused(is_announced: bool, tmp_path: Path) -> None:
    async def chunks() -> Any:
        for _ in range(17):
            yield b"x" * 65_536

    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            most = await client.post("/open", content=b"x" * MAX_BODY_BYTES)
            over = await client.post("/open", content=b"x" * (MAX_BODY_BYTES + 1) if is_announced else chunks())

            assert (most.status_code, over.status_code) == (202, 413)
            assert over.json() == {"error": "The body is over 1048576 bytes"}
            assert len(await received(rt)) == 1

    asyncio.run(main())


def test_a_route_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        route = WebhookRoute(source="small", path="/small", max_bytes=4)
        async with serving(tmp_path / "log.db", [route]) as (_, client):
            answers = [await client.post("/small", content=body) for body in (b"1234", b"12345")]

            assert [answer.status_code for answer in answers] == [202, 413]

    asyncio.run(main())


@pytest.mark.row("A3-93")
@pytest.mark.parametrize("again", [b'{"n": 1}', b'{"n": 2}'], ids=["the same", "with another body"])
def test_a_delivery_that_comes_again_is_acknowledged_and_not_processed_again(again: bytes, tmp_path: Path) -> None:
    first = b'{"n": 1}'

    async def main() -> None:
        async with serving(tmp_path / "log.db", [SIGNED]) as (rt, client):
            answers = [
                await client.post("/github", content=body, headers=github(body, "d-1")) for body in (first, again)
            ]

            assert [(one.status_code, one.json()["status"]) for one in answers] == [
                (202, "accepted"),
                (200, "duplicate"),
            ]
            assert await payloads(rt) == [{"n": 1}]

        async with serving(tmp_path / "log.db", [SIGNED]) as (rt, client):  # also after a restart
            answer = await client.post("/github", content=first, headers=github(first, "d-1"))

            assert answer.status_code == 200
            assert await payloads(rt) == [{"n": 1}]

    asyncio.run(main())


@pytest.mark.row("A3-93")
def test_of_twenty_copies_at_once_one_is_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [SIGNED]) as (rt, client):
            headers = github(b"{}", "d-1")
            answers = await asyncio.gather(*(client.post("/github", content=b"{}", headers=headers) for _ in range(20)))

            assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
            assert len(await received(rt)) == 1

    asyncio.run(main())


def test_the_same_id_from_two_sources_is_two_deliveries(tmp_path: Path) -> None:
    routes = [WebhookRoute(source=name, path=f"/{name}") for name in ("a", "b")]

    async def main() -> None:
        async with serving(tmp_path / "log.db", routes) as (rt, client):
            for name in ("a", "b", "a"):
                await client.post(f"/{name}", headers={"X-Delivery-Id": "1"})

            assert len(await received(rt)) == 2

    asyncio.run(main())


def test_deliveries_without_an_id_are_each_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            answers = [await client.post("/open", json=1) for _ in range(2)]

            assert [answer.status_code for answer in answers] == [202, 202]
            assert len(await received(rt)) == 2

    asyncio.run(main())


@pytest.mark.row("A3-95")
def test_neither_a_secret_nor_a_signature_is_anywhere_in_the_log(tmp_path: Path) -> None:
    body = b'{"ref": "main", "token": "xoxb-payload"}'
    telling = {
        **github(body, "d-1"),
        "Authorization": "Bearer aaaa-bearer",
        "Cookie": "session=aaaa-cookie",
        "X-Gitlab-Token": "aaaa-gitlab",
        "X-Api-Key": "aaaa-key",
        "Proxy-Authorization": "Basic aaaa-proxy",
        "X-Kind": "push",
    }

    async def main() -> None:
        route = WebhookRoute(source="github", path="/github", secret=Secret("HOOK"))
        async with serving(tmp_path / "log.db", [route], secrets={"HOOK": SECRET}) as (rt, client):
            answer = await client.post("/github?access_token=aaaa-query", content=body, headers=telling)

            assert answer.status_code == 202
            (event,) = await received(rt)
            data = data_of(event)
            hidden = {name for name, value in data["headers"].items() if value == "[redacted]"}
            assert hidden == {name.lower() for name in telling} - {"x-github-delivery", "x-kind"}
            assert (data["payload"]["token"], data["headers"]["x-kind"]) == ("[redacted]", "push")
            assert SECRET not in repr(rt.webhooks.routes)

    asyncio.run(main())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for text in (SECRET, telling["X-Hub-Signature-256"][7:], "aaaa-", "xoxb-payload"):
        assert text.encode() not in stored
    assert b"webhook_received" in stored


@pytest.mark.row("A3-97")
def test_without_routes_there_is_no_server(tmp_path: Path) -> None:
    async def main() -> None:
        with bind("127.0.0.1", 0) as taken:
            taken.listen()
            settings = Settings(webhook_port=taken.getsockname()[1])
            async with Runtime(tmp_path / "log.db", settings=settings) as rt:
                assert rt.webhook_server is None
                assert rt.webhooks.statistics() == WebhookStatistics(0, 0, 0, 0, 0)

    asyncio.run(main())


@pytest.mark.row("A3-97")
def test_an_unknown_path_is_404_and_a_wrong_method_405(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            answers = [
                await client.post("/nowhere"),
                await client.post("/open/"),
                await client.get("/open"),
                await client.delete("/open"),
            ]

            assert [answer.status_code for answer in answers] == [404, 404, 405, 405]
            assert [set(answer.json()) for answer in answers] == [{"error"}] * 4
            assert await received(rt) == []

    asyncio.run(main())


def test_a_head_request_is_no_delivery(tmp_path: Path) -> None:
    async def main() -> None:
        route = WebhookRoute(source="get", path="/get", methods=("GET",))
        async with serving(tmp_path / "log.db", [route]) as (rt, client):
            answer = await client.head("/get")

            assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
            assert await received(rt) == []

    asyncio.run(main())


def test_the_server_is_gone_once_the_runtime_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            server = rt.webhook_server
            assert server is not None
            assert server.is_running
            assert server.url == f"http://127.0.0.1:{server.port}"
            await rt.close()

            assert (rt.webhook_server, server.is_running) == (None, False)
            with pytest.raises(httpx2.ConnectError):
                await client.post("/open")

    asyncio.run(main())


def test_a_port_in_use_is_an_error_and_a_later_open_works(tmp_path: Path) -> None:
    async def main() -> None:
        with bind("127.0.0.1", 0) as taken:
            taken.listen()
            rt = Runtime(tmp_path / "log.db", webhooks=[OPEN], settings=Settings(webhook_port=taken.getsockname()[1]))
            with pytest.raises(UsageError, match="cannot listen on"):
                async with rt:
                    pass
        async with rt:
            assert rt.webhook_server is not None

    asyncio.run(main())


def test_the_routes_are_mounted_in_an_application_of_ones_own(tmp_path: Path) -> None:
    rt = Runtime(tmp_path / "log.db", webhooks=[SIGNED], settings=Settings(webhook_port=None))
    mine = Starlette(routes=[Mount("/hooks", app=rt.webhooks.app)])

    async def main() -> None:
        async with listening(mine) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
            before = await client.post("/hooks/github", content=b"{}", headers=github(b"{}"))
            async with rt:
                assert rt.webhook_server is None
                while_open = await client.post("/hooks/github", content=b"{}", headers=github(b"{}"))
                path = data_of((await received(rt))[0])["path"]
            after = await client.post("/hooks/github", content=b"{}", headers=github(b"{}"))

        assert [one.status_code for one in (before, while_open, after)] == [503, 202, 503]
        assert path == "/hooks/github"
        assert before.headers["retry-after"]

    asyncio.run(main())


def test_the_application_of_the_webhooks_can_be_served_by_itself(tmp_path: Path) -> None:
    rt = Runtime(tmp_path / "log.db", webhooks=[OPEN], settings=Settings(webhook_port=None))

    async def main() -> None:
        async with listening(rt.webhooks.app) as url, rt, httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"{url}/open")).status_code == 202

    asyncio.run(main())


def test_an_open_route_is_not_served_to_other_machines(tmp_path: Path) -> None:
    settings = Settings(webhook_host="0.0.0.0", webhook_port=0)  # noqa: S104 - that is what is tested

    async def main(route: WebhookRoute) -> None:
        async with Runtime(tmp_path / "log.db", webhooks=[route], settings=settings) as rt:
            assert rt.webhook_server is not None

    asyncio.run(main(SIGNED))
    with pytest.raises(UsageError, match=r"webhook /open has no secret and could be reached"):
        asyncio.run(main(OPEN))


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}], ids=["rebound name", "other page"]
)
def test_a_page_in_a_browser_cannot_use_an_open_route_and_a_proxy_can_a_signed_one(
    headers: dict[str, str], tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN, SIGNED]) as (_, client):
            opened = await client.post("/open", content=b"{}", headers=headers)
            signed = await client.post("/github", content=b"{}", headers={**github(b"{}"), **headers})

            assert (opened.status_code, signed.status_code) == (403, 202)

    asyncio.run(main())


def test_a_sender_that_leaves_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN]) as (rt, client):
            assert rt.webhook_server is not None
            _, writer = await asyncio.open_connection("127.0.0.1", rt.webhook_server.port)
            writer.write(b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

            assert (await client.post("/open", json=2)).status_code == 202
            assert await payloads(rt) == [2]

    asyncio.run(main())


WITHOUT = """
import asyncio, sys

for name in {missing!r}:
    sys.modules[name] = None
from perdure import Runtime, Settings, UsageError, WebhookRoute, webhook_tool
from perdure.testing import MemoryDisk

async def main(routes):
    async with Runtime("unused", webhooks=routes, log=MemoryDisk().open, settings=Settings(webhook_port=0)):
        print("open")

asyncio.run(main([]))
try:
    asyncio.run(main([WebhookRoute(source="a", path="/a", secret="s")]))
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "standardwebhooks"])
def test_without_the_extra_only_webhooks_are_missed_and_one_line_says_how_to_get_them(missing: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT.format(missing=[missing])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    opened, refused = ended.stdout.splitlines()
    assert opened == "open"
    assert refused.endswith(f"needs {missing}, which is not installed: pip install 'perdure[serve]'")


def test_the_figures_say_what_came_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "log.db", [SIGNED]) as (rt, client):
            for headers in (github(b"{}", "1"), github(b"{}", "1"), {}):
                await client.post("/github", content=b"{}", headers=headers)

            figures = rt.webhooks.statistics()
            assert msgspec.structs.replace(figures, mean_seconds=0.0, longest_seconds=0.0) == WebhookStatistics(
                1, accepted=1, duplicates=1, refused=1, at_once=0, refused_for={"not_signed": 1}
            )
            assert 0 < figures.mean_seconds == figures.longest_seconds
            assert (await rt.statistics()).webhooks == figures
            assert (await rt.get_stats())["webhooks"] == msgspec.structs.asdict(figures)

    asyncio.run(main())


def test_a_run_that_waits_for_a_delivery_gets_it(tmp_path: Path) -> None:
    @workflow
    async def wait(ctx: Context) -> Any:
        event = await ctx.event("webhook_received", where={"if": "payload.n", "gt": 1})
        return event.data["payload"]

    async def main() -> None:
        async with serving(tmp_path / "log.db", [OPEN], workflows=[wait]) as (rt, client):
            run = await rt.start(wait)
            for n in (1, 2):
                await client.post("/open", json={"n": n})

            assert await run.result() == {"n": 2}

    asyncio.run(main())
