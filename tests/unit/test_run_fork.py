"""Branches beside one another: results in order, one failure for all, and the same again when replayed."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, Retry, RunFailedError, Settings, StepFailedError, UsageError, Workflow, tool, workflow
from tests.support.runs import DAY, HOUR, Box, box_with, disk_until, events, facts, on_both_logs, play, storage

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(failure_threshold=1000)
async def work(item: Any) -> Any:
    calls.append(item)
    if item in ("bad", "worse"):
        raise ValueError(f"{item} item")
    return item


@tool(failure_threshold=1000)
async def hang(item: Any) -> Any:
    calls.append(item)
    await asyncio.get_running_loop().create_future()


async def replay_of(wf: Workflow[..., Any], box: Box, *, crashes: int = 2) -> Any:
    """Run *wf* until it sleeps for a day, crash and replay it, and return what it returns."""
    rt = await box.open()
    await rt.with_options(id="r").start(wf)
    await box.clock.settle()
    for _ in range(crashes):
        rt = await box.crash_and_reopen()
        await box.clock.settle()
    await box.clock.advance(DAY)
    return await rt.run("r").result()


def played(code: Callable[..., Any], **options: Any) -> Any:
    wf = Workflow(code, "wf")

    async def scenario() -> Any:
        # It stays in memory while it sleeps, so that every crash makes for a replay.
        async with box_with(wf, settings=Settings(park_after=2 * DAY)) as box:
            return await replay_of(wf, box, **options)

    return play(scenario)


def test_results_come_in_the_order_of_the_parts() -> None:
    async def code(ctx: Context) -> Any:
        async def late() -> str:
            await ctx.sleep(30)
            return "late"

        return await ctx.gather(late(), ctx.call(work, "early"))

    async def scenario() -> Any:
        wf = Workflow(code, "wf")
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(30)
            return await run.result()

    assert play(scenario) == ["late", "early"]


def test_nothing_to_do_is_done_at_once() -> None:
    async def code(ctx: Context) -> Any:
        return [list(await ctx.gather()), await ctx.map(work, [])]

    assert played(code, crashes=0) == [[], []]


def test_the_failure_with_the_lowest_number_is_raised_live_and_replayed() -> None:
    seen: list[str] = []

    async def code(ctx: Context) -> str:
        try:
            await ctx.map(work, ["a", "worse", "bad", "b"])
        except StepFailedError as error:
            seen.append(error.error)
        await ctx.sleep(DAY)
        return "done"

    assert played(code) == "done"
    assert seen == ["worse item"] * 3  # live, and after two crashes
    assert calls == ["a", "worse", "bad", "b"]


def test_the_others_are_cancelled_when_one_fails_and_are_not_run_again() -> None:
    async def code(ctx: Context) -> str:
        with pytest.raises(StepFailedError):
            await ctx.gather(ctx.call(hang, "h"), ctx.call(work, "bad"), ctx.call(hang, "i"))
        await ctx.sleep(DAY)
        return "done"

    assert played(code) == "done"
    assert sorted(calls) == ["bad", "h", "i"]


def test_a_failure_among_many_with_few_at_a_time_replays_alike() -> None:
    """What was opened late in the former life is opened again, however few may run at a time."""

    async def code(ctx: Context) -> str:
        async def one(item: str) -> Any:
            if item.startswith("h"):
                return await ctx.call(hang, item)
            return await ctx.call(work, item)

        with pytest.raises(StepFailedError):
            await ctx.map(one, ["h0", "1", "2", "3", "bad", "never"], concurrency=2)
        await ctx.sleep(DAY)
        return "done"

    assert played(code) == "done"
    assert calls == ["h0", "1", "2", "3", "bad"]


def test_a_failure_beside_nested_branches_replays_alike() -> None:
    """The failing branch is replayed at once, the nested ones need several turns of the loop to come to their end."""

    async def code(ctx: Context) -> str:
        async def deep(name: str) -> list[Any]:
            first = await ctx.map(work, [f"{name}1", f"{name}2"])

            async def deeper(item: str) -> Any:
                return await ctx.map(work, [f"{item}x", f"{item}y"])

            second = await ctx.map(deeper, first)
            await ctx.call(hang, f"{name}h")
            return second

        async def late_failure() -> None:
            await ctx.sleep(30)
            await ctx.call(work, "bad")

        with pytest.raises(StepFailedError):
            await ctx.gather(deep("a"), late_failure(), deep("b"))
        await ctx.sleep(DAY)
        return "done"

    async def scenario() -> Any:
        wf = Workflow(code, "wf")
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(30)
            for _ in range(3):
                rt = await box.crash_and_reopen()
                await box.clock.settle()
            await box.clock.advance(DAY)
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert len(calls) == len(set(calls)) == 15


def test_a_crash_between_the_failure_and_its_account_is_gone_over_alike() -> None:
    """The step's failure is in the log, that the others were cancelled is not: the replay does it now."""

    async def code(ctx: Context) -> str:
        async def deep() -> None:
            await ctx.map(work, ["x", "y"])
            await ctx.map(work, ["z"])
            try:
                await ctx.call(hang, "h")
            finally:
                await ctx.call(work, "cleaned")

        with pytest.raises(StepFailedError):
            await ctx.gather(ctx.call(work, "bad"), deep())
        await ctx.sleep(DAY)
        return "done"

    wf = Workflow(code, "wf")

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            history = await rt.run("r").history()
            positions = [event.position for event in history]
            await box.crash()
            ends = []
            for cut in range(1, len(positions)):
                calls.clear()
                async with Box(disk_until(box.storage, positions[cut]), box.clock, workflows=[wf]) as again:
                    rt = await again.open()
                    await box.clock.settle()
                    rt = await again.crash_and_reopen()
                    await box.clock.settle()
                    view = await rt.run("r").status()
                    ends.append((view.status, view.error))
            return ends

    assert set(play(scenario)) == {("waiting", "")}


