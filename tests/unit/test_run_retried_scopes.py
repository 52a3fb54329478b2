"""Retries and forks of runs that failed in races, limits of time, sagas and child runs."""

import asyncio
from typing import Any

import pytest

from perdure import Context, ControlRefusedError, RunFailedError, RunHandle, Runtime, tool, workflow
from tests.support.runs import HOUR, Box, box_with, events, play

calls: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    calls.clear()
    broken.clear()


@tool
async def work(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise ConnectionError(f"{name} is down")
    return name


@tool
async def endless(name: str) -> str:
    calls.append(name)
    while broken:
        await asyncio.get_running_loop().create_future()
    return name


@workflow
async def limited(ctx: Context) -> str:
    async def body() -> str:
        await ctx.call(work, "a")
        return await ctx.call(endless, "long")

    return await ctx.timeout(60, body())


@workflow
async def fails_within(ctx: Context) -> str:
    async def body() -> str:
        await ctx.call(work, "a")
        return await ctx.call(work, "b")

    return await ctx.timeout(60, body())


@workflow
async def races(ctx: Context) -> tuple[int, str]:
    return await ctx.race(ctx.call(endless, "long"), ctx.call(work, "b"))


@workflow
async def undoes(ctx: Context) -> str:
    async with ctx.saga() as saga:
        await saga.undo_with(work, "undone").call(work, "a")
        return await ctx.call(work, "b")


@workflow
async def child(ctx: Context) -> str:
    return await ctx.call(work, "b")


@workflow
async def parent(ctx: Context) -> str:
    return await ctx.call(work, "a") + await ctx.run(child)


async def failed(box: Box, wf: Any) -> Runtime:
    broken.add("b")
    rt = await box.open()
    await rt.with_options(id="r").start(wf)
    await box.clock.advance(HOUR)
    with pytest.raises(RunFailedError):
        await rt.run("r").result()
    broken.clear()
    return rt


def test_a_run_that_failed_of_a_limit_of_time_gets_the_whole_time_again() -> None:
    async def scenario() -> None:
        async with box_with(limited) as box:
            rt = await failed(box, limited)
            assert await rt.run("r").retry() == "timeout#1"
            assert await rt.run("r").result() == "long"
            assert len(await events(rt, "r", "timeout-set")) == 2

    play(scenario)

    assert calls == ["a", "long", "long"]


def test_a_limit_of_time_around_the_failed_step_begins_anew() -> None:
    async def scenario() -> None:
        async with box_with(fails_within) as box:
            rt = await failed(box, fails_within)
            assert await rt.run("r").retry() == "timeout#1.0/work#2"
            assert await rt.run("r").result() == "b"

    play(scenario)

    assert calls == ["a", "b", "b"]


def test_a_race_that_a_failure_won_is_run_again() -> None:
    async def scenario() -> None:
        async with box_with(races) as box:
            rt = await failed(box, races)
            await rt.run("r").retry()
            assert (await rt.run("r").result())[1] in ("long", "b")

    play(scenario)


def test_a_saga_that_was_compensated_is_not_retried_but_can_be_forked() -> None:
    async def scenario() -> None:
        async with box_with(undoes) as box:
            rt = await failed(box, undoes)
            assert calls == ["a", "b", "undone"]
            with pytest.raises(ControlRefusedError, match="gone on since it failed"):
                await rt.run("r").retry()
            undone = [e["step"] for e in await events(rt, "r", "step-started")][-1]
            with pytest.raises(ControlRefusedError, match="cleaning up"):
                await rt.run("r").fork(undone)
            fork: RunHandle[Any] = await rt.run("r").fork("work#2")
            assert await fork.result() == "b"

    play(scenario)

    assert calls == ["a", "b", "undone", "b"]


def test_a_parent_is_retried_with_a_new_child() -> None:
    async def scenario() -> None:
        async with box_with(parent, child) as box:
            rt = await failed(box, parent)
            await rt.run("r").retry()
            assert await rt.run("r").result() == "ab"
            assert len({e["run"] for e in await events(rt, "r", "child-started")}) == 2

    play(scenario)

    assert calls == ["a", "b", "b"]


@pytest.mark.parametrize("wf", [limited, fails_within, races, parent])
def test_a_fork_of_a_retried_run_with_scopes_comes_to_an_end(wf: Any) -> None:
    async def scenario() -> None:
        async with box_with(wf, child) as box:
            rt = await failed(box, wf)
            await rt.run("r").retry()
            await rt.run("r").result()
            opened = [e["step"] for kind in ("step-started", "child-started") for e in await events(rt, "r", kind)]
            for step in dict.fromkeys(opened):
                fork: RunHandle[Any] = await rt.run("r").fork(step)
                await fork.result()

    play(scenario)


def test_a_paused_parent_takes_its_childs_end_when_it_is_resumed() -> None:
    @workflow
    async def waits(ctx: Context) -> str:
        return await ctx.run(naps)

    @workflow
    async def naps(ctx: Context) -> str:
        await ctx.sleep(HOUR)
        return "rested"

    async def scenario() -> None:
        async with box_with(waits, naps) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(waits)
            await box.clock.settle()
            await rt.run("r").pause()
            await box.clock.advance(7200)
            assert len(await events(rt, "r", "child-ended")) == 1
            assert (await rt.run("r").status()).status == "paused"
            await rt.run("r").resume()
            assert await rt.run("r").result() == "rested"

    play(scenario)


@workflow
async def breaks_in_a_saga(ctx: Context) -> None:
    async with ctx.saga() as saga:
        await saga.undo_with(work, "undone").call(work, "a")
        raise ValueError("a bug in the body")


def test_a_saga_whose_own_code_raised_is_not_retried_once_it_is_undone() -> None:
    async def scenario() -> None:
        async with box_with(breaks_in_a_saga) as box:
            rt = await failed(box, breaks_in_a_saga)
            with pytest.raises(ControlRefusedError, match="it has undone what it had done"):
                await rt.run("r").retry()

    play(scenario)
