"""Races and limits of time: one end each, recorded, and the same one after every replay."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, RunFailedError, StepFailedError, Workflow, tool, workflow
from perdure.testing import MemoryDisk
from tests.properties.test_crash_points import crashes
from tests.support.runs import DAY, HOUR, MINUTE, Box, box_with, events, facts, play

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(failure_threshold=1000)
async def work(item: Any) -> Any:
    calls.append(item)
    if item == "bad":
        raise ValueError("bad item")
    return item


@tool(failure_threshold=1000)
async def hang(item: Any) -> Any:
    calls.append(item)
    await asyncio.get_running_loop().create_future()


async def after(ctx: Context, seconds: float, item: str) -> str:
    await ctx.sleep(seconds)
    return await ctx.call(work, item)


@workflow
async def race(ctx: Context) -> Any:
    won = await ctx.race(after(ctx, 30, "late"), after(ctx, 10, "early"), ctx.call(hang, "never"))
    await ctx.sleep(DAY)
    return won


@workflow
async def limited(ctx: Context) -> str:
    try:
        return await ctx.timeout(HOUR, after(ctx, 2 * 3600, "in time"))
    except StepFailedError as error:
        return f"{error.error_type} at {error.step}: {error.error}"


def crashed_everywhere(
    wf: Workflow[..., Any], until: timedelta, *, act: Callable[[Any], Any] | None = None
) -> tuple[Any, list[Any]]:
    """Return what *wf* comes to, and what it comes to after a crash at each of its events."""

    async def end_of(box: Box) -> Any:
        for _ in range(8):
            await box.clock.advance(until / 8)
        view = await box.runtime.run("r").status()
        return json.loads(view.result) if view.status == "completed" else f"{view.status}: {view.error}"

    async def scenario() -> tuple[Any, list[Any]]:
        whole = box_with(wf)
        rt = await whole.open()
        await rt.with_options(id="r").start(wf)
        await whole.clock.settle()
        if act is not None:
            await act(rt.run("r"))
        first = await end_of(whole)
        history = await rt.run("r").history()
        await whole.close()
        others: list[Any] = []
        assert isinstance(whole.storage, MemoryDisk)
        for _, disk, clock in crashes(whole.storage, history):
            box = Box(disk, clock, workflows=[wf])
            await box.open()
            others.append(await end_of(box))
            await box.crash()  # it may hang as the whole one did
        return first, others

    return play(scenario)


def test_the_first_to_end_wins_and_the_others_are_cancelled() -> None:
    async def scenario() -> tuple[Any, list[dict[str, Any]], list[str]]:
        async with box_with(race) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(race)
            await box.clock.advance(10)
            await box.clock.advance(DAY)
            return await run.result(), await events(rt, "r", "race-won"), await facts(rt, "r")

    result, won, types = play(scenario)

    assert result == [1, "early"]
    assert won == [{"step": "race#1", "winner": 1}]
    assert types.index("race-won") < types.index("step-cancelled") < types.index("run-parked")
    assert sorted(calls) == ["early", "never"]


def test_a_race_has_the_same_winner_after_a_crash_at_any_of_its_events() -> None:
    first, others = crashed_everywhere(race, 2 * DAY)

    assert first == [1, "early"]
    assert others == [first] * len(others)


def test_a_failure_wins_a_race_as_a_result_does() -> None:
    @workflow
    async def failing(ctx: Context) -> Any:
        try:
            await ctx.race(after(ctx, 30, "late"), after(ctx, 5, "bad"))
        except StepFailedError as error:
            return await ctx.call(work, f"{error.step}: {error.error}")

    first, others = crashed_everywhere(failing, HOUR)

    assert first == "race#1.1/work#1: bad item"
    assert others == [first] * len(others)


def test_a_race_waits_for_the_clean_up_of_those_who_lost() -> None:
    async def careful(ctx: Context) -> str:
        try:
            return await ctx.call(hang, "loser")
        finally:
            await ctx.sleep(5)
            await ctx.call(work, "cleaned up")

    @workflow
    async def tidy(ctx: Context) -> Any:
        won = await ctx.race(after(ctx, 5, "winner"), careful(ctx))
        return [won, await ctx.call(work, "next")]

    first, others = crashed_everywhere(tidy, HOUR)

    assert first == [[0, "winner"], "next"]
    assert others == [first] * len(others)
    assert calls[:4] == ["loser", "winner", "cleaned up", "next"]


def test_a_race_that_is_cancelled_with_its_run_has_no_winner() -> None:
    @workflow
    async def waits(ctx: Context) -> Any:
        try:
            return await ctx.race(ctx.call(hang, "one"), ctx.signal("never", of=str))
        finally:
            await ctx.call(work, "cleaned up")

    first, others = crashed_everywhere(waits, HOUR, act=lambda run: run.cancel("enough"))

    assert first == "cancelled: enough"
    assert set(others[4:]) <= {first}  # before, the request was not in the log and the run hangs as it did


def test_a_question_races_with_a_timer_and_the_run_leaves_memory() -> None:
    @workflow
    async def either(ctx: Context) -> Any:
        index, answer = await ctx.race(ctx.ask("go?", of=str), after(ctx, 3600, "nobody"))
        return [index, answer]

    async def scenario() -> list[Any]:
        found: list[Any] = []
        async with box_with(either) as box:
            rt = await box.open()
            for name in ("one", "two"):
                await rt.with_options(id=name).start(either)
            await rt.until_idle()
            found.append((await rt.statistics()).runs_in_memory)
            await rt.run("one").answer("one:race#1.0/ask#1", "yes")
            found.append(await rt.run("one").result())
            await box.clock.advance(HOUR)
            found.append(await rt.run("two").result())
            return [*found, await rt.questions()]

    assert play(scenario) == [0, [0, "yes"], [1, "nobody"], []]


def test_what_is_not_over_in_time_is_cancelled_and_the_workflow_is_told() -> None:
    first, others = crashed_everywhere(limited, 4 * HOUR)

    assert first == "TimeoutError at timeout#1: it was not over within 3600 s"
    assert others == [first] * len(others)
    assert calls == []


def test_what_is_over_in_time_is_over_after_any_crash_too() -> None:
    @workflow
    async def quick(ctx: Context) -> Any:
        found = await ctx.timeout(2 * MINUTE, after(ctx, 60, "in time"))
        await ctx.sleep(DAY)
        return found

    first, others = crashed_everywhere(quick, 2 * DAY)

    assert first == "in time"
    # Downtime counts: after a crash in the first minute the process comes back hours later.
    over = "failed: step timeout#1 failed: TimeoutError: it was not over within 120 s"
    assert {first} <= set(others) <= {first, over}
    assert others[-1] == first


def test_the_time_of_a_limit_goes_on_while_the_run_is_out_of_memory() -> None:
    async def scenario() -> tuple[int, str, list[str]]:
        async with box_with(limited) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(limited)
            await rt.until_idle()
            parked = (await rt.statistics()).runs_in_memory
            due = (await run.status()).wake_at
            assert due == (await events(rt, "r", "timeout-set"))[0]["due"]
            await box.clock.advance(HOUR)
            return parked, await run.result(), await facts(rt, "r")

    parked, result, types = play(scenario)

    assert parked == 0
    assert result.startswith("TimeoutError")
    assert types.count("timeout-passed") == 1


def test_a_limit_does_not_end_what_is_cleaning_up_after_a_cancel() -> None:
    @workflow
    async def slow_end(ctx: Context) -> Any:
        async def body() -> None:
            try:
                await ctx.call(hang, "body")
            finally:
                await ctx.sleep(50)
                await ctx.call(work, "cleaned up")

        await ctx.timeout(10, body())

    first, others = crashed_everywhere(slow_end, HOUR, act=lambda run: run.cancel("enough"))

    assert first == "cancelled: enough"
    assert set(others[4:]) == {first}


def test_what_fails_in_time_raises_its_own_failure() -> None:
    @workflow
    async def fails(ctx: Context) -> Any:
        try:
            await ctx.timeout(60, after(ctx, 1, "bad"))
        except StepFailedError as error:
            await ctx.sleep(120)
            return error.error_type

    first, others = crashed_everywhere(fails, HOUR)

    assert first == "ValueError"
    assert others[4:] == [first] * len(others[4:])


def test_limits_and_races_can_be_within_one_another() -> None:
    @workflow
    async def nested(ctx: Context) -> Any:
        async def inner() -> Any:
            return await ctx.race(ctx.timeout(20, ctx.call(hang, "a")), after(ctx, 40, "b"))

        try:
            return await ctx.timeout(60, inner())
        except StepFailedError as error:
            return await ctx.call(work, error.step)

    first, others = crashed_everywhere(nested, HOUR)

    assert first == "timeout#1.0/race#1.0/timeout#1"
    assert set(others) <= {first, "timeout#1"}


@pytest.mark.parametrize("kind", ["nothing", "number", "used", "zero"])
def test_what_cannot_be_run_as_a_branch_is_refused_and_nothing_is_recorded(kind: str) -> None:
    @workflow
    async def wrong(ctx: Context) -> Any:
        match kind:
            case "nothing":
                await ctx.race()
            case "number":
                await ctx.race(3)  # type: ignore[arg-type]
            case "used":
                part = ctx.call(work, 1)
                await part
                await ctx.race(part)
            case _:
                await ctx.timeout(0, ctx.call(work, 1))

    async def scenario() -> list[str]:
        async with box_with(wrong) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wrong)
            with pytest.raises(RunFailedError, match="UsageError"):
                await run.result()
            return await facts(rt, "r")

    assert "branches-opened" not in play(scenario)
