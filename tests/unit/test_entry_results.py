"""What becomes of the runs of entry points: waiting for an end, cancelling, results, how long they are kept."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    EntryPoint,
    ExecutionResult,
    Query,
    RunHandle,
    Runtime,
    Settings,
    UnknownRunError,
    UsageError,
    tool,
    workflow,
)
from perdure.actors.triggers.event_names import document_name
from perdure.store.reader import LogReader
from perdure.store.records import stream_id
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, box_with, data, disk_until, events, facts, on_both_logs, play, storage

FAILING = {"is": False}


@workflow
async def nap(ctx: Context, seconds: float = 1.0, name: str = "nap") -> str:
    await ctx.sleep(seconds)
    return name


@tool(effect="read", retry=None)
async def fetch() -> str:
    if FAILING["is"]:
        raise ConnectionError("nobody there")
    return "fetched"


@workflow
async def fetching(ctx: Context) -> str:
    return await ctx.call(fetch)


@workflow
async def fetching_on(ctx: Context, is_again: bool = False) -> str:
    answer = await ctx.call(fetch)
    if not is_again:
        ctx.continue_as_new(is_again=True)
    return answer


@workflow
async def counting(ctx: Context, left: int) -> int:
    await ctx.sleep(1)
    if left:
        ctx.continue_as_new(left - 1)
    return left


@workflow
async def parent(ctx: Context) -> str:
    return await ctx.run(nap, 1.0, "child")


POINTS = [EntryPoint("one", nap, max_concurrent=1), EntryPoint("two", fetching)]


def entries(*points: EntryPoint, on: Path | MemoryDisk | None = None, **options: Any) -> Box:
    return box_with(nap, fetching, fetching_on, counting, parent, on=on, entry_points=points or POINTS, **options)


async def gate(rt: Runtime, entry: str, kind: str) -> list[dict[str, Any]]:
    """The events of an entry point that have one type."""
    found = await rt.read(Query(stream=stream_id(f"entry-point/{entry}"), types=(kind,)))
    return [data(event) for event in found]


# Waiting


@pytest.mark.row("A3-10")
def test_a_wait_that_is_over_gives_none_and_the_run_goes_on_to_a_result() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            waiting = asyncio.ensure_future(rt.trigger_and_wait("one", {"seconds": 0.6}, timeout=0.1, id="mine"))

            await box.clock.advance(0.09)
            assert not waiting.done()
            await box.clock.advance(0.01)
            assert await waiting is None
            assert await rt.get_execution_result("one", "mine") is None
            assert (await rt.run("mine").status()).status == "running"

            await box.clock.advance(0.5)
            found = await rt.get_execution_result("one", "mine")
            assert found is not None
            assert (found.success, found.output) == (True, "nap")

    play(scenario)


def test_a_wait_without_a_limit_gives_the_end_whatever_it_is() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            waits = [
                asyncio.ensure_future(rt.trigger_and_wait("one", {"name": "a"}, correlation_id="c", timeout=limit))
                for limit in (None, timedelta(seconds=9))
            ]
            await box.clock.advance(1)
            await box.clock.advance(1)

            assert [found and (found.output, found.correlation) for found in await asyncio.gather(*waits)] == [
                ("a", "c"), ("a", "c"),
            ]  # fmt: skip

    play(scenario)


@pytest.mark.row("A3-11")
def test_a_wait_of_no_time_returns_at_once() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            run = await rt.trigger("one")

            assert await rt.entry_points.wait("one", run, timeout=0) is None
            assert await rt.trigger_and_wait("one", timeout=0) is None

            await box.clock.advance(1)
            found = await rt.entry_points.wait("one", run, timeout=0)
            assert found is not None
            assert found.success
            with pytest.raises(UsageError, match="0 seconds or more"):
                await rt.entry_points.wait("one", run, timeout=-1)

    play(scenario)


def test_the_time_of_a_wait_is_that_of_the_runtimes_clock_and_a_cancelled_wait_cancels_nothing() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            run = await rt.trigger("one")
            waiting = asyncio.ensure_future(rt.entry_points.wait("one", run, timeout=9))
            await box.clock.advance(0.5)

            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

            await box.clock.advance(0.5)
            found = await rt.get_execution_result("one", run)
            assert found is not None
            assert found.success

    play(scenario)


def test_nobody_waits_for_a_run_of_another_entry_point() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            run = await rt.trigger("one")
            plain = await rt.start(nap)
            for entry, other in (("two", run), ("one", plain.id), ("one", "nothing")):
                with pytest.raises(UnknownRunError):
                    await rt.entry_points.wait(entry, other)
                assert await rt.get_execution_result(entry, other) is None

    play(scenario)


# Results


def outputs(found: list[ExecutionResult | None]) -> list[Any]:
    return [one and one.output for one in found]


@pytest.mark.row("A3-12")
@on_both_logs
def test_the_newest_results_of_each_entry_point_are_kept_also_after_a_crash(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = Settings(execution_result_max=3)
        async with entries(on=storage(kind, tmp_path), settings=settings) as box:
            rt = await box.open()
            runs = [await rt.trigger("one", {"name": name, "seconds": 1.0}) for name in "abcde"]
            other = await rt.trigger("two")
            for _ in range(6):
                await box.clock.advance(1.1)

            kept = [None, None, "c", "d", "e"]
            assert outputs([await rt.get_execution_result("one", run) for run in runs]) == kept
            assert outputs([await rt.get_execution_result("two", other)]) == ["fetched"]
            rt = await box.crash_and_reopen()
            assert outputs([await rt.get_execution_result("one", run) for run in runs]) == kept
            assert await rt.run(runs[0]).result() == "a"  # the log keeps it

    play(scenario)


@pytest.mark.row("A3-12")
def test_a_result_is_gone_when_its_time_is_over_also_after_a_crash() -> None:
    async def scenario() -> None:
        settings = Settings(execution_result_ttl_seconds=60)
        async with entries(settings=settings) as box:
            rt = await box.open()
            run = await rt.trigger("one")
            await box.clock.advance(1)
            await box.clock.advance(60)
            assert await rt.get_execution_result("one", run) is not None

            rt = await box.crash_and_reopen()
            assert await rt.get_execution_result("one", run) is not None
            await box.clock.advance(0.001)
            assert await rt.get_execution_result("one", run) is None

    play(scenario)


@pytest.mark.row("A3-19")
@on_both_logs
def test_results_are_there_after_a_stop_and_in_a_new_process_also_of_an_entry_point_that_is_gone(
    kind: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with entries(on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.trigger("one", {"name": "kept"})
            await box.clock.advance(1)
            before = await rt.get_execution_result("one", run)
            assert before is not None

            await box.close()
            rt = await box.open()
            assert await rt.get_execution_result("one", run) == before
            await box.crash()
            rt = await box.open(entry_points=[])
            assert await rt.get_execution_result("one", run) == before

    play(scenario)


@pytest.mark.row("A3-19")
def test_a_result_is_read_after_a_stop_where_there_is_no_runtime_any_more(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with Runtime(tmp_path / "a.db", workflows=[nap], entry_points=[POINTS[0]]) as rt:
            found = await rt.trigger_and_wait("one", {"seconds": 0.0, "name": "kept"})
            assert found is not None
            return found.run

    run = play(scenario)

    with LogReader.open(tmp_path / "a.db") as reader:
        [end] = reader.read(Query(stream=stream_id(f"run/{run}"), types=("run-completed",)))
        assert data(end)["result"] == "kept"


def test_the_result_of_a_failed_run_says_why_and_the_one_of_a_run_that_is_tried_again_is_counted_once() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            FAILING["is"] = True
            run = await rt.trigger("two")
            await box.clock.advance(1)
            failed = await rt.get_execution_result("two", run)
            assert failed is not None
            assert (failed.status, failed.success, failed.output) == ("failed", False, None)
            assert "nobody there" in failed.error

            FAILING["is"] = False
            await rt.run(run).retry()
            await box.clock.advance(1)

            again = await rt.get_execution_result("two", run)
            assert again is not None
            assert (again.status, again.output, again.error) == ("completed", "fetched", "")
            assert [(end["status"], end["before"]) for end in await gate(rt, "two", "entry-run-ended")] == [
                ("failed", None), ("completed", "failed"),
            ]  # fmt: skip
            counts = (await rt.entry_points.statistics())["two"]["status_counts"]
            assert (counts["running"], counts["completed"], counts["failed"]) == (0, 1, 0)

    try:
        play(scenario)
    finally:
        FAILING["is"] = False


def test_a_run_that_goes_on_as_others_is_one_execution_whose_result_is_that_of_the_last() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("count", counting)) as box:
            rt = await box.open()
            waiting = asyncio.ensure_future(rt.trigger_and_wait("count", {"left": 2}, id="r"))
            for _ in range(4):
                await box.clock.advance(1)

            found = await waiting

            assert found is not None
            assert (found.run, found.output) == ("r", 0)
            assert [end["run"] for end in await gate(rt, "count", "entry-run-ended")] == ["r"]
            figures = (await rt.entry_points.statistics())["count"]
            assert (figures["total_executions"], figures["active_executions"]) == (1, 0)
            assert await rt.get_execution_result("count", "r") == found

    play(scenario)


def test_a_run_that_failed_and_was_tried_again_and_went_on_as_another_is_counted_once() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("on", fetching_on)) as box:
            rt = await box.open()
            FAILING["is"] = True
            run = await rt.trigger("on")
            await box.clock.advance(1)
            FAILING["is"] = False
            await rt.run(run).retry()
            await box.clock.advance(1)

            assert [(end["run"], end["status"], end["before"]) for end in await gate(rt, "on", "entry-run-ended")] == [
                (run, "failed", None), (run, "completed", "failed"),
            ]  # fmt: skip
            figures = (await rt.entry_points.statistics())["on"]
            assert (figures["total_executions"], figures["active_executions"]) == (1, 0)

    try:
        play(scenario)
    finally:
        FAILING["is"] = False


def test_children_have_the_entrance_and_neither_they_nor_forks_are_executions() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("family", parent, isolation="isolated")) as box:
            rt = await box.open()
            run = await rt.trigger("family")
            await box.clock.advance(1)
            child = (await events(rt, run, "child-started"))[0]["run"]
            assert (await rt.run(child).status()).entrance == (await rt.run(run).status()).entrance
            assert await rt.get_execution_result("family", child) is None
            fork: RunHandle[Any] = await rt.run(run).fork("nap#1")
            await box.clock.advance(2)
            assert (await fork.status()).status == "completed"
            figures = (await rt.entry_points.statistics())["family"]
            assert (figures["total_executions"], figures["active_executions"]) == (1, 0)

    play(scenario)


# Cancelling


@pytest.mark.row("A3-13")
def test_cancelling_a_run_that_waits_for_its_turn_tells_who_waits_at_once_and_leaves_nothing() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            first, second = [await rt.trigger("one", {"name": name}) for name in "ab"]
            waiting = asyncio.ensure_future(rt.entry_points.wait("one", second))
            await box.clock.advance(0.1)
            tasks = asyncio.all_tasks()

            assert await rt.cancel_execution("one", second) is True

            found = await waiting
            assert found is not None
            assert (found.status, found.success) == ("cancelled", False)
            await box.clock.advance(0)
            assert asyncio.all_tasks() <= tasks
            figures = (await rt.statistics()).queues["entry:one"]
            assert (figures.waiting, figures.working) == (0, 1)
            await box.clock.advance(1)
            assert (await rt.run(first).status()).status == "completed"
            assert await rt.get_execution_result("one", second) == found
            assert await facts(rt, second) == ["run-started", "run-cancel-requested", "run-cancelled", "entry-told"]

    play(scenario)


@pytest.mark.row("A3-14")
def test_a_run_at_work_that_is_cancelled_is_cancelled_and_neither_failed_nor_completed_and_can_be_gone_on_from() -> (
    None
):
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            waiting = asyncio.ensure_future(rt.trigger_and_wait("one", id="r"))
            await box.clock.advance(0.5)

            assert await rt.cancel_execution("one", "r") is True

            found = await waiting
            assert found is not None
            assert found.status == "cancelled"
            names = [event.to_dict()["type"] for event in await rt.events.history(run="r")]
            assert "execution_cancelled" in names
            assert not {"execution_failed", "execution_completed", "execution_paused"} & set(names)
            fork: RunHandle[Any] = await rt.run("r").fork("sleep#1", id="again")
            await box.clock.advance(2)
            assert await fork.result() == "nap"
            assert await rt.cancel_execution("one", "r") is False

    play(scenario)


@pytest.mark.row("A3-15")
def test_cancelling_what_is_not_there_is_false() -> None:
    async def scenario() -> None:
        async with entries() as box:
            rt = await box.open()
            run = await rt.trigger("one")
            assert await rt.cancel_execution("one", "nothing") is False
            assert await rt.cancel_execution("nothing", run) is False
            assert await rt.cancel_execution("two", run) is False
            assert (await rt.run(run).status()).status in ("queued", "running")

    play(scenario)


def test_an_end_that_could_not_be_told_before_the_process_died_is_told_when_the_log_is_opened_again() -> None:
    async def scenario() -> None:
        disk, clock = MemoryDisk(), TestClock()
        async with Box(disk, clock, workflows=[nap], entry_points=[POINTS[0]]) as box:
            rt = await box.open()
            await rt.trigger("one", id="a")
            await rt.trigger("one", id="b")
            await clock.advance(0.1)
            await rt.cancel_execution("one", "b")
            await clock.advance(0)
        rows = disk._storage.events
        border = next(row.position for row in rows if row.type == "run-cancelled")
        left = disk_until(disk, border)

        async with Box(left, TestClock(), workflows=[nap], entry_points=[POINTS[0]]) as box:
            rt = await box.open()
            await box.clock.advance(0)
            assert [end["run"] for end in await gate(rt, "one", "entry-run-ended")] == ["b"]
            assert (await facts(rt, "b"))[-1] == "entry-told"

    play(scenario)


@pytest.mark.row("A3-72")
def test_a_run_that_pauses_itself_is_a_result_that_says_where_and_its_end_is_another_one() -> None:
    @workflow
    async def review(ctx: Context, text: str) -> str:
        verdict = await ctx.pause("editor", result={"draft": text}, of=str)
        return f"{text}: {verdict}"

    async def scenario() -> list[Any]:
        entry = EntryPoint("reviews", review, "api")
        async with Runtime("x", log=MemoryDisk().open, entry_points=[entry], clock=TestClock()) as rt:
            first = await rt.trigger_and_wait("reviews", {"text": "a"}, id="r")
            again = await rt.entry_points.wait("reviews", "r", timeout=0)
            kept = await rt.get_execution_result("reviews", "r")
            await rt.run("r").resume("good")
            last = await rt.entry_points.wait("reviews", "r")
            told = {document_name(event.type) for event in await rt.run("r").history()}
            return [first, again, kept, last, told & {"execution_paused", "execution_failed"}]

    first, again, kept, last, told = asyncio.run(scenario())
    assert (first.status, first.paused_at, first.output, first.success) == ("paused", "editor", {"draft": "a"}, False)
    assert (again, kept) == (first, None)
    assert (last.status, last.paused_at, last.output) == ("completed", None, "a: good")
    assert told == {"execution_paused"}
