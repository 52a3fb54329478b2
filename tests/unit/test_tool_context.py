"""What a tool is told of its call: live and after a restart, in runs and outside of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from perdure import Context, Retry, Settings, ToolContext, UsageError, tool, workflow
from perdure.actors.tools.context import call_deadline
from tests.support.runs import HOUR, box_with, play
from tests.support.tools import Double

MINUTE = timedelta(minutes=1)

told: list[ToolContext] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    told.clear()


@tool(effect="read")
async def look(context: ToolContext, what: str = "") -> str:
    told.append(context)
    context.logger.info("looked", what=what)
    return what


@tool(retry=Retry(attempts=2, backoff=HOUR, cap=HOUR, jitter=False))
async def stumble(context: ToolContext) -> str:
    told.append(context)
    if context.attempt == 1:
        raise ConnectionError("down")
    return "up"


@workflow
async def looking(ctx: Context) -> str:
    return await ctx.with_options(timeout=60).call(look)


@workflow
async def stumbling(ctx: Context) -> str:
    return await ctx.call(stumble)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_call_in_a_run_belongs_to_the_run() -> None:
    async def scenario() -> None:
        async with box_with(looking, tools=[look]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r").start(looking)).result()

    play(scenario)

    assert [(one.run_id, one.trajectory, one.call_id, one.principal) for one in told] == [("r", "r", "r:look#1", None)]


def test_a_call_in_a_run_with_a_conversation_belongs_to_the_conversation() -> None:
    async def scenario() -> None:
        async with box_with(looking, tools=[look]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r", conversation="chat").start(looking)).result()

    play(scenario)

    assert [(one.run_id, one.trajectory) for one in told] == [("r", "chat")]


def test_a_call_outside_of_runs_belongs_to_its_conversation_or_to_none() -> None:
    async def scenario() -> None:
        async with box_with(tools=[look]) as box:
            rt = await box.open()
            await rt.call(look)
            await rt.with_options(conversation="chat", principal="ada").call(look)
            await rt.with_options(principal="bob").dispatch("look", {"what": "sea"})

    play(scenario)

    assert [(one.run_id, one.trajectory, one.principal) for one in told] == [
        (None, None, None),
        (None, "chat", "ada"),
        (None, None, "bob"),
    ]


def test_the_deadline_is_that_of_the_call_or_of_the_run_whichever_comes_first() -> None:
    async def scenario() -> datetime:
        async with box_with(looking, tools=[look]) as box:
            rt = await box.open()
            now = at(box.clock.moment().now / 1e6)
            await (await rt.with_options(deadline=HOUR).start(looking)).result()
            await (await rt.with_options(deadline=MINUTE / 2).start(looking)).result()
            await rt.with_options(timeout=timedelta(seconds=5)).call(look)
            await rt.call(look)
            return now

    now = play(scenario)

    assert [one.deadline for one in told] == [now + MINUTE, now + MINUTE / 2, now + MINUTE / 12, None]


def test_a_timeout_past_the_end_of_the_calendar_is_a_deadline_at_its_end() -> None:
    assert call_deadline(0, timedelta.max) == datetime.max.replace(tzinfo=UTC)


def test_what_a_tool_is_told_is_the_same_after_a_crash() -> None:
    async def scenario() -> tuple[str, datetime]:
        async with box_with(stumbling, tools=[stumble]) as box:
            rt = await box.open()
            now = at(box.clock.moment().now / 1e6)
            options = rt.with_options(id="r", conversation="chat", principal="ada", deadline=2 * HOUR)
            await options.start(stumbling)
            await rt.until_idle()
            await box.crash()
            rt = await box.open()
            await box.clock.advance(HOUR)
            return await rt.run("r", stumbling).result(), now

    result, now = play(scenario)

    assert result == "up"
    assert [one.attempt for one in told] == [1, 2]
    for one in told:
        assert (one.run_id, one.trajectory, one.principal, one.deadline) == ("r", "chat", "ada", now + 2 * HOUR)


def test_a_run_that_waited_for_a_place_knows_who_asked_for_it() -> None:
    async def scenario() -> None:
        slow = Double("slow")

        @workflow
        async def holding(ctx: Context) -> None:
            await ctx.call(slow.tool, "hold")

        async with box_with(looking, holding, tools=[look], settings=Settings(max_active_runs=1)) as box:
            rt = await box.open()
            await rt.start(holding)
            run = await rt.with_options(principal="ada").start(looking)
            await box.clock.settle()
            assert told == []
            slow.release()
            await run.result()

    play(scenario)

    assert [one.principal for one in told] == ["ada"]


def test_the_log_says_who_asked() -> None:
    async def scenario() -> dict[str, Any]:
        async with box_with(looking, tools=[look, stumble]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r", principal="ada").start(looking)).result()
            await rt.with_options(principal="Bob Müller").dispatch("stumble")
            page = await rt.run("r").history(limit=1)
            started = {event.type: event.principal for event in page}
            async for event in rt.tail():
                if event.stream == "tool/stumble":
                    started[event.type] = event.principal
                if event.type == "call-failed":
                    break
            return started

    assert play(scenario) == {"run-started": "ada", "call-started": "Bob Müller", "call-failed": "Bob Müller"}


@pytest.mark.parametrize("principal", ["", "a\nb", "\ud800", "x" * 201])
def test_a_principal_that_cannot_be_shown_is_refused(principal: str) -> None:
    async def scenario() -> None:
        async with box_with(tools=[look]) as box:
            rt = await box.open()
            with pytest.raises(UsageError, match="1 to 200 printable characters"):
                rt.with_options(principal=principal)

    play(scenario)


def test_the_logger_is_bound_to_the_call() -> None:
    async def scenario() -> None:
        async with box_with(looking, tools=[look]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r", conversation="chat").start(looking)).result()
            await rt.with_options(principal="ada").call(look, "sea")

    with capture_logs() as logs:
        play(scenario)

    in_run, outside = [line for line in logs if line["event"] == "looked"]
    bound = {"call_id": "r:look#1", "tool": "look", "run_id": "r", "attempt": 1, "trajectory": "chat"}
    assert in_run == {**bound, "what": "", "event": "looked", "log_level": "info"}
    assert outside.keys() - in_run.keys() == set()
    assert in_run.keys() - outside.keys() == {"run_id", "trajectory"}
    assert msgspec.json.encode(outside["call_id"])
