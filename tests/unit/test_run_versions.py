"""Deliberate changes of the code: old runs keep the old way, new ones take the new."""

from typing import Any

import pytest

from perdure import Context, RunFailedError, Workflow, tool
from tests.support.runs import DAY, HOUR, box_with, events, play

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(failure_threshold=1000)
async def work(item: Any) -> Any:
    calls.append(item)
    return item


async def old(ctx: Context) -> Any:
    found = [await ctx.call(work, "old way")]
    await ctx.sleep(HOUR)
    return [*found, await ctx.call(work, "end")]


async def new(ctx: Context) -> Any:
    if ctx.version("faster") == 0:
        found = [await ctx.call(work, "old way")]
    else:
        found = [await ctx.call(work, "new"), await ctx.call(work, "way")]
    await ctx.sleep(HOUR)
    return [*found, ctx.version("faster"), await ctx.call(work, "end")]


async def newest(ctx: Context) -> Any:
    chosen = ctx.version("faster", latest=2)
    await ctx.sleep(HOUR)
    return chosen


def as_wf(code: Any) -> Workflow[..., Any]:
    return Workflow(code, "wf")


def test_a_run_that_went_past_the_change_keeps_the_old_way() -> None:
    async def scenario() -> tuple[Any, Any]:
        wf = as_wf(old)
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[as_wf(new)])
            await box.clock.advance(HOUR)
            result: Any = await rt.run("r").result()
            return result, await events(rt, "r", "version-chosen")

    result, chosen = play(scenario)

    assert result == ["old way", 0, "end"]
    assert chosen == [{"name": "faster", "version": 0}]
    assert calls == ["old way", "end"]


def test_a_new_run_takes_the_new_way_also_after_a_restart() -> None:
    async def scenario() -> tuple[Any, Any]:
        wf = as_wf(new)
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(HOUR)
            return await rt.run("r").result(), await events(rt, "r", "version-chosen")

    result, chosen = play(scenario)

    assert result == ["new", "way", 1, "end"]
    assert chosen == [{"name": "faster", "version": 1}]


def test_a_run_goes_by_the_version_that_it_first_came_to() -> None:
    async def first(ctx: Context) -> Any:
        chosen = ctx.version("faster")
        await ctx.sleep(HOUR)
        return chosen

    async def scenario() -> list[Any]:
        wf = as_wf(first)
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            later = as_wf(newest)
            rt = await box.crash_and_reopen(workflows=[later])
            await rt.with_options(id="s").start(later)
            await box.clock.settle()
            await box.clock.advance(DAY)
            return [await rt.run("r").result(), await rt.run("s").result()]

    assert play(scenario) == [1, 2]


def test_a_branch_that_went_past_the_change_keeps_the_old_way_whoever_chooses_first() -> None:
    async def before(ctx: Context) -> Any:
        async def part(seconds: int) -> Any:
            await ctx.sleep(seconds)
            found = await ctx.call(work, "old")
            await ctx.sleep(3600)
            return found

        return await ctx.gather(part(3600), part(1))

    async def behind(ctx: Context) -> Any:
        async def part(seconds: int) -> Any:
            await ctx.sleep(seconds)
            found = await ctx.call(work, "old" if ctx.version("x") == 0 else "new")
            await ctx.sleep(3600)
            return found

        return await ctx.gather(part(3600), part(1))

    async def scenario() -> Any:
        wf = as_wf(before)
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(1)
            rt = await box.crash_and_reopen(workflows=[as_wf(behind)])
            for _ in range(5):
                await box.clock.advance(1800)
                rt = await box.crash_and_reopen(workflows=[as_wf(behind)])
            return await rt.run("r").result()

    assert play(scenario) in (["old", "old"], ["new", "old"])


def test_a_name_or_number_that_is_none_is_refused() -> None:
    async def wrong(ctx: Context) -> Any:
        return ctx.version("", latest=1)

    async def scenario() -> None:
        wf = as_wf(wrong)
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            with pytest.raises(RunFailedError, match="takes a name of 1 to 128"):
                await run.result()

    play(scenario)
