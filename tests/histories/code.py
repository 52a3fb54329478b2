"""The workflows whose histories are kept beside this file. They are never changed: a history fits its code for ever.

What is new gets a new workflow and a new history (`python -m tests.histories.record NAME`).
"""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec

from perdure import Context, RateLimit, Retry, StepFailedError, ToolContext, tool, workflow


class Order(msgspec.Struct, frozen=True):
    item: str
    cents: int


@tool(effect="read")
async def price(item: str) -> int:
    return 100 * len(item)


@tool(retry=Retry(attempts=3, backoff=timedelta(seconds=90), jitter=False))
async def charge(context: ToolContext, order: Order) -> str:
    if context.attempt == 1:
        raise ConnectionError("the bank is offline")
    return f"charged {order.cents}"


async def pack(order: Order) -> Order:
    return order


@workflow
async def order(ctx: Context, item: str) -> dict[str, Any]:
    """Tools, a function, values, a retry, a long sleep."""
    ordered = await ctx.step(pack, Order(item, await ctx.call(price, item)))
    paid = await ctx.with_options(key="payment").call(charge, ordered)
    ctx.now()
    ctx.random()
    ctx.uuid()
    await ctx.sleep(timedelta(days=2))
    return {"order": ordered, "paid": paid}


@tool(failure_threshold=100)
async def inspect(number: int) -> int:
    if number == 13:
        raise ValueError("unlucky")
    return number * number


@tool
async def tidy(what: str) -> str:
    return what


@workflow
async def fan(ctx: Context) -> list[Any]:
    """Branches in branches, one failure that cancels a sleeper, which cleans up."""

    async def square_all(numbers: list[int]) -> list[int]:
        return await ctx.map(inspect, numbers, concurrency=2)

    async def sleeper() -> None:
        try:
            await ctx.sleep(50)
        finally:
            await ctx.call(tidy, "sleeper")

    async def late() -> int:
        await ctx.sleep(10)
        return await ctx.call(inspect, 13)

    squares = await ctx.gather(square_all([1, 2, 3]), square_all([4, 5]))
    try:
        await ctx.gather(sleeper(), late(), square_all([6, 7]))
    except StepFailedError as error:
        return [*squares, error.error]
    return []


pays = [0]


@tool(effect="irreversible")
async def pay(cents: int) -> str:
    pays[0] += 1
    await asyncio.get_running_loop().create_future()
    return "never"


@workflow
async def doubt(ctx: Context) -> str:
    """A payment of which nobody knows whether it was made, until a person says so."""
    return await ctx.call(pay, 500)


@workflow
async def cancelled(ctx: Context) -> None:
    """A sleeper that is cancelled and cleans up step by step."""
    try:
        await ctx.sleep(timedelta(hours=1))
    finally:
        await ctx.call(tidy, "one")
        await ctx.sleep(5)
        await ctx.call(tidy, "two")


@tool(failure_threshold=1, reset_timeout=60, retry=Retry(attempts=4, backoff=timedelta(seconds=5), jitter=False))
async def fragile(context: ToolContext) -> str:
    if context.attempt < 3:
        raise OSError("down")
    return "up"


@workflow
async def breaker(ctx: Context) -> str:
    """A circuit that opens, refuses, lets a probe through, opens again and closes."""
    return await ctx.call(fragile)


@tool(effect="read", rate=RateLimit(calls=1, per=timedelta(minutes=1), max_wait=timedelta(hours=1)))
async def spaced(number: int) -> int:
    return number + 1


@tool(failure_threshold=1, reset_timeout=60, retry=Retry(attempts=4, backoff=timedelta(seconds=5), jitter=False))
async def indulged(context: ToolContext) -> str:
    if context.attempt < 3:
        raise OSError("down")
    return "up"


@workflow
async def guards(ctx: Context) -> list[Any]:
    """Calls that wait for the rate limit, and a circuit that an operator disabled before: failures do not open it."""
    return [*await ctx.map(spaced, [1, 2, 3]), await ctx.call(indulged)]


WORKFLOWS = {wf.name: wf for wf in (order, fan, doubt, cancelled, breaker, guards)}
