"""A runtime is idle when no run can go on by itself: also while parents are in memory for children that cannot."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from perdure import Context, RunHandle, workflow
from tests.support.runs import HOUR, Box, box_with, on_both_logs, play, storage


@workflow
async def sleeper(ctx: Context) -> str:
    await ctx.sleep(HOUR)
    return "slept"


@workflow
async def moment(ctx: Context) -> str:
    await ctx.sleep(2)
    return "a moment"


@workflow
async def asker(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


@workflow
async def parent(ctx: Context, of: str) -> Any:
    match of:
        case "sleeper":
            return await ctx.run(sleeper)
        case "asker":
            return await ctx.run(asker)
        case "moment":
            return await ctx.run(moment)
        case "both":
            return await ctx.gather(ctx.run(moment), ctx.run(sleeper))
        case "busy":
            return await ctx.gather(ctx.sleep(5), ctx.run(sleeper))
        case _:
            return await ctx.run(parent, "sleeper")


def opened(**options: Any) -> Box:
    return box_with(parent, sleeper, moment, asker, **options)


async def within(box: Box, seconds: float, waiting: Awaitable[None]) -> bool:
    """Return whether that was over after so many seconds of the clock."""
    task = asyncio.ensure_future(waiting)
    await box.clock.advance(seconds)
    is_done = task.done()
    if not is_done:
        task.cancel()
    await asyncio.wait([task])
    return is_done


@pytest.mark.parametrize("of", ["sleeper", "asker", "grandparent"])
@on_both_logs
def test_it_is_idle_at_once_where_parents_wait_for_children_that_left_memory(kind: str, of: str, tmp_path: Any) -> None:
    async def scenario() -> bool:
        async with opened(on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent, of)
            return await within(box, 0, rt.until_idle())

    assert play(scenario)


@pytest.mark.parametrize(("of", "seconds"), [("moment", 2), ("both", 2), ("busy", 5)])
def test_it_is_not_idle_as_long_as_one_of_them_is_about_to_go_on(of: str, seconds: float) -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent, of)
            assert not await within(box, seconds - 0.1, rt.until_idle())
            assert await within(box, 0.2, rt.until_idle())
            assert ((await rt.run("p").status()).status == "completed") is (of == "moment")

    play(scenario)


def test_a_child_that_is_paused_or_blocked_makes_nobody_wait() -> None:
    async def scenario() -> bool:
        async with opened() as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent, "moment")
            await box.clock.advance(1)
            await rt.run("p/moment#1").pause("look at it")
            return await within(box, 0, rt.until_idle())

    assert play(scenario)


def test_a_parent_whose_child_was_just_let_go_on_is_waited_for() -> None:
    async def scenario() -> str:
        async with opened() as box:
            rt = await box.open()
            handle: RunHandle[str] = await rt.with_options(id="p").start(parent, "asker")
            await within(box, 0, rt.until_idle())
            await rt.run("p/asker#1").signal("go", "on")
            assert await within(box, 0, rt.until_idle())
            assert (await rt.run("p").status()).status == "completed"
            return await handle.result()

    assert play(scenario) == "on"


def test_bringing_back_a_log_ends_as_soon_as_no_run_can_go_on() -> None:
    async def scenario() -> bool:
        async with opened() as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent, "sleeper")
            await box.clock.settle()
            rt = await box.close_and_reopen(resume=False)
            await rt.resume()
            return await within(box, 0, rt.until_idle())

    assert play(scenario)
