"""A tool called outside of a run: guarded by its circuit breaker, recorded, and never made twice."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    CircuitOpenError,
    InvalidArgumentsError,
    LogWriteError,
    Query,
    Runtime,
    ToolContext,
    ToolFailedError,
    tool,
)
from tests.support.runs import HOUR, box_with, data, on_both_logs, play, storage

calls: list[Any] = []
microsecond = timedelta(microseconds=1)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(failure_threshold=3, reset_timeout=300)
async def service(answer: str) -> str:
    calls.append(answer)
    if answer == "fail":
        raise ConnectionError("down")
    if answer == "hang":
        await asyncio.get_running_loop().create_future()
    return answer


async def fail(rt: Runtime, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ToolFailedError):
            await rt.call(service, "fail")


async def tool_facts(rt: Runtime, name: str = "service") -> list[str]:
    return [event.type for event in await rt.read(Query(stream_prefix=f"tool/{name}"))]


@on_both_logs
def test_a_call_is_recorded_before_and_after_it_is_made(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            assert await rt.call(service, "hello") == "hello"
            assert await tool_facts(rt) == ["call-started", "call-succeeded"]

    play(scenario)


def test_a_failure_has_the_original_as_its_cause() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            with pytest.raises(ToolFailedError, match="ConnectionError: down") as caught:
                await rt.call(service, "fail")
            assert isinstance(caught.value.__cause__, ConnectionError)

    play(scenario)


@pytest.mark.row("A0-08")
@pytest.mark.row("A0-11")
@pytest.mark.row("A0-23")
def test_an_open_circuit_refuses_also_after_a_crash_until_its_time_has_passed() -> None:
    async def scenario() -> None:
        async with box_with(tools=[service]) as box:
            rt = await box.open()
            await rt.call(service, "hello")
            await fail(rt, 3)
            with pytest.raises(CircuitOpenError, match="3 of 3 calls failed"):
                await rt.call(service, "hello")
            assert calls == ["hello", "fail", "fail", "fail"]
            rt = await box.crash_and_reopen()
            figures = (await rt.statistics()).tools["service"]
            assert (figures.state, figures.failures, figures.calls, figures.rejected) == ("open", 3, 4, 1)
            await box.clock.advance(300)
            with pytest.raises(CircuitOpenError):
                await rt.call(service, "hello")
            await box.clock.advance(microsecond)
            assert await rt.call(service, "hello") == "hello"
            assert (await rt.statistics()).tools["service"].state == "closed"

    play(scenario)


@pytest.mark.row("A0-24")
@pytest.mark.parametrize("hours", [-1, 1], ids=["set back", "set forward"])
def test_setting_the_systems_clock_neither_prolongs_nor_shortens_an_open_circuit(hours: int) -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await fail(rt, 3)
            await box.clock.jump_wall(hours * HOUR)
            await box.clock.advance(300)
            with pytest.raises(CircuitOpenError):
                await rt.call(service, "hello")
            await box.clock.advance(microsecond)
            assert await rt.call(service, "hello") == "hello"

    play(scenario)


@pytest.mark.row("A0-14")
def test_of_many_at_once_one_is_let_through_when_half_open() -> None:
    async def scenario() -> list[str]:
        async with box_with() as box:
            rt = await box.open()
            await fail(rt, 3)
            await box.clock.advance(301)
            calls.clear()
            answers = await asyncio.gather(*(rt.call(service, "hello") for _ in range(10)), return_exceptions=True)
            return [type(answer).__name__ for answer in answers]

    kinds = play(scenario)

    assert sorted(kinds) == ["CircuitOpenError"] * 9 + ["str"]
    assert calls == ["hello"]


@pytest.mark.row("A0-21")
def test_arguments_that_do_not_fit_are_the_callers_mistake() -> None:
    async def scenario() -> None:
        async with box_with(tools=[service]) as box:
            rt = await box.open()
            for _ in range(5):
                with pytest.raises(InvalidArgumentsError):
                    await rt.call(service, 5)  # type: ignore[arg-type] # on purpose
            figures = (await rt.statistics()).tools["service"]
            assert (figures.state, figures.failures, figures.calls) == ("closed", 0, 0)

    play(scenario)


@pytest.mark.row("A0-27")
def test_a_call_that_its_caller_gave_up_is_neither_a_success_nor_a_failure() -> None:
    async def scenario() -> None:
        async with box_with(tools=[service]) as box:
            rt = await box.open()
            call = asyncio.ensure_future(rt.call(service, "hang"))
            await box.clock.settle()
            call.cancel()
            await box.clock.settle()
            figures = (await rt.statistics()).tools["service"]
            assert (figures.cancelled, figures.calls, figures.failures, figures.successes) == (1, 0, 0, 0)
            assert await tool_facts(rt) == ["call-started", "call-cancelled"]

    play(scenario)


def test_a_call_given_up_before_it_was_made_leaves_nothing_open() -> None:
    """Nor does it hold the place of the probe, which would keep the circuit from ever closing."""

    async def scenario() -> None:
        async with box_with(tools=[service]) as box:
            rt = await box.open()
            await fail(rt, 3)
            await box.clock.advance(301)
            calls.clear()
            call = asyncio.ensure_future(rt.call(service, "hello"))
            await asyncio.sleep(0)  # admitted, the intent on its way to the disk
            call.cancel()
            await box.clock.settle()
            assert calls == []
            assert await rt.call(service, "hello") == "hello"
            rt = await box.crash_and_reopen()
            assert (await rt.statistics()).tools["service"].lost == 0

    play(scenario)


@on_both_logs
def test_a_call_that_a_crash_interrupted_is_lost_and_not_made_again(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(tools=[service], on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            call = asyncio.ensure_future(rt.call(service, "hang"))
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            call.cancel()
            await asyncio.wait([call])
            assert (await rt.statistics()).tools["service"].lost == 1
            [lost] = [data(event) for event in await rt.read(Query(types=("call-lost",)))]
            assert lost["effect"] == "idempotent"
            rt = await box.crash_and_reopen()
            assert (await rt.statistics()).tools["service"].lost == 1

    play(scenario)

    assert calls == ["hang"]


def test_a_probe_that_a_crash_interrupted_does_not_hold_the_circuit() -> None:
    async def scenario() -> None:
        async with box_with(tools=[service]) as box:
            rt = await box.open()
            await fail(rt, 3)
            await box.clock.advance(301)
            probe = asyncio.ensure_future(rt.call(service, "hang"))
            await box.clock.settle()
            with pytest.raises(CircuitOpenError, match="probe is in flight"):
                await rt.call(service, "hello")
            rt = await box.crash_and_reopen()
            probe.cancel()
            await asyncio.wait([probe])
            assert await rt.call(service, "hello") == "hello"
            assert (await rt.statistics()).tools["service"].state == "closed"

    play(scenario)


@pytest.mark.row("A0-25")
def test_figures_of_a_tool() -> None:
    @tool(failure_threshold=1)
    async def timed(seconds: float, fails: bool) -> str:
        await box_clock[0].advance(seconds)
        if fails:
            raise ValueError
        return "done"

    box_clock: list[Any] = []

    async def scenario() -> Any:
        async with box_with(tools=[timed]) as box:
            box_clock.append(box.clock)
            rt = await box.open()
            await rt.call(timed, 0.2, False)
            with pytest.raises(ToolFailedError):
                await rt.call(timed, 0.4, True)
            with pytest.raises(CircuitOpenError):
                await rt.call(timed, 0.1, False)
            return (await rt.statistics()).tools["timed"]

    figures = play(scenario)

    assert (figures.state, figures.failures, figures.successes, figures.calls) == ("open", 1, 1, 2)
    assert figures.avg_time == pytest.approx(0.3)
    assert figures.rejected == 1


@pytest.mark.row("A0-26")
def test_figures_of_an_open_circuit_whose_time_has_come() -> None:
    async def scenario() -> None:
        async with box_with(tools=[service]) as box:
            rt = await box.open()
            await fail(rt, 3)
            await box.clock.advance(300)
            assert (await rt.statistics()).tools["service"].state == "open"
            await box.clock.advance(microsecond)
            figures = (await rt.statistics()).tools["service"]
            assert (figures.state, figures.retry_after_seconds) == ("half_open", 0)

    play(scenario)


def test_a_tool_knows_its_call() -> None:
    @tool
    async def curious(context: ToolContext) -> list[Any]:
        return [context.tool, context.call_id == context.idempotency_key, context.attempt, context.run_id]

    async def scenario() -> Any:
        async with box_with() as box:
            rt = await box.open()
            return await rt.call(curious)

    assert play(scenario) == ["curious", True, 1, None]


def test_a_caller_is_told_when_the_outcome_could_not_be_recorded() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            call = asyncio.ensure_future(rt.call(service, "hang"))
            await box.clock.settle()
            box.storage.fail_next(OSError("the disk is gone"))  # type: ignore[union-attr] # it is a MemoryDisk
            with pytest.raises(LogWriteError, match="disk is gone"):
                await rt.call(service, "hello")
            with pytest.raises(LogWriteError):
                await rt.call(service, "hello")
            await box.crash()
            call.cancel()
            await asyncio.wait([call])

    play(scenario)

    assert calls == ["hang"]
