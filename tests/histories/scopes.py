"""The workflows of histories of scopes: races and limits, sagas, children, a definition. They are never changed."""

import asyncio
from datetime import timedelta
from typing import Any

from perdure import (
    Branching,
    CompensationFailedError,
    Context,
    Retry,
    Step,
    StepFailedError,
    WorkflowDefinition,
    tool,
    workflow,
)
from tests.histories.code import inspect, tidy
from tests.histories.steering import HAPPENED, outcome

TWICE = Retry(attempts=2, backoff=timedelta(seconds=5), jitter=False)


@tool(failure_threshold=100)
async def hang(what: str) -> str:
    await asyncio.get_running_loop().create_future()
    return what


@workflow
async def scopes(ctx: Context) -> list[Any]:
    """A race, a limit that passes and one that does not, a step that is given up, a change of the code."""

    async def late(seconds: float, what: str) -> str:
        await ctx.sleep(seconds)
        return await ctx.call(tidy, what)

    ends: list[Any] = [list(await ctx.race(late(50, "slow"), late(5, "fast"), ctx.call(hang, "a")))]
    ends.append(await outcome(ctx.timeout(20, ctx.call(hang, "b"))))
    ends.append(await ctx.timeout(20, late(5, "in time")))
    ends.append(await outcome(ctx.gather(late(50, "never"), ctx.call(inspect, 13))))
    if ctx.version("greeting", 2) == 2:
        ends.append(await ctx.call(tidy, "hello"))
    return ends


@tool
async def book(what: str) -> str:
    return f"the {what}"


@tool(failure_threshold=100)
async def unbook(what: str) -> None:
    """Undo what can be undone: the hotel once somebody has called there, the car never."""
    if what == "the car" or (what == "the hotel" and "step-not-done" not in HAPPENED):
        raise OSError(f"{what} is not open")


@tool(failure_threshold=100, retry=Retry(attempts=1))
async def depart(how: str) -> str:
    raise OSError(f"no {how} today")


@workflow
async def trip(ctx: Context) -> list[Any]:
    """A saga that is undone, as far as it can be, and one that fails past its pivot."""
    ends: list[Any] = []
    saga = ctx.saga()
    try:
        async with saga:
            for what in ("flight", "hotel", "car"):
                await saga.undo_with(unbook, retry=TWICE).with_options(key=what).call(book, what)
            await ctx.call(depart, "flight")
    except CompensationFailedError as error:
        ends += [str(error), list(saga.compensated), list(saga.given_up)]
    async with ctx.saga() as onward:
        await onward.undo_with(unbook, retry=TWICE).call(book, "train")
        onward.pivot()
        ends.append(await ctx.call(depart, "train"))
    return ends


@workflow
async def child(ctx: Context, name: str) -> str:
    await ctx.sleep(5)
    return await ctx.call(tidy, name)


@workflow
async def lost_child(ctx: Context) -> int:
    return await ctx.call(inspect, 13)


@workflow
async def slow_child(ctx: Context) -> None:
    try:
        await ctx.sleep(timedelta(hours=1))
    finally:
        await ctx.call(tidy, "slow child")


@workflow
async def chained_child(ctx: Context, left: int) -> str:
    await ctx.call(tidy, f"{left} left")
    if left:
        ctx.continue_as_new(left - 1)
    return "the last one"


@workflow
async def family(ctx: Context) -> list[Any]:
    """Children: awaited, failed, refused, cancelled, left alone, and one that goes on as another."""
    ends: list[Any] = list(await ctx.gather(ctx.run(child, "ada"), ctx.run(chained_child, 1)))
    ends.append(await outcome(ctx.run(lost_child)))
    ends.append(await outcome(ctx.with_options(id="golden").run(child, "ben")))
    number, _ = await ctx.race(ctx.run(slow_child), ctx.sleep(20))
    return [*ends, number, (await ctx.with_options(id="grown").start(child, "carol")).id]


@workflow
async def orphan(ctx: Context) -> None:
    """A run that is cancelled, and its child with it."""
    try:
        await ctx.run(slow_child)
    except StepFailedError as error:
        await ctx.call(tidy, error.error_type)


route = WorkflowDefinition(
    id="route",
    pattern="conditional",
    timeout=None,
    steps=(
        Step(
            id="price",
            tool="inspect",
            arguments={"number": 5},
            output_mapping={".": "squared"},
            next=Branching(condition={"if": "squared", "gt": 20}, if_true="gift", if_false="bill"),
        ),
        Step(id="gift", tool="tidy", arguments={"what": "gift"}, conditions={"if": "is_birthday"}, next="bill"),
        Step(id="bill", tool="tidy", arguments={"what": "bill"}),
    ),
)
