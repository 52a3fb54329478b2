"""Runs that go on as new ones: an empty history, the signals that nobody took, one result at the end of the chain."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from perdure import (
    Context,
    RunCancelledError,
    RunContinuedError,
    RunFailedError,
    SignalConflictError,
    UnknownRunError,
    UsageError,
    Workflow,
    tool,
    workflow,
)
from perdure.store.records import Query
from perdure.testing import MemoryDisk
from tests.support.runs import DAY, HOUR, Box, box_with, data, disk_until, events, facts, play

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool
async def note(item: Any) -> Any:
    calls.append(item)
    return item


@workflow
async def collect(ctx: Context, wanted: int, found: list[int]) -> list[int]:
    if len(found) < wanted:
        found = [*found, await ctx.signal("number", of=int)]
        await ctx.call(note, len(found))
        ctx.continue_as_new(wanted, found)
    return found


@workflow
async def parent(ctx: Context, wanted: int) -> list[int]:
    return await ctx.run(collect, wanted, [])


def test_a_run_goes_on_as_a_new_one_and_its_handle_waits_for_the_last() -> None:
    async def scenario() -> None:
        async with box_with(collect) as box:
            rt = await box.open()
            run = await rt.with_options(id="c", principal="ada", conversation="talk").start(collect, 2, [])
            await run.signal("number", 7)
            await box.clock.settle()
            await run.signal("number", 8)

            assert await run.result() == [7, 8]

            view = await run.status()
            assert (view.status, view.continued_as, view.is_closed) == ("continued", "c~2", True)
            started = (await rt.run("c~2").history())[0]
            assert data(started)["chain"] == {"first": "c", "before": "c", "number": 2}
            assert data(started)["conversation"] == "talk"
            assert started.principal == "ada"
            assert data((await rt.run("c~3").history())[0])["input"] == {"wanted": 2, "found": [7, 8]}
            with pytest.raises(UnknownRunError):
                await rt.run("c~4").status()

    play(scenario)


def test_signals_that_nobody_took_move_along_in_their_order() -> None:
    async def scenario() -> Any:
        async with box_with(collect) as box:
            rt = await box.open()
            run = await rt.with_options(id="c").start(collect, 5, [])
            for number in range(5):
                await run.signal("number", number, id=f"s{number}" if number % 2 else None)
            return await run.result()

    assert play(scenario) == [0, 1, 2, 3, 4]


def test_a_signal_that_was_taken_before_is_the_same_one_for_the_whole_chain() -> None:
    async def scenario() -> None:
        async with box_with(collect) as box:
            rt = await box.open()
            run = await rt.with_options(id="c").start(collect, 3, [])
            assert await run.signal("number", 1, id="one")
            await box.clock.settle()

            assert not await run.signal("number", 1, id="one")
            with pytest.raises(SignalConflictError):
                await run.signal("number", 2, id="one")
            assert await run.signal("number", 2, id="two")
            await box.clock.settle()
            assert not await run.signal("number", 2, id="two")
            await run.signal("number", 3)
            assert await run.result() == [1, 2, 3]

    play(scenario)


def test_a_parent_waits_for_the_end_of_the_chain() -> None:
    async def scenario() -> None:
        async with box_with(collect, parent) as box:
            rt = await box.open()
            run = await rt.with_options(id="p").start(parent, 2)
            await box.clock.settle()
            for number in (5, 6):
                await rt.run("p/collect#1").signal("number", number)
                await box.clock.settle()

            assert await run.result() == [5, 6]

            ended = await events(rt, "p", "child-ended")
            assert [e["run"] for e in ended] == ["p/collect#1~3"]
            assert "parent-told" not in await facts(rt, "p/collect#1")

    play(scenario)


@pytest.mark.parametrize("by_parent", [False, True])
def test_a_cancel_goes_to_the_run_that_it_is_now(by_parent: bool) -> None:
    async def scenario() -> None:
        async with box_with(collect, parent) as box:
            rt = await box.open()
            run = await rt.with_options(id="p").start(parent, 2)
            await box.clock.settle()
            await rt.run("p/collect#1").signal("number", 1)
            await box.clock.settle()

            await (run if by_parent else rt.run("p/collect#1")).cancel("enough")
            await box.clock.settle()

            with pytest.raises(RunCancelledError if by_parent else RunFailedError):
                await run.result()
            assert (await rt.run("p/collect#1~2").status()).status == "cancelled"

    play(scenario)


def test_the_deadline_is_of_the_whole_chain() -> None:
    async def scenario() -> None:
        async with box_with(collect) as box:
            rt = await box.open()
            run = await rt.with_options(id="c", deadline=HOUR).start(collect, 2, [])
            await box.clock.advance(timedelta(minutes=50))
            await run.signal("number", 1)
            await box.clock.advance(timedelta(minutes=20))

            with pytest.raises(RunFailedError, match="deadline"):
                await run.result()

    play(scenario)


def test_an_id_that_is_taken_is_passed_over() -> None:
    async def scenario() -> None:
        async with box_with(collect) as box:
            rt = await box.open()
            await rt.with_options(id="c~2").start(collect, 0, [])
            run = await rt.with_options(id="c").start(collect, 1, [])
            await run.signal("number", 1)

            assert await run.result() == [1]
            assert (await run.status()).continued_as == "c~3"

    play(scenario)


def test_a_run_of_a_chain_is_started_again_under_its_first_id_and_is_the_same() -> None:
    async def scenario() -> None:
        async with box_with(collect) as box:
            rt = await box.open()
            run = await rt.with_options(id="c").start(collect, 1, [])
            await run.signal("number", 1)
            await run.result()

            again = await rt.with_options(id="c").start(collect, 1, [])

            assert await again.result() == [1]

    play(scenario)


def test_it_is_refused_in_a_branch_and_with_input_that_does_not_fit() -> None:
    async def code(ctx: Context) -> list[str]:
        told: list[str] = []

        async def inside(number: int) -> None:
            try:
                ctx.continue_as_new()
            except UsageError as error:
                told.append(f"{number}: {error}")

        await ctx.map(inside, [1])
        try:
            ctx.continue_as_new("too much")
        except Exception as error:  # noqa: BLE001 - its class is what is looked at
            told.append(type(error).__name__)
        return told

    async def scenario() -> Any:
        wf = Workflow(code, "wf")
        async with box_with(wf) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result()

    told = play(scenario)
    assert "outside of gather" in told[0]
    assert told[1] == "InvalidArgumentsError"


def test_finally_blocks_run_and_a_run_cancelled_in_them_does_not_go_on() -> None:
    async def code(ctx: Context, number: int) -> None:
        try:
            ctx.continue_as_new(number + 1)
        finally:
            await ctx.call(note, number)
            await ctx.sleep(5)

    async def scenario() -> None:
        wf = Workflow(code, "wf")
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="c").start(wf, 1)
            await box.clock.advance(5)
            assert calls == [1, 2]
            await run.cancel("enough")

            with pytest.raises(RunCancelledError):
                await run.result()
            assert await rt.waiting() == []

    play(scenario)


def test_a_command_to_the_actor_of_a_run_that_went_on_is_refused_with_where_it_is() -> None:
    error = RunContinuedError(run="c", following="c~2")

    assert str(error) == "run c goes on as c~2"


def test_a_crash_after_any_commit_of_a_chain_loses_and_repeats_nothing() -> None:
    async def play_on(box: Box, rt: Any) -> Any:
        await box.clock.settle()
        for number in range(4):
            await rt.run("p/collect#1").signal("number", number, id=f"s{number}")
            await box.clock.advance(1)
        for _ in range(3):
            await box.clock.advance(DAY)
        return await rt.run("p").result()

    async def scenario() -> None:
        whole = box_with(collect, parent)
        rt = await whole.open()
        await rt.with_options(id="p").start(parent, 4)
        assert await play_on(whole, rt) == [0, 1, 2, 3]
        log = await rt.read(Query())
        await whole.close()
        assert isinstance(whole.storage, MemoryDisk)
        first = next(e.position for e in log if e.stream == "run/p")
        for event, following in pairwise(log):
            within = following.at == event.at and (event.type, following.type) in _UNITS
            if event.position < first or within:
                continue
            clock = box_with().clock
            await clock.advance(max(0.0, (event.at - clock.moment().now) / 1e6))
            box = Box(disk_until(whole.storage, event.position), clock, workflows=[collect, parent])
            calls.clear()
            rt = await box.open()
            result = await play_on(box, rt)
            done = sum(e.type == "step-completed" and e.position <= event.position for e in log)
            await box.close()
            assert result == [0, 1, 2, 3], f"after a crash at {event.position} ({event.type} of {event.stream})"
            assert len(calls) == 4 - done, f"after a crash at {event.position} ({event.type} of {event.stream})"

    play(scenario)


_UNITS = {
    ("child-started", "run-started"), ("run-continued", "run-started"), ("run-started", "signal-received"),
    ("run-completed", "parent-told"), ("parent-told", "child-ended"), ("parent-told", "run-parked"),
    ("run-parked", "child-ended"), ("run-parked", "signal-received"),
}  # fmt: skip
