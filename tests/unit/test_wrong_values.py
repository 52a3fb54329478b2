"""What callers get wrong is told to them and does not stand in the log, where it would be in everybody's way."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    BreakerPolicy,
    BusEvent,
    Context,
    EventBus,
    InvalidDefinitionError,
    Retry,
    RunFailedError,
    RunHandle,
    Runtime,
    UsageError,
    load_definition,
    tool,
    workflow,
)
from perdure.actors.kernel.spans import LONGEST, check_limit, span_of
from perdure.runtime.cli.exits import Failure
from perdure.runtime.cli.loading import read_json
from perdure.runtime.cli.options import Moment, Number
from perdure.runtime.cli.output import clock_time, iso
from perdure.testing import MemoryDisk

PASSWORD = "hunter2"
wrong: Any = 5
"""A value that no type checker would let through as a text."""


@tool
async def price(item: str) -> int:
    return len(item)


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


@workflow
async def asks(ctx: Context) -> str:
    return await ctx.signal(wrong, of=str)


@workflow
async def for_ever(ctx: Context, how: str) -> None:
    if how == "sleep":
        await ctx.sleep(timedelta.max)
    elif how == "signal":
        await ctx.signal("go", of=str, timeout=timedelta.max)
    else:
        await ctx.event("order.paid", timeout=timedelta.max)


Said = Callable[[Runtime, RunHandle[Any]], Awaitable[object]]
SAID: dict[str, Said] = {
    "cancel": lambda rt, run: run.cancel(wrong),
    "pause": lambda rt, run: run.pause(wrong),
    "circuit": lambda rt, run: rt.force_circuit("price", "open", because=wrong),
}


@pytest.mark.parametrize("what", SAID)
def test_a_value_that_could_not_be_read_back_is_refused_and_the_log_can_be_opened_again(what: str) -> None:
    disk = MemoryDisk()

    async def scenario() -> None:
        async with Runtime("a.db", workflows=[waits], tools=[price], log=disk.open) as rt:
            run = await rt.with_options(id="r").start(waits)

            with pytest.raises(UsageError, match="is a text, not 5"):
                await SAID[what](rt, run)

        async with Runtime("a.db", workflows=[waits], tools=[price], log=disk.open) as rt:
            assert await rt.call(price, "tea") == 3
            await rt.run("r").signal("go", "now")
            assert await rt.run("r").result() == "now"

    asyncio.run(scenario())


def test_a_run_whose_code_says_what_could_not_be_read_back_fails_and_can_be_read() -> None:
    async def scenario() -> None:
        async with Runtime("a.db", workflows=[asks], log=MemoryDisk().open) as rt:
            run = await rt.start(asks)
            with pytest.raises(RunFailedError, match="signal-awaited cannot be recorded"):
                await run.result()

            assert (await run.status()).error_type == "UnencodableError"

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["sleep", "signal", "event"])
def test_a_limit_that_means_for_ever_fails_its_run_and_not_the_log(how: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Runtime(tmp_path / "a.db", workflows=[for_ever, waits]) as rt:
            run = await rt.start(for_ever, how)
            with pytest.raises(RunFailedError, match="at most a thousand years"):
                await run.result()

            with pytest.raises(UsageError, match="at most a thousand years"):
                await rt.with_options(deadline=timedelta.max).start(waits)
            after = await rt.start(waits)
            await after.signal("go", "on")
            assert await after.result() == "on"

    asyncio.run(scenario())


@pytest.mark.parametrize("given", ["x", None, True, float("nan"), float("inf"), 1e300, 10**400, timedelta.max])
def test_a_time_is_seconds_or_a_timedelta_within_reason(given: object) -> None:
    with pytest.raises(UsageError, match=r"^ctx\.sleep takes "):
        span_of(given, "ctx.sleep")


def test_what_can_be_a_time_is_taken() -> None:
    assert [span_of(given, "it") for given in (-1, 0.5, LONGEST)] == [
        timedelta(seconds=-1), timedelta(seconds=0.5), LONGEST,
    ]  # fmt: skip


@pytest.mark.parametrize("given", [5, "1h", timedelta(0), timedelta.max])
def test_a_limit_is_a_timedelta_of_more_than_nothing(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^timeout is "):
        check_limit(given, "timeout")


def test_a_policy_that_would_wait_for_ever_is_refused_where_it_is_written() -> None:
    with pytest.raises(UsageError, match="backoff is at most"):
        Retry(backoff=timedelta.max)
    with pytest.raises(UsageError, match="reset_timeout is at most"):
        BreakerPolicy(reset_timeout=timedelta.max)
    with pytest.raises(UsageError, match="reset_timeout takes at most"):
        tool(reset_timeout=1e15)(price.function)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"timeout": 1e300}, "timeout"),
        ({"pattern": "event_driven", "steps": [{"id": "a", "tool": "price", "on": [{"event": "x", "within": 1e12}]}]},
         r"steps\[0\]\.on\[0\]\.within"),
    ],
)  # fmt: skip
def test_a_limit_in_a_definition_that_is_no_date_is_a_fault_with_its_path(fields: dict[str, Any], path: str) -> None:
    definition = load_definition({"id": "d", "steps": [{"id": "a", "tool": "price"}]} | fields)

    async def scenario() -> None:
        with pytest.raises(InvalidDefinitionError, match=f"{path}: it is seconds, more than 0 and at most ten years"):
            async with Runtime("a.db", workflows=[definition], tools=[price], log=MemoryDisk().open):
                pass

    asyncio.run(scenario())


def test_a_time_after_the_last_year_is_shown_as_the_last_one() -> None:
    assert clock_time(2**62).startswith("9999-12-")
    assert str(iso(2**62)).startswith("9999-12-")


def test_a_text_without_quotes_is_no_json_and_is_told_how_it_is_written() -> None:
    with pytest.raises(Failure, match=r"""^the value is not JSON: .*; a text stands in quotes of its own: '"text"'$"""):
        read_json("here", "JSON")


def test_a_number_that_no_position_can_be_stands_for_the_last_one() -> None:
    assert Number(min=0).convert("99999999999999999999", None, None) == 2**63 - 1
    assert Moment().convert("99999999999d", None, None) < 0


def test_what_a_handler_failed_of_is_told_without_the_values_of_its_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def breaks(event: BusEvent) -> None:
        password = event.data["password"]
        raise ValueError(len(password))

    async def scenario() -> None:
        bus = EventBus()
        bus.on("login", breaks)
        await bus.emit("login", {"password": PASSWORD})

    asyncio.run(scenario())

    said = "".join(capsys.readouterr())
    assert "ValueError: 7" in said
    assert "in breaks" in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ctx: ctx.call("price", "lamp"), "'price' is not a tool"),
        (lambda ctx: ctx.run("child"), "'child' is not a workflow"),
        (lambda ctx: ctx.with_options(retry=5), "retry is a Retry"),
        (lambda ctx: ctx.with_options(fallback="x"), "fallback is a tool"),
        (lambda ctx: ctx.with_options(effect="maybe"), "effect is one of read, idempotent, irreversible, not 'maybe'"),
    ],
)
def test_what_is_no_tool_no_workflow_and_no_option_is_refused_by_name(call: Callable[[Any], Any], error: str) -> None:
    @workflow
    async def asks(ctx: Context) -> str:
        try:
            made = call(ctx)
            return str(await made if asyncio.iscoroutine(made) else made)
        except UsageError as refused:
            return str(refused)

    async def scenario() -> str:
        async with Runtime("memory", log=MemoryDisk().open, workflows=[asks]) as rt:
            return await (await rt.start(asks)).result()

    assert error in asyncio.run(scenario())


def test_from_outside_what_is_no_tool_and_no_workflow_is_refused_by_name() -> None:
    async def scenario() -> None:
        async with Runtime("memory", log=MemoryDisk().open) as rt:
            with pytest.raises(UsageError, match="'price' is not a tool"):
                await rt.call(wrong_tool, "lamp")
            with pytest.raises(UsageError, match="5 is not a workflow"):
                await rt.start(wrong)

    wrong_tool: Any = "price"
    asyncio.run(scenario())