def test_a_branch_that_was_cancelled_cleans_up_once() -> None:
    async def code(ctx: Context) -> str:
        async def careful() -> None:
            try:
                await ctx.sleep(HOUR)
            finally:
                await ctx.call(work, "cleaned")
                await ctx.sleep(5)
                await ctx.call(work, "swept")

        async def failing() -> None:
            await ctx.sleep(1)
            await ctx.call(work, "bad")

        with pytest.raises(StepFailedError):
            await ctx.gather(careful(), failing())
        await ctx.sleep(DAY)
        return "done"

    wf = Workflow(code, "wf")

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(3)  # cancelled, cleaned, asleep before it sweeps
            await box.crash_and_reopen()
            await box.clock.advance(3)
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert calls == ["bad", "cleaned", "swept"]


def test_a_cancelled_branch_that_raises_something_else_replays_alike() -> None:
    seen: list[str] = []

    async def code(ctx: Context) -> str:
        async def stubborn() -> None:
            try:
                await ctx.sleep(HOUR)
            except asyncio.CancelledError:
                raise KeyError("instead") from None

        async def failing() -> None:
            await ctx.sleep(1)
            await ctx.call(work, "bad")

        try:
            await ctx.gather(stubborn(), failing())
        except (KeyError, StepFailedError) as error:
            seen.append(type(error).__name__)
        await ctx.sleep(DAY)
        return "done"

    wf = Workflow(code, "wf")

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(1)
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert set(seen) == {"KeyError"}


def test_a_failure_of_the_code_itself_in_a_branch_replays_alike() -> None:
    async def code(ctx: Context) -> str:
        async def broken(item: int) -> None:
            await ctx.call(work, item)
            if item == 1:
                raise LookupError("not a step's failure")
            await ctx.call(hang, f"h{item}")

        with pytest.raises(LookupError):
            await ctx.map(broken, [0, 1, 2])
        await ctx.sleep(DAY)
        return "done"

    assert played(code) == "done"
    assert calls == [0, 1, 2]  # the others were cancelled before their second step was on the disk


