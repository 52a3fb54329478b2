"""Rehearsals of runs in every state: unchanged code fits at each event border, and nothing is left behind."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import CheckedRun, Context, Queue, Runtime, Settings, workflow
from perdure.runtime.rehearsing import check_runs
from perdure.store.reader import LogReader
from perdure.testing import MemoryDisk, TestClock
from tests.support.interplay import broken, calls, forget, settle, undo, work
from tests.support.runs import DAY, HOUR, Box, box_with, disk_until, play


@pytest.fixture(autouse=True)
def _anew() -> None:
    forget()


async def rehearsed_everywhere(box: Box, *workflows: Any) -> int:
    """Rehearse all open runs at each event border of the box's log; return how many rehearsals there were."""
    disk = box.storage
    assert isinstance(disk, MemoryDisk)
    told: list[str] = []
    count = 0
    for position in range(1, len(disk._storage.events) + 1):
        copy = disk_until(disk, position)
        beside = Box(copy, box.clock, workflows=workflows, settings=Settings(idle_after=timedelta(days=99)))
        rt = await beside.open(resume=False)
        before = len(copy._storage.events)
        for found in await check_runs(rt._engine, rt._log):
            count += 1
            if found.verdict != "fits":
                told.append(f"{position} {copy._storage.events[position - 1]}: {found}")
        await rt.until_idle()
        await rt._log.flush()
        if len(copy._storage.events) != before:
            told.append(f"{position}: wrote {[e.type for e in copy._storage.events[before:]]}")
        await beside.close()
    assert told == []
    return count


def test_a_wait_for_a_child_that_was_given_up_fits_and_the_child_is_left_alone() -> None:
    @workflow
    async def child(ctx: Context) -> None:
        try:
            await ctx.sleep(DAY)
        finally:
            await ctx.sleep(300)

    @workflow
    async def parent(ctx: Context) -> None:
        await ctx.race(ctx.run(child), ctx.sleep(100))

    async def scenario() -> int:
        async with box_with(parent, child) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent)
            await settle(box, rounds=10)
            assert (await rt.run("p").status()).status == "completed"
            await box.close()
            return await rehearsed_everywhere(box, parent, child)

    assert play(scenario) > 20


def test_code_in_the_middle_of_compensating_with_one_that_is_stuck_fits() -> None:
    broken.update({"c", "undo b"})

    @workflow
    async def wf(ctx: Context) -> None:
        try:
            async with ctx.saga() as saga:
                for item in "abc":
                    await saga.undo_with(undo).call(work, item)
        finally:
            await ctx.call(work, "tidied")

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await settle(box)
            assert (await rt.run("r").status()).in_doubt == ("work#2#undo",)
            assert calls[-1] == "undo a"
            await rt.run("r").settle_done("work#2#undo")
            await settle(box)
            await box.close()
            assert await rehearsed_everywhere(box, wf) > 10

    play(scenario)


def test_code_that_cleans_up_after_its_deadline_fits() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.call(work, "a")
            await ctx.call(work, "b")
        finally:
            await ctx.call(work, "tidied")
            await ctx.sleep(HOUR)

    async def scenario() -> list[CheckedRun]:
        async with box_with(wf) as box:
            rt = await box.open()
            handle = await rt.with_options(id="r", deadline=timedelta(minutes=5)).start(wf)
            await handle.pause()
            await box.clock.advance(400)
            assert (await handle.status()).status == "waiting"
            await box.close_and_reopen(resume=False)
            return await check_runs(box.runtime._engine, box.runtime._log)

    assert play(scenario) == [CheckedRun("r", "wf", "fits")]
    assert calls[-1] == "tidied"


def test_a_rehearsal_of_a_run_that_has_ended_and_owes_something_changes_nothing(tmp_path: Path) -> None:
    @workflow
    async def child(ctx: Context) -> None:
        await ctx.sleep(DAY)

    async def parent(ctx: Context, item: str) -> None:
        await ctx.gather(ctx.run(child), ctx.sleep(600))

    async def other(ctx: Context, item: str) -> None:
        await ctx.call(work, item)

    async def scenario() -> None:
        old, new = workflow(name="w")(parent), workflow(name="w")(other)
        async with box_with(old, child) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(old, "x")
            await settle(box)
            rt = await box.close_and_reopen(workflows=[new, child])
            await settle(box, by=300)
            assert (await rt.run("p").status()).status == "blocked"
            await rt.run("p").cancel()
            await settle(box)
            await box.close()
            await rehearsed_everywhere(box, old, child)

    play(scenario)


@workflow
async def sleeper(ctx: Context) -> None:
    await ctx.sleep(DAY)


async def sleeps(ctx: Context) -> None:
    await ctx.sleep(HOUR)


async def has_a_child(ctx: Context) -> None:
    await ctx.run(sleeper)


async def has_events(ctx: Context) -> None:
    await ctx.publish("news", 1)
    await ctx.event("news")
    await ctx.event("news", timeout=DAY)


async def has_an_approval(ctx: Context) -> None:
    await ctx.call_approved(await ctx.approval(several=2).of(work, "pay"))


async def has_a_signal(ctx: Context) -> None:
    await ctx.signal("go", of=int)


async def goes_on(ctx: Context) -> None:
    await ctx.sleep(100)
    if not ctx.run_id.endswith("~2"):
        ctx.continue_as_new()
    await ctx.sleep(DAY)


async def pauses(box: Box) -> None:
    await box.runtime.run("r").pause()


async def forks(box: Box) -> None:
    await box.runtime.run("r").fork("sleep#1", id="f")


async def approves(box: Box) -> None:
    await box.runtime.run("r").approve((await box.runtime.questions())[0].id, who="ada")


async def queues(box: Box) -> None:
    for name in "ab":
        await box.runtime.with_options(id=name, queue="q").start(box.runtime.workflows["wf"])


async def leaves(box: Box) -> None:
    await box.clock.advance(0)


@pytest.mark.parametrize(
    ("waits", "happens", "status"),
    [
        (sleeps, queues, "waiting"),
        (sleeps, pauses, "paused"),
        (sleeps, forks, "waiting"),
        (has_a_child, leaves, "waiting"),
        (has_events, leaves, "waiting"),
        (has_an_approval, approves, "waiting"),
        (has_a_signal, leaves, "waiting"),
        (goes_on, leaves, "continued"),
    ],
)
def test_a_run_with_any_wait_fits_unchanged_code_and_a_check_leaves_no_trace(
    waits: Any, happens: Any, status: str, tmp_path: Path
) -> None:
    async def code(ctx: Context) -> None:
        await ctx.call(work, "a")
        await waits(ctx)
        await ctx.call(work, "b")

    log = tmp_path / "x.db"
    wf = workflow(name="wf")(code)
    options: dict[str, Any] = {"workflows": [wf, sleeper], "queues": [Queue("q", concurrency=1)]}

    async def prepared() -> None:
        async with Box(log, TestClock(), **options) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await settle(box)
            await happens(box)
            await settle(box)

    async def checked() -> list[CheckedRun]:
        return await Runtime(log, **options).check()

    play(prepared)
    with LogReader.open(log) as reader:
        before = reader.last_position()
        statuses = {row[0]: row[1] for row in reader.sql("SELECT run, status FROM runs").rows}
    found = play(checked)

    assert {one.verdict for one in found} == {"fits"}
    with LogReader.open(log) as reader:
        assert reader.last_position() == before
    assert statuses["r"] == status
