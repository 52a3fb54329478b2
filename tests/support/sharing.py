"""What the tests of shared state share: runs that make the calls that they are told, of two entry points."""

from datetime import timedelta
from typing import Any

from perdure import (
    Context,
    Runtime,
    Settings,
    StateConflictError,
    StateFullError,
    StepFailedError,
    workflow,
)
from perdure.actors.workflows.entrance import Isolation
from perdure.runtime.entries.entry_points import EntryPoint
from tests.support.runs import Box, box_with

KEEP = Settings(park_after=timedelta(days=999))


@workflow
async def does(ctx: Context, calls: list[list[Any]]) -> list[Any]:
    """Make calls on the state, one after another; of "sleep" and "wait" the obvious."""
    found: list[Any] = []
    for name, *args in calls:
        match name:
            case "sleep":
                await ctx.sleep(*args)
            case "wait":
                await ctx.signal("go", of=int)
            case "add":
                key, scope, many = args
                new = [await ctx.state.update(key, lambda n: n + 1, default=0, scope=scope) for _ in range(many)]
                found.extend(new)
            case "try":
                try:
                    found.append(await getattr(ctx.state, args[0])(*args[1:]))
                except (StateConflictError, StateFullError, StepFailedError) as error:
                    found.append(f"{type(error).__name__}: {error}")
            case _:
                found.append(await getattr(ctx.state, name)(*args))
    return found


@workflow
async def other(ctx: Context, calls: list[list[Any]]) -> list[Any]:
    found: list[Any] = await does.function(ctx, calls)
    return found


def box_of(isolation: Isolation = "shared", *more: Any, **options: Any) -> Box:
    entries = [
        EntryPoint("orders", does, isolation=isolation, max_concurrent=100),
        EntryPoint("returns", does, isolation=isolation, max_concurrent=100),
    ]
    return box_with(does, other, *more, entry_points=entries, **options)


async def result_of(rt: Runtime, entry: str, *calls: list[Any], id: str | None = None) -> list[Any]:
    """What a run of an entry point finds."""
    run = await rt.trigger(entry, {"calls": list(calls)}, id=id)
    found: list[Any] = await rt.run(run, does).result()
    return found
