"""A log that fails under running workflows: nothing goes on, all are told, the next life takes up what is left."""

import asyncio
from typing import Any

import pytest

from perdure import Context, LogWriteError, tool, workflow
from tests.support.runs import HOUR, Box, box_with, facts, play

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool
async def work(name: str) -> str:
    calls.append(name)
    return name


@workflow
async def busy(ctx: Context) -> list[str]:
    cleaned = "not"
    try:
        first = await ctx.call(work, "one")
        await ctx.sleep(10)
        second = await ctx.gather(ctx.call(work, "two"), ctx.call(work, "three"))
        return [first, *second]
    finally:
        cleaned = "cleaned"
        calls.append(cleaned)


async def break_disk(box: Box) -> None:
    box.storage.fail_next(OSError("the disk is gone"))  # type: ignore[union-attr] # it is a MemoryDisk
    await box.clock.advance(10)


def test_runs_are_abandoned_and_whoever_waits_is_told() -> None:
    async def scenario() -> None:
        async with box_with(busy) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(busy)
            sleeper = await rt.with_options(id="s").start(busy)
            await box.clock.settle()
            waits = [asyncio.ensure_future(one.result()) for one in (run, sleeper)]
            await box.clock.settle()
            await break_disk(box)
            for wait in waits:
                with pytest.raises(LogWriteError, match="the disk is gone"):
                    await wait
            with pytest.raises(LogWriteError):
                await run.status()
            with pytest.raises(LogWriteError):
                await rt.start(busy)
            assert calls.count("two") == 0  # its intent never reached the disk
            assert (len(rt._engine), calls.count("cleaned")) == (0, 2)
            with pytest.raises(LogWriteError):
                await box.close()
            rt = await box.open()
            await box.clock.settle()
            assert await rt.run("r").result() == ["one", "two", "three"]
            assert await rt.run("s").result() == ["one", "two", "three"]
            recorded = await facts(rt, "r")
            assert "run-failed" not in recorded
            assert "run-cancelled" not in recorded

    play(scenario)

    assert calls.count("one") == 2


def test_a_run_that_starts_on_a_failing_disk_has_not_started_or_is_found_again() -> None:
    async def scenario() -> None:
        async with box_with(busy) as box:
            rt = await box.open()
            box.storage.fail_next(OSError("the disk is gone"))  # type: ignore[union-attr] # it is a MemoryDisk
            with pytest.raises(LogWriteError):
                await rt.with_options(id="r").start(busy)
            with pytest.raises(LogWriteError):
                await box.close()
            assert calls == []
            rt = await box.open()
            run = await rt.with_options(id="r").start(busy)
            await box.clock.advance(HOUR)
            assert await run.result() == ["one", "two", "three"]

    play(scenario)


def test_async_tools_are_cancelled_when_the_log_fails() -> None:
    ended: list[str] = []

    @tool
    async def endless() -> int:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("ended")
        return 1

    @workflow
    async def wf(ctx: Context) -> Any:
        return await ctx.gather(ctx.call(endless), ctx.sleep(10))

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            await break_disk(box)
            await box.clock.settle()
            assert ended == ["ended"]
            await box.crash()

    play(scenario)
