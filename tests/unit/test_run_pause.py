"""Pause: steps in flight end, nothing new begins and nothing wakes the run; what comes meanwhile is kept."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    ControlRefusedError,
    Retry,
    RunCancelledError,
    RunClosedError,
    RunFailedError,
    RunHandle,
    Runtime,
    StepFailedError,
    UnknownRunError,
    tool,
    workflow,
)
from tests.support.runs import DAY, HOUR, MINUTE, Box, box_with, events, facts, on_both_logs, play, storage

calls: list[str] = []
gates: dict[str, "asyncio.Future[None]"] = {}


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    calls.clear()
    gates.clear()


@tool
async def slow(name: str) -> str:
    """Begin, and return when the test opens the gate."""
    calls.append(f"{name} begins")
    gates[name] = asyncio.get_running_loop().create_future()
    await gates[name]
    calls.append(f"{name} ends")
    return name


@tool
async def quick(name: str) -> str:
    calls.append(name)
    return name


@workflow
async def two_steps(ctx: Context) -> str:
    first = await ctx.call(slow, "first")
    return first + await ctx.call(quick, "second")


@workflow
async def fan(ctx: Context) -> list[str]:
    async def one(name: str) -> str:
        return await ctx.call(slow, name) + await ctx.call(quick, name)

    return list(await ctx.gather(one("a"), one("b"), ctx.call(quick, "c")))


@workflow
async def asks(ctx: Context) -> str:
    await ctx.call(quick, "before")
    answer = await ctx.ask("go on?", of=str, timeout=DAY)
    return answer + await ctx.signal("go", of=str)


@workflow
async def naps(ctx: Context) -> str:
    await ctx.sleep(HOUR)
    return await ctx.call(quick, "awake")


@workflow
async def tidy(ctx: Context) -> str:
    try:
        return await ctx.call(slow, "work")
    finally:
        await ctx.call(quick, "tidied")


async def started(box: Box, wf: Any, **options: Any) -> Runtime:
    rt = await box.open()
    await rt.with_options(id="r", **options).start(wf)
    await box.clock.settle()
    return rt


@on_both_logs
def test_a_step_in_flight_ends_and_no_other_one_begins_until_the_run_is_resumed(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(two_steps, on=storage(kind, tmp_path)) as box:
            rt = await started(box, two_steps)
            run = rt.run("r", two_steps)

            assert await run.pause("look at it first", who="ada") is True
            gates["first"].set_result(None)
            await box.clock.settle()
            view = await run.status()
            assert (view.status, view.paused, view.steps_done, view.in_flight) == ("paused", "look at it first", 1, ())
            assert calls == ["first begins", "first ends"]

            assert await run.resume(who="bob") is True
            assert await run.result() == "firstsecond"
            assert await facts(rt, "r") == [
                "run-started", "step-started", "run-paused", "step-completed", "run-parked", "run-unpaused",
                "run-parked", "run-resumed", "step-started", "step-completed", "run-completed",
            ]  # fmt: skip
            who = [e.principal for e in await run.history() if e.type in ("run-paused", "run-unpaused")]
            assert who == ["ada", "bob"]

    play(scenario)

    assert calls == ["first begins", "first ends", "second"]


def test_every_branch_ends_the_step_that_it_is_at() -> None:
    async def scenario() -> None:
        async with box_with(fan) as box:
            rt = await started(box, fan)
            await rt.run("r").pause()
            for name in ("a", "b"):
                gates[name].set_result(None)
                await box.clock.settle()
            assert calls == ["a begins", "b begins", "c", "a ends", "b ends"]

            await rt.run("r").resume()
            assert await rt.run("r").result() == ["aa", "bb", "c"]

    play(scenario)

    assert calls.count("a") == calls.count("b") == calls.count("c") == 1


def test_pausing_twice_and_resuming_twice_change_nothing() -> None:
    async def scenario() -> None:
        async with box_with(naps) as box:
            rt = await started(box, naps)
            run: RunHandle[Any] = rt.run("r")
            assert [await run.pause("one"), await run.pause("two")] == [True, False]
            assert (await run.status()).paused == "one"
            assert [await run.resume(), await run.resume()] == [True, False]
            await box.clock.settle()
            assert (await run.status()).status == "waiting"

    play(scenario)


@pytest.mark.parametrize("restarts", [False, True])
def test_time_does_not_wake_a_paused_run(restarts: bool) -> None:
    async def scenario() -> None:
        async with box_with(naps) as box:
            rt = await started(box, naps)
            await rt.run("r").pause()
            if restarts:
                rt = await box.close_and_reopen()
            await box.clock.advance(7200)
            assert calls == []
            [waiting] = await rt.waiting()
            assert (waiting.wake_at, waiting.waits_on) == (None, "resume")

            await rt.run("r").resume()
            assert await rt.run("r").result() == "awake"  # its hour had passed

    play(scenario)


@pytest.mark.parametrize("restarts", [False, True])
def test_an_answer_and_a_signal_are_kept_for_the_paused_run(restarts: bool) -> None:
    async def scenario() -> None:
        async with box_with(asks) as box:
            rt = await started(box, asks)
            await rt.run("r").pause()
            await rt.run("r").answer("r:ask#1", "yes")
            await rt.run("r").signal("go", "!")
            await box.clock.settle()
            assert await events(rt, "r", "signal-taken") == []
            if restarts:
                rt = await box.close_and_reopen()
                await box.clock.advance(HOUR)
            assert len(rt._engine) == 0

            await rt.run("r").resume()
            assert await rt.run("r").result() == "yes!"

    play(scenario)

    assert calls == ["before"]


def test_a_question_expires_while_its_run_is_paused() -> None:
    async def scenario() -> None:
        async with box_with(asks) as box:
            rt = await started(box, asks)
            await rt.run("r").pause()
            await box.clock.advance(2 * DAY)
            await rt.run("r").resume()
            with pytest.raises(RunFailedError, match="nobody answered in time"):
                await rt.run("r").result()

    play(scenario)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("wf", [naps, asks, two_steps])
def test_the_deadline_of_a_paused_run_counts(wf: Any, restarts: bool) -> None:
    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await started(box, wf, deadline=3 * HOUR)
            await rt.run("r").pause()
            if "first" in gates:
                gates["first"].set_result(None)
            await box.clock.settle()
            if restarts:
                rt = await box.close_and_reopen()
            await box.clock.advance(7200)
            assert (await rt.run("r").status()).status == "paused"
            await box.clock.advance(7200)
            with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                await rt.run("r").result()

    play(scenario)


def test_the_deadline_ends_a_step_that_a_pause_waits_for() -> None:
    async def scenario() -> None:
        async with box_with(tidy) as box:
            rt = await started(box, tidy, deadline=HOUR)
            await rt.run("r").pause()
            await box.clock.advance(7200)
            with pytest.raises(RunFailedError, match="DeadlineExceededError"):
                await rt.run("r").result()

    play(scenario)

    assert calls == ["work begins", "tidied"]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("wf", [naps, asks])
def test_a_cancel_ends_the_pause_of_a_run_that_waits(wf: Any, restarts: bool) -> None:
    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await started(box, wf)
            await rt.run("r").pause()
            if restarts:
                rt = await box.close_and_reopen()
            assert await rt.run("r").cancel("enough") is True
            with pytest.raises(RunCancelledError, match="enough"):
                await rt.run("r").result()

    play(scenario)


@pytest.mark.parametrize("order", ["pause first", "cancel first", "at once"])
def test_a_pause_beside_a_cancel_leaves_the_run_cancelled_and_tidy(order: str) -> None:
    async def scenario() -> None:
        async with box_with(tidy) as box:
            rt = await started(box, tidy)
            run: RunHandle[Any] = rt.run("r")
            match order:
                case "pause first":
                    await run.pause()
                    await run.cancel("enough")
                case "cancel first":
                    await run.cancel("enough")
                    with pytest.raises((ControlRefusedError, RunClosedError)):
                        await run.pause()
                case _:
                    outcomes = await asyncio.gather(run.pause(), run.cancel("enough"))
                    assert list(outcomes) == [True, True]
            await box.clock.settle()
            with pytest.raises(RunCancelledError, match="enough"):
                await run.result()

    play(scenario)

    assert calls == ["work begins", "tidied"]


def test_a_run_that_is_resumed_before_its_step_has_ended_goes_on_when_it_has() -> None:
    async def scenario() -> None:
        async with box_with(fan) as box:
            rt = await started(box, fan)
            await rt.run("r").pause()
            gates["a"].set_result(None)
            await box.clock.settle()
            await rt.run("r").resume()
            await box.clock.settle()
            assert (await rt.run("r").status()).status == "running"
            gates["b"].set_result(None)
            assert await rt.run("r").result() == ["aa", "bb", "c"]

    play(scenario)

    assert calls.count("b begins") == 1


def test_a_run_that_is_paused_before_its_code_has_begun_does_not_begin() -> None:
    async def scenario() -> None:
        async with box_with(two_steps) as box:
            rt = await box.open()
            start, pause = rt.with_options(id="r").start(two_steps), None
            task = asyncio.create_task(start)
            await asyncio.sleep(0)
            pause = rt.run("r").pause()
            await asyncio.gather(task, pause)
            await box.clock.settle()
            assert [c for c in calls if c != "first begins"] == []
            if "first" in gates:
                gates["first"].set_result(None)
            await box.clock.settle()
            assert (await rt.run("r").status()).status == "paused"
            assert "second" not in calls

    play(scenario)


def test_a_stop_while_a_pause_waits_for_a_step_leaves_the_run_paused() -> None:
    async def scenario() -> None:
        async with box_with(two_steps) as box:
            rt = await started(box, two_steps)
            await rt.run("r").pause("wait")
            rt = await box.close_and_reopen()
            await box.clock.advance(HOUR)
            assert (await rt.run("r").status()).status == "paused"
            assert calls == ["first begins"]

            await rt.run("r").resume()
            await box.clock.settle()
            gates["first"].set_result(None)
            assert await rt.run("r").result() == "firstsecond"

    play(scenario)


def test_a_verdict_is_kept_for_the_paused_run() -> None:
    @tool(effect="irreversible")
    async def pay() -> str:
        calls.append("pay")
        await asyncio.get_running_loop().create_future()
        return "paid"

    @workflow
    async def buys(ctx: Context) -> str:
        return await ctx.call(pay)

    async def scenario() -> None:
        async with box_with(buys) as box:
            rt = await started(box, buys)
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            await rt.run("r").pause()
            await rt.run("r").settle_done("pay#1", "found")
            await box.clock.settle()
            view = await rt.run("r").status()
            assert (view.status, view.in_doubt, view.steps_done) == ("paused", (), 1)
            await rt.run("r").resume()
            assert await rt.run("r").result() == "found"

    play(scenario)

    assert calls == ["pay"]


def test_a_retry_of_a_step_waits_for_the_resume() -> None:
    tries: list[int] = []

    @tool(retry=Retry(attempts=3, backoff=MINUTE))
    async def flaky() -> int:
        tries.append(len(tries))
        if len(tries) == 1:
            raise ValueError("not yet")
        return len(tries)

    @workflow
    async def tries_again(ctx: Context) -> int:
        return await ctx.call(flaky)

    async def scenario() -> None:
        async with box_with(tries_again) as box:
            rt = await started(box, tries_again)
            await rt.run("r").pause()
            await box.clock.advance(HOUR)
            assert tries == [0]
            await rt.run("r").resume()
            assert await rt.run("r").result() == 2

    play(scenario)


def test_a_run_that_has_ended_cannot_be_paused_or_resumed() -> None:
    @workflow
    async def nothing(ctx: Context) -> None:
        del ctx

    async def scenario() -> None:
        async with box_with(nothing) as box:
            rt = await started(box, nothing)
            for refused in (rt.run("r").pause(), rt.run("r").resume()):
                with pytest.raises(RunClosedError, match="run r is completed"):
                    await refused
            with pytest.raises(UnknownRunError):
                await rt.run("nobody").pause()

    play(scenario)


def test_a_run_whose_deadline_has_passed_is_not_paused_while_it_cleans_up() -> None:
    @workflow
    async def lingers(ctx: Context) -> None:
        try:
            await ctx.sleep(DAY)
        finally:
            await ctx.call(slow, "cleaning")

    async def scenario() -> None:
        async with box_with(lingers) as box:
            rt = await started(box, lingers, deadline=MINUTE)
            await box.clock.advance(timedelta(minutes=2))
            with pytest.raises(ControlRefusedError, match="its deadline has passed"):
                await rt.run("r").pause()
            gates["cleaning"].set_result(None)
            with pytest.raises(RunFailedError):
                await rt.run("r").result()

    play(scenario)


def test_code_that_catches_everything_does_not_see_the_pause() -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except (Exception, StepFailedError, asyncio.CancelledError):  # noqa: BLE001 - what it is about
            return "disturbed"
        return "slept"

    async def scenario() -> None:
        async with box_with(stubborn) as box:
            rt = await started(box, stubborn)
            await rt.run("r").pause()
            await box.clock.advance(HOUR)
            await rt.run("r").resume()
            assert await rt.run("r").result() == "slept"

    play(scenario)
