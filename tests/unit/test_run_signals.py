"""A run that waits for signals: kept, in order, each taken once, the same live and replayed."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import (
    BlockingRuntime,
    Context,
    RunBlockedError,
    RunClosedError,
    RunFailedError,
    SignalConflictError,
    SignalRefusedError,
    StepFailedError,
    UnknownRunError,
    UsageError,
    Workflow,
    workflow,
)
from perdure.actors.workflows.mailbox import MAX_KEPT, MAX_SIGNAL_BYTES
from tests.support.runs import DAY, HOUR, MINUTE, Box, box_with, events, facts, on_both_logs, play, storage


class Parcel(msgspec.Struct, frozen=True):
    number: int


async def told(what: str) -> str:
    return what


@workflow
async def three(ctx: Context) -> list[int]:
    return [(await ctx.signal("parcel", of=Parcel)).number for _ in range(3)]


@workflow
async def patient(ctx: Context) -> str:
    try:
        return await ctx.signal("go", of=str, timeout=HOUR)
    except StepFailedError as error:
        return f"{error.error_type} {error.retryable}: {await ctx.step(told, error.error)}"


@on_both_logs
def test_signals_are_taken_in_the_order_of_sending_also_those_that_came_before_anybody_waited(
    kind: str, tmp_path: Path
) -> None:
    async def scenario() -> list[int]:
        async with box_with(three, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(three)
            for number in (1, 2):
                assert await run.signal("parcel", Parcel(number), who="ada")
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("parcel", Parcel(3))
            who = {event.principal for event in await rt.run("r").history() if event.type == "signal-received"}
            assert who == {"ada", None}
            return await rt.run("r", three).result()

    assert play(scenario) == [1, 2, 3]


def test_a_run_that_waits_for_a_signal_leaves_memory_and_is_not_brought_back_for_anything_else() -> None:
    async def scenario() -> None:
        async with box_with(three) as box:
            rt = await box.open()
            for name in ("a", "b"):
                await rt.with_options(id=name).start(three)
            await rt.until_idle()
            assert [(one.id, one.wake_at, one.waits_on) for one in await rt.waiting()] == [
                ("a", None, "signal"), ("b", None, "signal"),
            ]  # fmt: skip

            rt = await box.crash_and_reopen()
            await rt.run("b").signal("other", 1)
            await rt.run("b").signal("parcel", Parcel(1))
            await rt.until_idle()

            assert await facts(rt, "a") == ["run-started", "signal-awaited", "run-parked"]
            assert (await facts(rt, "b")).count("run-resumed") == 1

    play(scenario)


def test_a_signal_with_an_id_is_delivered_once_and_another_one_with_it_is_refused() -> None:
    async def scenario() -> None:
        async with box_with(three) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(three)
            sent = [await run.signal("parcel", Parcel(1), id="p-1") for _ in range(2)]
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            run = rt.run("r", three)
            sent.append(await run.signal("parcel", Parcel(1), id="p-1"))
            assert sent == [True, False, False]
            for other in (("parcel", Parcel(2)), ("letter", Parcel(1))):
                with pytest.raises(SignalConflictError, match="p-1"):
                    await run.signal(*other, id="p-1")
            await run.signal("parcel", Parcel(2))
            await run.signal("parcel", Parcel(3), id="p-3")
            assert await run.result() == [1, 2, 3]
            assert not await run.signal("parcel", Parcel(3), id="p-3")  # the answer to the first time was lost
            with pytest.raises(RunClosedError, match="completed"):
                await run.signal("parcel", Parcel(4))

    play(scenario)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_wait_that_nobody_ends_expires_the_same_live_and_replayed(crashes: bool) -> None:
    async def scenario() -> str:
        async with box_with(patient) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(patient)
            await box.clock.advance(MINUTE)
            assert (await rt.run("r").status()).waits_on == "signal"
            if crashes:
                rt = await box.crash_and_reopen()
            await box.clock.advance(HOUR - MINUTE - timedelta(microseconds=1))
            assert not (await rt.run("r").status()).is_closed
            await box.clock.advance(timedelta(microseconds=1))
            return await rt.run("r", patient).result()

    assert play(scenario) == "TimeoutError False: no signal 'go' came in time"


def test_a_signal_after_the_time_of_the_wait_is_too_late_also_when_the_process_was_down() -> None:
    async def scenario() -> str:
        async with box_with(patient) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(patient)
            await box.clock.settle()
            await box.crash()
            await box.clock.advance(2 * HOUR)
            rt = await box.open()
            await rt.run("r").signal("go", "late")
            return await rt.run("r", patient).result()

    assert play(scenario).startswith("TimeoutError")


def test_a_value_of_another_type_is_a_failure_of_the_wait_and_the_next_one_is_taken() -> None:
    @workflow
    async def wf(ctx: Context) -> list[Any]:
        found: list[Any] = []
        for _ in range(2):
            try:
                found.append(await ctx.signal("n", of=int))
            except StepFailedError as error:
                found.append(error.error_type)
        return found

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await rt.run("r").signal("n", "seven")
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("n", 7)
            return await rt.run("r").result()

    assert play(scenario) == ["InvalidSignal", 7]


def test_what_a_run_keeps_is_bounded_in_number_and_in_size() -> None:
    async def scenario() -> None:
        async with box_with(three) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(three)
            with pytest.raises(SignalRefusedError, match="at most 65536"):
                await run.signal("parcel", "x" * MAX_SIGNAL_BYTES)
            for number in range(MAX_KEPT):
                await run.signal("other", number)
            with pytest.raises(SignalRefusedError, match="1000 already"):
                await run.signal("other", 0)
            big = await rt.with_options(id="big").start(three)
            for _ in range(16):
                await big.signal("other", "x" * 65_000)
            with pytest.raises(SignalRefusedError, match="16 already"):
                await big.signal("other", "x" * 65_000)
            rt = await box.crash_and_reopen()
            assert (await events(rt, "big", "signal-received"))[-1]["id"] == "#16"

    play(scenario)


@pytest.mark.parametrize("asleep", [False, True])
def test_a_run_is_cancelled_while_it_waits_and_its_wait_takes_nothing_any_more(asleep: bool) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.signal("go", of=str)
        finally:
            assert await ctx.signal("undo", of=str) == "now"

    async def scenario() -> list[str]:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            if asleep:
                await rt.until_idle()
            await run.cancel("enough")
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("undo", "now")
            await box.clock.settle()
            assert (await rt.run("r").status()).status == "cancelled"
            return [each for each in await facts(rt, "r") if each.startswith("signal")]

    assert play(scenario) == [
        "signal-awaited", "signal-wait-withdrawn", "signal-awaited", "signal-received", "signal-taken",
    ]  # fmt: skip


def test_a_wait_of_a_cancelled_branch_leaves_its_signal_to_the_next_one() -> None:
    @workflow
    async def wf(ctx: Context) -> str:
        async def fails() -> None:
            await ctx.signal("fail", of=int, timeout=timedelta(seconds=5))

        async def waits() -> str:
            return await ctx.signal("go", of=str)

        try:
            await ctx.gather(waits(), fails())
        except StepFailedError:
            await ctx.sleep(DAY)
        return await ctx.signal("go", of=str)

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(6)
            await run.signal("go", "mine")
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await rt.run("r").result()

    assert play(scenario) == "mine"


def test_branches_that_wait_for_the_same_name_each_get_one_in_the_order_of_their_waits() -> None:
    @workflow
    async def wf(ctx: Context) -> list[int]:
        return list(await ctx.gather(ctx.signal("n", of=int), ctx.signal("n", of=int)))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            await run.signal("n", 1)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("n", 2)
            return await rt.run("r").result()

    assert play(scenario) == [1, 2]


def test_code_that_waits_for_another_name_does_not_fit_the_recording() -> None:
    async def before(ctx: Context) -> None:
        await ctx.signal("go", of=str)

    async def after(ctx: Context) -> None:
        await ctx.signal("start", of=str)

    async def scenario() -> str:
        first = Workflow(before, "wf")
        async with box_with(first) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(first)
            await rt.until_idle()
            await box.close()
        async with Box(box.storage, box.clock, workflows=[Workflow(after, "wf")]) as again:
            rt = await again.open()
            await rt.run("r").signal("go", "x")
            with pytest.raises(RunBlockedError) as caught:
                await rt.run("r").result()
            return str(caught.value)

    assert "recorded: signal#1 (signal go) | now: the code asks for signal start" in play(scenario)


def test_what_cannot_be_a_signal_is_refused_before_anything_is_recorded() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.signal("go", of=str, timeout=timedelta(0))

    async def scenario() -> None:
        async with box_with(wf, three) as box:
            rt = await box.open()
            with pytest.raises(UnknownRunError):
                await rt.run("nobody").signal("go")
            run = await rt.with_options(id="r").start(three)
            for bad in ({"name": ""}, {"name": "a\nb"}, {"name": "go", "id": "#1"}, {"name": "go", "who": ""}):
                with pytest.raises(UsageError):
                    await run.signal(**bad)
            with pytest.raises(RunFailedError, match="more than 0"):
                await (await rt.start(wf)).result()

    play(scenario)


def test_a_program_without_a_loop_sends_signals_too(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "a.db", workflows=[three]) as rt:
        run = rt.start_as("r", three)
        sent = [run.signal("parcel", Parcel(number), id=str(number)) for number in (1, 2, 2, 3)]

        assert run.result(30) == [1, 2, 3]
        assert sent == [True, True, False, True]
