"""Large values, many steps: nothing in a run depends on its size but its size."""

import json
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, PayloadTooLargeError, RunBlockedError, RunFailedError, StepFailedError, tool, workflow
from perdure.actors.workflows.account import where_they_differ
from tests.support.runs import DAY, box_with, events, on_both_logs, play, storage

calls: list[int] = []


@tool
async def grow(text: str, times: int) -> str:
    calls.append(times)
    return text * times


@on_both_logs
def test_large_arguments_and_results_are_replayed_as_they_were(kind: str, tmp_path: Path) -> None:
    calls.clear()

    @workflow
    async def wf(ctx: Context, seed: str) -> list[int]:
        large = await ctx.call(grow, seed, 3)
        larger = await ctx.call(grow, large, 2)
        await ctx.sleep(DAY)
        return [len(seed), len(large), len(larger)]

    async def scenario() -> Any:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf, "x" * 100_000)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            [first, _] = await events(rt, "r", "step-completed")
            assert first["result"] is None  # it went to the blobs
            return await rt.run("r", wf).result()

    assert play(scenario) == [100_000, 300_000, 600_000]
    assert calls == [3, 2]


def test_other_large_arguments_are_a_mismatch_too() -> None:
    @workflow(name="wf")
    async def old(ctx: Context) -> None:
        await ctx.call(grow, "x" * 100_000, 1)
        await ctx.sleep(DAY)

    @workflow(name="wf")
    async def new(ctx: Context) -> None:
        await ctx.call(grow, "y" * 100_000, 1)
        await ctx.sleep(DAY)

    async def scenario() -> None:
        async with box_with(old) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(old)
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[new])
            await box.clock.advance(DAY)
            with pytest.raises(RunBlockedError, match="other arguments") as caught:
                await rt.run("r").result()
            account = str(caught.value)
            assert len(account) < 2_000  # a person has to read it
            assert "xxx" in account.partition("recorded arguments: ")[2]
            assert "yyy" in account

    play(scenario)


def test_texts_are_shown_whole_or_around_their_first_difference() -> None:
    assert where_they_differ('{"a":1}', '{"a":2}') == ('{"a":1}', '{"a":2}')

    one, other = where_they_differ("s" * 1000 + "A" + "s" * 1000, "s" * 1000 + "B" + "s" * 1000)

    assert one == "…" + "s" * 100 + "A" + "s" * 299 + "… (2001 characters)"
    assert other == one.replace("A", "B")
    assert where_they_differ("x", "x" * 1000) == ("x… (1 characters)", "x" * 400 + "… (1000 characters)")


def test_what_is_too_large_is_refused_where_it_is_given() -> None:
    @workflow
    async def wf(ctx: Context) -> list[str]:
        found: list[str] = []
        try:
            await ctx.call(grow, "x" * 9_000_000, 1)
        except PayloadTooLargeError as error:
            found.append(str(error))
        try:
            await ctx.call(grow, "x" * 1000, 9_000)
        except StepFailedError as error:
            found.append(error.error)
        return found

    @workflow
    async def returns_too_much(ctx: Context) -> str:
        return "x" * 9_000_000

    async def scenario() -> Any:
        async with box_with(wf, returns_too_much) as box:
            rt = await box.open()
            with pytest.raises(PayloadTooLargeError, match="grow"):
                await rt.call(grow, "x" * 9_000_000, 1)
            with pytest.raises(RunFailedError, match="PayloadTooLargeError"):
                await (await rt.start(returns_too_much)).result()
            return await (await rt.start(wf)).result()

    arguments, result = play(scenario)

    assert "grow().text is 9" in arguments
    assert "the result of grow is 9" in result


@on_both_logs
def test_a_run_of_many_steps_is_resumed_from_all_of_them(kind: str, tmp_path: Path) -> None:
    """More events than fall between two snapshots: a resume needs the results, which no snapshot holds."""
    calls.clear()

    @workflow
    async def wf(ctx: Context) -> int:
        total = 0
        for number in range(300):
            text = await ctx.call(grow, "x", number)
            total += len(text)
        await ctx.sleep(DAY)
        for number in range(10):
            text = await ctx.call(grow, "x", number)
            total += len(text)
        return total

    async def scenario() -> int:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            assert (await rt.run("r").status()).steps_done == 300
            await box.clock.advance(DAY)
            return await rt.run("r", wf).result()

    assert play(scenario) == sum(range(300)) + sum(range(10))
    assert len(calls) == 310


def test_the_text_of_an_error_is_cut_to_what_a_person_reads() -> None:
    @tool
    async def fails() -> int:
        raise ValueError("x" * 1_000_000)

    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(fails)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            with pytest.raises(RunFailedError):
                await run.result()
            for kind in ("step-failed", "run-failed"):
                assert len(json.dumps(await events(rt, "r", kind))) < 10_000

    play(scenario)
