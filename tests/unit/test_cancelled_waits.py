"""A cancel, or a deadline, that has to wait for a person keeps no run in memory, no place taken and nobody waiting."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, Queue, RunCancelledError, RunFailedError, Runtime, tool, workflow
from tests.support.runs import Box, box_with, facts, play

broken = ConnectionError("down")


@tool(failure_threshold=1000)
async def deliver(what: str) -> str:
    if what == "broken":
        raise broken
    return what


@workflow
async def forward(ctx: Context, where: str = "saga") -> str:
    """Stand still past a pivot, in the block of the saga or in a branch of it."""
    async with ctx.saga() as saga:
        saga.pivot()
        if where == "branch":
            await ctx.gather(ctx.call(deliver, "other"), ctx.call(deliver, "broken"))
        else:
            await saga.call(deliver, "broken")
    return await ctx.call(deliver, "done")


@workflow
async def parent(ctx: Context, where: str = "alone") -> str:
    if where == "branch":
        await ctx.gather(ctx.sleep(1), ctx.run(forward))
        return "done"
    return await ctx.run(forward)


@workflow
async def quick(ctx: Context, name: str) -> str:
    return await ctx.call(deliver, name)


def opened(**options: Any) -> Box:
    return box_with(forward, parent, quick, tools=[deliver], queues=[Queue("mail", concurrency=1)], **options)


async def stopped(box: Box, of: Any, where: str, by: str) -> Runtime:
    """Start a run of the queue that comes to stand still, and have it cancelled there, or its deadline pass."""
    rt = await box.open()
    deadline = timedelta(seconds=5) if by == "deadline" else None
    await rt.with_options(id="r", queue="mail", deadline=deadline).start(of, where)
    await box.clock.advance(4)
    if by == "cancel":
        await rt.run("r").cancel("not needed")
    await box.clock.advance(1)
    return rt


async def settled(box: Box, run: str) -> None:
    [step] = (await box.runtime.run(run).status()).in_doubt
    await box.runtime.run(run).settle_done(step, "by hand")
    await box.clock.advance(1)


ENDS = {"cancel": RunCancelledError, "deadline": RunFailedError}


@pytest.mark.parametrize("by", list(ENDS))
@pytest.mark.parametrize("where", ["saga", "branch"])
def test_a_run_past_its_pivot_leaves_its_place_when_nothing_but_a_person_can_move_it(where: str, by: str) -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await stopped(box, forward, where, by)
            await rt.with_options(id="next", queue="mail").start(quick, "a")
            await box.clock.settle()

            assert await rt.run("next").result() == "a"
            assert (await rt.run("r").status()).status == "waiting"
            await asyncio.wait_for(rt.until_idle(), 5)
            await settled(box, "r")
            with pytest.raises(ENDS[by]):
                await rt.run("r").result()

    play(scenario)


@pytest.mark.parametrize("by", list(ENDS))
@pytest.mark.parametrize("where", ["alone", "branch"])
def test_a_parent_that_was_cancelled_waits_out_of_memory_for_a_child_that_a_person_has_to_move(
    where: str, by: str
) -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await stopped(box, parent, where, by)
            [child] = (await rt.run("r").status()).children
            await asyncio.wait_for(rt.until_idle(), 5)
            await box.clock.advance(60)
            await rt.with_options(id="next", queue="mail").start(quick, "a")
            await box.clock.settle()

            assert await rt.run("next").result() == "a"
            assert (await rt.run("r").status()).status == "waiting"
            await settled(box, child)
            with pytest.raises(ENDS[by]):
                await rt.run("r").result()
            assert (await facts(rt, "r")).count("child-cancel-requested") == 1

    play(scenario)


def test_a_parent_that_waits_so_goes_on_waiting_after_a_crash() -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await stopped(box, parent, "branch", "cancel")
            [child] = (await rt.run("r").status()).children
            for seconds in (1, 100):
                await box.clock.advance(seconds)
                rt = await box.crash_and_reopen()
                await asyncio.wait_for(rt.until_idle(), 5)
            await settled(box, child)

            with pytest.raises(RunCancelledError, match="not needed"):
                await rt.run("r").result()

    play(scenario)


@workflow
async def careful(ctx: Context, how: str) -> str:
    try:
        await ctx.sleep(timedelta(hours=1))
    finally:
        match how:
            case "answer":
                await ctx.ask("take it back?", of=bool)
            case "nap":
                await ctx.sleep(timedelta(hours=2))
            case _:
                await ctx.gather(ctx.ask("take it back?", of=bool), ctx.sleep(timedelta(hours=2)))
        await ctx.call(deliver, "cleaned up")
    return "done"


@pytest.mark.parametrize("is_crashed", [False, True])
@pytest.mark.parametrize("how", ["answer", "nap", "both"])
def test_a_run_that_was_cancelled_and_waits_while_it_cleans_up_leaves_its_place(how: str, is_crashed: bool) -> None:
    async def scenario() -> None:
        async with box_with(careful, quick, tools=[deliver], queues=[Queue("mail", concurrency=1)]) as box:
            rt = await box.open()
            await rt.with_options(id="r", queue="mail").start(careful, how)
            await box.clock.settle()
            await rt.run("r").cancel("not needed")
            await box.clock.settle()
            if is_crashed:
                rt = await box.crash_and_reopen()
            await asyncio.wait_for(rt.until_idle(), 5)
            await rt.with_options(id="next", queue="mail").start(quick, "a")
            await box.clock.settle()

            assert await rt.run("next").result() == "a"
            for question in await rt.questions():
                await rt.run("r").answer(question.id, value=True)
            await box.clock.advance(timedelta(hours=2))
            with pytest.raises(RunCancelledError, match="not needed"):
                await rt.run("r").result()
            assert "step-completed" in await facts(rt, "r")

    play(scenario)
