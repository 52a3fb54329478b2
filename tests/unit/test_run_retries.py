"""Retries are events with a due time: a backoff survives a restart, and the log says why each attempt failed."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, Retry, Settings, StepFailedError, ToolContext, tool, workflow
from tests.support.runs import DAY, HOUR, box_with, events, facts, on_both_logs, play, storage

STEADY = Retry(attempts=3, backoff=timedelta(seconds=100), factor=2, cap=HOUR, jitter=False)
attempts: list[Any] = []


@pytest.fixture(autouse=True)
def _no_attempts() -> None:
    attempts.clear()


@tool(retry=STEADY, failure_threshold=1000)
async def flaky(context: ToolContext, succeeds_at: int) -> str:
    attempts.append((context.attempt, context.idempotency_key))
    if context.attempt < succeeds_at:
        raise OSError(f"attempt {context.attempt}")
    return "done"


@workflow
async def try_it(ctx: Context, succeeds_at: int) -> str:
    return await ctx.call(flaky, succeeds_at)


@on_both_logs
def test_an_attempt_is_made_when_its_backoff_is_over_and_all_have_one_key(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(try_it, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(try_it, 3)
            await box.clock.settle()
            assert len(attempts) == 1
            await box.clock.advance(99)
            assert len(attempts) == 1
            await box.clock.advance(1)
            assert len(attempts) == 2
            await box.clock.advance(199)
            assert len(attempts) == 2
            await box.clock.advance(1)
            assert await run.result() == "done"

    play(scenario)

    assert attempts == [(1, "r:flaky#1"), (2, "r:flaky#1"), (3, "r:flaky#1")]


@on_both_logs
def test_a_backoff_survives_crashes_and_attempts_are_not_counted_anew(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(try_it, on=storage(kind, tmp_path), settings=Settings(park_after=DAY)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(try_it, 3)
            await box.clock.settle()
            for _ in range(5):  # more often than the attempts there are, and than a poisonous run may kill
                rt = await box.crash_and_reopen()
                await box.clock.advance(19)
            assert len(attempts) == 1
            await box.clock.advance(5)
            rt = await box.crash_and_reopen()
            await box.clock.advance(1)
            assert len(attempts) == 2
            rt = await box.crash_and_reopen()
            await box.clock.advance(200)
            assert await rt.run("r").result() == "done"

    play(scenario)

    assert [number for number, _ in attempts] == [1, 2, 3]


def test_the_last_failure_is_what_the_workflow_gets() -> None:
    @workflow
    async def wf(ctx: Context) -> list[Any]:
        try:
            await ctx.call(flaky, 9)
        except StepFailedError as error:
            return [error.step, error.error_type, error.error, error.retryable]
        return []

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(HOUR)
            recorded = await facts(rt, "r")
            assert recorded.count("attempt-failed") == 2
            assert recorded.count("step-failed") == 1
            return await run.result()

    assert play(scenario) == ["flaky#1", "OSError", "attempt 3", True]
    assert len(attempts) == 3


@pytest.mark.parametrize(
    ("retry", "made"),
    [
        (Retry(attempts=5, backoff=timedelta(0), retry_on=("OSError",)), 5),
        (Retry(attempts=5, backoff=timedelta(0), retry_on=("Exception", "ValueError")), 1),
        (Retry(attempts=5, backoff=timedelta(0), retry_on=("LookupError",)), 1),
        (Retry(attempts=5, backoff=timedelta(0), never_on=("OSError",)), 1),
        (Retry(attempts=5, backoff=timedelta(0), never_on=("LookupError",)), 5),
        (Retry(attempts=5, backoff=timedelta(seconds=10), jitter=False, factor=1, total=timedelta(seconds=25)), 3),
        (Retry(), 1),
    ],
)
def test_a_call_may_bring_its_own_policy(retry: Retry, made: int) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        with pytest.raises(StepFailedError):
            await ctx.with_options(retry=retry).call(flaky, 100)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(HOUR)
            await run.result()

    play(scenario)

    assert len(attempts) == made


def test_a_base_class_is_as_good_as_the_class() -> None:
    class MyOwnError(ConnectionError):
        pass

    @tool(retry=Retry(attempts=2, backoff=timedelta(0), retry_on=("ConnectionError",)))
    async def fails() -> int:
        attempts.append(1)
        raise MyOwnError

    @workflow
    async def wf(ctx: Context) -> None:
        with pytest.raises(StepFailedError, match="MyOwnError"):
            await ctx.call(fails)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(1)
            await run.result()

    play(scenario)

    assert len(attempts) == 2


def test_an_open_circuit_makes_a_retried_step_wait_for_it_and_a_plain_one_fail() -> None:
    broken = True

    @tool(failure_threshold=1, reset_timeout=300)
    async def service() -> str:
        attempts.append(1)
        if broken:
            raise OSError("down")
        return "up"

    @workflow
    async def wf(ctx: Context) -> list[str]:
        found: list[str] = []
        for one in (ctx, ctx, ctx.with_options(retry=Retry(attempts=2, backoff=timedelta(0)))):
            try:
                found.append(await one.call(service))
            except StepFailedError as error:
                found.append(error.error_type)
        return found

    async def scenario() -> Any:
        nonlocal broken
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(300)
            broken = False
            assert len(attempts) == 1
            [refused] = await events(rt, "r", "attempt-refused")
            assert refused["step"] == "service#3"
            await box.clock.advance(timedelta(microseconds=1))
            assert (await rt.statistics()).tools["service"].rejected == 2
            return await run.result()

    assert play(scenario) == ["OSError", "CircuitOpenError", "up"]


@pytest.mark.parametrize(
    "value",
    [None, b"raw", {"error": "bad"}, '{"error": "bad"}', float("nan"), "\ud800", object()],
    ids=["none", "bytes", "error", "error text", "nan", "surrogate", "object"],
)
def test_a_result_that_reports_an_error_or_cannot_be_recorded_is_a_failure(value: Any) -> None:
    @tool
    async def answers() -> Any:
        return value

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            await ctx.call(answers)
        except StepFailedError as error:
            return error.error_type
        return "went well"

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result()

    expected = "ToolReportedError" if isinstance(value, (dict, str)) and "error" in value else "InvalidResult"
    assert play(scenario) == expected


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even its text is broken")


def misbehave(how: str) -> int:
    match how:
        case "exit":
            raise SystemExit(3)
        case "cancel":
            raise asyncio.CancelledError
        case "stop":
            raise StopIteration
        case "broken":
            raise BrokenError
        case _:
            raise ExceptionGroup("many", [ValueError("one")])


@pytest.mark.parametrize("is_async", [True, False])
def test_whatever_a_tool_raises_is_its_failure_and_nobody_elses(is_async: bool) -> None:
    async def misbehave_later(how: str) -> int:
        return misbehave(how)

    bad = tool(name="bad", failure_threshold=100)(misbehave_later if is_async else misbehave)

    @workflow
    async def wf(ctx: Context) -> list[str]:
        found: list[str] = []
        for how in ("exit", "cancel", "broken", "group") if is_async else ("exit", "cancel", "broken", "group", "stop"):
            try:
                await ctx.call(bad, how)
            except StepFailedError as error:
                found.append(error.error_type)
        return found

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.settle()
            return await run.result()

    kinds = ["SystemExit", "CancelledError", "BrokenError", "ExceptionGroup"]
    assert play(scenario) == kinds + ([] if is_async else ["RuntimeError"])
