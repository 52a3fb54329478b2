"""That runs of a queue run no code without a place: those that wake, are cancelled, or come when others are let in."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    EntryPoint,
    Queue,
    RateLimit,
    RunCancelledError,
    RunFailedError,
    Runtime,
    Settings,
    workflow,
)
from tests.support.runs import HOUR, box_with, facts, play


class Work:
    """Counts whose code is in memory, and what the most was."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.most = 0

    def begin(self, name: str) -> None:
        self.now.append(name)
        self.most = max(self.most, len(self.now))


def nap_of(work: Work) -> Any:
    @workflow
    async def nap(ctx: Context, name: str, hours: float = 1, seconds: float = 1) -> str:
        """Sleep long, which is out of memory, and then for a moment, which is not."""
        work.begin(name)
        try:
            await ctx.sleep(timedelta(hours=hours))
            await ctx.sleep(seconds)
        finally:
            work.now.remove(name)
        return name

    return nap


@workflow
async def quick(ctx: Context, name: str) -> str:
    await ctx.sleep(1)
    return name


async def start(rt: Runtime, of: Any, name: str, *values: float, **options: Any) -> None:
    await rt.with_options(id=name, queue="mail", **options).start(of, name, *values)


async def statuses(rt: Runtime, names: str) -> list[str]:
    return [(await rt.run(name).status()).status for name in names]


def test_a_run_that_wakes_waits_for_a_place_before_its_code_goes_on() -> None:
    work = Work()
    nap = nap_of(work)

    async def scenario() -> None:
        async with box_with(nap, quick, queues=[Queue("mail", concurrency=1)]) as box:
            rt = await box.open()
            for name in "abc":
                await start(rt, nap, name)
                await box.clock.settle()

            await box.clock.advance(HOUR.total_seconds())
            figures = (await rt.statistics()).queues["mail"]
            assert (figures.working, figures.waiting) == (1, 2)
            for _ in range(4):
                await box.clock.advance(1)

            assert [await rt.run(name).result() for name in "abc"] == ["a", "b", "c"]

    play(scenario)
    assert work.most == 1


def test_a_run_that_wakes_is_next_before_those_that_have_not_begun_and_takes_no_other_token() -> None:
    async def scenario() -> list[str]:
        queue = Queue("mail", concurrency=1, rate=RateLimit(calls=2, per=timedelta(days=1)))
        nap = nap_of(Work())
        async with box_with(nap, quick, queues=[queue]) as box:
            rt = await box.open()
            await start(rt, nap, "a")
            await box.clock.advance(HOUR.total_seconds() - 0.5)
            await start(rt, quick, "b")
            await box.clock.settle()
            await start(rt, quick, "urgent", priority=9)

            await box.clock.advance(1)  # b is done, and a goes on
            await box.clock.advance(1)
            return [await rt.run("a").result(), *await statuses(rt, "b"), (await rt.run("urgent").status()).status]

    assert play(scenario) == ["a", "completed", "queued"]


def test_a_run_that_is_cancelled_while_it_sleeps_cleans_up_when_it_has_its_place_again() -> None:
    work = Work()
    nap = nap_of(work)

    async def scenario() -> None:
        async with box_with(nap, quick, queues=[Queue("mail", concurrency=1)]) as box:
            rt = await box.open()
            await start(rt, nap, "a")
            await box.clock.settle()
            await start(rt, quick, "b")
            await box.clock.settle()

            assert await rt.run("a").cancel("not needed")
            await box.clock.settle()
            assert await statuses(rt, "ab") == ["waiting", "running"]
            await box.clock.advance(1)

            with pytest.raises(RunCancelledError, match="not needed"):
                await rt.run("a").result()

    play(scenario)


def test_a_run_whose_deadline_passes_before_its_turn_comes_fails_at_once_and_its_code_never_runs() -> None:
    work = Work()
    nap = nap_of(work)

    async def scenario() -> list[str]:
        async with box_with(nap, quick, queues=[Queue("mail", concurrency=1)]) as box:
            rt = await box.open()
            await start(rt, quick, "a")
            await box.clock.settle()
            await start(rt, nap, "b", deadline=timedelta(milliseconds=500))

            await box.clock.advance(0.5)
            with pytest.raises(RunFailedError, match="deadline"):
                await rt.run("b").result()
            assert await statuses(rt, "a") == ["running"]
            return await facts(rt, "b")

    assert play(scenario) == ["run-started", "run-failed"]
    assert work.most == 0


def test_a_partition_holds_for_a_run_that_wakes_and_holds_up_no_other_partition() -> None:
    async def scenario() -> list[str]:
        nap = nap_of(Work())
        async with box_with(nap, quick, queues=[Queue("mail", concurrency=2, partition_concurrency=1)]) as box:
            rt = await box.open()
            await start(rt, nap, "a", partition="x")
            await box.clock.advance(HOUR.total_seconds() - 0.5)
            await start(rt, quick, "b", partition="x")
            await box.clock.advance(0.5)
            await start(rt, quick, "c", partition="y")
            await box.clock.settle()
            before = await statuses(rt, "abc")
            await box.clock.advance(2)
            return [*before, await rt.run("a").result()]

    assert play(scenario) == ["waiting", "running", "running", "a"]


def test_a_run_that_waits_for_its_place_still_does_after_a_crash() -> None:
    work = Work()
    nap = nap_of(work)

    async def scenario() -> None:
        async with box_with(nap, quick, queues=[Queue("mail", concurrency=1)]) as box:
            rt = await box.open()
            await start(rt, nap, "a")
            await start(rt, nap, "b")
            await box.clock.advance(HOUR.total_seconds())
            assert await statuses(rt, "ab") == ["running", "waiting"]

            work.now.clear()
            rt = await box.crash_and_reopen()
            for _ in range(3):
                await box.clock.advance(1)

            assert [await rt.run(name).result() for name in "ab"] == ["a", "b"]

    play(scenario)
    assert work.most == 1


def test_fewer_places_after_a_restart_hold_for_those_that_were_at_work() -> None:
    work = Work()
    nap = nap_of(work)

    async def scenario() -> None:
        async with box_with(nap, quick, queues=[Queue("mail", concurrency=3)]) as box:
            rt = await box.open()
            for name in "abc":
                await start(rt, nap, name, 0, 5)
            await box.clock.advance(1)
            assert work.most == 3

            work.now.clear()
            work.most = 0
            rt = await box.crash_and_reopen(queues=[Queue("mail", concurrency=1)])
            for _ in range(4):
                await box.clock.advance(5)

            assert [await rt.run(name).result() for name in "abc"] == ["a", "b", "c"]

    play(scenario)
    assert work.most == 1


@pytest.mark.parametrize("turns", range(0, 30, 2))
def test_a_run_that_is_cancelled_while_it_is_let_in_is_never_one_over_the_limit_of_all_entry_points(turns: int) -> None:
    work = Work()
    nap = nap_of(work)

    async def scenario() -> None:
        points = [EntryPoint("one", nap), EntryPoint("two", nap)]
        async with box_with(nap, entry_points=points, settings=Settings(max_concurrent_executions=1)) as box:
            rt = await box.open()
            for name in "abc":
                await rt.trigger("two" if name == "c" else "one", {"name": name, "hours": 0}, id=name)
            await box.clock.settle()
            assert await rt.cancel_execution("one", "a")  # now the turn of b comes
            for _ in range(turns):
                await asyncio.sleep(0)
            await rt.cancel_execution("one", "b")
            for _ in range(4):
                await box.clock.advance(1)

            assert await rt.run("c").result() == "c"

    play(scenario)
    assert work.most == 1
