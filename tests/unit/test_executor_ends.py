"""How an executor's work ends: cancelled callers, releases, closing, stopping, a log that fails."""

import asyncio
from typing import Any

import pytest

from perdure import LogWriteError, ToolResult, UsageError, tool
from perdure.actors.slots.calls import ToolCall
from perdure.testing import MemoryDisk
from tests.support.executing import WINDOW, Bench, on_bench
from tests.support.machine import Machine


@tool(external=True)
async def web(q: str) -> str:
    """Search."""
    raise AssertionError(q)


async def ended(call: "asyncio.Task[ToolResult]") -> bool:
    """Return whether a call ends by a cancel."""
    await asyncio.wait([call])
    return call.cancelled()


# Cancelled callers


@pytest.mark.row("A1-29")
def test_a_call_whose_caller_is_cancelled_before_the_dispatch_never_runs() -> None:
    async def scenario(bench: Bench) -> None:
        call = bench.submit("t", "one")
        await bench.clock.settle()
        call.cancel()
        await bench.advance()

        assert await ended(call)
        assert bench.machine.batches == []
        assert await bench.types("trajectory/t") == []

    on_bench(scenario)


@pytest.mark.row("A1-29")
def test_a_running_command_is_ended_with_its_caller_and_that_is_recorded() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        call = bench.submit("t", "hold a", uniq_id="u")
        await bench.advance()
        call.cancel()
        await bench.clock.settle()

        assert await ended(call)
        assert bench.machine.cancelled == ["t 1 u"]
        assert await bench.types("trajectory/t") == [
            "trajectory-slot-assigned", "execution-requested", "execution-cancelled"
        ]  # fmt: skip
        again = await bench.run("t", "hold a", uniq_id="u")
        assert (again.error, again.metadata) == (
            "cancelled: its caller gave it up", {"cancelled": True, "was_begun": True}
        )  # fmt: skip

    on_bench(scenario)


def test_a_call_that_is_cancelled_while_it_waits_for_a_slot_waits_no_longer() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("a")
        call = bench.submit("b", "never")
        await bench.advance()
        call.cancel()
        await bench.clock.settle()

        assert bench.executor.pool.waiting == 0
        assert bench.executor.statistics().running == 0
        assert await ended(call)

    on_bench(scenario, max_slots=1)


def test_a_call_that_is_cancelled_while_its_intent_is_written_is_not_sent() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        call = bench.submit("t", "never", uniq_id="u")
        await bench.clock.settle()
        lane = bench.executor._traffic.lanes.find("t")  # type: ignore[union-attr]
        assert lane is not None
        pending = lane.by_id["u"]
        bench.executor._traffic.window.flush()  # type: ignore[union-attr]
        while not pending.is_begun:  # noqa: ASYNC110 - the very turn matters
            await asyncio.sleep(0)
        call.cancel()
        await bench.clock.settle()

        assert await ended(call)
        assert bench.machine.order == ["true"]
        assert (await bench.types("trajectory/t"))[-1] == "execution-cancelled"
        assert (await bench.run("t")).success

    on_bench(scenario)


def test_a_call_goes_on_while_somebody_else_waits_for_it() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.machine.hold("a")
        one, two = bench.submit("t", "hold a", uniq_id="u"), bench.submit("t", "hold a", uniq_id="u")
        await bench.advance()
        one.cancel()
        await bench.clock.settle()
        held.set()

        assert (await two).success
        assert bench.machine.cancelled == []

    on_bench(scenario)


def test_an_external_call_is_ended_with_its_caller() -> None:
    async def scenario(bench: Bench) -> None:
        ends: list[str] = []

        async def serve(call: ToolCall, trajectory: str, seconds: float, slot: str | None) -> ToolResult:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(call.name)
            raise AssertionError

        await bench.serve(serve)
        call = bench.call("t", ToolCall("web", {"q": "x"}))
        await bench.advance()
        call.cancel()
        await bench.clock.settle()

        assert ends == ["web"]
        assert (await bench.types("trajectory/t"))[-1] == "execution-cancelled"

    on_bench(scenario, tools=[web])


# Releases


@pytest.mark.row("A1-30")
def test_a_release_waits_for_the_call_that_runs() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.machine.hold("a")
        call = bench.submit("t", "hold a")
        await bench.advance()
        release = asyncio.ensure_future(bench.rt.trajectory("t").release(reset_workspace=True))
        other = bench.submit("other")
        await bench.advance()

        assert (release.done(), other.done(), bench.machine.resets) == (False, False, [])
        held.set()
        await release
        assert (await call).success
        assert (await other).success
        assert bench.machine.resets == ["slot-0"]

    on_bench(scenario, max_slots=1)


def test_a_release_that_cancels_answers_everybody() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        calls = [bench.submit("t", "hold a"), bench.submit("t", "next")]
        await bench.advance()
        calls.append(bench.submit("t", "queued"))
        await bench.clock.settle()
        await bench.rt.trajectory("t").release(cancel=True)

        assert {(await call).error for call in calls} <= {"cancelled: its trajectory was released", ""}
        assert "queued" not in bench.machine.order
        assert bench.states() == {"slot-0": "available"}

    on_bench(scenario)


