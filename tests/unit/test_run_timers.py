"""Sleeps, parking and deadlines: wall-clock facts that hold across restarts."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, RunFailedError, Settings, tool, workflow
from tests.support.runs import DAY, HOUR, MINUTE, box_with, events, facts, on_both_logs, play, storage


@workflow
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return ctx.now().isoformat()


@on_both_logs
def test_a_sleep_ends_when_it_is_due_and_not_before(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(nap, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.start(nap, 3600.5)
            await box.clock.advance(HOUR)
            assert (await run.status()).status == "waiting"
            await box.clock.advance(0.499999)
            assert (await run.status()).status == "waiting"
            await box.clock.advance(0.000001)
            assert await run.result() == "2026-01-01T01:00:00.500000+00:00"

    play(scenario)


def test_a_long_sleep_leaves_memory_and_a_short_one_stays() -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            await rt.start(nap, 60)
            await rt.start(nap, 61)
            await box.clock.settle()
            figures = await rt.statistics()
            assert figures.runs_in_memory == 1

    play(scenario)


def test_a_sleeping_run_costs_no_memory_and_wakes_in_the_same_life() -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            runs = [await rt.start(nap, 3600 + number) for number in range(50)]
            await box.clock.settle()
            figures = await rt.statistics()
            assert (figures.runs_in_memory, figures.actors_in_memory) == (0, 1)  # the runtime's own
            await box.clock.advance(2 * HOUR)
            woken = [await run.result() for run in runs]
            assert woken == [f"2026-01-01T01:00:{number:02}+00:00" for number in range(50)]

    play(scenario)


def test_a_sleep_that_was_over_while_nobody_ran_ends_at_the_open() -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(nap, 3600)
            await box.clock.settle()
            await box.close()
            await box.clock.advance(DAY)
            rt = await box.open()
            assert await rt.run("r").result() == "2026-01-02T00:00:00+00:00"

    play(scenario)


def test_every_branch_must_wait_for_long_before_a_run_leaves_memory() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        async def part(seconds: int) -> None:
            await ctx.sleep(seconds)

        await ctx.map(part, [50, 7200, 3600])

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(49)
            assert (await run.status()).status == "running"
            await box.clock.advance(1)
            view = await run.status()
            assert (view.status, view.wake_at) == ("waiting", 1767225600_000000 + 3600_000000)
            await box.clock.advance(2 * HOUR)
            await run.result()
            recorded = await facts(rt, "r")
            assert recorded.count("run-parked") == recorded.count("run-resumed") == 2
            assert recorded.count("timer-fired") == 3

    play(scenario)


def test_a_clock_set_forward_ends_sleeps_and_one_set_back_does_not_prolong_them() -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            early = await rt.start(nap, 3600)
            await box.clock.settle()
            await box.clock.jump_wall(-5 * DAY)
            await box.clock.advance(HOUR)
            await early.result()
            late = await rt.start(nap, 86400)
            await box.clock.settle()
            await box.clock.jump_wall(10 * DAY)
            await late.result()

    play(scenario)


def test_finally_blocks_run_when_a_run_leaves_memory_and_may_not_use_the_context() -> None:
    said: list[str] = []

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except Exception:  # noqa: BLE001 - parking is no exception
            said.append("caught")
        finally:
            said.append("finally")
            try:
                ctx.now()
            except BaseException as refused:
                said.append(type(refused).__name__)
                if type(refused).__name__ == "Parked":
                    raise
        return "done"

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.settle()
            assert said == ["finally", "Parked"]
            await box.clock.advance(HOUR)
            assert await run.result() == "done"

    play(scenario)

    assert said == ["finally", "Parked", "finally"]


def test_a_workflow_that_swallows_the_parking_is_parked_all_the_same() -> None:
    @workflow
    async def wf(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except BaseException:  # noqa: BLE001 - on purpose
            return "swallowed"
        return "slept"

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.settle()
            assert (await run.status()).status == "waiting"
            await box.clock.advance(HOUR)
            assert await run.result() == "slept"

    play(scenario)


@on_both_logs
def test_a_deadline_ends_a_run_that_sleeps(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(nap, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.with_options(id="r", deadline=HOUR).start(nap, 3 * 86400)
            await box.clock.advance(HOUR - timedelta(microseconds=1))
            assert (await run.status()).status == "waiting"
            await box.clock.advance(timedelta(microseconds=1))
            with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                await run.result()

    play(scenario)


@pytest.mark.parametrize("resume_after", [MINUTE, DAY])
def test_a_deadline_holds_across_a_crash(resume_after: timedelta) -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            await rt.with_options(id="r", deadline=HOUR).start(nap, 50)
            await box.clock.advance(1)
            await box.crash()
            await box.clock.advance(resume_after)
            rt = await box.open()
            if resume_after < HOUR:
                await rt.run("r").result()
            else:
                with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                    await rt.run("r").result()

    play(scenario)


def test_a_deadline_lets_a_run_clean_up() -> None:
    cleaned: list[str] = []

    async def clean(what: str) -> str:
        cleaned.append(what)
        return what

    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.sleep(DAY)
        finally:
            await ctx.step(clean, "one")
            await ctx.sleep(10)
            await ctx.step(clean, "two")

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r", deadline=HOUR).start(wf)
            await box.clock.advance(HOUR + timedelta(seconds=5))
            assert cleaned == ["one"]
            rt = await box.crash_and_reopen()
            await box.clock.advance(10)
            with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                await rt.run("r").result()

    play(scenario)

    assert cleaned == ["one", "two"]


def test_a_deadline_in_the_past_of_the_start_is_noticed() -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            run = await rt.with_options(deadline=timedelta(0)).start(nap, 10)
            with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                await run.result()

    play(scenario)


def test_a_time_limit_of_a_call_obeys_the_clock_and_is_a_failure() -> None:
    @tool(timeout=30)
    async def stuck() -> int:
        await asyncio.get_running_loop().create_future()
        return 1

    @workflow
    async def wf(ctx: Context) -> list[str]:
        found: list[str] = []
        for one in (ctx, ctx.with_options(timeout=5)):
            try:
                await one.call(stuck)
            except Exception as error:  # noqa: BLE001 - its text is what is looked at
                found.append(str(error))
        return found

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(29)
            assert (await run.status()).in_flight == ("stuck#1",)
            await box.clock.advance(1)
            await box.clock.jump_wall(HOUR)  # a limit is a duration: setting the clock does not end it
            assert (await run.status()).in_flight == ("stuck#2",)
            await box.clock.advance(5)
            failed = await events(rt, "r", "step-failed")
            assert [(f["error_type"], f["micros"]) for f in failed] == [
                ("TimeoutError", 30_000000),
                ("TimeoutError", 5_000000),
            ]
            return await run.result()

    first, second = play(scenario)

    assert "no result within 30 s" in first
    assert "no result within 5 s" in second


def test_the_time_after_which_a_run_leaves_memory_is_a_setting() -> None:
    async def scenario() -> None:
        async with box_with(nap, settings=Settings(park_after=timedelta(seconds=1))) as box:
            rt = await box.open()
            run = await rt.start(nap, 2)
            await box.clock.settle()
            assert (await run.status()).status == "waiting"
            await box.clock.advance(2)
            await run.result()

    play(scenario)
