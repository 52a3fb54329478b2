"""Ids that the runtime makes itself, taken by somebody else beforehand: nothing that was to start is lost by that."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import structlog

from perdure import (
    Context,
    EntryPoint,
    OnEvent,
    Query,
    Runtime,
    Schedule,
    Settings,
    UsageError,
    Webhook,
    tool,
    workflow,
)
from perdure.actors.workflows.entrance import TriggerKind
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, data, play
from tests.support.schedules import utc


@workflow
async def take(ctx: Context, event: Any) -> Any:
    return event


@tool(effect="read")
async def look() -> str:
    return "looked"


@workflow
async def idle(ctx: Context) -> str:
    return "idle"


@workflow
async def begets(ctx: Context, event: Any) -> Any:
    if event == "look":
        return await ctx.call(look)
    return await ctx.with_options(id="in:k").run(idle) if event == "beget" else event


@workflow
async def goes_on(ctx: Context, event: Any) -> Any:
    if event == "once":
        ctx.continue_as_new("again")
    return event


def box_of(*entries: EntryPoint) -> Box:
    settings = Settings(webhook_port=None)
    points = [*entries, EntryPoint("out", take)]
    flows = [take, idle, begets, goes_on]
    return Box(
        MemoryDisk(), TestClock(utc("2026-01-01 00:00")), entry_points=points, workflows=flows, settings=settings
    )


async def fired(rt: Runtime, event: object, key: str = "k", kind: TriggerKind = "webhook") -> str:
    run = await rt.entry_points.fire("in", {"event": event}, kind=kind, key=key)
    await rt.ended(run)
    return run


async def begun(rt: Runtime, entry: str) -> list[str]:
    rows = await rt.read(Query(stream_prefix=f"entry-point/{entry}", types=("entry-triggered",)))
    return [data(row)["run"] for row in rows if data(row)["kind"] not in ("manual", "api")]


async def by_a_run(rt: Runtime) -> None:
    await rt.with_options(id="in:k").start(idle)


async def by_hand(rt: Runtime) -> None:
    await rt.trigger("in", {"event": 0}, id="in:k")


async def by_another_entry_point(rt: Runtime) -> None:
    await rt.trigger("out", {"event": 0}, id="in:k")


async def by_a_child(rt: Runtime) -> None:
    await fired(rt, "beget", key="parent")


async def by_a_fork(rt: Runtime) -> None:
    run = await fired(rt, "look", key="forked")
    await rt.run(run).fork("look#1", id="in:k")


@pytest.mark.parametrize("taken", [by_a_run, by_hand, by_another_entry_point, by_a_child, by_a_fork])
def test_a_trigger_whose_runs_id_is_taken_starts_its_run_under_another_and_once(
    taken: Callable[[Runtime], Awaitable[None]],
) -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", begets)) as box:
            rt = await box.open()
            await taken(rt)
            with structlog.testing.capture_logs() as logs:
                first = await fired(rt, 1)
            rt = await box.crash_and_reopen()
            again = await fired(rt, 2)
            return first, again, await rt.run(first).result(), [one["event"] for one in logs]

    assert play(scenario) == ("in:k~t2", "in:k~t2", 1, ["the id of a trigger's run was taken"])


def test_a_run_that_goes_on_is_not_taken_for_what_a_trigger_started() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", goes_on)) as box:
            rt = await box.open()
            await fired(rt, "once", key="chain")
            return await fired(rt, 7, key="chain~2"), await rt.run("in:chain~2~t2").result()

    assert play(scenario) == ("in:chain~2~t2", 7)


def test_ids_that_are_taken_one_after_the_other_lose_nothing_either() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", take)) as box:
            rt = await box.open()
            for id in ("in:k", "in:k~t2", "in:k~t3"):
                await rt.with_options(id=id).start(idle)
            return await fired(rt, 1), await fired(rt, 2, "x" * 200), await fired(rt, 3, "x" * 200)

    first, long, again = play(scenario)

    assert first == "in:k~t4"
    assert long == again


def test_a_long_id_that_is_taken_leaves_another_that_fits() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", take)) as box:
            rt = await box.open()
            first = await fired(rt, 1, "x" * 125)
            await rt.with_options(id=f"in:{'y' * 125}").start(idle)
            return first, await fired(rt, 2, "y" * 125), await fired(rt, 3, "y" * 125)

    first, other, again = play(scenario)

    assert (len(first), len(other), other[-3:]) == (128, 128, "~t2")
    assert other == again


def test_a_delivery_whose_runs_id_is_taken_is_no_dead_letter() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", take, Webhook("/in"))) as box:
            rt = await box.open()
            await rt.with_options(id="in:d-1").start(idle)
            await rt.trigger("in", {"event": 0}, id="in:d-2")
            transport = httpx2.ASGITransport(rt.webhooks.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as sender:
                for number in (1, 2, 2):
                    await sender.post("/in", json=number, headers={"X-Delivery-Id": f"d-{number}"})
            await box.clock.settle()
            runs = await begun(rt, "in")
            return [
                (run, (await rt.run(run).result())["data"]["payload"]) for run in runs
            ], await rt.events.dead_letters()

    assert play(scenario) == ([("in:d-1~t2", 1), ("in:d-2~t2", 2)], {})


def test_nobody_but_a_delivery_has_the_id_of_one() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", take, Webhook("/in"))) as box:
            rt = await box.open()
            with pytest.raises(UsageError, match="the ids of webhook_received are those of deliveries"):
                await rt.publish("webhook_received", {"path": "/in"}, id="in:d-1", source="in")
            transport = httpx2.ASGITransport(rt.webhooks.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as sender:
                answers = [await sender.post("/in", json=1, headers={"X-Delivery-Id": "d-1"}) for _ in range(2)]
            without = await rt.publish("webhook_received", {"payload": 2}, source="in")
            return [answer.status_code for answer in answers], without

    assert play(scenario) == ([202, 200], True)


def test_an_event_whose_runs_id_is_taken_starts_one() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", take, OnEvent("paid"))) as box:
            rt = await box.open()
            for ahead in range(1, 40):
                await rt.with_options(id=f"in:{rt.events.position + ahead}").start(idle)
            await rt.publish("paid", 7)
            await box.clock.settle()
            (run,) = await begun(rt, "in")
            return run[-3:], (await rt.run(run).result())["data"]

    assert play(scenario) == ("~t2", 7)


def test_a_due_time_whose_runs_id_is_taken_starts_one_and_is_known_by_it() -> None:
    async def scenario() -> Any:
        async with box_of(EntryPoint("in", take, Schedule(every=timedelta(hours=1)))) as box:
            rt = await box.open()
            await rt.with_options(id="in:2026-01-01T01:00:00Z").start(idle)
            await box.clock.advance(timedelta(hours=2))
            noted = [data(row)["run"] for row in await rt.read(Query(types=("schedule-fired",)))]
            return noted, await begun(rt, "in"), [(await rt.run(run).result())["due"] for run in noted]

    runs = ["in:2026-01-01T01:00:00Z~t2", "in:2026-01-01T02:00:00Z"]

    assert play(scenario) == (runs, runs, ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"])
