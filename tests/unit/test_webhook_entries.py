"""Deliveries that start runs: entry points with a route, and entry points that listen to a route's events."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure import (
    Context,
    EntryPoint,
    OnEvent,
    Query,
    Runtime,
    Settings,
    UsageError,
    Webhook,
    WebhookRoute,
    workflow,
)
from perdure.actors.triggers import topic
from perdure.runtime.web.webhooks.webhooks import PREFIX
from tests.support.webhooks import ANY_PORT, SECRET, STANDARD_SECRET, github, serving, standard, until


@workflow
async def take(ctx: Context, event: dict[str, Any]) -> Any:
    return event["data"]["payload"]


@workflow
async def choosy(ctx: Context, event: int) -> int:
    return event


async def results(rt: Runtime, entry: str, count: int) -> dict[str, Any]:
    """Return what the runs of an entry point returned, once there are so many."""
    started = Query(types=("run-started",), stream_prefix=f"run/{entry}:")

    async def are_there() -> bool:
        return len(await rt.read(started)) >= count

    await until(are_there)
    runs = [event.stream.partition("/")[2] for event in await rt.read(started)]
    return {run: await rt.run(run).result() for run in runs}


@pytest.mark.row("A3-96")
def test_an_entry_point_with_a_webhook_has_a_route_and_is_started_by_it(tmp_path: Path) -> None:
    spec = {
        "id": "hook",
        "trigger_type": "webhook",
        "trigger_config": {"path": "/hook", "methods": ["POST", "PUT"], "secret": SECRET},
    }
    entry = EntryPoint.from_spec(spec, take)

    async def main() -> None:
        async with serving(tmp_path / "log.db", workflows=[take], entry_points=[entry]) as (rt, client):
            answers = [
                await client.post("/hook", content=b'{"n": 1}', headers=github(b'{"n": 1}', "d-1")),
                await client.put("/hook", content=b'{"n": 2}', headers=github(b'{"n": 2}')),
                await client.post("/hook", content=b'{"n": 3}'),
                await client.post("/hook", content=b'{"n": 1}', headers=github(b'{"n": 1}', "d-1")),
            ]

            assert [answer.status_code for answer in answers] == [202, 202, 401, 200]
            found = await results(rt, "hook", 2)
            assert sorted(run.partition(":")[2][0] for run in found) == ["@", "d"]
            assert found["hook:d-1"] == {"n": 1}
            assert {"n": 2} in found.values()
            kinds = [(await rt.run(run).status()).workflow for run in found]
            assert kinds == ["take"] * 2

    asyncio.run(main())


@pytest.mark.row("A3-89")
def test_an_empty_secret_of_an_entry_point_is_an_error() -> None:
    spec = {"id": "hook", "trigger_type": "webhook", "trigger_config": {"path": "/hook", "secret": ""}}

    with pytest.raises(ValueError, match="the secret of webhook /hook is empty"):
        EntryPoint.from_spec(spec, take)


@pytest.mark.row("A3-95")
def test_the_secret_of_an_entry_point_is_not_in_the_log(tmp_path: Path) -> None:
    entry = EntryPoint("hook", take, trigger=Webhook("/hook", secret=SECRET))

    async def main() -> None:
        async with serving(tmp_path / "log.db", workflows=[take], entry_points=[entry]) as (rt, client):
            await client.post("/hook", content=b"1", headers=github(b"1", "d-1"))
            await results(rt, "hook", 1)
            assert SECRET not in repr((entry, rt.webhooks.routes, rt.entry_points.list()))

    asyncio.run(main())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert SECRET.encode() not in stored
    assert github(b"1")["X-Hub-Signature-256"].encode() not in stored


@pytest.mark.row("A3-96")
def test_a_run_knows_that_a_webhook_started_it(tmp_path: Path) -> None:
    async def main() -> None:
        entry = EntryPoint("hook", take, trigger=Webhook("/hook"))
        async with serving(tmp_path / "log.db", workflows=[take], entry_points=[entry]) as (rt, client):
            await client.post("/hook", json=1, headers={"X-Delivery-Id": "d-1"})
            await results(rt, "hook", 1)

            (started,) = await rt.read(Query(types=("run-started",)))
            assert '"kind":"webhook"' in (started.data or "")
            assert '"correlation":"d-1"' in (started.data or "")

    asyncio.run(main())


def test_a_route_of_its_own_starts_the_entry_points_that_listen_to_its_source(tmp_path: Path) -> None:
    route = WebhookRoute(source="shop", path="/shop", secret=STANDARD_SECRET, scheme="standard")
    other = WebhookRoute(source="other", path="/other")
    entry = EntryPoint("orders", take, trigger=OnEvent("webhook_received", stream="shop"))

    async def main() -> None:
        async with serving(tmp_path / "log.db", [route, other], workflows=[take], entry_points=[entry]) as (rt, client):
            body = b'{"order": 7}'
            await client.post("/other", content=b"{}")
            for _ in range(2):
                await client.post("/shop", content=body, headers=standard(body, "msg_1"))

            assert list((await results(rt, "orders", 1)).values()) == [{"order": 7}]

    asyncio.run(main())


def test_a_delivery_that_was_accepted_starts_its_run_in_the_next_life(tmp_path: Path) -> None:
    entry = EntryPoint("hook", take, trigger=Webhook("/hook"))

    async def lose() -> None:
        rt = Runtime(tmp_path / "log.db", workflows=[take], entry_points=[entry], settings=ANY_PORT)
        await rt.open()
        assert rt.webhook_server is not None
        url = rt.webhook_server.url
        async with httpx2.AsyncClient(trust_env=False) as client:
            for n in range(20):
                answer = await client.post(f"{url}/hook", json=n, headers={"X-Delivery-Id": f"d-{n}"})
                assert answer.status_code == 202
        await rt.abandon()

    async def go_on() -> dict[str, Any]:
        async with Runtime(tmp_path / "log.db", workflows=[take], entry_points=[entry], settings=ANY_PORT) as rt:
            found = await results(rt, "hook", 20)
            await rt.until_idle()
            assert len(await rt.read(Query(types=("run-started",)))) == 20
            return found

    asyncio.run(lose())
    assert asyncio.run(go_on()) == {f"hook:d-{n}": n for n in range(20)}


def test_a_delivery_that_comes_again_after_its_id_was_forgotten_starts_no_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic, "MAX_IDS", 0)  # as many as are in a page: 100
    entry = EntryPoint("hook", take, trigger=Webhook("/hook"))

    async def main() -> None:
        async with serving(tmp_path / "log.db", workflows=[take], entry_points=[entry]) as (rt, client):
            ids = ["d-0", *(f"d-{n}" for n in range(1, 101)), "d-0", "last"]
            answers = [await client.post("/hook", json=1, headers={"X-Delivery-Id": id}) for id in ids]

            assert {answer.status_code for answer in answers} == {202}
            found = await results(rt, "hook", 102)
            assert sorted(found) == sorted(f"hook:{id}" for id in {*ids})

    asyncio.run(main())


def test_a_delivery_that_the_workflow_cannot_take_is_a_dead_letter(tmp_path: Path) -> None:
    entry = EntryPoint("hook", choosy, trigger=Webhook("/hook"))

    async def main() -> None:
        async with serving(tmp_path / "log.db", workflows=[choosy], entry_points=[entry]) as (rt, client):
            answer = await client.post("/hook", json=1)
            name = f"{PREFIX}hook"

            async def is_dead() -> bool:
                return bool((await rt.events.dead_letters(name))[name])

            await until(is_dead)
            (letter,) = (await rt.events.dead_letters(name))[name]
            assert (answer.status_code, letter.error_type) == (202, "InvalidArgumentsError")

    asyncio.run(main())


@workflow
async def echo(ctx: Context, event: dict[str, Any]) -> None:
    await ctx.publish("webhook_received", event["data"])


def test_runs_that_publish_deliveries_in_a_circle_are_stopped(tmp_path: Path) -> None:
    entry = EntryPoint("hook", echo, trigger=Webhook("/hook"))
    settings = Settings(webhook_port=0, socket=False, max_trigger_depth=3)

    async def main() -> None:
        async with serving(tmp_path / "log.db", workflows=[echo], entry_points=[entry], settings=settings) as (
            rt,
            client,
        ):
            await client.post("/hook", json=1)
            await rt.events.wait_for("trigger-refused", after="start")

            assert len(await rt.read(Query(types=("run-started",)))) == 4

    asyncio.run(main())


def test_routes_of_entry_points_are_listed_and_may_not_take_anothers_path(tmp_path: Path) -> None:
    entry = EntryPoint("hook", take, trigger=Webhook("/hook", secret=SECRET))
    rt = Runtime(
        tmp_path / "log.db",
        workflows=[take],
        entry_points=[entry],
        webhooks=[WebhookRoute(source="other", path="/hook")],
        settings=Settings(webhook_port=0),
    )

    async def main() -> None:
        async with rt:
            pass

    assert [(route.source, route.path) for route in rt.webhooks.routes] == [("other", "/hook"), ("hook", "/hook")]
    with pytest.raises(UsageError, match="two webhooks take POST /hook, other and hook"):
        asyncio.run(main())


def test_a_body_that_is_sent_again_under_another_id_starts_no_second_run_where_bodies_are_told_apart(
    tmp_path: Path,
) -> None:
    entry = EntryPoint("hook", take, trigger=Webhook("/hook/{name}", secret=SECRET, dedupe="body"))

    async def main() -> None:
        async with serving(tmp_path / "log.db", workflows=[take], entry_points=[entry]) as (rt, client):
            answers = [
                await client.post("/hook/a", content=b'{"n": 1}', headers=github(b'{"n": 1}', "d-1")),
                await client.post("/hook/a", content=b'{"n": 1}', headers=github(b'{"n": 1}', "d-2")),
                await client.post("/hook/b?x=1", content=b'{"n": 1}', headers=github(b'{"n": 1}')),
                await client.post("/hook/a", content=b'{"n": 2}', headers=github(b'{"n": 2}', "d-1")),
            ]

            assert [answer.status_code for answer in answers] == [202, 200, 200, 202]
            found = await results(rt, "hook", 2)
            assert sorted(found.values(), key=str) == [{"n": 1}, {"n": 2}]
            assert all(run.startswith("hook:body-") for run in found)
            (first, second) = await rt.read(Query(types=("event-published",)))
            assert ('"correlation":"d-1"' in (first.data or ""), '"correlation":"d-1"' in (second.data or "")) == (
                True, True,
            )  # fmt: skip

    asyncio.run(main())


def test_how_deliveries_are_known_again_is_checked_at_once() -> None:
    wrong: Any = "digest"

    with pytest.raises(UsageError, match=r"dedupe.*'id'.*'body', not 'digest'"):
        Webhook("/x", dedupe=wrong)
    with pytest.raises(UsageError, match=r"dedupe.*'id'.*'body', not 'digest'"):
        WebhookRoute(source="x", path="/x", dedupe=wrong)
    with pytest.raises(UsageError, match="leave out delivery_header"):
        WebhookRoute(source="x", path="/x", dedupe="body", delivery_header="X-My-Id")