def test_a_step_that_backs_off_is_given_up_when_another_branch_fails() -> None:
    @tool(retry=Retry(attempts=5, backoff=timedelta(seconds=100), jitter=False), failure_threshold=1000)
    async def flaky() -> str:
        calls.append("flaky")
        raise OSError("again")

    async def code(ctx: Context) -> str:
        async def failing() -> None:
            await ctx.sleep(10)
            await ctx.call(work, "bad")

        with pytest.raises(StepFailedError, match="bad item"):
            await ctx.gather(ctx.call(flaky), failing())
        await ctx.sleep(DAY)
        return "done"

    wf = Workflow(code, "wf")

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(20)
            view = await rt.run("r").status()
            assert (view.status, view.in_flight) == ("waiting", ())
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            cancelled = await events(rt, "r", "step-cancelled")
            assert [c["step"] for c in cancelled] == ["gather#1.0/flaky#1"]
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert calls == ["flaky", "bad"]


@on_both_logs
def test_at_most_so_many_run_at_the_same_time(kind: str, tmp_path: Path) -> None:
    running: list[int] = []

    @tool
    async def counted(item: int) -> int:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.pop()
        return item

    most: list[int] = []

    @workflow
    async def wf(ctx: Context) -> list[int]:
        return await ctx.map(counted, range(50), concurrency=7)

    async def scenario() -> Any:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result()

    assert play(scenario) == list(range(50))
    assert max(most) == 7


def test_a_gather_of_something_else_than_coroutines_is_refused() -> None:
    async def code(ctx: Context) -> None:
        with pytest.raises(UsageError, match="coroutines"):
            await ctx.gather(ctx.call(work, 1), 5)  # type: ignore[call-overload] # on purpose
        with pytest.raises(UsageError, match="concurrency"):
            await ctx.map(work, [1], concurrency=0)

    assert played(code, crashes=0) is None
    assert calls == []


def test_parts_of_a_gather_that_is_refused_leave_no_warning() -> None:
    """The run is leaving memory: `ctx` refuses, and the coroutines that were made for it are closed."""

    refused: list[str] = []

    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.sleep(DAY)
        except BaseException:  # noqa: BLE001 - the signal is what is looked at
            try:
                await ctx.gather(ctx.call(work, 1), ctx.call(work, 2))
            except BaseException as signal:
                refused.append(type(signal).__name__)
                raise

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(DAY)
            await run.result()

    play(scenario)

    assert refused == ["Parked"]
    assert calls == []


def test_steps_of_branches_are_keyed_by_their_place() -> None:
    async def code(ctx: Context) -> None:
        async def part(item: int) -> Any:
            await ctx.call(work, item)
            return await ctx.with_options(key="mine").call(work, item)

        await ctx.call(work, "first")
        await ctx.map(part, [1, 2])
        await ctx.map(part, [3])
        await ctx.gather(ctx.call(work, 4))

    wf = Workflow(code, "wf")

    async def scenario() -> list[str]:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await run.result()
            assert "branches-failed" not in await facts(rt, "r")
            return [started["step"] for started in await events(rt, "r", "step-started")]

    assert sorted(play(scenario)) == [
        "gather#1.0/work#1",
        "map#1.0/mine", "map#1.0/work#1", "map#1.1/mine", "map#1.1/work#1",
        "map#2.0/mine", "map#2.0/work#1",
        "work#1",
    ]  # fmt: skip


def test_a_failure_in_a_branch_that_nobody_catches_fails_the_run_with_its_step() -> None:
    async def code(ctx: Context) -> None:
        await ctx.map(work, ["a", "bad"])

    wf = Workflow(code, "wf")

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            with pytest.raises(RunFailedError, match="bad item"):
                await run.result()
            [failed] = await events(rt, "r", "run-failed")
            return failed["step"]

    assert play(scenario) == "map#1.1/work#1"
