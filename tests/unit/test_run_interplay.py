"""Sagas, children, queues, pauses, retries, forks, events and approvals beside one another, two or three at a time."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    ControlRefusedError,
    Queue,
    RunView,
    Settings,
    tool,
    workflow,
)
from perdure.runtime.cli.standing import read_runs
from perdure.store.reader import LogReader
from perdure.testing import TestClock
from tests.support.interplay import broken, calls, forget, settle, undo, work
from tests.support.runs import DAY, Box, box_with, facts, play


@pytest.fixture(autouse=True)
def _anew() -> None:
    forget()


# Sagas


def test_to_go_on_as_new_within_a_saga_is_refused_and_what_it_did_is_undone() -> None:
    @workflow
    async def wf(ctx: Context, number: int) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(undo).call(work, number)
            ctx.continue_as_new(number + 1)

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf, 1)
            await settle(box)
            return await rt.run("r").status()

    view = play(scenario)

    assert (view.status, view.error_type) == ("failed", "UsageError")
    assert "saga" in view.error
    assert calls == [1, "undo 1"]


# Retries


def test_a_child_whose_parent_was_told_of_its_failure_is_not_retried() -> None:
    broken.add("b")

    @workflow
    async def child(ctx: Context) -> None:
        await ctx.call(work, "b")

    @workflow
    async def parent(ctx: Context) -> None:
        await ctx.run(child)

    async def scenario() -> None:
        async with box_with(parent, child) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent)
            await settle(box)
            broken.clear()
            before = await facts(rt, "p/child#1")
            with pytest.raises(ControlRefusedError, match="p, which awaits it, was told"):
                await rt.run("p/child#1").retry()
            assert await facts(rt, "p/child#1") == before
            await rt.run("p").retry()
            await settle(box)
            assert (await rt.run("p").status()).status == "completed"

    play(scenario)

    assert calls == ["b", "b"]


def test_a_retry_under_the_first_id_of_a_chain_is_of_the_run_that_failed() -> None:
    broken.add("last")

    @workflow
    async def wf(ctx: Context, number: int) -> str:
        await ctx.call(work, number)
        if number == 1:
            ctx.continue_as_new(2)
        return await ctx.call(work, "last")

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            handle = await rt.with_options(id="r").start(wf, 1)
            await settle(box)
            broken.clear()
            assert await handle.retry() == "work#2"
            assert await handle.result() == "last"

    play(scenario)

    assert calls == [1, 2, "last", "last"]


def test_a_child_that_was_given_up_and_completed_all_the_same_is_started_anew_by_a_retry() -> None:
    broken.add("b")

    @workflow
    async def child(ctx: Context) -> str:
        async with ctx.saga() as saga:
            saga.pivot()
            await ctx.sleep(300)
            return await ctx.call(work, "child")

    @workflow
    async def fails(ctx: Context) -> None:
        await ctx.sleep(100)
        await ctx.call(work, "b")

    @workflow
    async def parent(ctx: Context) -> list[Any]:
        async def late() -> Any:
            await ctx.sleep(100)
            return await ctx.call(work, "b")

        return list(await ctx.gather(ctx.run(child), late()))

    async def scenario() -> Any:
        async with box_with(parent, child) as box:
            rt = await box.open()
            handle = await rt.with_options(id="p").start(parent)
            await settle(box, rounds=10)
            view = await handle.status()
            assert (view.status, view.error_type) == ("failed", "StepFailedError")
            broken.clear()
            await handle.retry()
            await settle(box, rounds=10)
            return await handle.result()

    assert play(scenario) == ["child", "b"]


def test_a_parent_is_retried_whose_code_gives_its_child_an_id() -> None:
    broken.add("b")

    @workflow
    async def child(ctx: Context) -> str:
        return await ctx.call(work, "b")

    @workflow
    async def parent(ctx: Context) -> str:
        return await ctx.with_options(id="mine").run(child)

    async def scenario() -> Any:
        async with box_with(parent, child) as box:
            rt = await box.open()
            handle = await rt.with_options(id="p").start(parent)
            await settle(box)
            broken.clear()
            await handle.retry()
            await settle(box)
            await box.crash_and_reopen()
            return await box.runtime.run("p").result()

    assert play(scenario) == "b"


# Queues


def test_retried_runs_of_a_queue_wait_for_their_turn_also_after_a_crash() -> None:
    broken.add("b")
    at_work: list[int] = []

    @tool(failure_threshold=1000)
    async def slow(number: int) -> None:
        at_work.append(number)
        await asyncio.get_running_loop().create_future()

    @workflow
    async def wf(ctx: Context, number: int) -> None:
        await ctx.call(work, "b")
        await ctx.call(slow, number)

    async def scenario() -> None:
        async with box_with(wf, queues=[Queue("q", concurrency=1)]) as box:
            rt = await box.open()
            for number in range(3):
                await rt.with_options(id=f"r{number}", queue="q").start(wf, number)
            await settle(box)
            broken.clear()
            for number in range(3):
                await rt.run(f"r{number}").retry()
            await settle(box)
            statuses = [(await rt.run(f"r{number}").status()).status for number in range(3)]
            assert statuses == ["running", "queued", "queued"]
            assert at_work == [0]
            rt = await box.crash_and_reopen()
            await settle(box)
            assert at_work == [0, 0]
            await rt.run("r0").cancel()
            await settle(box)
            assert at_work == [0, 0, 1]
            await rt.run("r2").cancel("not needed")
            await settle(box)
            assert (await rt.run("r2").status()).status == "waiting"  # for its place: it has begun, and cleans up
            await rt.run("r1").cancel()
            await settle(box)
            assert (await rt.run("r2").status()).status == "cancelled"
            assert (await rt.statistics()).queues["q"].waiting == 0

    play(scenario)


def test_a_blocked_run_of_a_queue_that_is_retried_and_cancelled_cleans_up() -> None:
    async def first(ctx: Context, name: str) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(undo).call(work, name)
            await ctx.sleep(DAY)

    async def other(ctx: Context, name: str) -> None:
        await ctx.call(work, "other")

    @workflow
    async def holds(ctx: Context) -> None:
        await ctx.call(hang, "x")

    @tool
    async def hang(name: str) -> None:
        await asyncio.get_running_loop().create_future()

    old, new = workflow(name="w")(first), workflow(name="w")(other)

    async def scenario() -> None:
        async with box_with(old, holds, queues=[Queue("q", concurrency=1)]) as box:
            rt = await box.open()
            await rt.with_options(id="r", queue="q").start(old, "a")
            await settle(box)
            rt = await box.close_and_reopen(workflows=[new, holds])
            await box.clock.advance(DAY)
            assert (await rt.run("r").status()).status == "blocked"
            rt = await box.close_and_reopen(workflows=[holds])
            await rt.with_options(id="h", queue="q").start(holds)
            await settle(box)
            rt = await box.crash_and_reopen(workflows=[old, holds], resume=False)
            await rt.resume("h")
            await settle(box)
            await rt.run("r").retry()
            await settle(box)
            assert (await rt.run("r").status()).status == "queued"
            await rt.run("r").cancel()
            await rt.run("h").cancel()
            await settle(box)
            assert (await rt.run("r").status()).status == "cancelled"

    play(scenario)

    assert calls == ["a", "undo a"]


def test_a_suspect_of_crashes_that_comes_back_alone_holds_its_place_in_the_queue() -> None:
    at_work: list[str] = []

    @tool
    async def hang(name: str) -> None:
        at_work.append(name)
        await asyncio.get_running_loop().create_future()

    @workflow
    async def wf(ctx: Context, name: str) -> None:
        await ctx.call(hang, name)

    async def scenario() -> None:
        async with box_with(wf, queues=[Queue("q", concurrency=1)]) as box:
            rt = await box.open()
            for name in "ab":
                await rt.with_options(id=name, queue="q").start(wf, name)
            for _ in range(3):
                await box.clock.settle()
                assert at_work == ["a"]
                at_work.clear()
                rt = await box.crash_and_reopen()
            await box.clock.settle()
            assert (await rt.run("a").status()).error_type == "poison"
            assert at_work == ["b"]

    play(scenario)


def test_an_answer_does_not_let_a_retried_run_pass_its_queue() -> None:
    async def first(ctx: Context) -> list[Any]:
        return list(await ctx.gather(ctx.signal("go", of=int), ctx.ask("well?", of=bool)))

    async def other(ctx: Context) -> list[Any]:
        return [await ctx.call(work, "other")]

    @tool
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    @workflow
    async def holds(ctx: Context) -> None:
        await ctx.call(hang)

    old, new = workflow(name="w")(first), workflow(name="w")(other)

    async def scenario() -> None:
        async with box_with(old, holds, queues=[Queue("q", concurrency=1)]) as box:
            rt = await box.open()
            await rt.with_options(id="r", queue="q").start(old)
            await settle(box)
            rt = await box.close_and_reopen(workflows=[new, holds])
            await rt.run("r").signal("go", 1)
            await settle(box)
            assert (await rt.run("r").status()).status == "blocked"
            rt = await box.close_and_reopen(workflows=[old, holds], resume=False)
            holder = await rt.with_options(id="h", queue="q").start(holds)
            await settle(box)
            await rt.run("r").retry()
            (question,) = (await rt.run("r").status()).questions
            await rt.run("r").answer(question, value=True)
            await settle(box)
            assert (await rt.run("r").status()).status == "queued"
            await holder.cancel()
            await settle(box)
            assert await rt.run("r").result() == [1, True]

    play(scenario)


def test_an_approval_that_was_withdrawn_by_a_failure_begins_anew_with_the_retry() -> None:
    broken.add("b")

    @workflow
    async def wf(ctx: Context) -> Any:
        async def late() -> Any:
            await ctx.sleep(100)
            return await ctx.call(work, "b")

        approval, _ = await ctx.gather(ctx.approval(several=2).of(work, "pay"), late())
        return await ctx.call_approved(approval)

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            handle = await rt.with_options(id="r").start(wf)
            await settle(box, rounds=1)
            await handle.approve((await handle.status()).questions[0], who="ada")
            await settle(box)
            assert (await handle.status()).status == "failed"
            broken.clear()
            await handle.retry()
            await settle(box)
            (question,) = (await handle.status()).questions
            await handle.approve(question, who="bob")
            await settle(box)
            assert (await handle.status()).questions == (question,)
            await handle.pause()
            await handle.approve(question, who="ada")
            await settle(box)
            assert "pay" not in calls
            await handle.resume()
            return await handle.result()

    assert play(scenario) == "pay"


# Forks


def test_a_fork_gets_the_events_that_its_origin_got_from_the_step_on() -> None:
    @workflow
    async def wf(ctx: Context) -> list[Any]:
        found = []
        for _ in range(3):
            found.append((await ctx.event("news")).data)
            await ctx.call(work, found[-1])
        return found

    async def scenario() -> tuple[Any, Any, Any]:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.publish("news", 0)
            handle = await rt.with_options(id="r").start(wf)
            for number in range(1, 4):
                await rt.publish("news", number)
            await settle(box)
            second = await handle.fork("event#2", id="f2")
            await settle(box)
            third = await second.fork("work#3", id="f3")
            await settle(box)
            first = await handle.fork("event#1", id="f1")
            await settle(box)
            return await first.result(), await second.result(), await third.result()

    assert play(scenario) == ([1, 2, 3], [1, 2, 3], [1, 2, 3])


# Runs that go on as new ones


def test_a_pause_that_comes_while_a_run_goes_on_as_a_new_one_holds_it() -> None:
    @workflow
    async def wf(ctx: Context, number: int) -> int:
        await ctx.call(work, number)
        if number < 3:
            ctx.continue_as_new(number + 1)
        return number

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            kin = rt._engine.kin
            paused: list[bool] = []
            through = kin._successor

            async def slowly(driver: Any, run: str) -> Any:
                shell = await through(driver, run)
                if not paused:
                    paused.append(await rt.run("r").pause("wait", who="ada"))
                    while (found := rt._system.directory.active(shell.stream)) is None:
                        await rt._system.directory.activate(shell.stream)
                    return found
                return shell

            kin._successor = slowly  # type: ignore[method-assign]
            await rt.with_options(id="r").start(wf, 1)
            await settle(box)
            assert paused == [True]
            assert calls == [1]
            view = await rt.run("r").status()
            assert (view.status, view.paused) == ("paused", "wait")
            assert calls == [1]
            await box.crash_and_reopen()
            await settle(box)
            assert calls == [1]
            await box.runtime.run("r").resume()
            assert await box.runtime.run("r").result() == 3

    play(scenario)


# Crashes


def test_a_clean_up_that_kills_the_process_is_found_as_any_other_step() -> None:
    @tool
    async def deadly(name: str) -> None:
        calls.append(name)
        await asyncio.get_running_loop().create_future()

    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.sleep(DAY)
        finally:
            await ctx.call(deadly, "clean-up")

    async def scenario() -> None:
        async with box_with(wf, settings=Settings(drain=timedelta(0))) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await rt.run("r").cancel()
            for _ in range(5):
                await box.clock.settle()
                rt = await box.crash_and_reopen()
            await box.clock.settle()
            view = await rt.run("r").status()
            assert (view.status, view.error_type) == ("blocked", "poison")

    play(scenario)

    assert calls == ["clean-up"] * 3


# What people see


def test_a_run_that_waits_for_its_turn_is_shown_as_queued_beside_the_owner_also_when_it_is_retried(
    tmp_path: Path,
) -> None:
    broken.add("b")

    @tool
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.call(work, "b")
        await ctx.call(hang)

    def shown() -> list[tuple[Any, ...]]:
        with LogReader.open(tmp_path / "x.db") as reader:
            views = [row[0] for row in reader.sql("SELECT status FROM runs ORDER BY run").rows]
            standings = read_runs(reader, only_open=False, now=0)
            return [(one.run, one.status, one.waits_for, views[n]) for n, one in enumerate(standings)]

    async def scenario() -> list[tuple[Any, ...]]:
        async with Box(tmp_path / "x.db", TestClock(), workflows=[wf], queues=[Queue("q", concurrency=1)]) as box:
            rt = await box.open()
            retried = await rt.with_options(id="a", queue="q").start(wf)
            await settle(box)
            broken.clear()
            await rt.with_options(id="b", queue="q").start(wf)
            await settle(box)
            await retried.retry()
            await rt.with_options(id="c", queue="q").start(wf)
            await settle(box)
            return shown()

    a, b, c = play(scenario)

    assert a == ("a", "queued", "its turn in the queue q", "queued")
    assert (b[1], b[3]) == ("running", "running")
    assert c == ("c", "queued", "its turn in the queue q", "queued")
