"""The seven patterns as code, and the tools that they call: the twins of what pattern_definitions.py defines."""

from typing import Any, Final

from perdure import Context, tool, workflow

NAMES: Final = ("a", "b", "c", "d", "e")
STEPS: Final = len(NAMES)
ITEMS: Final = 20


@tool
async def increment(x: int) -> int:
    """Add one; of the effect class `idempotent`, so its intent is durable before it runs."""
    return x + 1


@tool
async def named(x: int, name: str) -> dict[str, int]:
    """Return an object with one key."""
    return {name: x}


@tool
async def double(item: int) -> int:
    return item * 2


@tool
async def total(map_results: list[int]) -> int:
    return sum(map_results)


@tool
async def undo(x: int) -> None:
    """Undo what is never undone here."""


tools: Final = (increment, named, double, total, undo)


@workflow
async def sequential(ctx: Context, data: dict[str, Any]) -> int:
    x: int = data["x"]
    for _ in range(STEPS):
        x = await ctx.call(increment, x)
    return x


@workflow
async def parallel(ctx: Context, data: dict[str, Any]) -> list[int]:
    return list(await ctx.gather(*(ctx.call(increment, data["x"]) for _ in range(STEPS))))


@workflow
async def fan_out_fan_in(ctx: Context, data: dict[str, Any]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for part in await ctx.gather(*(ctx.call(named, data["x"], name) for name in NAMES)):
        merged.update(part)
    return merged


@workflow
async def conditional(ctx: Context, data: dict[str, Any]) -> int:
    x: int = data["x"]
    for _ in range(STEPS):
        x = await ctx.call(increment, x)
        if x < 0:
            break
    return x


@workflow
async def saga(ctx: Context, data: dict[str, Any]) -> int:
    x: int = data["x"]
    async with ctx.saga() as steps:
        for _ in range(STEPS):
            x = await steps.undo_with(undo, x).call(increment, x)
    return x


@workflow
async def map_reduce(ctx: Context, data: dict[str, Any]) -> int:
    return await ctx.call(total, await ctx.map(double, data["items"]))


@workflow
async def event_driven(ctx: Context, data: dict[str, Any]) -> int:
    x: int = data["x"]
    for name in NAMES:
        await ctx.event(f"tick.{name}")
        x = await ctx.call(increment, x)
    return x
