"""Cancel: what it stops, what it cannot stop, and that cleaning up happens once."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import Context, Query, Retry, RunCancelledError, RunView, StepFailedError, tool, workflow
from perdure.actors.workflows.commands import CancelRun, StartRun
from tests.support.runs import DAY, HOUR, Box, box_with, events, facts, on_both_logs, play, storage

seen: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@tool
async def endless() -> int:
    seen.append("begins")
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        seen.append("ends")
    return 1


@tool
async def clean(what: str) -> str:
    seen.append(what)
    return what


async def cancelled(box: Box, run: str = "r", reason: str = "enough") -> RunView:
    """Cancel a run and return how it stands once it is over."""
    rt = box.runtime
    assert await rt.run(run).cancel(reason)
    await box.clock.settle()
    with pytest.raises(RunCancelledError, match=reason):
        await rt.run(run).result()
    return await rt.run(run).status()


@on_both_logs
def test_a_running_async_step_is_stopped(kind: str, tmp_path: Path) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(endless)

    async def scenario() -> None:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            view = await cancelled(box)
            assert (view.status, view.in_flight) == ("cancelled", ())
            assert await facts(rt, "r") == [
                "run-started", "step-started", "run-cancel-requested", "step-cancelled", "run-cancelled",
            ]  # fmt: skip
            [fact] = await events(rt, "r", "step-cancelled")
            assert fact["stopped"] is True
            figures = (await rt.statistics()).tools["endless"]
            assert (figures.cancelled, figures.calls, figures.failures) == (1, 0, 0)

    play(scenario)

    assert seen == ["begins", "ends"]


def test_a_thread_goes_on_and_the_log_says_so() -> None:
    gate = threading.Event()
    over = threading.Event()

    @tool
    def blocking() -> int:
        gate.wait(30)
        over.set()
        return 1

    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(blocking)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle(wait_for_threads=False)
            assert await rt.run("r").cancel("enough")
            await box.clock.settle(wait_for_threads=False)
            assert (await rt.run("r").status()).status == "cancelled"
            [fact] = await events(rt, "r", "step-cancelled")
            assert fact["stopped"] is False
            before = await facts(rt, "r")
            gate.set()
            await box.clock.settle()
            assert over.is_set()
            assert await facts(rt, "r") == before  # its result is nobody's

    play(scenario)


@pytest.mark.parametrize("seconds", [30, 3600], ids=["in memory", "parked"])
@pytest.mark.parametrize("crash", [False, True], ids=["live", "after a crash"])
def test_a_sleeping_run_cleans_up_and_is_cancelled(seconds: int, crash: bool) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.sleep(seconds)
        finally:
            await ctx.call(clean, "one")
            await ctx.sleep(1)
            await ctx.call(clean, "two")

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            if crash:
                rt = await box.crash_and_reopen()
            await rt.run("r").cancel("enough")
            await box.clock.settle()
            assert seen == ["one"]
            if crash:
                rt = await box.crash_and_reopen()
            await box.clock.advance(1)
            with pytest.raises(RunCancelledError, match="enough"):
                await rt.run("r").result()

    play(scenario)

    assert seen == ["one", "two"]


def test_a_run_that_backs_off_gives_its_step_up() -> None:
    @tool(retry=Retry(attempts=9), failure_threshold=1000)
    async def flaky() -> int:
        raise OSError

    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(flaky)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            view = await cancelled(box)
            assert view.in_flight == ()
            assert (await facts(rt, "r"))[-2:] == ["step-cancelled", "run-cancelled"]

    play(scenario)


def test_a_run_whose_step_is_in_doubt_is_cancelled_in_doubt() -> None:
    @tool(effect="irreversible")
    async def pay() -> int:
        seen.append("paid")
        await asyncio.get_running_loop().create_future()
        return 1

    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(pay)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            assert (await rt.run("r").status()).in_doubt == ("pay#1",)
            await cancelled(box)
            [fact] = await events(rt, "r", "step-cancelled")
            assert fact["stopped"] is False

    play(scenario)

    assert seen == ["paid"]


def test_a_cancel_that_comes_with_the_start_is_obeyed() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(endless)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            stream = rt.run("r")._stream
            started = rt.ask(stream, StartRun("wf", msgspec.Raw(b"{}"), "", 1))
            asked = rt.ask(stream, CancelRun("at once"))
            await started
            assert await asked
            await box.clock.settle()
            with pytest.raises(RunCancelledError, match="at once"):
                await rt.run("r").result()
            assert (await rt.statistics()).runs_in_memory == 0

    play(scenario)

    assert seen == []


def test_branches_are_cancelled_with_their_run() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        async def part(number: int) -> None:
            try:
                await ctx.sleep(HOUR)
            finally:
                await ctx.call(clean, str(number))

        await ctx.map(part, range(3))

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            await cancelled(box)

    play(scenario)

    assert sorted(seen) == ["0", "1", "2"]


def test_a_workflow_may_refuse_to_be_cancelled() -> None:
    @workflow
    async def wf(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except asyncio.CancelledError:
            return "no"
        return "slept"

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.settle()
            assert await run.cancel()
            assert await run.result() == "no"

    play(scenario)


def test_a_second_cancel_changes_nothing_and_one_of_a_closed_run_says_so() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.sleep(HOUR)
        finally:
            await ctx.sleep(10)
            await ctx.call(clean, "cleaned")

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            assert await run.cancel("first")
            await box.clock.settle()
            assert await run.cancel("second")
            await box.clock.advance(10)
            with pytest.raises(RunCancelledError, match="first"):
                await run.result()
            assert not await run.cancel("third")
            assert (await facts(rt, "r")).count("run-cancel-requested") == 1

    play(scenario)

    assert seen == ["cleaned"]


def test_a_blocked_run_can_be_cancelled() -> None:
    @workflow(name="wf")
    async def old(ctx: Context) -> None:
        await ctx.call(clean, "old")
        await ctx.sleep(HOUR)

    @workflow(name="wf")
    async def new(ctx: Context) -> None:
        await ctx.call(clean, "new")

    async def scenario() -> None:
        async with box_with(old) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(old)
            await box.clock.settle()
            rt = await box.close_and_reopen(workflows=[new])
            await box.clock.advance(HOUR)
            assert (await rt.run("r").status()).status == "blocked"
            await cancelled(box)
            rt = await box.close_and_reopen(workflows=[new])
            assert await rt.waiting() == []

    play(scenario)


def test_a_failure_while_cleaning_up_is_the_runs_end() -> None:
    @tool
    async def breaks() -> int:
        raise ValueError("cannot clean up")

    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.sleep(HOUR)
        finally:
            await ctx.call(breaks)

    async def scenario() -> str:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.settle()
            await run.cancel()
            await box.clock.settle()
            return (await run.status()).error

    assert "cannot clean up" in play(scenario)


def test_a_step_that_ignores_its_cancel_is_waited_for() -> None:
    gate: list[asyncio.Event] = []

    @tool
    async def stubborn() -> str:
        gate.append(asyncio.Event())
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await gate[0].wait()
        return "done anyway"

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            return await ctx.call(stubborn)
        except StepFailedError:
            return "failed"

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            await run.cancel()
            await box.clock.settle()
            assert (await run.status()).status == "running"
            gate[0].set()
            await box.clock.settle()
            return await run.result()

    assert play(scenario) == "done anyway"


def test_cancelling_the_wait_for_a_result_does_not_cancel_the_run() -> None:
    @workflow
    async def wf(ctx: Context) -> str:
        await ctx.sleep(DAY)
        return "done"

    async def scenario() -> str:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            waits = asyncio.ensure_future(run.result())
            await box.clock.settle()
            waits.cancel()
            await box.clock.advance(DAY)
            return await run.result()

    assert play(scenario) == "done"


def test_what_a_run_is_asked_is_correlated_with_it() -> None:
    @workflow
    async def waits(ctx: Context) -> None:
        await ctx.call(endless)

    async def scenario() -> tuple[list[str], list[str]]:
        async with box_with(waits, tools=[endless]) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(waits)
            await box.clock.settle()
            await run.cancel("enough")
            await box.clock.settle()
            correlated = await rt.read(Query(correlation="r"))
            return [event.type for event in correlated if event.stream == "run/r"], await facts(rt, "r")

    correlated, everything = play(scenario)

    assert correlated == everything
    assert {"run-started", "run-cancel-requested", "run-cancelled"} <= set(everything)
