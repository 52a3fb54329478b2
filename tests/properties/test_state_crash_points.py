"""Twenty runs that each add one fifty times to a value that all share: it is a thousand, wherever the process dies.

A crash falls between two updates, between an update and what follows it, between the starts of the runs. Also those
that leave memory in between, are cancelled or parked meanwhile, count what they did and nothing twice.
"""

import asyncio
from datetime import timedelta

import pytest

from perdure import Context, Query, Recorded, Runtime, Settings, workflow
from perdure.actors.workflows.entrance import Isolation
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.testing import MemoryDisk, TestClock
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, box_with, data, disk_until, play

RUNS, UPDATES = 20, 50
KEEP = Settings(park_after=timedelta(days=999), idle_after=timedelta(days=999))


@workflow
async def counts(ctx: Context, times: int, naps: list[int]) -> list[int]:
    found: list[int] = []
    for number in range(times):
        found.append(await ctx.state.update("n", lambda n: n + 1, default=0, scope="global"))
        if naps[number % len(naps)]:
            await ctx.sleep(naps[number % len(naps)])
    return found


def entries(isolation: Isolation) -> list[EntryPoint]:
    return [EntryPoint("counters", counts, isolation=isolation, max_concurrent=RUNS)]


async def start(rt: Runtime, runs: int, times: int, naps: list[int]) -> None:
    for number in range(runs):
        await rt.trigger("counters", {"times": times, "naps": naps}, id=f"r{number}")


async def finish(box: Box, rt: Runtime, runs: int) -> list[list[int]]:
    for _ in range(200):
        views = [await rt.run(f"r{number}").status() for number in range(runs)]
        if all(view.is_closed for view in views):
            return [await rt.run(f"r{number}", counts).result() for number in range(runs)]
        await box.clock.advance(5)
    raise AssertionError("the runs do not end")


def check(found: list[list[int]], total: int) -> None:
    assert sorted(number for one in found for number in one) == list(range(1, total + 1)), "lost, or counted twice"
    assert all(one == sorted(one) for one in found)


@pytest.mark.row("A3-36")
@pytest.mark.parametrize("isolation", ["shared", "synchronized"])
def test_twenty_runs_with_fifty_updates_each_make_a_thousand(isolation: Isolation) -> None:
    async def scenario() -> None:
        async with box_with(counts, entry_points=entries(isolation), settings=KEEP) as box:
            rt = await box.open()
            await start(rt, RUNS, UPDATES, [1])
            found = await finish(box, rt, RUNS)

            assert await rt.state.read("n") == RUNS * UPDATES
            check(found, RUNS * UPDATES)

    play(scenario)


async def whole_log(rt: Runtime) -> list[Recorded]:
    return await rt.read(Query(limit=100_000))


def on(disk: MemoryDisk, clock: TestClock, chosen: Settings) -> Box:
    return Box(disk, clock, workflows=[counts], entry_points=entries("synchronized"), settings=chosen)


def borders_of(disk: MarkedDisk, log: list[Recorded]) -> list[int]:
    """Return where a process may die once all runs are started."""
    last = [row.position for row in log if row.type == "run-started"][-1]
    return [border for border in sorted(disk.borders) if last <= border <= log[-1].position]


async def clock_at(log: list[Recorded], position: int) -> TestClock:
    clock = TestClock()
    await clock.advance((log[position - 1].at - log[0].at) / 1_000_000)
    return clock


@pytest.mark.row("A3-36")
def test_a_thousand_updates_are_a_thousand_wherever_the_process_dies() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        async with on(disk, TestClock(), KEEP) as whole:
            rt = await whole.open()
            await start(rt, RUNS, UPDATES, [1])
            check(await finish(whole, rt, RUNS), RUNS * UPDATES)
            log = await whole_log(rt)
        borders = borders_of(disk, log)
        for position in borders[:: len(borders) // 10]:
            async with on(disk_until(disk, position), await clock_at(log, position), KEEP) as box:
                rt = await box.open()
                check(await finish(box, rt, RUNS), RUNS * UPDATES)
                assert await rt.state.read("n") == RUNS * UPDATES, f"after a crash at {position}"

    play(scenario)


@pytest.mark.parametrize("chosen", [KEEP, Settings(park_after=timedelta(seconds=1))], ids=["awake", "asleep"])
def test_a_crash_at_any_border_of_the_log_loses_no_update_and_makes_none_twice(chosen: Settings) -> None:
    async def scenario() -> None:
        runs, times, disk = 4, 5, MarkedDisk()
        async with on(disk, TestClock(), chosen) as whole:
            rt = await whole.open()
            await start(rt, runs, times, [1, 0, 7])
            check(await finish(whole, rt, runs), runs * times)
            log = await whole_log(rt)
        borders = borders_of(disk, log)
        for position in borders:
            async with on(disk_until(disk, position), await clock_at(log, position), chosen) as box:
                rt = await box.open()
                check(await finish(box, rt, runs), runs * times)
                assert await rt.state.read("n") == runs * times, f"after a crash at {position}"
        assert len(borders) > runs * times

    play(scenario)


def test_a_cancelled_run_has_made_the_updates_that_it_was_told_of() -> None:
    async def scenario() -> None:
        async with box_with(counts, entry_points=entries("synchronized"), settings=KEEP) as box:
            rt = await box.open()
            await start(rt, 3, 10, [1])
            await box.clock.advance(4)
            await rt.run("r0").cancel("enough")
            await asyncio.gather(rt.run("r1").pause("wait"), box.clock.settle())
            await box.clock.advance(3)
            rt = await box.crash_and_reopen()
            await rt.run("r1").resume()
            for _ in range(20):
                await box.clock.advance(1)

            written = [row for row in await whole_log(rt) if row.type == "state-written"]
            by_run = {run: sum(row.stream == f"run/{run}" for row in written) for run in ("r0", "r1", "r2")}

            assert (await rt.run("r0").status()).status == "cancelled"
            assert by_run["r1"] == by_run["r2"] == 10
            assert 0 < by_run["r0"] < 10
            assert await rt.state.read("n") == len(written)
            assert sorted(data(row)["result"] for row in written) == list(range(1, len(written) + 1))

    play(scenario)
