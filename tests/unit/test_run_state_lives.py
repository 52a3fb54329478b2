"""`ctx.state`: conflicts and updates, live and replayed; runs that crash, are cancelled, retried, forked or go on."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from perdure import (
    Context,
    RunFailedError,
    Settings,
    StepFailedError,
    UsageError,
    tool,
    workflow,
)
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, box_with, events, play
from tests.support.sharing import KEEP, box_of, does, result_of

# Conflicts


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("call", [["write", "k", "mine", "stream"], ["delete", "k", "stream"]])
def test_a_synchronized_run_does_not_overwrite_what_changed_since_it_read_it(call: list[Any], dies: bool) -> None:
    async def scenario() -> None:
        async with box_of("synchronized", settings=KEEP) as box:
            rt = await box.open()
            await rt.state.view(stream="orders").write("k", "first", "stream")
            calls = [
                ["read", "k"], ["wait"], ["try", *call], ["wait"], ["read", "k"],
                ["try", "write", "k", "again", "stream"], ["read", "k"],
            ]  # fmt: skip
            await rt.trigger("orders", {"calls": calls}, id="r")
            await box.clock.settle()
            await result_of(rt, "orders", ["write", "k", "theirs", "stream"], id="them")
            rt = await box.crash_and_reopen() if dies else rt
            await rt.run("r").signal("go", 1)
            await box.clock.settle()
            rt = await box.crash_and_reopen() if dies else rt
            await rt.run("r").signal("go", 2)

            found = await rt.run("r", does).result()

            said = "'k' of stream/orders was changed by them since it was read: read it again, or use update"
            assert found == ["first", f"StateConflictError: {said}", "theirs", None, "again"]
            (conflict,) = await events(rt, "r", "state-conflicted")
            assert (conflict["key"], conflict["by"], conflict["scope"]) == ("k", "them", "stream")

    play(scenario)


def test_a_shared_run_overwrites_what_changed_since_it_read_it() -> None:
    async def scenario() -> None:
        async with box_of("shared", settings=KEEP) as box:
            rt = await box.open()
            await rt.trigger("orders", {"calls": [["read", "k"], ["wait"], ["write", "k", 2, "stream"]]}, id="r")
            await box.clock.settle()
            await result_of(rt, "orders", ["write", "k", 1, "stream"])
            await rt.run("r").signal("go", 1)
            await rt.run("r").result()

            assert await rt.state.view(stream="orders").read("k") == 2

    play(scenario)


@pytest.mark.parametrize(
    ("reading", "meanwhile", "conflicts"),
    [
        (["read", "k"], ["write", "k", 1, "global"], True),
        (["has", "k"], ["write", "k", 1, "global"], True),
        (["read_all"], ["write", "k", 1, "global"], True),
        (["add", "k", "global", 1], ["write", "k", 1, "global"], True),
        (["write", "k", 5, "global"], ["write", "k", 1, "global"], True),
        (["read", "k"], ["write", "other", 1, "global"], False),
        (["read", "other"], ["write", "k", 1, "global"], False),
        (["read", "k"], ["write", "k", 1, "stream"], False),
        (["write_batch", {"k": 1, "l": 2}, "global"], ["delete", "k", "global"], True),
        (["read", "k"], ["compare_and_set", "k", 7, 8, "global"], False),
    ],
)
def test_only_a_key_that_was_seen_and_changed_in_that_scope_is_a_conflict(
    reading: list[Any], meanwhile: list[Any], *, conflicts: bool
) -> None:
    async def scenario() -> None:
        async with box_of("synchronized", settings=KEEP) as box:
            rt = await box.open()
            calls = [reading, ["wait"], ["try", "write", "k", "mine", "global"]]
            await rt.trigger("orders", {"calls": calls}, id="r")
            await box.clock.settle()
            await result_of(rt, "orders", meanwhile)
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("go", 1)

            last = (await rt.run("r", does).result())[-1]

            assert str(last).startswith("StateConflictError") is conflicts

    play(scenario)


def test_a_run_does_not_conflict_with_itself_and_update_never_conflicts() -> None:
    async def scenario() -> None:
        async with box_of("synchronized", settings=KEEP) as box:
            rt = await box.open()
            calls = [
                ["read", "k"], ["write", "k", 1, "global"], ["write", "k", 2, "global"], ["wait"],
                ["add", "k", "global", 1], ["write", "k", 9, "global"],
            ]  # fmt: skip
            await rt.trigger("orders", {"calls": calls}, id="r")
            await box.clock.settle()
            await rt.state.write("k", 10)
            await rt.run("r").signal("go", 1)

            assert (await rt.run("r").result())[-2:] == [11, None]

    play(scenario)


# Updates


def _divided(by: int, n: float) -> float:
    return n / by


@workflow
async def divides(ctx: Context) -> list[str]:
    said: list[str] = []
    for divisor in (0, 2):
        try:
            said.append(str(await ctx.state.update("n", partial(_divided, divisor), default=8, scope="global")))
        except StepFailedError as error:
            said.append(f"{error.error_type}, because of {error.__cause__!r}")
    await ctx.sleep(1)
    return said


def test_what_the_function_of_an_update_raises_is_told_the_same_live_and_replayed_and_writes_nothing() -> None:
    async def scenario() -> None:
        async with box_with(divides, settings=KEEP) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(divides)
            await box.clock.settle()
            await rt.state.write("n", 1)
            rt = await box.crash_and_reopen()
            await box.clock.advance(2)

            assert await rt.run("r").result() == ["ZeroDivisionError, because of None", "4.0"]
            assert await rt.state.read("n") == 1

    play(scenario)


@workflow
async def updates_wrongly(ctx: Context, how: str) -> str:
    async def later(n: int) -> int:
        return n

    functions: dict[str, Any] = {
        "async": later,
        "ctx": lambda _: ctx.now(),
        "not JSON": lambda _: object(),
        "too large": lambda _: "x" * (1024 * 1024 + 1),
    }
    try:
        await ctx.state.update("n", functions[how])
    except StepFailedError as error:
        return error.error_type
    return "updated"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("async", "UsageError"),
        ("ctx", "UsageError"),
        ("not JSON", "UnencodableError"),
        ("too large", "PayloadTooLargeError"),
    ],
)
def test_a_function_that_cannot_be_an_update_changes_nothing(how: str, error: str) -> None:
    async def scenario() -> None:
        async with box_with(updates_wrongly) as box:
            rt = await box.open()

            assert await (await rt.start(updates_wrongly, how)).result() == error
            assert await rt.state.recent_changes() == []

    play(scenario)


# Lives of a run


@pytest.mark.row("A3-42")
def test_shared_values_survive_a_restart_and_those_of_a_run_do_not_survive_the_run() -> None:
    async def scenario() -> None:
        async with box_of(settings=KEEP) as box:
            rt = await box.open()
            calls = [
                ["write_batch", {"e": 1}], ["write_batch", {"s": 2}, "stream"], ["write_batch", {"g": 3}, "global"],
                ["wait"], ["read_all"],
            ]  # fmt: skip
            await rt.trigger("orders", {"calls": calls}, id="r")
            await box.clock.settle()
            before = await rt.state.view(run="r").read_all()
            rt = await box.crash_and_reopen()
            after = await rt.state.view(run="r").read_all()
            await rt.run("r").signal("go", 1)
            await box.clock.settle()
            rt = await box.close_and_reopen()

            assert before == after == {"e": 1, "s": 2, "g": 3}
            assert (await rt.run("r", does).result())[-1] == before
            assert await rt.state.view(run="r").read_all() == {"s": 2, "g": 3}
            assert await rt.state.statistics() == {
                "global_keys": 1, "stream_count": 1, "execution_count": 0, "total_changes": 3, "version": 3,
            }  # fmt: skip

    play(scenario)


@workflow
async def cleans_up(ctx: Context) -> None:
    await ctx.state.write("mine", 1)
    await ctx.state.write("state", "working", "global")
    try:
        await ctx.sleep(timedelta(days=1))
    finally:
        await ctx.state.write("state", f"cleaned up, with {await ctx.state.read('mine')}", "global")


@pytest.mark.parametrize("asleep", [False, True])
def test_a_cancelled_run_cleans_up_its_state_and_loses_its_own(asleep: bool) -> None:
    async def scenario() -> None:
        settings = Settings() if asleep else KEEP
        async with box_with(cleans_up, settings=settings) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(cleans_up)
            await box.clock.settle()

            await rt.run("r").cancel("enough")
            await box.clock.settle()

            assert (await rt.run("r").status()).status == "cancelled"
            assert await rt.state.read("state") == "cleaned up, with 1"
            assert await rt.state.view(run="r").read_all() == {"state": "cleaned up, with 1"}

    play(scenario)


banks_are_open: list[bool] = []


@tool
async def pay() -> str:
    if not banks_are_open:
        raise ConnectionError("the bank is closed")
    return "paid"


@workflow
async def pays(ctx: Context) -> list[Any]:
    await ctx.state.update("tries", lambda n: n + 1, default=0)
    await ctx.state.update("tries of all", lambda n: n + 1, default=0, scope="global")
    return [await ctx.call(pay), await ctx.state.read("tries"), await ctx.state.read("tries of all")]


def test_a_run_that_is_tried_again_has_its_own_values_as_it_left_them() -> None:
    async def scenario() -> None:
        banks_are_open.clear()
        async with box_with(pays) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(pays)
            with pytest.raises(RunFailedError, match="closed"):
                await run.result()
            kept = await rt.state.view(run="r").read("tries")
            rt = await box.close_and_reopen()
            banks_are_open.append(True)

            await rt.run("r").retry()

            assert kept == 1
            assert await rt.run("r").result() == ["paid", 1, 1]
            assert await rt.state.view(run="r").read_all() == {"tries of all": 1}

    play(scenario)


@workflow
async def goes_on(ctx: Context, number: int) -> list[Any]:
    await ctx.state.update("n", lambda n: n + number, default=0)
    if number < 3:
        ctx.continue_as_new(number + 1)
    return [await ctx.state.read("n"), ctx.run_id]


def test_a_run_that_goes_on_as_another_one_hands_its_own_values_on() -> None:
    async def scenario() -> None:
        async with box_with(goes_on) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(goes_on, 1)

            assert await run.result() == [6, "r~3"]
            assert await rt.state.view(run="r~3").read_all() == {}

    play(scenario)


@workflow
async def can_be_forked(ctx: Context) -> Any:
    first = await ctx.state.update("n", lambda n: n + 1, default=0)
    second = await ctx.state.update("n", lambda n: n + 10)
    await ctx.sleep(1)
    third = await ctx.state.update("n", lambda n: n + 100)
    return [first, second, third, await ctx.state.read("n")]


@pytest.mark.parametrize("step", ["state.update#1", "state.update#2", "sleep#1", "state.update#3"])
def test_a_fork_begins_with_the_values_that_its_origin_had_there(step: str) -> None:
    async def scenario() -> None:
        async with box_with(can_be_forked, settings=KEEP) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(can_be_forked)
            await box.clock.advance(2)
            expected = await run.result()
            fork = await run.fork(step, id="f")
            await box.clock.advance(2)

            assert await fork.result() == expected == [1, 11, 111, 111]

    play(scenario)


def test_a_fork_at_a_checkpoint_has_what_the_step_before_it_wrote() -> None:
    async def scenario() -> None:
        async with box_with(can_be_forked, settings=KEEP) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(can_be_forked)
            await box.clock.advance(2)
            await run.result()
            found = [one for one in await run.checkpoints() if one.step.startswith("state.")]
            for number, checkpoint in enumerate(found):
                fork = await run.fork(checkpoint=checkpoint.id, id=f"f{number}")
                await box.clock.advance(2)
                assert await fork.result() == [1, 11, 111, 111], checkpoint

            assert len(found) == 4

    play(scenario)


@workflow
async def in_branches(ctx: Context) -> list[Any]:
    async def add(name: str) -> int:
        for _ in range(3):
            await ctx.state.update("n", lambda n: n + 1, default=0, scope="global")
            await ctx.sleep(1)
        await ctx.state.write(name, await ctx.state.read("n"))
        return int(await ctx.state.read("n"))

    await ctx.gather(add("a"), add("b"), add("c"))
    won, _ = await ctx.race(add("d"), ctx.sleep(0.5))
    return [await ctx.state.read("n"), sorted(await ctx.state.read_all()), won]


@pytest.mark.parametrize("seconds", [0, 1, 2, 3, 4])
def test_branches_share_the_runs_own_values_and_survive_a_crash(seconds: int) -> None:
    async def scenario() -> None:
        async with box_with(in_branches, settings=KEEP) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(in_branches)
            await box.clock.advance(seconds)
            rt = await box.crash_and_reopen()
            await box.clock.advance(20)

            assert await rt.run("r").result() == [10, ["a", "b", "c", "n"], 1]

    play(scenario)


def test_the_code_may_name_a_step() -> None:
    async def scenario() -> None:
        @workflow
        async def names(ctx: Context) -> Any:
            return await ctx.with_options(key="first").state.update("n", lambda n: n + 1, default=0)

        async with box_with(names) as box:
            rt = await box.open()
            run = await rt.start(names)
            await run.result()

            assert [one["step"] for one in await events(rt, run.id, "state-written")] == ["first"]

    play(scenario)


def test_other_code_that_asks_the_state_for_something_else_is_a_mismatch() -> None:
    async def scenario() -> None:
        def version(key: str) -> Any:
            async def changes(ctx: Context) -> Any:
                await ctx.state.write(key, 1)
                await ctx.sleep(5)

            return workflow(changes)

        disk = MemoryDisk()
        async with Box(disk, TestClock(), workflows=[version("a")], settings=KEEP) as box:
            await (await box.open()).with_options(id="r").start(box.runtime.workflow("changes"))
            await box.clock.settle()
            await box.crash()
        async with Box(disk, TestClock(), workflows=[version("b")], settings=KEEP) as box:
            rt = await box.open()
            await box.clock.settle()

            view = await rt.run("r").status()

            assert (view.status, view.error_type) == ("blocked", "mismatch")
            assert "write" in view.error

    play(scenario)


def test_a_call_from_a_task_of_ones_own_is_refused() -> None:
    async def scenario() -> None:
        @workflow
        async def astray(ctx: Context) -> str:
            try:
                await asyncio.gather(ctx.state.write("k", 1))
            except UsageError as error:
                return str(error)
            return "written"

        async with box_with(astray) as box:
            rt = await box.open()

            assert "ctx" in await (await rt.start(astray)).result()

    play(scenario)
