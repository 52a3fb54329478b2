"""Child runs: what a parent gets of them, live, replayed and after a crash, and what becomes of them with it."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ChildRun,
    Context,
    Recorded,
    Retry,
    RunCancelledError,
    RunFailedError,
    Runtime,
    Settings,
    StepFailedError,
    UsageError,
    Workflow,
    tool,
    workflow,
)
from perdure.store.reader import LogReader
from perdure.store.records import Query
from perdure.testing import MemoryDisk
from tests.support.runs import DAY, HOUR, Box, box_with, data, disk_until, events, facts, play

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(failure_threshold=1000, retry=Retry(attempts=1))
async def work(item: Any) -> Any:
    calls.append(item)
    if item == "bad":
        raise ValueError("bad item")
    return item


@workflow
async def leaf(ctx: Context, item: Any, seconds: float = 0) -> Any:
    if seconds:
        await ctx.sleep(seconds)
    return await ctx.call(work, item)


@workflow
async def careful(ctx: Context, item: Any) -> Any:
    try:
        await ctx.sleep(DAY)
    finally:
        await ctx.sleep(5)
        await ctx.call(work, f"undo {item}")


def parent_of(code: Any) -> Workflow[..., Any]:
    return Workflow(code, "parent")


async def all_events(rt: Runtime) -> list[Recorded]:
    found: list[Recorded] = []
    while page := await rt.read(Query(after=found[-1].position if found else 0)):
        found.extend(page)
    return found


async def settle(box: Box, *, rounds: int = 4, by: float = 60) -> None:
    for _ in range(rounds):
        await box.clock.advance(by)


def test_a_child_gives_its_result_and_both_know_one_another() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(leaf, "a")

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            run = await rt.with_options(id="p", principal="ada", conversation="talk").start(wf)

            assert await run.result() == "a"

            child = await rt.run("p/leaf#1").history()
            started = data(child[0])
            assert started["parent"] == {"run": "p", "step": "leaf#1", "is_awaited": True}
            assert (started["conversation"], child[0].principal, child[0].correlation) == ("talk", "ada", "p")
            assert child[0].causation == "run/p#1"
            assert [e.type for e in child][-2:] == ["run-completed", "parent-told"]
            ended = (await events(rt, "p", "child-ended"))[0]
            assert (ended["step"], ended["run"]) == ("leaf#1", "p/leaf#1")
            assert (ended["status"], ended["result"], ended["error_type"]) == ("completed", "a", "")
            assert (await run.status()).steps_done == 1

    play(scenario)


def test_start_and_end_of_a_child_are_one_unit_with_what_the_parent_records() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(leaf, "a")

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            await (await rt.with_options(id="p").start(wf)).result()

            log = [(e.position, e.type) for e in await all_events(rt)]
            position = {type_: at for at, type_ in log}
            assert ("run-started", position["child-started"] + 1) in [(t, at) for at, t in log]
            assert position["parent-told"] + 1 == position["child-ended"]

    play(scenario)


def test_a_failed_child_raises_its_error_type_live_and_replayed() -> None:
    seen: list[str] = []

    async def code(ctx: Context) -> str:
        try:
            await ctx.run(leaf, "bad")
        except StepFailedError as error:
            seen.append(f"{error.step} {error.error_type}")
        await ctx.sleep(DAY)
        return "done"

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, leaf, settings=Settings(park_after=2 * DAY)) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await rt.run("p").result()

    assert play(scenario) == "done"
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert seen[0].startswith("leaf#1 ")


def test_children_of_children_beside_one_another() -> None:
    async def middle_code(ctx: Context, item: str) -> Any:
        return list(await ctx.gather(ctx.run(leaf, f"{item}1", 5), ctx.run(leaf, f"{item}2")))

    middle = Workflow(middle_code, "middle")

    async def code(ctx: Context) -> Any:
        return await ctx.map(lambda item: ctx.run(middle, item), ["a", "b"])

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, middle, leaf) as box:
            rt = await box.open()
            run = await rt.with_options(id="p").start(wf)
            await box.clock.advance(5)
            return await run.result()

    assert play(scenario) == [["a1", "a2"], ["b1", "b2"]]
    assert sorted(calls) == ["a1", "a2", "b1", "b2"]


def test_a_parent_that_only_waits_for_a_child_leaves_memory_and_comes_back_for_its_end() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(leaf, "late", 3 * 86_400)

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            run = await rt.with_options(id="p").start(wf)
            await settle(box)
            view = await run.status()
            assert (view.status, view.waits_on, view.wake_at) == ("waiting", "child", None)
            assert view.children == ("p/leaf#1",)
            assert (await rt.statistics()).runs_in_memory == 0
            rt = await box.crash_and_reopen()
            assert (await rt.statistics()).runs_in_memory == 0

            await box.clock.advance(3 * DAY)

            assert await rt.run("p").result() == "late"

    play(scenario)


def test_places_are_lent_to_children_so_that_few_places_never_lock_up() -> None:
    async def code(ctx: Context, depth: int) -> Any:
        return "deep" if not depth else await ctx.run(wf, depth - 1)

    wf = parent_of(code)

    async def scenario() -> Any:
        async with box_with(wf, settings=Settings(max_active_runs=1)) as box:
            rt = await box.open()
            runs = [await rt.with_options(id=f"p{n}").start(wf, 5) for n in range(3)]
            await settle(box)
            return [await run.result() for run in runs]

    assert play(scenario) == ["deep"] * 3


def test_a_cancelled_parent_with_one_place_has_its_child_clean_up_before_it_ends() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(careful, "x")

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, careful, settings=Settings(max_active_runs=1)) as box:
            rt = await box.open()
            run = await rt.with_options(id="p").start(wf)
            await settle(box)

            await run.cancel("enough")
            await box.clock.settle()
            assert (await run.status()).status not in {"cancelled", "failed"}
            await box.clock.advance(5)

            with pytest.raises(RunCancelledError, match="enough"):
                await run.result()
            assert calls == ["undo x"]
            assert (await rt.run("p/careful#1").status()).status == "cancelled"
            assert [e["status"] for e in await events(rt, "p", "child-ended")] == ["cancelled"]

    play(scenario)


def test_a_sibling_that_fails_cancels_the_child_of_the_other_branch_live_and_replayed() -> None:
    async def code(ctx: Context) -> str:
        with pytest.raises(StepFailedError):
            await ctx.gather(ctx.run(careful, "x"), ctx.call(work, "bad"))
        await ctx.call(work, "after")
        await ctx.sleep(DAY)
        return "done"

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, careful, settings=Settings(park_after=2 * DAY)) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()  # while the child cleans up
            await box.clock.advance(10)
            assert calls == ["bad", "undo x", "after"]
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await rt.run("p").result()

    assert play(scenario) == "done"
    assert calls == ["bad", "undo x", "after"]


def test_a_detached_child_lives_on_when_its_parent_has_ended() -> None:
    async def code(ctx: Context) -> ChildRun:
        return await ctx.start(leaf, "on its own", 30)

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            run = await rt.with_options(id="p", deadline=timedelta(seconds=10)).start(wf)

            assert await run.result() == ChildRun("p/leaf#1")

            await box.clock.advance(30)
            assert await rt.run("p/leaf#1").result() == "on its own"
            assert "parent-told" not in await facts(rt, "p/leaf#1")

    play(scenario)


def test_a_child_may_be_given_an_id_which_another_run_must_not_have() -> None:
    async def code(ctx: Context) -> list[str]:
        told: list[str] = []
        for start in (
            ctx.with_options(id="own").run(leaf, "a"),
            ctx.with_options(id="taken").run(leaf, "a"),
            ctx.with_options(id="taken").start(leaf, "b"),
            ctx.with_options(id="p").run(leaf, "a"),
        ):
            try:
                told.append(str(await start))
            except StepFailedError as error:
                told.append(f"{error.error_type}: {error.error}")
        return [*told, (await ctx.with_options(id="taken").start(leaf, "a")).id]

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            await (await rt.with_options(id="taken").start(leaf, "a")).result()
            run = await rt.with_options(id="p").start(wf)
            result = await run.result()
            assert (await facts(rt, "p")).count("child-refused") == 3
            return result

    assert play(scenario) == [
        "a",
        "RunConflictError: the run 'taken' was there before: only a run that one starts itself can be awaited",
        "RunConflictError: the id 'taken' belongs to a run of leaf with other input",
        "RunConflictError: the id 'p' belongs to a run of parent",
        "taken",
    ]


def test_a_derived_id_that_is_taken_is_passed_over_and_a_long_one_is_shortened() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(leaf, "a")

    async def scenario() -> None:
        wf, long = parent_of(code), "p" * 128
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            await rt.with_options(id="p/leaf#1").start(leaf, "somebody else's")
            await (await rt.with_options(id="p").start(wf)).result()
            await (await rt.with_options(id=long).start(wf)).result()

            assert (await events(rt, "p", "child-ended"))[0]["run"] == "p/leaf#1~r2"
            child = (await events(rt, long, "child-ended"))[0]["run"]
            assert len(child) == 128
            assert await rt.run(child).result() == "a"

    play(scenario)


def test_the_deadline_of_an_awaited_child_is_the_sooner_one() -> None:
    async def code(ctx: Context) -> None:
        await ctx.gather(
            ctx.with_options(deadline=HOUR, key="short").run(leaf, "a"),
            ctx.with_options(deadline=2 * DAY, key="long").run(leaf, "b"),
            ctx.with_options(key="none").run(leaf, "c"),
        )

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            now = box.clock.moment().now
            await (await rt.with_options(id="p", deadline=DAY).start(wf)).result()

            limits = [
                (await events(rt, f"p/gather#1.{n}/{key}", "run-started"))[0]["deadline"] - now
                for n, key in enumerate(("short", "long", "none"))
            ]
            assert limits == [3_600_000_000, 86_400_000_000, 86_400_000_000]

    play(scenario)


def test_a_deadline_ends_the_child_before_its_parent_also_when_both_are_out_of_memory() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(careful, "x")

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, careful) as box:
            rt = await box.open()
            await rt.with_options(id="p", deadline=HOUR).start(wf)
            await settle(box)
            rt = await box.crash_and_reopen()

            await box.clock.advance(HOUR)
            await box.clock.advance(10)

            with pytest.raises(RunFailedError, match="Deadline"):
                await rt.run("p").result()
            assert calls == ["undo x"]

    play(scenario)


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_blocked_child_that_is_cancelled_tells_its_parent(is_changed: bool) -> None:
    known = [leaf]

    async def code(ctx: Context) -> str:
        try:
            await ctx.run(known[0], "a", DAY.total_seconds())
        except StepFailedError as error:
            return f"{error.error_type}: {error.error}"
        return "no error"

    async def scenario() -> str:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(wf)
            await settle(box)

            async def changed(ctx: Context, item: Any, seconds: float = 0) -> Any:
                return await ctx.call(work, f"{item}{seconds}")

            known[0] = Workflow(changed, "leaf") if is_changed else leaf
            rt = await box.crash_and_reopen(workflows=[wf, known[0]])
            await box.clock.advance(DAY)
            if not is_changed:
                return await rt.run("p").result()
            assert (await rt.run("p/leaf#1").status()).status == "blocked"
            await rt.run("p/leaf#1").cancel("it is hopeless")
            await settle(box, rounds=2)
            return await rt.run("p").result()

    expected = "RunCancelledError: run p/leaf#1 was cancelled: it is hopeless" if is_changed else "no error"
    assert play(scenario) == expected


def test_a_blocked_parent_that_is_cancelled_takes_its_children_along() -> None:
    async def code(ctx: Context) -> Any:
        return await ctx.run(careful, "x")

    async def changed(ctx: Context) -> Any:
        return await ctx.call(work, "something else")

    async def scenario() -> None:
        wf = parent_of(code)
        async with box_with(wf, careful) as box:
            rt = await box.open()
            await rt.with_options(id="p").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[parent_of(changed), careful])
            await box.clock.settle()
            assert (await rt.run("p").status()).status == "blocked"

            await rt.run("p").cancel("it is hopeless")

            assert (await rt.run("p").status()).status == "cancelled"
            rt = await box.crash_and_reopen(workflows=[parent_of(changed), careful])
            await settle(box)
            assert (await rt.run("p/careful#1").status()).status == "cancelled"
            assert calls == ["undo x"]
            assert await rt.waiting() == []

    play(scenario)


def test_a_thousand_children_of_one_parent() -> None:
    async def code(ctx: Context) -> int:
        async def one(number: int) -> int:
            return int(await ctx.run(leaf, number, number % 3))

        return sum(await ctx.map(one, range(1000), concurrency=1000))

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            run = await rt.with_options(id="p").start(wf)
            await box.clock.advance(1)
            rt = await box.crash_and_reopen()
            await box.clock.advance(5)
            run = rt.run("p")
            result = await run.result()
            assert (await run.status()).steps_done == 1000
            return result

    assert play(scenario) == sum(range(1000))
    assert sorted(calls) == list(range(1000))


def test_children_take_no_options_of_tools_and_must_be_registered() -> None:
    @workflow
    async def stranger(ctx: Context) -> None:
        del ctx

    async def code(ctx: Context) -> list[str]:
        told: list[str] = []
        for call in (ctx.run(stranger), ctx.with_options(timeout=5).run(leaf, "a")):
            try:
                await call
            except UsageError as error:
                told.append(str(error))
        return told

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result()

    first, second = play(scenario)
    assert "stranger is not registered" in first
    assert "deadline=" in second


def test_the_views_show_who_started_whom(tmp_path: Path) -> None:
    async def code(ctx: Context) -> Any:
        await ctx.start(leaf, "b")
        return await ctx.run(leaf, "a")

    async def scenario() -> None:
        wf = parent_of(code)
        async with Runtime(tmp_path / "t.db", workflows=[wf, leaf]) as rt:
            await (await rt.with_options(id="p").start(wf)).result()
            await rt.run("p/leaf#1").result()

    play(scenario)

    with LogReader.open(tmp_path / "t.db") as reader:
        children = reader.sql("SELECT child, is_awaited, status FROM child_runs ORDER BY child").rows
        runs = reader.sql("SELECT run, status, parent FROM runs ORDER BY run").rows
        assert list(children) == [("p/leaf#1", 0, None), ("p/leaf#2", 1, "completed")]
        assert list(runs) == [("p", "completed", None), ("p/leaf#1", "completed", "p"), ("p/leaf#2", "completed", "p")]


# Every crash border


async def family(ctx: Context) -> Any:
    first = await ctx.run(leaf, "a", 100)
    try:
        await ctx.gather(ctx.run(careful, "x"), ctx.run(leaf, "b", 3), ctx.run(leaf, "bad", 200))
    except StepFailedError as error:
        first += f" {error.step}"
    on_its_own = await ctx.start(leaf, "d", 5)
    return [first, on_its_own.id, await ctx.run(leaf, "c")]


async def to_its_end(box: Box, rt: Runtime) -> None:
    for _ in range(60):
        await box.clock.advance(20)
        views = [await rt.run(e.stream[4:]).status() for e in await all_events(rt) if e.type == "run-started"]
        if all(view.is_closed for view in views):
            return


def crashes_of(disk: MemoryDisk, log: list[Recorded]) -> list[tuple[Recorded, MemoryDisk]]:
    """What the disk holds after each commit; what is one unit is there as a whole or not at all."""
    first = next(e.position for e in log if e.stream == "run/p")
    within = {e.position for e, following in pairwise(log) if (e.type, following.type) in _UNITS}
    return [(e, disk_until(disk, e.position)) for e in log if e.position >= first and e.position not in within]


_UNITS = {
    ("child-started", "run-started"), ("parent-told", "child-ended"), ("parent-told", "run-parked"),
    ("run-parked", "child-ended"), ("run-cancel-requested", "run-parked"),
    *((f"run-{end}", "parent-told") for end in ("completed", "failed", "cancelled")),
}  # fmt: skip


async def record_of(rt: Runtime) -> tuple[Any, dict[str, list[str]]]:
    view = await rt.run("p").status()
    ends: dict[str, list[str]] = {
        str(e.stream): [f.type for f in await rt.run(e.stream[4:]).history() if f.type in _ENDS]
        for e in await all_events(rt)
        if e.type == "run-started"
    }
    return (view.status, view.result, view.error_type), ends


def _failed_before(log: list[Recorded], position: int) -> int:
    return sum(e.type == "step-failed" and e.position <= position for e in log)


_CALLS = 6
"""Of `work`, by the family: a, b, bad, undo x, d and c."""
_ENDS = {"run-completed", "run-failed", "run-cancelled", "parent-told"}


@pytest.mark.parametrize("parks", [False, True])
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_crash_after_any_event_of_parent_or_children_changes_nothing(parks: bool, is_cancelled: bool) -> None:
    chosen = Settings(park_after=timedelta(seconds=1) if parks else DAY)

    async def scenario() -> None:
        wf = parent_of(family)
        whole = Box(None, box_with().clock, workflows=[wf, leaf, careful], settings=chosen)
        rt = await whole.open()
        await rt.with_options(id="p").start(wf)
        await whole.clock.settle()
        if is_cancelled:
            await whole.clock.advance(150)
            await rt.run("p").cancel("enough")
        await to_its_end(whole, rt)
        expected, ends = await record_of(rt)
        log = await all_events(rt)
        await whole.close()
        assert expected[0] == ("cancelled" if is_cancelled else "completed")
        assert isinstance(whole.storage, MemoryDisk)
        for event, disk in crashes_of(whole.storage, log):
            where = f"after a crash at {event.position} ({event.type} of {event.stream})"
            calls.clear()
            clock = box_with().clock
            await clock.advance(max(0.0, (event.at - clock.moment().now) / 1e6))
            box = Box(disk, clock, workflows=[wf, leaf, careful], settings=chosen)
            rt = await box.open()
            if is_cancelled:
                await rt.run("p").cancel("enough")
            await to_its_end(box, rt)
            again, ends_again = await record_of(rt)
            left = await rt.waiting()
            await box.close()
            assert left == [], where
            assert all(len([e for e in found if e != "parent-told"]) == 1 for found in ends_again.values()), where
            if not is_cancelled:
                assert (again, ends_again) == (expected, ends), where
                done = sum(e.type == "step-completed" and e.position <= event.position for e in log)
                assert len(calls) == _CALLS - done - (_failed_before(log, event.position)), where

    play(scenario)


def test_tasks_of_other_loops_are_no_children() -> None:
    async def code(ctx: Context) -> str:
        try:
            await asyncio.gather(ctx.run(leaf, "a"))
        except UsageError:
            return "refused"
        return "not refused"

    async def scenario() -> Any:
        wf = parent_of(code)
        async with box_with(wf, leaf) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result()

    assert play(scenario) == "refused"
