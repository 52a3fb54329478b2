"""How published events come to those who wait: many at once, large ones, after failures, and to nobody else."""

import asyncio
import itertools
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import Context, LogWriteError, PerdureError, Query, RunHandle, Runtime, Settings, tool, workflow
from perdure.actors.triggers import sleepers
from perdure.actors.triggers.wanted import holds
from perdure.testing import TestClock
from tests.support.runs import HOUR, Box, box_with, events, facts, on_both_logs, play, storage

AWAKE = Settings(park_after=timedelta(days=999), idle_after=timedelta(days=999))
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_is_broken() -> None:
    broken.clear()


@tool
async def work(name: str) -> str:
    if name in broken:
        raise ConnectionError(f"{name} is down")
    return name


@workflow
async def takes(ctx: Context, count: int) -> list[Any]:
    return [(await ctx.event("paid")).data for _ in range(count)]


@workflow
async def waits(ctx: Context, where: dict[str, Any]) -> Any:
    return (await ctx.event("paid", where=where)).data


@workflow
async def turns(ctx: Context, names: list[str]) -> list[Any]:
    """Take an event, then work, for each name."""
    done: list[Any] = []
    for name in names:
        event = await ctx.event("paid")
        done.append([event.data, await ctx.call(work, name)])
    return done


@workflow
async def patient(ctx: Context) -> Any:
    return (await ctx.event("paid", timeout=HOUR)).data


async def open_places(rt: Runtime) -> list[str]:
    return [row.stream for row in await rt._log.open_streams("listing/")]


@pytest.mark.parametrize("settings", [Settings(), AWAKE], ids=["asleep", "awake"])
def test_more_events_than_are_looked_for_together_come_in_order(settings: Settings) -> None:
    count = 1_203

    async def scenario() -> None:
        box = box_with(takes, waits, settings=settings)
        rt = await box.open()
        await rt.with_options(id="all").start(takes, count)
        await rt.with_options(id="late").start(waits, {"eq": count - 2, "if": "number"})
        await rt.until_idle() if settings is not AWAKE else await box.clock.settle()
        await box.close()
        quiet = Box(cast("Any", box.storage), box.clock, resume=False)
        rt = await quiet.open()
        await asyncio.gather(*(rt.publish("paid", {"number": number}) for number in range(count)))
        await quiet.close()

        rt = await box.open()

        assert await rt.run("all").result() == [{"number": number} for number in range(count)]
        assert await rt.run("late").result() == {"number": count - 2}
        await box.close()

    play(scenario)


@on_both_logs
@pytest.mark.parametrize("settings", [Settings(), AWAKE], ids=["asleep", "awake"])
def test_an_event_too_large_for_a_row_comes_whole(kind: str, settings: Settings, tmp_path: Path) -> None:
    sent = {"text": "x" * 200_000}

    async def scenario() -> None:
        box = box_with(takes, turns, on=storage(kind, tmp_path), settings=settings)
        rt = await box.open()
        run = await rt.with_options(id="r").start(takes, 1)
        again = await rt.with_options(id="again").start(turns, ["a", "b"])
        await box.clock.settle()
        await rt.publish("paid", sent)

        assert await run.result() == [sent]
        assert all(event.blobs for event in await rt.read(Query(types=("event-published", "event-taken"))))
        await box.close()
        rt = await box.open()
        await rt.publish("paid", 2)
        assert await rt.run(again.id).result() == [[sent, "a"], [2, "b"]]
        await box.close()

    play(scenario)


def test_a_run_that_is_tried_again_keeps_what_it_took_and_goes_on_behind_it() -> None:
    async def scenario() -> None:
        box = box_with(turns)
        rt = await box.open()
        broken.add("b")
        run = await rt.with_options(id="r").start(turns, ["a", "b", "c"])
        for number in range(2):
            await rt.publish("paid", number)
        await rt.until_idle()
        assert (await run.status()).status == "failed"
        assert await open_places(rt) == []

        broken.clear()
        await run.retry()
        await rt.publish("paid", 2)

        assert await run.result() == [[0, "a"], [1, "b"], [2, "c"]]
        assert [fact["data"] for fact in await events(rt, "r", "event-taken")] == [0, 1, 2]
        await box.close()

    play(scenario)


def test_a_wait_that_was_too_long_is_made_anew_when_its_run_is_tried_again() -> None:
    async def scenario() -> None:
        box = box_with(patient)
        rt = await box.open()
        run = await rt.with_options(id="r").start(patient)
        await box.clock.advance(HOUR.total_seconds())
        await box.clock.settle()
        assert (await run.status()).error_type == "StepFailedError"

        await run.retry()
        await box.clock.settle()
        await rt.publish("paid", "at last")

        assert await run.result() == "at last"
        await box.close()

    play(scenario)


