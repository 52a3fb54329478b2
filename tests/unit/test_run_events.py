"""Events between runs: published once, taken in order, each by every run that waits for it, in memory or not."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import (
    Context,
    On,
    PublicationConflictError,
    PublishedEvent,
    Query,
    Runtime,
    Settings,
    StepFailedError,
    UsageError,
    workflow,
)
from perdure.actors.workflows import subscriptions
from perdure.testing import TestClock
from tests.support.runs import DAY, HOUR, Box, box_with, events, facts, on_both_logs, play, storage

AWAKE = Settings(park_after=timedelta(days=999), idle_after=timedelta(days=999))
LARGE = {"if": "amount", "gt": 10}


@workflow
async def takes(ctx: Context, count: int) -> list[Any]:
    return [(await ctx.event("paid")).data for _ in range(count)]


@workflow
async def takes_large(ctx: Context, count: int) -> list[Any]:
    return [(await ctx.event("paid", where=LARGE)).data["amount"] for _ in range(count)]


@workflow
async def publishes(ctx: Context, numbers: list[int]) -> None:
    for number in numbers:
        await ctx.publish("paid", number)


@workflow
async def naps(ctx: Context, count: int) -> list[Any]:
    """Take events with a sleep before each, in which others are published."""
    taken: list[Any] = []
    for _ in range(count):
        await ctx.sleep(HOUR)
        taken.append((await ctx.event("paid")).data)
    return taken


async def published(rt: Runtime, type: str) -> list[Any]:
    return [json.loads(e.data or "{}") for e in await rt.read(Query(types=("event-published",))) if type in e.stream]


async def open_listings(rt: Runtime) -> list[str]:
    return [row.stream for row in await rt._log.open_streams("listing/")]


@on_both_logs
def test_an_event_wakes_a_run_that_left_memory(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        box = box_with(takes, on=storage(kind, tmp_path))
        rt = await box.open()
        run = await rt.start(takes, 1)
        await rt.until_idle()
        view = await run.status()
        assert (view.status, view.waits_on, len(rt._engine)) == ("waiting", "event", 0)

        assert await rt.publish("paid", {"amount": 7}, who="till 3")

        assert await run.result() == [{"amount": 7}]
        await rt.until_idle()
        assert await open_listings(rt) == []
        event = (await rt.read(Query(types=("event-published",))))[0]
        assert (event.stream, event.principal) == ("topic/paid", "till 3")
        await box.close()

    play(scenario)


@pytest.mark.parametrize("settings", [Settings(), AWAKE], ids=["asleep", "awake"])
def test_events_are_taken_in_their_order_and_each_once(settings: Settings) -> None:
    async def scenario() -> None:
        box = box_with(takes, publishes, settings=settings)
        rt = await box.open()
        runs = [await rt.start(takes, 20) for _ in range(3)]
        await box.clock.settle()

        await (await rt.start(publishes, list(range(20)))).result()

        assert [await run.result() for run in runs] == [list(range(20))] * 3
        await box.close()

    play(scenario)


def test_what_is_published_between_two_waits_is_in_store() -> None:
    async def scenario() -> None:
        box = box_with(naps, publishes)
        rt = await box.open()
        await rt.publish("paid", "before the run")
        run = await rt.start(naps, 3)
        for number in range(3):
            await rt.publish("paid", number)
            await rt.publish("other", number)

        await box.clock.advance(3 * HOUR.total_seconds())

        assert await run.result() == [0, 1, 2]
        await box.close()

    play(scenario)


def test_a_wait_from_now_on_passes_over_what_was_published_before_it() -> None:
    @workflow
    async def late(ctx: Context) -> Any:
        await ctx.sleep(HOUR)
        return (await ctx.event("paid", after="now")).data

    async def scenario() -> None:
        box = box_with(late)
        rt = await box.open()
        run = await rt.start(late)
        await rt.publish("paid", "early")
        await box.clock.advance(HOUR.total_seconds())
        await box.clock.settle()
        await rt.publish("paid", "late")

        assert await run.result() == "late"
        await box.close()

    play(scenario)


def test_waits_with_other_conditions_have_places_of_their_own() -> None:
    @workflow
    async def sorts(ctx: Context) -> list[int]:
        large = [(await ctx.event("paid", where=LARGE)).data["amount"] for _ in range(2)]
        small = [(await ctx.event("paid", where={"not": LARGE})).data["amount"] for _ in range(2)]
        return [*large, *small]

    async def scenario() -> None:
        box = box_with(sorts)
        rt = await box.open()
        run = await rt.start(sorts)
        for amount in (1, 11, 2, 12):
            await rt.publish("paid", {"amount": amount})

        assert await run.result() == [11, 12, 1, 2]
        await box.close()

    play(scenario)


def test_readers_of_a_run_each_get_every_event_and_waits_without_one_share_them() -> None:
    @workflow
    async def fans(ctx: Context, readers: list[str]) -> list[list[int]]:
        async def twice(reader: str) -> list[int]:
            return [(await ctx.event("paid", reader=reader)).data for _ in range(2)]

        return list(await ctx.gather(*(twice(reader) for reader in readers)))

    async def scenario() -> None:
        box = box_with(fans)
        rt = await box.open()
        own = await rt.start(fans, ["a", "b"])
        shared = await rt.start(fans, ["", ""])
        await box.clock.settle()
        for number in range(4):
            await rt.publish("paid", number)

        assert await own.result() == [[0, 1], [0, 1]]
        one, two = await shared.result()
        assert sorted([*one, *two]) == [0, 1, 2, 3]
        assert one == sorted(one)
        assert two == sorted(two)
        await box.close()

    play(scenario)


def test_any_of_several_types_comes_in_the_order_of_the_log() -> None:
    @workflow
    async def follows(ctx: Context) -> list[Any]:
        wanted: list[str | On] = ["opened", On("paid", where=LARGE), "closed"]
        found: list[Any] = []
        while not found or found[-1][0] != "closed":
            event = await ctx.any_event(wanted)
            found.append([event.type, event.data])
        return found

    async def scenario() -> None:
        box = box_with(follows)
        rt = await box.open()
        run = await rt.start(follows)
        await rt.until_idle()
        for type, data in (("paid", {"amount": 1}), ("opened", 1), ("paid", {"amount": 11}), ("opened", 2)):
            await rt.publish(type, data)
        await rt.until_idle()
        await rt.publish("closed")

        assert await run.result() == [["opened", 1], ["paid", {"amount": 11}], ["opened", 2], ["closed", None]]
        await rt.until_idle()
        assert await open_listings(rt) == []
        await box.close()

    play(scenario)


def test_a_wait_that_nobody_ends_in_time_fails_and_what_comes_later_is_for_the_next() -> None:
    @workflow
    async def patient(ctx: Context) -> list[Any]:
        found: list[Any] = []
        try:
            await ctx.event("paid", timeout=HOUR)
        except StepFailedError as error:
            found = [error.error_type, error.error]
        return [*found, (await ctx.event("paid")).data]

    async def scenario() -> None:
        box = box_with(patient)
        rt = await box.open()
        run = await rt.start(patient)
        await box.clock.advance(HOUR.total_seconds())
        await box.clock.settle()
        await rt.publish("paid", 1)

        assert await run.result() == ["TimeoutError", "no event paid came in time", 1]
        await box.close()

    play(scenario)


def test_an_event_that_was_published_in_time_counts_though_the_run_slept_through_the_end() -> None:
    @workflow
    async def patient(ctx: Context) -> Any:
        return (await ctx.event("paid", timeout=HOUR)).data

    async def scenario() -> None:
        box = box_with(patient)
        rt = await box.open()
        await rt.with_options(id="r").start(patient)
        await rt.until_idle()
        await box.close()
        rt = await Box(cast("Any", box.storage), box.clock, resume=False).open()
        await rt.publish("paid", "in time")
        await rt.close()
        await box.clock.advance(DAY.total_seconds())

        rt = await box.open()

        assert await rt.run("r").result() == "in time"
        await box.close()

    play(scenario)


def test_an_event_with_an_id_is_published_once() -> None:
    async def scenario() -> None:
        box = box_with(takes)
        rt = await box.open()

        assert await rt.publish("paid", 1, id="order-1")
        assert not await rt.publish("paid", 1, id="order-1")
        assert await rt.publish("refunded", 1, id="order-1")
        with pytest.raises(PublicationConflictError, match="order-1"):
            await rt.publish("paid", 2, id="order-1")

        assert [event["data"] for event in await published(rt, "paid")] == [1]
        await box.close()

    play(scenario)


def test_a_step_that_publishes_is_in_one_unit_with_the_event() -> None:
    async def scenario() -> None:
        box = box_with(publishes)
        rt = await box.open()
        await (await rt.with_options(id="p").start(publishes, [1])).result()

        log = [(e.position, e.stream, e.type) for e in await rt.read(Query())]
        sent = next(position for position, _, type in log if type == "event-sent")
        assert (sent + 1, "topic/paid", "event-published") in log
        assert await published(rt, "paid") == [{"id": "#1", "data": 1, "run": "p"}]
        await box.close()

    play(scenario)


def test_an_event_has_its_type_its_place_its_time_and_its_publisher() -> None:
    @workflow
    async def looks(ctx: Context) -> PublishedEvent:
        return await ctx.event("paid")

    async def scenario() -> None:
        box = box_with(looks, publishes)
        rt = await box.open()
        run = await rt.start(looks)
        await rt.with_options(id="p").start(publishes, [5])

        found = await run.result()

        [row] = await rt.read(Query(types=("event-published",)))
        assert found == PublishedEvent("paid", 5, "#1", row.position, row.at, "p")
        await box.close()

    play(scenario)


def test_a_cancelled_run_is_off_the_list_and_is_not_woken() -> None:
    async def scenario() -> None:
        box = box_with(takes)
        rt = await box.open()
        run = await rt.with_options(id="r").start(takes, 1)
        await rt.until_idle()
        assert await open_listings(rt) == ["listing/paid/-/r"]

        await run.cancel("enough")
        await rt.until_idle()

        assert (await run.status()).status == "cancelled"
        assert (await facts(rt, "r"))[-2:] == ["event-wait-withdrawn", "run-cancelled"]
        assert await open_listings(rt) == []
        await box.close()

    play(scenario)


def test_a_wait_that_lost_a_race_leaves_its_event_to_the_next_one() -> None:
    @workflow
    async def races(ctx: Context) -> list[Any]:
        found: list[Any] = []
        for _ in range(4):
            _, event = await ctx.race(ctx.event("a"), ctx.event("b"))
            found.append([event.type, event.data])
        return found

    async def scenario() -> None:
        box = box_with(races)
        rt = await box.open()
        run = await rt.start(races)
        await rt.until_idle()
        for number in range(2):
            for type in ("b", "a"):
                await rt.publish(type, number)
                await rt.until_idle()

        assert await run.result() == [["b", 0], ["a", 0], ["b", 1], ["a", 1]]
        await box.close()

    play(scenario)


def test_a_paused_run_gets_what_was_published_meanwhile_when_it_goes_on() -> None:
    async def scenario() -> None:
        box = box_with(takes)
        rt = await box.open()
        run = await rt.with_options(id="r").start(takes, 2)
        await rt.until_idle()
        await run.pause("inspection")
        await rt.publish("paid", 1)
        await rt.until_idle()
        assert (await run.status()).status == "paused"

        await run.resume()
        await rt.until_idle()
        await rt.publish("paid", 2)

        assert await run.result() == [1, 2]
        await box.close()

    play(scenario)


def test_a_run_that_goes_on_as_a_new_one_keeps_its_place() -> None:
    @workflow
    async def goes_on(ctx: Context, found: list[Any]) -> list[Any]:
        found = [*found, (await ctx.event("paid")).data]
        if len(found) < 3:
            ctx.continue_as_new(found)
        return found

    async def scenario() -> None:
        box = box_with(goes_on)
        rt = await box.open()
        run = await rt.with_options(id="r").start(goes_on, [])
        await asyncio.gather(*(rt.publish("paid", number) for number in range(3)))

        assert await run.result() == [0, 1, 2]
        await box.close()

    play(scenario)


def test_a_runtime_that_resumes_nothing_wakes_nobody_until_it_is_told_to() -> None:
    async def scenario() -> None:
        box = box_with(takes)
        rt = await box.open()
        await rt.with_options(id="r").start(takes, 2)
        await rt.until_idle()
        await box.close()

        still = Box(cast("Any", box.storage), box.clock, workflows=[takes], resume=False)
        rt = await still.open()
        await rt.publish("paid", 1)
        await rt.until_idle()
        assert "event-found" not in await facts(rt, "r")
        await rt.resume()
        await rt.publish("paid", 2)

        assert await rt.run("r").result() == [1, 2]
        await still.close()

    play(scenario)


def test_of_a_thousand_sleepers_those_wake_whose_conditions_hold() -> None:
    @workflow
    async def of_customer(ctx: Context, customer: int) -> Any:
        return (await ctx.event("paid", where={"if": "customer", "eq": customer})).data

    async def scenario() -> None:
        box = box_with(of_customer)
        rt = await box.open()
        await asyncio.gather(
            *(rt.with_options(id=f"c{number}").start(of_customer, number % 100) for number in range(1_000))
        )
        await rt.until_idle()
        assert len(rt._engine) == 0

        await rt.publish("paid", {"customer": 7, "order": 1})
        await rt.until_idle()

        found = await rt.read(Query(types=("event-found",), limit=2_000))
        assert sorted(event.stream for event in found) == sorted(f"run/c{n}" for n in range(7, 1_000, 100))
        assert await rt.run("c107").result() == {"customer": 7, "order": 1}
        assert len(await open_listings(rt)) == 990
        await box.close()

    play(scenario)


def test_opening_reads_no_sleeper_when_all_is_delivered() -> None:
    async def scenario() -> None:
        box = box_with(takes)
        rt = await box.open()
        await asyncio.gather(*(rt.start(takes, 2) for _ in range(50)))
        await rt.publish("paid", 1)
        await rt.until_idle()
        await box.close()

        rt = await box.open()
        await rt.until_idle()

        assert rt._system.directory.shells("run/") == []
        assert rt._system.directory.shells("listing/") == []
        assert rt._system.directory.shells("topic/") == []
        await box.close()

    play(scenario)


def test_the_places_that_a_run_remembers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_CURSORS", 10)

    @workflow
    async def asks_around(ctx: Context, count: int) -> int:
        for number in range(count):
            await ctx.event("paid", where={"if": "number", "eq": number})
        return count

    async def scenario() -> None:
        box = box_with(asks_around, settings=AWAKE)
        rt = await box.open()
        run = await rt.with_options(id="r").start(asks_around, 15)
        for number in range(15):
            await rt.publish("paid", {"number": number})
        await run.result()

        held = (await rt._system.directory.activate(run._stream)).state.events
        assert len(held.cursors) == 10
        assert held.waits == {}
        await box.close()

    play(scenario)


@pytest.mark.parametrize(
    ("type", "where", "message"),
    [
        ("no spaces", {}, "the type of an event"),
        ("a/b", {}, "the type of an event"),
        ("", {}, "the type of an event"),
        ("paid", {"if": "a", "bigger": 1}, r"where\.bigger"),
        ("paid", {"predicate": "mine"}, "there is no predicate"),
        ("paid", {"if": "a", "eq": "x" * 20_000}, "at most 16384 bytes"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_before_anything_is_recorded(
    type: str, where: dict[str, Any], message: str
) -> None:
    @workflow
    async def wrong(ctx: Context, type: str, where: dict[str, Any]) -> str:
        try:
            await ctx.event(type, where=where)
        except UsageError as error:
            return str(error)
        raise AssertionError(type)

    async def scenario() -> None:
        box = box_with(wrong)
        rt = await box.open()
        run = await rt.with_options(id="r").start(wrong, type, where)

        with pytest.raises(AssertionError, match=message):
            raise AssertionError(await run.result())
        assert await events(rt, "r", "event-awaited") == []
        await box.close()

    play(scenario)


def test_other_conditions_on_the_same_place_of_the_code_are_a_mismatch() -> None:
    async def scenario() -> None:
        where = {"if": "amount", "gt": 1}

        @workflow(name="changed")
        async def before(ctx: Context) -> Any:
            return (await ctx.event("paid", where=where)).data

        @workflow(name="changed")
        async def after(ctx: Context) -> Any:
            return (await ctx.event("paid", where={"if": "amount", "gt": 2})).data

        box = box_with(before)
        rt = await box.open()
        await rt.with_options(id="r").start(before)
        await rt.until_idle()
        await box.close()
        changed = Box(cast("Any", box.storage), TestClock(), workflows=[after])
        rt = await changed.open()
        await rt.publish("paid", {"amount": 3})
        await rt.until_idle()

        view = await rt.run("r").status()
        assert view.status == "blocked"
        assert "with other arguments" in view.error
        await changed.close()

    play(scenario)
