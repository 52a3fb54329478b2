"""Runs that kill the process: found by elimination and parked, while the innocent go on."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, RunBlockedError, RunCancelledError, Runtime, Settings, tool, workflow
from tests.support.runs import Box, box_with, events, play

at_work: list[str] = []


@pytest.fixture(autouse=True)
def _nobody_at_work() -> None:
    at_work.clear()


@tool
async def deadly(name: str) -> str:
    at_work.append(name)
    await asyncio.get_running_loop().create_future()
    return name


@tool
async def good(name: str) -> str:
    at_work.append(name)
    await asyncio.sleep(0)
    return name


@workflow
async def killer(ctx: Context) -> str:
    await ctx.call(good, "prepared")
    return await ctx.call(deadly, "killer")


@workflow
async def worker(ctx: Context) -> str:
    first = await ctx.call(slow, "worker")
    return first + await ctx.call(good, "worker")


release: list[asyncio.Event] = []


@tool
async def slow(name: str) -> str:
    """Hang until it is released, as a step that takes longer than the process lives."""
    at_work.append(name)
    if not release:
        await asyncio.get_running_loop().create_future()
    return name


async def lives(box: Box, crashes: int) -> Runtime:
    """Die so many times with everybody at work, and open once more."""
    rt = box.runtime
    for _ in range(crashes):
        await box.clock.settle()
        at_work.clear()
        rt = await box.crash_and_reopen()
        await box.clock.settle()
    return rt


def test_the_run_that_kills_is_parked_after_three_crashes_and_the_innocent_go_on() -> None:
    release.clear()

    async def scenario() -> None:
        async with box_with(killer, worker, settings=Settings(drain=timedelta(0))) as box:
            rt = await box.open()
            await rt.with_options(id="a-killer").start(killer)
            await rt.with_options(id="b-worker").start(worker)
            await rt.with_options(id="c-worker").start(worker)
            rt = await lives(box, 1)
            assert sorted(at_work) == ["killer", "worker", "worker"]  # one crash proves nothing
            rt = await lives(box, 1)
            assert at_work == ["killer"]  # after two, suspects go one by one
            rt = await lives(box, 1)
            view = await rt.run("a-killer").status()
            assert (view.status, view.waits_on, view.error_type) == ("blocked", "attention", "poison")
            assert "3 times" in view.error
            with pytest.raises(RunBlockedError, match="deadly#1"):
                await rt.run("a-killer").result()
            assert at_work == ["worker"]  # the next suspect has the process for itself
            release.append(asyncio.Event())
            rt = await box.close_and_reopen()
            await box.clock.settle()
            assert await rt.run("b-worker").result() == await rt.run("c-worker").result() == "workerworker"
            assert (await rt.run("a-killer").status()).status == "blocked"

    play(scenario)


def test_a_suspect_that_gets_past_its_step_is_cleared() -> None:
    release.clear()

    async def scenario() -> None:
        async with box_with(worker) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(worker)
            await rt.with_options(id="b").start(worker)
            rt = await lives(box, 2)
            assert at_work == ["worker"]
            release.append(asyncio.Event())
            at_work.clear()
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            # The one that was alone when the process died is out; the other gets its turn.
            assert (await rt.run("a").status()).status == "blocked"
            assert await rt.run("b").result() == "workerworker"

    play(scenario)


def test_a_stop_in_good_order_makes_nobody_a_suspect() -> None:
    release.clear()

    async def scenario() -> None:
        async with box_with(worker, settings=Settings(drain=timedelta(0))) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(worker)
            for _ in range(5):
                await box.clock.settle()
                rt = await box.close_and_reopen()
            release.append(asyncio.Event())
            rt = await box.close_and_reopen()
            await box.clock.settle()
            assert await rt.run("a").result() == "workerworker"
            assert {e["after_crash"] for e in await events(rt, "a", "run-resumed")} == {False}

    play(scenario)


@pytest.mark.parametrize("turns", range(8))
def test_a_stop_in_the_middle_of_a_resume_makes_nobody_guilty(turns: int) -> None:
    release.clear()

    async def scenario() -> str:
        async with box_with(worker, settings=Settings(drain=timedelta(0))) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(worker)
            rt = await lives(box, 1)
            await box.crash()
            await box.open()  # a suspect after two crashes: it is resumed alone, in the background
            for _ in range(turns):
                await asyncio.sleep(0)
            rt = await box.close_and_reopen()
            await box.clock.settle()
            return (await rt.run("a").status()).status

    assert play(scenario) == "running"


def test_runs_that_sleep_or_wait_between_steps_are_no_suspects() -> None:
    @workflow
    async def sleeper(ctx: Context) -> str:
        await ctx.call(good, "x")
        await ctx.sleep(50)
        return "slept"

    async def scenario() -> None:
        async with box_with(sleeper) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(sleeper)
            rt = await lives(box, 6)
            await box.clock.advance(50)
            assert await rt.run("a").result() == "slept"

    play(scenario)


def test_a_poisonous_run_can_be_cancelled() -> None:
    async def scenario() -> None:
        async with box_with(killer) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(killer)
            rt = await lives(box, 3)
            assert await rt.run("a").cancel("out with it")
            with pytest.raises(RunCancelledError):
                await rt.run("a").result()
            rt = await box.close_and_reopen()
            assert await rt.waiting() == []

    play(scenario)


def test_a_suspect_that_waits_for_its_turn_can_be_cancelled() -> None:
    release.clear()

    async def scenario() -> Any:
        async with box_with(killer, worker) as box:
            rt = await box.open()
            await rt.with_options(id="a-killer").start(killer)
            await rt.with_options(id="b-worker").start(worker)
            rt = await lives(box, 2)
            assert at_work == ["killer"]
            await rt.run("b-worker").cancel("no longer needed")
            await box.clock.settle()
            with pytest.raises(RunCancelledError):
                await rt.run("b-worker").result()
            await rt.run("a-killer").cancel("this one neither")
            await box.clock.settle()
            with pytest.raises(RunCancelledError):
                await rt.run("a-killer").result()

    play(scenario)

    assert at_work == ["killer"]
