"""Checkpoints: each place at which a run had finished something has an id of its own, and runs begin at any of them."""

from typing import Any

import pytest

from perdure import (
    Checkpoint,
    Context,
    ControlRefusedError,
    RunFailedError,
    RunHandle,
    Step,
    UnknownCheckpointError,
    UnknownRunError,
    UsageError,
    tool,
    workflow,
)
from tests.support.defined import Troupe, defined
from tests.support.runs import DAY, box_with, facts, play

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool
async def work(item: Any) -> Any:
    calls.append(item)
    return item


@workflow
async def twice(ctx: Context) -> list[int]:
    return [await ctx.call(work, number) for number in (1, 2)]


async def ended(run: RunHandle[Any]) -> list[Checkpoint]:
    await run.result()
    return await run.checkpoints()


@pytest.mark.row("A3-80")
def test_two_checkpoints_of_one_step_in_the_same_instant_are_two_and_the_latest_is_the_later_one() -> None:
    async def scenario() -> None:
        async with box_with(twice) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(twice)

            one, two = await ended(run)  # the clock has not moved

            assert one.at == two.at
            assert (one.id, two.id, one.step, two.step) == (f"r#{one.version}", f"r#{two.version}", "work#1", "work#2")
            assert one.id != two.id
            assert await run.checkpoint(one.id) == one
            assert await run.checkpoint(two.id) == two
            assert (await run.checkpoints())[-1].step == "work#2"

            calls.clear()
            assert await (await run.fork(checkpoint=one.id)).result() == [1, 2]
            assert calls == [2]
            calls.clear()
            assert await (await run.fork(checkpoint=two.id)).result() == [1, 2]
            assert calls == []

    play(scenario)


@pytest.mark.row("A3-80")
def test_checkpoints_are_the_same_ones_after_a_restart() -> None:
    async def scenario() -> None:
        async with box_with(twice) as box:
            rt = await box.open()
            before = await ended(await rt.with_options(id="r").start(twice))
            rt = await box.crash_and_reopen()

            assert await rt.run("r").checkpoints() == before

    play(scenario)


@pytest.mark.row("A3-81")
def test_there_is_one_after_a_jump_after_each_branch_and_after_the_last_step() -> None:
    routed = {
        "id": "w",
        "pattern": "conditional",
        "steps": [
            {"id": "a", "agent": "ada", "next": {"condition": {"if": "far"}, "true": "c", "default": "b"}},
            {"id": "b", "agent": "ada"},
            {"id": "c", "agent": "ada"},
        ],
    }
    fanned = defined("fan_out_fan_in", Step(id="x", agent="ada"), Step(id="y", agent="ada"))

    async def scenario(definition: Any) -> list[tuple[str, str]]:
        troupe = Troupe()
        troupe.agent("ada", {})
        async with troupe.box(definition) as box:
            rt = await box.open()
            run = await rt.start(rt.workflows["w"], {"far": True})
            found = await ended(run)
            assert await (await run.fork(checkpoint=found[-1].id)).result() is not None
            return [(one.type, one.step) for one in found]

    jumped = play(lambda: scenario(routed))
    beside = play(lambda: scenario(fanned))

    assert jumped == [
        ("step-completed", "a"), ("path-taken", "path#1"), ("step-completed", "c"), ("path-taken", "path#2"),
    ]  # fmt: skip
    assert [(kind, step.rpartition("/")[2]) for kind, step in beside] == [
        ("step-completed", "x"), ("step-completed", "y"),
    ]  # fmt: skip


@pytest.mark.row("A3-81")
def test_whatever_finishes_something_is_one() -> None:
    @workflow
    async def everything(ctx: Context) -> None:
        await ctx.call(work, 1)
        await ctx.sleep(5)
        await ctx.signal("go", of=str)
        await ctx.ask("go?", of=str)
        await ctx.pause("here")
        await ctx.publish("news", 1)
        await ctx.event("news")
        await ctx.gather(ctx.call(work, 2), ctx.call(work, 3))
        await ctx.race(ctx.call(work, 4))
        await ctx.run(twice)

    async def scenario() -> list[str]:
        async with box_with(everything, twice) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(everything)
            await run.signal("go", "x")
            await box.clock.advance(10)
            await rt.inject_input("r", "yes")
            await box.clock.settle()
            await run.resume()
            return [one.type for one in await ended(run)]

    assert play(scenario) == [
        "step-completed", "timer-fired", "signal-taken", "question-answered", "pause-reached", "pause-resumed",
        "event-sent", "event-taken", "step-completed", "step-completed", "step-completed", "race-won", "child-ended",
    ]  # fmt: skip


