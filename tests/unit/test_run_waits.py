"""A workflow waits through its context only: what a replay could not repeat is refused at the place where it stands."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Context, RunBlockedError, RunFailedError, Workflow, tool, workflow
from tests.support.runs import box_with, facts, play


async def give(value: int) -> int:
    return value


async def sleeps(ctx: Context) -> None:
    await asyncio.sleep(1)


async def yields(ctx: Context) -> None:
    await asyncio.sleep(0)


async def gathers(ctx: Context) -> None:
    await asyncio.gather(ctx.step(give, 1), ctx.step(give, 2))


async def waits_for(ctx: Context) -> None:
    await asyncio.wait_for(ctx.step(give, 1), 5)


async def creates_a_task(ctx: Context) -> None:
    await asyncio.create_task(ctx.step(give, 1))


async def waits_as_completed(ctx: Context) -> None:
    for done in asyncio.as_completed([ctx.step(give, 1), ctx.step(give, 2)]):
        await done


async def opens_a_task_group(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.step(give, 1))


async def uses_a_thread(ctx: Context) -> None:
    await asyncio.to_thread(int, "1")


async def waits_for_a_future(ctx: Context) -> None:
    await asyncio.get_running_loop().create_future()


FOREIGN = [sleeps, yields, gathers, waits_for, creates_a_task, waits_as_completed, opens_a_task_group, uses_a_thread,
           waits_for_a_future]  # fmt: skip


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # that is what they get for it
@pytest.mark.parametrize("code", FOREIGN, ids=lambda code: code.__name__)
def test_a_wait_that_is_not_recorded_is_refused_and_told_what_to_use(code: Callable[..., Any]) -> None:
    wf = Workflow(code, "wf")

    async def scenario() -> str:
        async with box_with(wf) as box:
            rt = await box.open()
            with pytest.raises(RunFailedError) as caught:
                await (await rt.start(wf)).result()
            return str(caught.value)

    async def quiet() -> str:  # a task that the code left behind may complain: it is the code's own
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        return await scenario()

    text = asyncio.run(quiet())

    assert any(kind in text for kind in ("UsageError", "ExceptionGroup"))
    assert "ctx.gather" in text or "ExceptionGroup" in text


def test_a_limit_of_asyncio_around_a_step_is_refused() -> None:
    """Who timed out would not be recorded: a replay would wait where the live code had given up."""

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.01):
                await ctx.sleep(20)
        except TimeoutError:
            return "timed out"
        return "slept"

    async def scenario() -> list[str]:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            with pytest.raises(RunBlockedError, match="not recorded"):
                await run.result()
            return await facts(rt, "r")

    assert play(scenario) == ["run-started", "timer-set", "run-blocked"]


def test_a_step_that_uses_the_context_is_refused() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        async def inner() -> int:
            return await ctx.step(give, 1)

        await ctx.step(inner)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            with pytest.raises(RunFailedError, match="must not call ctx"):
                await (await rt.start(wf)).result()

    play(scenario)


def test_a_context_that_leaked_out_of_its_run_is_refused() -> None:
    leaked: list[Context] = []

    @workflow
    async def wf(ctx: Context) -> None:
        leaked.append(ctx)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await (await rt.start(wf)).result()
            with pytest.raises(ValueError, match="a task that the run does not know"):
                leaked[0].now()

    play(scenario)


def test_waits_inside_of_steps_and_tools_are_free() -> None:
    @tool
    async def patient() -> list[int]:
        async def one() -> int:
            await asyncio.sleep(0)
            return 1

        async with asyncio.timeout(60):
            return list(await asyncio.gather(one(), asyncio.create_task(one()), asyncio.to_thread(int, "1")))

    @workflow
    async def wf(ctx: Context) -> list[int]:
        return await ctx.call(patient)

    async def scenario() -> list[int]:
        async with box_with(wf) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result()

    assert play(scenario) == [1, 1, 1]


@pytest.mark.parametrize("items", [{1, 2}, frozenset({1}), {"a": 1}.keys()], ids=["set", "frozenset", "keys"])
def test_a_map_over_items_without_an_order_is_refused(items: Any) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.map(give, items)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            with pytest.raises(RunFailedError, match="order"):
                await (await rt.start(wf)).result()

    play(scenario)


def test_a_key_names_one_step_of_a_branch() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.with_options(key="once").step(give, 1)
        await ctx.with_options(key="once").step(give, 2)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            with pytest.raises(RunFailedError, match="used before"):
                await (await rt.start(wf)).result()

    play(scenario)


@pytest.mark.parametrize("key", ["", "a b", "a/b", "a#1", "ä", "x" * 129])
def test_a_key_that_could_be_taken_for_another_is_refused(key: str) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        ctx.with_options(key=key)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            with pytest.raises(RunFailedError, match="UsageError"):
                await (await rt.start(wf)).result()

    play(scenario)
