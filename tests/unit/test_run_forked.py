"""A fork begins where another run was before a step: it takes over what was finished, and makes the rest anew."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    ControlRefusedError,
    InvalidArgumentsError,
    RunBlockedError,
    RunConflictError,
    RunFailedError,
    RunHandle,
    Runtime,
    StepFailedError,
    ToolContext,
    UnknownRunError,
    UnknownStepError,
    Workflow,
    tool,
    workflow,
)
from tests.support.runs import DAY, HOUR, Box, box_with, disk_until, events, facts, on_both_logs, play, storage

calls: list[str] = []
keys: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    calls.clear()
    keys.clear()
    broken.clear()


@tool
async def work(context: ToolContext, name: str) -> str:
    calls.append(name)
    keys.append(context.idempotency_key)
    if name in broken:
        raise ConnectionError(f"{name} is down")
    return name


@tool
async def endless(name: str) -> str:
    calls.append(name)
    while broken:
        await asyncio.get_running_loop().create_future()
    return name


@tool
async def large(size: int) -> str:
    calls.append("large")
    return "x" * size


@workflow
async def in_turn(ctx: Context, last: str = "c") -> list[str]:
    return [await ctx.call(work, name) for name in ("a", "b", last)]


@workflow
async def everything(ctx: Context, name: str = "end") -> list[Any]:
    at, number = ctx.now(), ctx.random()

    async def waits() -> str:
        return await ctx.call(work, "w") + await ctx.signal("go", of=str)

    async def asks() -> str:
        return await ctx.ask("what?", of=str)

    async def naps(seconds: int) -> int:
        await ctx.sleep(seconds)
        await ctx.call(work, f"slept {seconds}")
        return seconds

    first = await ctx.gather(waits(), asks())
    second = await ctx.map(naps, [10, 7200, 20], concurrency=2)
    size = len(await ctx.call(large, 200_000))
    return [at.isoformat(), number, *first, *second, size, await ctx.call(work, name)]


async def ended(box: Box, rt: Runtime, run: str) -> Any:
    """Give a run all that it waits for, and return its result."""
    for _ in range(6):
        await box.clock.advance(HOUR)
        if (await rt.run(run).status()).is_closed:
            break
        for question in await rt.questions():
            await rt.run(question.run).answer(question.id, "this")
        await rt.run(run).signal("go", "!", id="one")
    return await rt.run(run).result()


async def started(box: Box, wf: Any, *args: Any) -> Runtime:
    rt = await box.open()
    await rt.with_options(id="r").start(wf, *args)
    await box.clock.settle()
    return rt


@on_both_logs
def test_a_fork_makes_its_step_and_what_follows_anew_with_the_changed_input(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(in_turn, on=storage(kind, tmp_path)) as box:
            rt = await started(box, in_turn)
            await rt.run("r").result()

            fork: RunHandle[Any] = await rt.run("r", in_turn).fork("work#3", changed={"last": "C"}, id="f", who="ada")
            assert await fork.result() == ["a", "b", "C"]
            assert await rt.run("r").result() == ["a", "b", "c"]
            [begun] = await events(rt, "f", "run-started")
            assert begun["forked_from"] == {"run": "r", "version": 5}
            assert begun["input"] == {"last": "C"}
            assert await facts(rt, "f") == [
                "run-started", "event-places-moved", "run-resumed", "step-started", "step-completed", "run-completed",
            ]  # fmt: skip
            assert (await rt.run("f").history(limit=1))[0].principal == "ada"

    play(scenario)

    assert calls == ["a", "b", "c", "C"]
    assert keys[-1] == "f:work#3"


@pytest.mark.parametrize("step", ["gather#1", "gather#1.0/signal#1", "map#1", "map#1.2/work#1", "large#1", "work#1"])
def test_a_fork_at_any_step_of_a_run_with_branches_timers_and_waits_comes_to_the_same(step: str) -> None:
    async def scenario() -> None:
        async with box_with(everything) as box:
            rt = await started(box, everything)
            expected = await ended(box, rt, "r")
            before = list(calls)
            await rt.run("r").fork(step, id="f")
            assert await ended(box, rt, "f") == expected
            again = calls[len(before) :]
            assert "end" in again
            if step in ("large#1", "work#1"):
                assert [c for c in again if c.startswith("slept")] == []
            assert ("large" in again) == (step != "work#1")

    play(scenario)


def test_a_fork_of_a_run_that_is_still_going_on_takes_what_is_finished() -> None:
    @workflow
    async def pair(ctx: Context) -> list[str]:
        async def one(name: str) -> str:
            return await ctx.call(work, name) + await ctx.call(endless, name.upper())

        return list(await ctx.gather(one("a"), one("b")))

    broken.add("for now")

    async def scenario() -> None:
        async with box_with(pair) as box:
            rt = await started(box, pair)
            broken.clear()
            fork: RunHandle[Any] = await rt.run("r").fork("gather#1.1/endless#1", id="f")
            assert await fork.result() == ["aA", "bB"]
            assert (await rt.run("r").status()).status == "running"

    play(scenario)

    assert calls == ["a", "b", "A", "B", "A", "B"]


def test_a_fork_of_a_fork_takes_over_from_both() -> None:
    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await started(box, in_turn)
            await (await rt.run("r").fork("work#2", id="f")).result()
            await (await rt.run("f").fork("work#3", id="g", changed={"last": "d"})).result()
            assert await rt.run("g").result() == ["a", "b", "d"]
            assert calls == ["a", "b", "c", "b", "c", "d"]

            # A step that the fork did not make itself: the new run comes from where it was made.
            await (await rt.run("g").fork("work#1", id="h")).result()
            [begun] = await events(rt, "h", "run-started")
            assert begun["forked_from"] == {"run": "r", "version": 1}
            assert begun["input"] == {"last": "d"}
            assert await rt.run("h").result() == ["a", "b", "d"]

    play(scenario)


def test_a_crash_after_any_event_of_a_fork_changes_nothing() -> None:
    async def scenario() -> None:
        whole = box_with(everything)
        rt = await started(whole, everything)
        await ended(whole, rt, "r")
        first = (await rt.run("r").history())[-1].position
        await (await rt.run("r").fork("map#1.2/work#1", id="f")).status()
        expected = await ended(whole, rt, "f")
        history = await rt.run("f").history()
        await (await rt.run("f").fork("large#1", id="g")).status()
        assert await ended(whole, rt, "g") == expected
        last = (await rt.run("g").history())[-1].position
        await whole.close()
        for position in range(max(first, history[0].position), last + 1):
            box = Box(disk_until(whole.storage, position), whole.clock, workflows=[everything])
            rt = await box.open()
            run = "g" if position > history[-1].position + 1 else "f"
            if await rt.run(run).history():
                assert await ended(box, rt, run) == expected, f"after a crash at {position}"
            await box.close()

    play(scenario)

    assert calls.count("slept 10") == 1


def test_an_input_that_changes_an_earlier_step_is_told_as_a_mismatch() -> None:
    @workflow
    async def named(ctx: Context, name: str) -> str:
        await ctx.call(work, name)
        return await ctx.call(work, "b")

    async def scenario() -> None:
        async with box_with(named) as box:
            rt = await started(box, named, "a")
            await rt.run("r").result()
            fork: RunHandle[Any] = await rt.run("r").fork("work#2", changed={"name": "other"})
            with pytest.raises(RunBlockedError, match="with other arguments"):
                await fork.result()

    play(scenario)

    assert calls == ["a", "b"]


def test_a_fork_from_the_failed_step_of_a_run_that_has_cleaned_up() -> None:
    @workflow
    async def tidies(ctx: Context) -> str:
        try:
            return await ctx.call(work, "a")
        except StepFailedError:
            await ctx.call(work, "tidied")
            raise

    broken.add("a")

    async def scenario() -> None:
        async with box_with(tidies) as box:
            rt = await started(box, tidies)
            with pytest.raises(RunFailedError):
                await rt.run("r").result()
            broken.clear()
            assert await (await rt.run("r").fork("work#1")).result() == "a"

    play(scenario)


def test_a_fork_of_a_retried_run_begins_at_the_last_time_that_the_step_was_made() -> None:
    broken.add("b")

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await started(box, in_turn)
            broken.clear()
            await rt.run("r").retry()
            await rt.run("r").result()
            for step in ("work#2", "work#3"):
                assert await (await rt.run("r").fork(step)).result() == ["a", "b", "c"]

    play(scenario)

    assert calls.count("a") == 1


def test_a_fork_can_be_forked_paused_retried_and_cancelled() -> None:
    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await started(box, in_turn)
            await rt.run("r").result()
            broken.add("c")
            fork: RunHandle[Any] = await rt.run("r").fork("work#2", id="f")
            with pytest.raises(RunFailedError):
                await fork.result()
            broken.clear()
            assert await fork.retry() == "work#3"
            assert await fork.result() == ["a", "b", "c"]

    play(scenario)

    assert calls == ["a", "b", "c", "b", "c", "c"]


def test_the_same_fork_twice_is_one_run_and_another_one_under_its_id_is_refused() -> None:
    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await started(box, in_turn)
            await rt.run("r").result()
            for _ in range(2):
                await rt.run("r").fork("work#3", id="f")
            with pytest.raises(RunConflictError, match="another origin"):
                await rt.run("r").fork("work#2", id="f")
            with pytest.raises(RunConflictError):
                await rt.with_options(id="f").start(in_turn, "c")
            assert await rt.run("f").result() == ["a", "b", "c"]

    play(scenario)


def test_a_fork_takes_a_deadline_of_its_own() -> None:
    async def scenario() -> None:
        async with box_with(everything) as box:
            rt = await started(box, everything)
            fork: RunHandle[Any] = await rt.run("r").fork("gather#1", deadline=timedelta(minutes=5))
            await box.clock.advance(HOUR)
            with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                await fork.result()

    play(scenario)


def test_what_cannot_be_forked_is_refused_and_nothing_is_written() -> None:
    @workflow
    async def careful(ctx: Context) -> None:
        try:
            await ctx.gather(ctx.sleep(DAY), ctx.call(endless, "long"))
        finally:
            await ctx.call(work, "tidied")

    broken.add("for now")

    async def scenario() -> None:
        async with box_with(careful, in_turn) as box:
            rt = await started(box, careful)
            await rt.run("r").cancel()
            await box.clock.settle()
            await rt.with_options(id="t").start(in_turn)
            await rt.run("t").result()
            before = (await rt.statistics()).log.position

            with pytest.raises(ControlRefusedError, match="being cancelled"):
                await rt.run("r").fork("work#1")
            with pytest.raises(UnknownStepError, match=r"no step 'work#9'; it has work#1, work#2, work#3"):
                await rt.run("t").fork("work#9")
            with pytest.raises(UnknownRunError):
                await rt.run("nobody").fork("work#1")
            with pytest.raises(InvalidArgumentsError):
                await rt.run("t").fork("work#1", changed={"nonsense": 1})
            with pytest.raises(InvalidArgumentsError):
                await rt.run("t").fork("work#1", changed={"last": 1})
            assert (await rt.statistics()).log.position == before

    play(scenario)


def test_a_fork_in_the_middle_of_cleaning_up_after_a_failure_is_refused() -> None:
    @workflow
    async def tidies_beside(ctx: Context) -> None:
        async def careful() -> None:
            try:
                await ctx.sleep(DAY)
            finally:
                await ctx.call(work, "undo")

        await ctx.gather(careful(), ctx.call(work, "a"))

    broken.add("a")

    async def scenario() -> None:
        async with box_with(tidies_beside) as box:
            rt = await started(box, tidies_beside)
            with pytest.raises(ControlRefusedError, match="cleaning up by then"):
                await rt.run("r").fork("gather#1.0/work#1")

    play(scenario)


def test_a_fork_from_after_the_deadline_is_refused_where_nothing_but_the_time_says_that_it_cleaned_up() -> None:
    gate = asyncio.Event()

    @tool
    async def gated() -> None:
        await gate.wait()

    @workflow
    async def tidies_late(ctx: Context) -> None:
        try:
            await ctx.call(gated)
            await ctx.sleep(DAY)
        finally:
            await ctx.call(work, "undo")

    async def scenario() -> None:
        async with box_with(tidies_late, tools=[gated, work]) as box:
            rt = await box.open()
            await rt.with_options(id="r", deadline=HOUR).start(tidies_late)
            await rt.run("r").pause()
            gate.set()  # it ends, and what comes next is not begun before the deadline
            await box.clock.advance(HOUR)
            assert (await rt.run("r").status()).error_type == "DeadlineExceededError"
            first, last = await rt.run("r").checkpoints()

            with pytest.raises(ControlRefusedError, match="its deadline had passed by then"):
                await rt.run("r").fork("work#1")
            with pytest.raises(ControlRefusedError, match="its deadline had passed by then"):
                await rt.run("r").fork(checkpoint=last.id)
            fork: RunHandle[Any] = await rt.run("r").fork(checkpoint=first.id)
            await box.clock.advance(DAY)
            await fork.result()

    play(scenario)


def test_a_fork_of_a_run_whose_code_is_not_loaded_waits_for_it() -> None:
    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await started(box, in_turn)
            await rt.run("r").result()
            rt = await box.close_and_reopen(workflows=[])
            await rt.run("r").fork("work#3", id="f")
            await box.clock.settle()
            rt = await box.close_and_reopen(workflows=[in_turn])
            assert await rt.run("f").result() == ["a", "b", "c"]

    play(scenario)

    assert calls == ["a", "b", "c", "c"]


def test_new_code_that_fits_the_finished_steps_runs_in_a_fork() -> None:
    async def mended(ctx: Context, last: str = "c") -> str:
        await ctx.call(work, "a")
        await ctx.call(work, "b")
        return last.upper()

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await started(box, in_turn)
            await rt.run("r").result()
            rt = await box.close_and_reopen(workflows=[Workflow(mended, "in_turn")])
            assert await (await rt.run("r").fork("work#3")).result() == "C"

    play(scenario)
