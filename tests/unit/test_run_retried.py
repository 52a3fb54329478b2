"""A failed run is tried again from the step that it failed of; what it had finished is not made again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    ControlRefusedError,
    RunBlockedError,
    RunFailedError,
    Runtime,
    StepFailedError,
    UnknownRunError,
    Workflow,
    tool,
    workflow,
)
from tests.support.runs import DAY, HOUR, Box, box_with, disk_until, events, facts, play

calls: list[str] = []
broken: set[str] = set()
"""What fails for now."""


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    calls.clear()
    broken.clear()


@tool
async def work(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise ConnectionError(f"{name} is down")
    return name


@tool
async def endless(name: str) -> str:
    """Hang until nothing is broken any more."""
    calls.append(name)
    while broken:
        await asyncio.get_running_loop().create_future()
    return name


@tool(effect="irreversible")
async def pay(name: str) -> str:
    calls.append(name)
    if broken:
        await asyncio.get_running_loop().create_future()
    return name


@workflow
async def in_turn(ctx: Context) -> list[str]:
    return [await ctx.call(work, name) for name in ("a", "b", "c")]


@workflow
async def beside(ctx: Context) -> list[Any]:
    async def waits() -> str:
        await ctx.call(work, "before")
        return await ctx.signal("go", of=str)

    async def asks() -> str:
        return await ctx.ask("what?", of=str)

    async def naps() -> str:
        await ctx.sleep(HOUR)
        return await ctx.call(work, "after")

    async def fails() -> str:
        await ctx.sleep(10)
        return await ctx.call(work, "b")

    return list(await ctx.gather(waits(), asks(), naps(), ctx.call(endless, "long"), fails()))


async def failed(box: Box, wf: Any, *args: Any, **options: Any) -> Runtime:
    """Start run r, which fails."""
    rt = await box.open()
    await rt.with_options(id="r", **options).start(wf, *args)
    await box.clock.advance(60)
    with pytest.raises(RunFailedError):
        await rt.run("r").result()
    return rt


@pytest.mark.parametrize("restarts", [False, True])
def test_a_failed_run_goes_on_from_its_failed_step(restarts: bool) -> None:
    broken.add("b")

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await failed(box, in_turn)
            broken.clear()
            if restarts:
                rt = await box.crash_and_reopen()

            assert await rt.run("r").retry(who="ada") == "work#2"
            assert await rt.run("r").result() == ["a", "b", "c"]
            assert (await rt.run("r").status()).steps_done == 3
            [retried] = [e for e in await rt.run("r").history() if e.type == "run-retried"]
            assert retried.principal == "ada"

    play(scenario)

    assert calls == ["a", "b", "b", "c"]


def test_a_run_may_fail_and_be_retried_again_and_again() -> None:
    broken.update("bc")

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await failed(box, in_turn)
            assert await rt.run("r").retry() == "work#2"
            with pytest.raises(RunFailedError, match="b is down"):
                await rt.run("r").result()
            broken.discard("b")
            assert await rt.run("r").retry() == "work#2"
            with pytest.raises(RunFailedError, match="c is down"):
                await rt.run("r").result()
            broken.clear()
            assert await rt.run("r").retry() == "work#3"
            assert await rt.run("r").result() == ["a", "b", "c"]

    play(scenario)

    assert calls == ["a", "b", "b", "b", "c", "c"]


def test_the_retried_step_may_have_other_arguments_in_the_new_code() -> None:
    async def mended(ctx: Context) -> list[str]:
        return [await ctx.call(work, name) for name in ("a", "B", "c")]

    broken.add("b")

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            await failed(box, in_turn)
            rt = await box.close_and_reopen(workflows=[Workflow(mended, "in_turn")])
            await rt.run("r").retry()
            assert await rt.run("r").result() == ["a", "B", "c"]

    play(scenario)


def test_branches_beside_the_failed_step_go_on_where_they_were() -> None:
    broken.add("b")

    async def scenario() -> None:
        async with box_with(beside) as box:
            rt = await failed(box, beside)
            broken.clear()
            assert await rt.run("r").retry() == "gather#1.4/work#1"
            await box.clock.advance(2 * HOUR)
            await rt.run("r").signal("go", "went")
            [question] = await rt.questions()
            await rt.run("r").answer(question.id, "this")

            assert await rt.run("r").result() == ["went", "this", "after", "long", "b"]
            view = await rt.run("r").status()
            assert view.steps_done == 4
            timers = await events(rt, "r", "timer-set")
            assert len(timers) == 2  # the sleep of an hour went on as it was

    play(scenario)

    assert sorted(calls) == ["after", "b", "b", "before", "long", "long"]


def test_a_crash_after_any_event_of_a_retried_run_changes_nothing() -> None:
    broken.add("b")

    async def scenario() -> None:
        whole = box_with(beside)
        rt = await failed(whole, beside)
        broken.clear()
        failed_at = (await rt.run("r").history())[-1].position
        await rt.run("r").retry()
        expected = await finished(whole, rt)
        last = (await rt.run("r").history())[-1].position
        await whole.close()
        for position in range(failed_at, last + 1):
            box = Box(disk_until(whole.storage, position), whole.clock, workflows=[beside])
            rt = await box.open()
            if (await rt.run("r").status()).status == "failed":
                await rt.run("r").retry()
            assert await finished(box, rt) == expected, f"after a crash at {position}"
            await box.close()

    play(scenario)

    assert calls.count("before") == 1


async def finished(box: Box, rt: Runtime) -> Any:
    """Give the run all that it waits for, and return its result."""
    for _ in range(4):
        await box.clock.advance(HOUR)
        if (await rt.run("r").status()).is_closed:
            break
        await rt.run("r").signal("go", "went", id="one")
        for question in await rt.questions():
            await rt.run("r").answer(question.id, "this")
    return await rt.run("r").result()


def test_an_irreversible_step_that_was_cancelled_is_in_doubt_and_not_made_again() -> None:
    @workflow
    async def buys(ctx: Context) -> list[str]:
        return list(await ctx.gather(ctx.call(pay, "pay"), ctx.call(work, "b")))

    broken.add("b")

    async def scenario() -> None:
        async with box_with(buys) as box:
            rt = await failed(box, buys)
            broken.clear()
            await rt.run("r").retry()
            await box.clock.settle()
            assert (await rt.run("r").status()).in_doubt == ("gather#1.0/pay#1",)
            await rt.run("r").settle_done("gather#1.0/pay#1", "found")
            assert await rt.run("r").result() == ["found", "b"]

    play(scenario)

    assert calls == ["pay", "b", "b"]


def test_steps_that_failed_beside_it_are_made_again_too() -> None:
    @workflow
    async def fan(ctx: Context) -> list[str]:
        return list(await ctx.gather(*(ctx.call(work, name) for name in "abc")))

    broken.update("bc")

    async def scenario() -> None:
        async with box_with(fan) as box:
            rt = await failed(box, fan)
            broken.clear()
            assert await rt.run("r").retry() == "gather#1.1/work#1"
            assert await rt.run("r").result() == ["a", "b", "c"]

    play(scenario)

    assert calls == ["a", "b", "c", "b", "c"]


def test_a_map_within_a_gather_is_retried() -> None:
    @workflow
    async def nested(ctx: Context) -> list[Any]:
        async def one(name: str) -> str:
            return await ctx.call(work, name)

        async def inner() -> list[str]:
            return await ctx.map(one, ["a", "b", "c", "d"], concurrency=2)

        return list(await ctx.gather(inner(), one("e")))

    broken.add("c")

    async def scenario() -> None:
        async with box_with(nested) as box:
            rt = await failed(box, nested)
            broken.clear()
            await rt.run("r").retry()
            assert await rt.run("r").result() == [["a", "b", "c", "d"], "e"]

    play(scenario)

    assert [calls.count(name) for name in "abce"] == [1, 1, 2, 1]


def test_an_error_that_the_code_makes_of_a_failure_leads_to_the_step() -> None:
    class OrderError(Exception):
        pass

    @workflow
    async def wraps(ctx: Context) -> str:
        try:
            return await ctx.call(work, "a")
        except StepFailedError:
            raise OrderError("no order") from None

    broken.add("a")

    async def scenario() -> None:
        async with box_with(wraps) as box:
            rt = await failed(box, wraps)
            broken.clear()
            assert await rt.run("r").retry() == "work#1"
            assert await rt.run("r").result() == "a"

    play(scenario)


def test_an_error_of_the_code_alone_is_retried_with_new_code_from_where_it_raised() -> None:
    async def old(ctx: Context) -> str:
        found, _ = await ctx.gather(stumbling(ctx), ctx.call(endless, "long"))
        return found

    async def stumbling(ctx: Context) -> str:
        name = await ctx.call(work, "a")
        await ctx.sleep(1)
        if broken:
            raise KeyError(name)
        return name

    broken.add("code")

    async def scenario() -> None:
        wf = Workflow(old, "stumbles")
        async with box_with(wf) as box:
            rt = await failed(box, wf)
            broken.clear()
            assert await rt.run("r").retry() is None
            await box.clock.advance(5)
            assert await rt.run("r").result() == "a"

    play(scenario)

    assert calls.count("a") == 1


def test_a_signal_that_nobody_took_before_the_failure_is_there_for_the_retry() -> None:
    @workflow
    async def takes(ctx: Context) -> str:
        await ctx.call(work, "a")
        return await ctx.signal("go", of=str)

    broken.add("a")

    async def scenario() -> None:
        async with box_with(takes) as box:
            rt = await box.open()
            run, *_ = await asyncio.gather(rt.with_options(id="r").start(takes), asyncio.sleep(0))
            with pytest.raises(RunFailedError):
                await run.result()
            assert await facts(rt, "r") == ["run-started", "step-started", "step-failed", "run-failed"]
            broken.clear()
            await run.retry()
            await run.signal("go", "went")
            assert await run.result() == "went"

    play(scenario)


@pytest.mark.parametrize("how", ["compensates", "notes the time", "in a branch beside"])
def test_a_run_that_has_gone_on_since_its_failure_is_not_retried(how: str) -> None:
    @workflow
    async def compensates(ctx: Context) -> str:
        try:
            return await ctx.call(work, "a")
        except StepFailedError:
            if how == "notes the time":
                ctx.now()
            elif how == "compensates":
                await ctx.call(work, "undo")
            raise

    @workflow
    async def tidies_beside(ctx: Context) -> None:
        async def careful() -> None:
            try:
                await ctx.sleep(DAY)
            finally:
                await ctx.call(work, "undo")

        await ctx.gather(careful(), ctx.call(work, "a"))

    broken.add("a")
    wf: Any = tidies_beside if how == "in a branch beside" else compensates

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await failed(box, wf)
            before = await facts(rt, "r")
            with pytest.raises(ControlRefusedError, match=r"gone on since it failed, with .*(work|now)#.*: fork it"):
                await rt.run("r").retry()
            assert await facts(rt, "r") == before

    play(scenario)


def test_only_one_of_two_retries_at_once_is_recorded() -> None:
    broken.add("b")

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await failed(box, in_turn)
            broken.clear()
            outcomes = await asyncio.gather(rt.run("r").retry(), rt.run("r").retry(), return_exceptions=True)
            assert sum(isinstance(one, ControlRefusedError) for one in outcomes) == 1
            assert await rt.run("r").result() == ["a", "b", "c"]
            assert len(await events(rt, "r", "run-retried")) == 1

    play(scenario)


def test_a_retry_that_was_planned_before_the_run_failed_once_more_is_refused() -> None:
    broken.add("b")

    async def scenario() -> None:
        async with box_with(in_turn) as box:
            rt = await failed(box, in_turn)
            from perdure.runtime.steering import plan_of_retry  # noqa: PLC0415
            from perdure.store.records import stream_id  # noqa: PLC0415

            plan = await plan_of_retry(rt._system, "r")
            await rt.run("r").retry()
            with pytest.raises(RunFailedError):
                await rt.run("r").result()
            with pytest.raises(ControlRefusedError, match="retried a moment ago"):
                await rt.ask(stream_id("run/r"), plan)

    play(scenario)


def test_what_has_not_failed_is_not_retried() -> None:
    @workflow
    async def naps(ctx: Context) -> None:
        await ctx.sleep(DAY)

    async def scenario() -> None:
        async with box_with(naps, in_turn) as box:
            rt = await box.open()
            await rt.with_options(id="open").start(naps)
            await rt.with_options(id="cancelled").start(naps)
            await rt.with_options(id="late", deadline=HOUR).start(naps)
            await (await rt.with_options(id="done").start(in_turn)).result()
            await rt.run("cancelled").cancel()
            await box.clock.advance(timedelta(hours=2))
            for run, why in (
                ("open", "neither failed"), ("cancelled", "it is cancelled: fork"), ("done", "it is completed: fork"),
                ("late", "deadline has passed"),
            ):  # fmt: skip
                with pytest.raises(ControlRefusedError, match=why):
                    await rt.run(run).retry()
            with pytest.raises(UnknownRunError):
                await rt.run("nobody").retry()

    play(scenario)


def test_a_blocked_run_is_tried_again() -> None:
    async def other(ctx: Context) -> str:
        return await ctx.call(endless, "x")

    async def as_it_was(ctx: Context) -> str:
        await ctx.call(work, "a")
        await ctx.sleep(HOUR)
        return await ctx.call(work, "b")

    async def scenario() -> None:
        box = box_with(Workflow(as_it_was, "wf"))
        async with box:
            rt = await box.open()
            await rt.with_options(id="r").start(box_workflow(box))
            await box.clock.settle()
            rt = await box.close_and_reopen(workflows=[Workflow(other, "wf")])
            await box.clock.advance(HOUR)
            with pytest.raises(RunBlockedError):
                await rt.run("r").result()
            assert await rt.run("r").retry() is None
            with pytest.raises(RunBlockedError):
                await rt.run("r").result()

            rt = await box.close_and_reopen(workflows=[Workflow(as_it_was, "wf")], resume=False)
            await rt.run("r").retry()
            assert await rt.run("r").result() == "b"

    play(scenario)

    assert calls == ["a", "b"]


def box_workflow(box: Box) -> Any:
    return box.runtime._workflows["wf"]


def test_a_poisonous_run_is_tried_again_when_somebody_says_so() -> None:
    @workflow
    async def killer(ctx: Context) -> str:
        return await ctx.call(endless, "kills")

    broken.add("kills")

    async def scenario() -> None:
        async with box_with(killer) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(killer)
            await box.clock.settle()
            for _ in range(3):
                rt = await box.crash_and_reopen()
                await box.clock.settle()
            with pytest.raises(RunBlockedError, match="poison"):
                await rt.run("r").result()
            broken.clear()
            await rt.run("r").retry()
            assert await rt.run("r").result() == "kills"

    play(scenario)


def test_a_retried_run_can_be_paused_and_cancelled() -> None:
    broken.add("b")

    async def scenario() -> None:
        async with box_with(beside) as box:
            rt = await failed(box, beside)
            await rt.run("r").retry()
            await rt.run("r").pause()
            await box.clock.settle()
            await rt.run("r").cancel("enough")
            await box.clock.settle()
            assert (await rt.run("r").status()).status in ("cancelled", "failed")

    play(scenario)