def test_a_release_is_queued_behind_the_calls_made_before_it() -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.submit("t", "before")
        await bench.clock.settle()
        release = asyncio.ensure_future(bench.rt.trajectory("t").release())
        await bench.clock.settle()
        after = bench.submit("t", "after")
        await bench.advance()
        await asyncio.gather(before, release, after)

        assert [one.lease for one in bench.machine.executions] == [1, 2]

    on_bench(scenario)


def test_a_released_trajectory_leaves_memory() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        await bench.rt.trajectory("t").release()

        assert bench.executor.statistics().trajectories == 0

    on_bench(scenario)


# Closing


@pytest.mark.row("A1-26")
def test_a_close_finishes_what_is_queued_and_releases_every_slot() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("a", "one"), bench.submit("a", "two"), bench.submit("b", "three")]
        await bench.clock.settle()

        await bench.executor.close()

        assert [(await call).success for call in calls] == [True] * 3
        await bench.executor.start()
        assert bench.states() == {"slot-0": "available", "slot-1": "available"}

    on_bench(scenario)


@pytest.mark.row("A1-27")
def test_a_closed_executor_can_be_started_again() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("a")
        await bench.executor.close()
        with pytest.raises(RuntimeError, match="not started"):
            await bench.executor.execute("a", ToolCall("bash", {}))

        await bench.executor.start()

        assert (await bench.run("a")).success

    on_bench(scenario)


@pytest.mark.row("A1-28")
@pytest.mark.parametrize("turns", range(8))
def test_a_call_that_races_with_the_close_is_answered(turns: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("known")
        close = asyncio.ensure_future(bench.executor.close())
        calls = []
        for turn in range(turns + 1):
            calls.append(bench.submit("known", uniq_id=f"k{turn}"))
            calls.append(bench.submit(f"new{turn}"))
            await asyncio.sleep(0)
        await bench.advance(1)

        await close
        assert all(call.done() for call in calls)
        assert {type(call.exception()) for call in calls} <= {type(None), UsageError}

    on_bench(scenario)


@pytest.mark.row("A1-32")
def test_a_closed_executor_leaves_empty_workspaces_behind() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("a")
        await bench.executor.close()
        assert bench.machine.resets == ["slot-0"]

        await bench.executor.start()
        await bench.run("b")

        assert [one.slot for one in bench.machine.executions] == ["slot-0", "slot-0"]
        assert bench.executor.pool.views()[0].lease == 2

    on_bench(scenario)


@pytest.mark.parametrize("phase", ["queued", "waiting", "running", "leaving", "closing"])
def test_whoever_waits_is_told_when_the_runtime_is_closed(phase: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        if phase in ("waiting", "leaving"):
            await bench.run("other")
        waiting: asyncio.Future[Any]
        if phase == "leaving":
            stuck = asyncio.Event()
            bench.machine.reset = lambda *_: stuck.wait()  # type: ignore[method-assign,assignment]
            waiting = asyncio.ensure_future(bench.executor.release_trajectory("other", reset_workspace=True))
        else:
            waiting = bench.submit("t", "hold a")
        await bench.advance(0 if phase == "queued" else WINDOW)
        closing = asyncio.ensure_future(bench.executor.close()) if phase == "closing" else None
        await bench.clock.settle()

        await bench.box.close()

        with pytest.raises(UsageError, match="the runtime was closed"):
            await waiting
        if closing is not None:
            await closing

    on_bench(scenario, max_slots=1)


def test_stopping_a_runtime_leaves_slots_with_their_trajectories() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        await bench.box.close_and_reopen()
        await bench.run("t")

        assert bench.machine.resets == []
        assert [one.lease for one in bench.machine.executions] == [1, 1]

    on_bench(scenario)


# A log that fails


def test_a_failed_log_is_told_to_everybody_and_closing_does_not_hang() -> None:
    async def play() -> None:
        disk, machine = MemoryDisk(), Machine()
        bench = Bench(machine)
        bench.box._storage = disk
        async with asyncio.timeout(30):
            await bench.box.open()
            machine.hold("a")
            held = bench.submit("a", "hold a")
            await bench.advance()
            disk.fail_next(OSError("no space"))
            failed = bench.submit("b")
            await bench.advance()
            late = bench.submit("c")
            await bench.clock.settle()

            for call in (held, failed, late):
                with pytest.raises(LogWriteError):
                    await call
            await bench.executor.close()
            with pytest.raises(LogWriteError):
                await bench.box.close()

    asyncio.run(play())


def test_what_the_log_did_not_take_is_not_forgotten_by_the_machine() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.machine.hold("a")
        call = bench.submit("t", "hold a", uniq_id="u")
        await bench.advance()
        bench.rt._log.abandon()
        held.set()
        await bench.clock.settle()

        with pytest.raises(LogWriteError):
            await call
        assert bench.machine.forgotten == []

    on_bench(scenario)
