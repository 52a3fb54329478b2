"""The test kit that is shipped: its clock, given / when / then, the log in memory, crashes."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, LogWriteError, Runtime, StoreError, StoreLockedError, UsageError, tool, workflow
from perdure.testing import Crashable, MemoryDisk, TestClock, given
from tests.support.actors import (
    Account,
    AccountBehavior,
    Deposit,
    Deposited,
    InsufficientFunds,
    Notify,
    Send,
    Withdraw,
    Withdrawn,
)
from tests.support.runs import DAY, HOUR, on_both_logs, play, storage


@tool
def in_thread(number: int) -> int:
    return number + 1


@workflow
async def count(ctx: Context) -> int:
    number = await ctx.call(in_thread, 1)
    await ctx.sleep(DAY)
    return await ctx.call(in_thread, number)


# The clock


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = TestClock()

    assert clock.now == datetime(2026, 1, 1, tzinfo=UTC)
    assert clock.moment() == clock.moment()


def test_timers_are_called_in_the_order_of_their_times_and_at_their_times() -> None:
    async def scenario() -> None:
        clock = TestClock()
        start = clock.moment().now
        called: list[tuple[str, float]] = []

        def note(name: str) -> Any:
            return lambda: called.append((name, (clock.moment().now - start) / 1e6))

        clock.call_at(start + 3_000_000, note("three"))
        clock.call_after(1_000_000, note("one"))
        clock.call_at(start + 2_000_000, note("two"))
        never = clock.call_at(start + 2_500_000, note("never"))
        clock.call_at(start + 5_000_001, note("later"))
        never.cancel()
        assert [timer.due.second for timer in clock.pending] == [1, 2, 3, 5]
        await clock.advance(5)
        assert called == [("one", 1), ("two", 2), ("three", 3)]
        assert clock.now == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
        [later] = clock.pending
        assert later.due == datetime(2026, 1, 1, 0, 0, 5, 1, tzinfo=UTC)

    play(scenario)


def test_what_a_timer_sets_off_comes_to_rest_before_time_goes_on() -> None:
    async def scenario() -> None:
        clock = TestClock()
        seen: list[int] = []

        async def work() -> None:
            for _ in range(30):
                await asyncio.sleep(0)
            seen.append(clock.now.second)
            clock.call_after(2_000_000, lambda: seen.append(clock.now.second))

        tasks: list[Any] = []
        clock.call_after(1_000_000, lambda: tasks.append(asyncio.ensure_future(work())))
        await clock.advance(timedelta(seconds=10))
        assert seen == [1, 3]

    play(scenario)


def test_a_timer_that_is_due_already_is_called_by_itself_and_never_inside_the_call() -> None:
    async def scenario() -> None:
        clock = TestClock()
        called: list[str] = []
        clock.call_at(0, lambda: called.append("at"))
        clock.call_after(0, lambda: called.append("after"))
        cancelled = clock.call_after(-5, lambda: called.append("cancelled"))
        cancelled.cancel()
        assert called == []
        await clock.settle()
        assert called == ["at", "after"]

    play(scenario)


def test_the_wall_clock_jumps_and_the_steady_count_does_not() -> None:
    async def scenario() -> None:
        clock = TestClock()
        start = clock.moment()
        called: list[str] = []
        clock.call_at(start.now + 60_000_000, lambda: called.append("wall"))
        clock.call_after(60_000_000, lambda: called.append("steady"))
        await clock.jump_wall(-DAY)
        assert clock.moment() == start  # `now` never goes back
        await clock.jump_wall(DAY + timedelta(minutes=2))
        assert called == ["wall"]
        assert clock.moment().steady == start.steady
        assert clock.moment().now == start.now + 120_000_000
        await clock.jump_wall(-HOUR)
        assert clock.moment().now == start.now + 120_000_000
        await clock.advance(60)
        assert called == ["wall", "steady"]

    play(scenario)


def test_a_clock_does_not_go_back() -> None:
    async def scenario() -> None:
        with pytest.raises(UsageError, match="jump_wall"):
            await TestClock().advance(-1)

    play(scenario)


def test_a_clock_begins_at_a_time_with_a_zone() -> None:
    assert TestClock(datetime(2030, 5, 6, tzinfo=UTC)).now.year == 2030
    with pytest.raises(UsageError, match="zone"):
        TestClock(datetime(2030, 5, 6))  # noqa: DTZ001 - on purpose


@on_both_logs
def test_threads_and_the_disk_are_waited_for(kind: str, tmp_path: Path) -> None:
    """A hundred times, since a wait that only seems to work fails now and then."""

    async def scenario() -> None:
        clock = TestClock()
        async with Crashable(storage(kind, tmp_path), workflows=[count], clock=clock) as box:
            rt = await box.open()
            for _ in range(100):
                run = await rt.start(count)
                await clock.settle()
                view = await run.status()
                assert (view.status, view.steps_done) == ("waiting", 1)

    play(scenario)


# Given, when, then


def test_events_replies_effects_and_states_are_compared() -> None:
    account = given(AccountBehavior(), [Deposited(5)])

    after = account.when(Withdraw(2)).then([Withdrawn(2)], reply=3)
    after.when(Notify("hello")).then([Deposited(0)], effects=[Send("hello")])

    assert after.state == Account(3)
    assert after.index.is_open
    assert account.state == Account(5)


def test_a_refusal_is_returned() -> None:
    refusal = given(AccountBehavior()).when(Withdraw(1)).then_refused(InsufficientFunds)

    assert (refusal.asked, refusal.balance) == (1, 0)


def test_what_differs_is_shown_line_by_line() -> None:
    decided = given(AccountBehavior(), [Deposited(5)]).when(Withdraw(2))

    with pytest.raises(AssertionError) as events:
        decided.then([Deposited(1), Withdrawn(3)])
    with pytest.raises(AssertionError) as reply:
        decided.then([Withdrawn(2)], reply=4)
    with pytest.raises(AssertionError) as effects:
        decided.then([Withdrawn(2)], effects=[Send("x")])

    assert "Withdraw(amount=2) led to other events (- expected, + actual):" in str(events.value)
    assert "- Deposited(amount=1)" in str(events.value)
    assert "+ Withdrawn(amount=2)" in str(events.value)
    assert "other reply" in str(reply.value)
    assert "- Send(text='x')" in str(effects.value)


def test_an_unexpected_refusal_and_a_missing_one_are_told_apart() -> None:
    with pytest.raises(AssertionError, match="was refused: InsufficientFunds: asked for 9, there is 0"):
        given(AccountBehavior()).when(Withdraw(9)).then([])
    with pytest.raises(AssertionError, match=r"was not refused, it led to:\n  Deposited\(amount=1\)"):
        given(AccountBehavior()).when(Deposit(1)).then_refused(InsufficientFunds)
    with pytest.raises(AssertionError, match=r"with InsufficientFunds: .*, not with StoreLockedError"):
        given(AccountBehavior()).when(Withdraw(9)).then_refused(StoreLockedError)


# Memory and crashes


@on_both_logs
def test_what_was_acknowledged_survives_a_crash(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = TestClock()
        async with Crashable(storage(kind, tmp_path), workflows=[count], clock=clock) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(count)
            waits = asyncio.ensure_future(run.result())
            await clock.settle()
            rt = await box.crash_and_reopen()
            with pytest.raises(LogWriteError, match="abandoned"):
                await waits
            await clock.advance(DAY)
            assert await rt.run("r").result() == 3
            rt = await box.close_and_reopen()
            assert await rt.run("r").result() == 3

    play(scenario)


def test_what_waits_for_the_disk_is_lost_in_a_crash() -> None:
    async def scenario() -> None:
        clock = TestClock()
        async with Crashable(workflows=[count], clock=clock) as box:
            rt = await box.open()
            start = asyncio.ensure_future(rt.with_options(id="r").start(count))
            await asyncio.sleep(0)
            await box.crash()
            with pytest.raises(StoreError):
                await start
            rt = await box.open()
            assert await rt.waiting() == []

    play(scenario)


def test_a_crash_leaves_no_timer_that_acts() -> None:
    async def scenario() -> None:
        clock = TestClock()
        async with Crashable(workflows=[count], clock=clock) as box:
            for _ in range(3):
                rt = await box.open()
                await rt.start(count)
                await clock.settle()
                await box.crash()
            await clock.advance(10 * DAY)
            assert clock.pending == ()

    play(scenario)


def test_a_box_has_one_runtime_at_a_time() -> None:
    async def scenario() -> None:
        async with Crashable() as box:
            with pytest.raises(UsageError, match="open"):
                await box.crash()
            await box.open()
            with pytest.raises(UsageError, match="crash"):
                await box.open()

    play(scenario)


def test_a_disk_in_memory_has_one_owner_and_keeps_its_content() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        async with Runtime("memory", log=disk.open, workflows=[count], clock=TestClock()) as rt:
            run = await rt.with_options(id="r").start(count)
            with pytest.raises(StoreLockedError):
                async with Runtime("memory", log=disk.open):
                    pass
            await run.cancel()
        async with Runtime("memory", log=disk.open, clock=TestClock()) as rt:
            assert (await rt.run("r").status()).workflow == "count"

    play(scenario)


def test_a_disk_in_memory_fails_when_told_and_can_be_opened_again() -> None:
    async def scenario() -> None:
        async with Crashable(workflows=[count], clock=TestClock()) as box:
            rt = await box.open()
            assert isinstance(box.storage, MemoryDisk)
            box.storage.fail_next(OSError("no space"))
            with pytest.raises(LogWriteError, match="no space"):
                await rt.start(count)
            await box.crash()
            rt = await box.open()
            await rt.start(count)

    play(scenario)
