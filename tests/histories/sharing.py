"""The workflows of the histories `shares` and `clashes`: shared state, and who is refused. Never changed."""

from typing import Any

from perdure import MISSING, Context, EntryPoint, StateConflictError, StateFullError, StepFailedError, workflow


@workflow
async def adds(ctx: Context, number: int) -> int:
    """A child, which shares what all share, and has values of its own."""
    await ctx.state.write("own", number)
    total: int = await ctx.state.update("total", lambda held: held + number, default=0, scope="global")
    await ctx.sleep(number)
    return total + int(await ctx.state.read("own"))


@workflow
async def shares(ctx: Context, turn: int, found: list[Any]) -> list[Any]:
    """Every call on the state, a branch, children, sleeps in memory and outside of it; then it goes on anew."""
    view = ctx.state
    found = [*found, await view.read("mine", "nothing"), await view.has("mine")]
    await view.write_batch({"mine": turn, "gone": None, "more": "x" * 1000})
    found.append(await view.delete("gone"))
    await view.write("who", f"turn {turn}", "stream")
    found.extend(await ctx.map(adds_as_child(ctx), [1, 2], concurrency=1))
    found.append(await view.compare_and_set("turn", MISSING, turn, "global"))
    found.append(await view.compare_and_set("turn", 0, turn, "global"))
    try:
        await view.update("mine", lambda held: held / 0)
    except StepFailedError as error:
        found.append(error.error_type)
    try:
        await view.write_batch({f"{n}": "x" * 500_000 for n in range(3)})
    except StateFullError as error:
        found.append(error.unit)
    await ctx.sleep(turn * 100)
    found.append({key: value for key, value in (await view.read_all()).items() if key != "more"})
    found.append([change.key for change in await view.with_permissions(read=["mine", "turn"]).changes(3)])
    if turn == 1:
        ctx.continue_as_new(turn + 1, found)
    return found


def adds_as_child(ctx: Context) -> Any:
    async def run(number: int) -> int:
        return await ctx.run(adds, number)

    return run


@workflow
async def changes(ctx: Context, value: int) -> None:
    """A child that changes what its parent has read."""
    await ctx.state.write("k", value, "stream")
    await ctx.sleep(1)


@workflow
async def clashes(ctx: Context, value: int) -> list[Any]:
    """What a synchronized run has seen, another one changes; it is told, reads it again, and overwrites it."""
    found: list[Any] = [await ctx.state.read("k")]
    await ctx.run(changes, value)
    try:
        await ctx.state.write("k", 0, "stream")
    except StateConflictError as error:
        found.append(f"{error.place} {error.by}")
    await ctx.sleep(100)
    found.append(await ctx.state.read_all())
    await ctx.state.write("k", 0, "stream")
    return found


CLASH = EntryPoint("clash", clashes, isolation="synchronized")