def test_a_fork_gets_the_events_anew_that_its_source_took_after_the_step() -> None:
    async def scenario() -> None:
        box = box_with(turns)
        rt = await box.open()
        run = await rt.with_options(id="r").start(turns, ["a", "b"])
        for number in range(2):
            await rt.publish("paid", number)
        assert await run.result() == [[0, "a"], [1, "b"]]

        fork = await run.fork("event#2", changed={"names": ["a", "x", "y"]})
        await rt.until_idle()
        await rt.publish("paid", 2)

        assert await fork.result() == [[0, "a"], [1, "x"], [2, "y"]]
        assert [fact["data"] for fact in await events(rt, fork.id, "event-taken")] == [1, 2]
        await box.close()

    play(scenario)


def test_a_log_that_fails_while_a_sleeper_is_woken_wakes_it_in_the_next_life() -> None:
    async def scenario() -> None:
        async with box_with(takes) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(takes, 1)
            await rt.until_idle()
            await rt.publish("paid", 7)
            box.storage.fail_next(OSError("the disk is gone"))  # type: ignore[union-attr] # it is a MemoryDisk
            await box.clock.settle()
            with pytest.raises(LogWriteError, match="the disk is gone"):
                await rt.publish("paid", 8)
            with pytest.raises(LogWriteError):
                await box.close()

            rt = await box.open()

            assert await rt.run("r").result() == [7]
            assert (await facts(rt, "r")).count("event-found") == 1

    play(scenario)


def test_an_event_is_looked_for_again_when_the_log_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        box = box_with(takes)
        rt = await box.open()
        run = await rt.start(takes, 1)
        await rt.until_idle()

        async def unreadable(*_: Any, **__: Any) -> Any:
            raise PerdureError(detail="the disk does not answer")

        monkeypatch.setattr(rt._log, "open_streams", unreadable)
        await rt.publish("paid", 7)
        await box.clock.settle()
        monkeypatch.undo()
        assert (await run.status()).status == "waiting"
        await box.clock.advance(1)

        assert await run.result() == [7]
        await box.close()

    play(scenario)


def test_a_blocked_run_that_is_cancelled_is_looked_for_no_more() -> None:
    @workflow(name="changed")
    async def before(ctx: Context) -> Any:
        return (await ctx.event("paid")).data

    @workflow(name="changed")
    async def after(ctx: Context) -> Any:
        return await ctx.call(work, "a")

    async def scenario() -> None:
        box = box_with(before)
        rt = await box.open()
        await rt.with_options(id="r").start(before)
        await rt.until_idle()
        await box.close()
        changed = Box(cast("Any", box.storage), TestClock(), workflows=[after])
        rt = await changed.open()
        run: RunHandle[Any] = rt.run("r")
        await rt.publish("paid", 1)
        await rt.until_idle()
        assert (await run.status()).status == "blocked"
        assert await open_places(rt) == ["listing/paid/-/r"]

        await run.cancel("it is old")
        await changed.clock.settle()

        assert (await run.status()).status == "cancelled"
        assert await open_places(rt) == []
        await changed.close()

    play(scenario)


FILTERS: list[dict[str, Any]] = [
    *({"if": "customer", "eq": number} for number in range(12)),
    *({"if": "order.id", "eq": f"o-{number}"} for number in range(9)),
    *({"if": "amount", "ge": number} for number in range(7)),
    *({"and": [{"if": "amount", "gt": 3}, {"if": "customer", "eq": number}]} for number in range(5)),
    {}, {"or": [{"if": "customer", "eq": 1}, {"if": "amount", "eq": 5}]}, {"if": "gift", "eq": True},
    {"not": {"if": "customer", "eq": 1}}, {"if": "customer", "eq": "1"}, {"if": "customer", "eq": None},
]  # fmt: skip
PUBLISHED: list[Any] = [
    {"customer": 1, "amount": 5, "order": {"id": "o-3"}}, {"customer": 1.0}, {"customer": "1"}, {"customer": None},
    {"order": {"id": "o-8"}, "amount": 2}, {"gift": True, "customer": 11}, {"gift": 1}, None, [1], {},
]  # fmt: skip


@pytest.mark.parametrize(("few", "page"), [(1, 1), (2, 3), (50, 500)])
def test_of_many_sleepers_exactly_those_wake_whose_conditions_hold(
    few: int, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleepers, "FEW", few)
    monkeypatch.setattr(sleepers, "PAGE", page)

    async def scenario(batch: list[Any]) -> None:
        box = box_with(waits)
        rt = await box.open()
        runs = [
            (where, await rt.with_options(id=f"w{number}.{copy}").start(waits, where))
            for (number, where), copy in itertools.product(enumerate(FILTERS), range(2))
        ]
        await rt.until_idle()
        await asyncio.gather(*(rt.publish("paid", data) for data in batch))
        await rt.until_idle()

        for where, run in runs:
            wanted = next((data for data in batch if holds([where], data)), ...)
            view = await run.status()
            assert view.status == ("waiting" if wanted is ... else "completed"), where
            assert wanted is ... or await run.result() == wanted
        assert len(await open_places(rt)) == sum([(await run.status()).status == "waiting" for _, run in runs])
        await box.close()

    for batch in ([PUBLISHED[0]], [PUBLISHED[4]], PUBLISHED):
        play(partial(scenario, batch))
