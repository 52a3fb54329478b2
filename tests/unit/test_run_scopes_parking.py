"""Branches that wait long beside others, and what becomes meanwhile of those that failed, or ended in time."""

from datetime import timedelta
from typing import Any

from perdure import Context, Retry, tool, workflow
from tests.support.runs import HOUR, box_with, play


@tool(retry=Retry(attempts=2, backoff=timedelta(seconds=5), jitter=False))
async def refuse() -> None:
    raise ValueError("no")


@workflow
async def sleeps_beside_a_failure(ctx: Context) -> None:
    async def sleepers() -> Any:
        return await ctx.gather(ctx.sleep(HOUR), ctx.sleep(2 * HOUR))

    await ctx.gather(sleepers(), ctx.call(refuse))


def test_a_failure_beside_branches_of_which_all_sleep_long_ends_them_at_once() -> None:
    async def scenario() -> None:
        async with box_with(sleeps_beside_a_failure) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(sleeps_beside_a_failure)
            await box.clock.advance(10)

            assert (await run.status()).status == "failed"

    play(scenario)


@tool
async def answer() -> int:
    return 42


@workflow
async def is_in_time_beside_a_sleeper(ctx: Context) -> Any:
    return list(await ctx.gather(ctx.timeout(5, ctx.call(answer)), ctx.sleep(HOUR)))


def test_what_ended_in_time_is_not_late_when_it_is_replayed_after_the_limit() -> None:
    async def scenario() -> None:
        async with box_with(is_in_time_beside_a_sleeper) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(is_in_time_beside_a_sleeper)
            await box.clock.advance(2 * HOUR)

            assert await run.result() == [42, None]

    play(scenario)
