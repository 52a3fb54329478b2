"""Code that does not fit what is recorded: the run is parked with both sides shown, and nothing is guessed."""

from collections.abc import Callable
from typing import Any

import pytest

from perdure import Context, RunBlockedError, RunView, Workflow, tool, workflow
from tests.support.runs import DAY, box_with, facts, play

calls: list[str] = []


@tool
async def fetch(name: str) -> str:
    calls.append(name)
    return name


@tool
async def store(name: str) -> str:
    calls.append(name)
    return name


async def recorded_code(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    await ctx.gather(ctx.call(fetch, "b"), ctx.call(fetch, "c"))
    await ctx.sleep(DAY)
    return "old"


async def renamed_step(ctx: Context) -> str:
    await ctx.call(store, "a")
    return "new"


async def inserted_step(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    await ctx.call(store, "inserted")
    await ctx.gather(ctx.call(fetch, "b"), ctx.call(fetch, "c"))
    await ctx.sleep(DAY)
    return "new"


async def other_arguments(ctx: Context) -> str:
    await ctx.call(fetch, "changed")
    return "new"


async def removed_steps(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    return "new"


async def removed_everything(ctx: Context) -> str:
    return "new"


async def one_branch_less(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    await ctx.gather(ctx.call(fetch, "b"))
    return "new"


async def one_branch_more(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    await ctx.gather(ctx.call(fetch, "b"), ctx.call(fetch, "c"), ctx.call(fetch, "d"))
    return "new"


async def other_branch(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    await ctx.gather(ctx.call(fetch, "b"), ctx.call(store, "c"))
    return "new"


async def raises_early(ctx: Context) -> str:
    await ctx.call(fetch, "a")
    raise KeyError("a bug in the new code")


async def raises_in_a_branch(ctx: Context) -> str:
    async def broken() -> None:
        raise KeyError("a bug in the new code")

    await ctx.call(fetch, "a")
    await ctx.gather(ctx.call(fetch, "b"), broken())
    return "new"


CHANGES: list[tuple[Callable[..., Any], str, str]] = [
    (renamed_step, "fetch#1", "store"),
    (inserted_step, "gather#1", "store"),
    (other_arguments, '"name":"a"', '"name":"changed"'),
    (removed_steps, "gather#1", "ends here"),
    (removed_everything, "fetch#1", "ends here"),
    (one_branch_less, "gather#1", "1 branches"),
    (one_branch_more, "gather#1", "3 branches"),
    (other_branch, "gather#1.1/fetch#1", "store"),
    (raises_early, "gather#1", "KeyError"),
    (raises_in_a_branch, "gather#1.1/fetch#1", "KeyError"),
]


def play_change(change: Callable[..., Any]) -> tuple[RunView, list[str], str]:
    """Record a run of the old code, go on with the new one; return what stands then."""
    calls.clear()
    old = Workflow(recorded_code, "wf")
    new = Workflow(change, "wf")

    async def scenario() -> tuple[RunView, list[str], str]:
        async with box_with(old) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(old)
            await box.clock.settle()
            calls.clear()
            rt = await box.crash_and_reopen(workflows=[new])
            await box.clock.advance(DAY)
            with pytest.raises(RunBlockedError) as caught:
                await rt.run("r").result()
            view = await rt.run("r").status()
            history = await facts(rt, "r")
            # The old code fits still: a roll-back of the deploy is all it takes.
            rt = await box.close_and_reopen(workflows=[old])
            await box.clock.settle()
            assert await rt.run("r").result() == "old"
            return view, history, str(caught.value)

    return play(scenario)


@pytest.mark.parametrize(("change", "before", "now"), CHANGES, ids=lambda v: getattr(v, "__name__", None))
def test_changed_code_blocks_the_run_with_both_sides_shown(change: Callable[..., Any], before: str, now: str) -> None:
    view, history, account = play_change(change)

    assert (view.status, view.waits_on, view.error_type) == ("blocked", "attention", "mismatch")
    assert history[-1] == "run-blocked"
    assert all(part in account for part in ("recorded:", "now:", before, now))
    assert calls == []  # nothing was called again, and nothing new was


def test_added_steps_at_the_end_fit() -> None:
    calls.clear()

    @workflow(name="wf")
    async def longer(ctx: Context) -> str:
        await recorded_code(ctx)
        return await ctx.call(store, "more")

    async def scenario() -> str:
        old = Workflow(recorded_code, "wf")
        async with box_with(old) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(old)
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[longer])
            await box.clock.advance(DAY)
            return await rt.run("r", longer).result()

    assert play(scenario) == "more"
    assert calls == ["a", "b", "c", "more"]


def test_steps_of_branches_may_be_in_another_order_of_time() -> None:
    """Ordinals count within a branch: what other branches did in between changes nothing."""

    @workflow(name="wf")
    async def wf(ctx: Context) -> list[str]:
        async def part(number: int) -> str:
            await ctx.sleep(10 * number)
            first = await ctx.call(fetch, f"{number}")
            await ctx.sleep(100 - 20 * number)
            return first + await ctx.call(store, f"{number}")

        found = await ctx.map(part, range(4))
        await ctx.sleep(DAY)
        return found

    async def scenario() -> list[str]:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(200)
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await rt.run("r", wf).result()

    assert play(scenario) == ["00", "11", "22", "33"]


def test_a_result_that_no_longer_fits_its_type_blocks_the_run() -> None:
    @tool(name="measure")
    async def measured_as_text() -> str:
        return "about 5"

    @tool(name="measure")
    async def measured_as_number() -> int:
        return 5

    @workflow(name="wf")
    async def old(ctx: Context) -> None:
        await ctx.call(measured_as_text)
        await ctx.sleep(DAY)

    @workflow(name="wf")
    async def new(ctx: Context) -> None:
        await ctx.call(measured_as_number)
        await ctx.sleep(DAY)

    async def scenario() -> None:
        async with box_with(old) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(old)
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[new])
            await box.clock.advance(DAY)
            with pytest.raises(RunBlockedError, match="does not fit the declared type"):
                await rt.run("r").result()

    play(scenario)


def test_a_changed_input_type_leaves_the_run_waiting_for_its_code_and_others_go_on() -> None:
    @workflow(name="first")
    async def old(ctx: Context, size: str) -> None:
        await ctx.sleep(DAY)

    @workflow(name="first")
    async def new(ctx: Context, size: int) -> None:
        await ctx.sleep(DAY)

    @workflow(name="second")
    async def other(ctx: Context) -> str:
        await ctx.sleep(DAY)
        return "done"

    async def scenario() -> None:
        async with box_with(old, other) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(old, "large")
            await rt.with_options(id="b").start(other)
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[new, other])
            await box.clock.advance(DAY)
            assert await rt.run("b").result() == "done"
            [waiting] = await rt.waiting()
            assert waiting.id == "a"
            assert "int" in (waiting.waits_on or "")
            rt = await box.close_and_reopen(workflows=[old, other])
            await rt.run("a").result()

    play(scenario)


def test_a_run_whose_workflow_is_missing_waits_for_its_code_and_sleepers_behind_it_wake() -> None:
    @workflow(name="gone")
    async def gone(ctx: Context) -> str:
        await ctx.sleep(DAY)
        return "back"

    @workflow(name="here")
    async def here(ctx: Context) -> str:
        await ctx.sleep(3 * DAY)
        return "done"

    async def scenario() -> None:
        async with box_with(gone, here) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(gone)
            await rt.with_options(id="b").start(here)
            await box.clock.advance(1)
            rt = await box.crash_and_reopen(workflows=[here])
            await box.clock.advance(2 * DAY)
            [first, second] = await rt.waiting()
            assert "gone" in (first.waits_on or "")
            assert second.id == "b"
            rt = await box.crash_and_reopen(workflows=[here])
            await box.clock.advance(DAY)
            assert await rt.run("b").result() == "done"
            rt = await box.close_and_reopen(workflows=[gone, here])
            assert await rt.run("a").result() == "back"

    play(scenario)