@pytest.mark.row("A3-82")
def test_a_checkpoint_that_is_not_there_is_an_error_and_nothing_is_started() -> None:
    async def scenario() -> None:
        async with box_with(twice) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(twice)
            other: RunHandle[Any] = await rt.with_options(id="other").start(twice)
            found = await ended(run)
            elsewhere = (await ended(other))[0].id
            before = await rt.waiting()
            for wrong in ("r#999", "r#0", "r#2", "cp_node_complete_a", elsewhere):
                with pytest.raises(UnknownCheckpointError, match=f"its latest is {found[-1].id}"):
                    await run.fork(checkpoint=wrong)
                with pytest.raises(UnknownCheckpointError):
                    await run.checkpoint(wrong)
            assert await rt.waiting() == before
            with pytest.raises(UnknownRunError):
                await rt.run("nobody").fork(checkpoint="nobody#3")
            with pytest.raises(UnknownRunError):
                await rt.run("nobody").checkpoints()

    play(scenario)


def test_a_fork_says_one_place() -> None:
    async def scenario() -> None:
        async with box_with(twice) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(twice)
            [one, _] = await ended(run)
            with pytest.raises(UsageError, match="say one of"):
                await run.fork()
            with pytest.raises(UsageError, match="say one of"):
                await run.fork("work#1", checkpoint=one.id)

    play(scenario)


def test_a_fork_has_the_checkpoints_that_it_takes_over_and_can_be_forked_at_them() -> None:
    async def scenario() -> None:
        async with box_with(twice) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(twice)
            [one, _] = await ended(run)
            fork = await run.fork(checkpoint=one.id, id="fork")
            found = await ended(fork)
            assert [each.run for each in found] == ["r", "fork"]

            calls.clear()
            assert await (await fork.fork(checkpoint=one.id)).result() == [1, 2]
            assert await (await fork.fork(checkpoint=found[1].id)).result() == [1, 2]
            assert calls == [2]

    play(scenario)


def test_a_run_that_failed_begins_again_at_its_last_checkpoint() -> None:
    @workflow
    async def fragile(ctx: Context) -> Any:
        await ctx.call(work, "a")
        if not await ctx.call(work, "b"):
            raise AssertionError
        raise RuntimeError("the code is wrong")

    @workflow(name="fragile")
    async def mended(ctx: Context) -> Any:
        await ctx.call(work, "a")
        return await ctx.call(work, "b")

    async def scenario() -> None:
        async with box_with(fragile) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(fragile)
            with pytest.raises(RunFailedError):
                await run.result()
            await box.close()
            rt = await box.open(workflows=[mended])
            run = rt.run("r")
            calls.clear()
            fork = await run.fork(checkpoint=(await run.checkpoints())[-1].id)

            assert await fork.result() == "b"
            assert calls == []

    play(scenario)


def test_a_run_begins_where_another_one_had_paused_itself_and_asks_for_an_answer_of_its_own() -> None:
    @workflow
    async def reviewed(ctx: Context) -> list[Any]:
        draft = await ctx.call(work, "draft")
        first, _ = await ctx.gather(ctx.pause("review"), ctx.call(work, "beside"))
        return [draft, first, await ctx.pause("again")]

    async def scenario() -> None:
        async with box_with(reviewed) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(reviewed)
            for said in ("yes", "no"):
                await box.clock.settle()
                await run.resume(said)
            every = await ended(run)
            assert [one.type for one in every].count("pause-reached") == 2
            for number, one in enumerate(every):
                calls.clear()
                fork = await run.fork(checkpoint=one.id, id=f"fork-{number}")
                await box.clock.settle()
                while (view := await fork.status()).status == "paused":
                    await fork.resume("yes" if view.paused_at == "review" else "no")
                    await box.clock.settle()
                assert await fork.result() == ["draft", "yes", "no"], one
                assert "draft" not in calls

    play(scenario)


def test_no_run_begins_where_another_one_was_cleaning_up() -> None:
    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.sleep(DAY)
        finally:
            await ctx.call(work, "clean")

    async def scenario() -> None:
        async with box_with(tidy) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(tidy)
            await box.clock.settle()
            await run.cancel()
            await box.clock.settle()
            [one] = await run.checkpoints()
            assert one.step == "work#1"
            with pytest.raises(ControlRefusedError, match="being cancelled"):
                await run.fork(checkpoint=one.id)
            assert "run-cancelled" in await facts(rt, "r")

    play(scenario)
