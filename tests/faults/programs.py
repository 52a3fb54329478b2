"""Tools, workflows, and programs that do not close their log: what `application.py` runs as processes. No test."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from perdure import (
    BlockingRuntime,
    Context,
    RunHandle,
    Runtime,
    RunView,
    Settings,
    Tool,
    Workflow,
    tool,
    workflow,
)


def is_there(gate: str) -> bool:
    """Return whether what never ends may end now."""
    return Path(gate).exists()


@tool
async def touch(text: str) -> str:
    return text


@tool
async def pending(text: str) -> str:
    """Not end before its process does, but in a later life."""
    if is_there(text):
        return "done"
    await asyncio.Event().wait()
    return ""


@tool
def stuck(text: str) -> str:
    """The same in a thread."""
    if is_there(text):
        return "done"
    threading.Event().wait()
    return ""


@workflow
async def waiting(ctx: Context, text: str) -> list[str]:
    first = await ctx.call(touch, "first")
    return [first, *await ctx.gather(ctx.call(pending, text), ctx.call(touch, "beside"))]


@workflow
async def stuck_in_a_thread(ctx: Context, text: str) -> list[str]:
    return [await ctx.call(touch, "first"), await ctx.call(stuck, text)]


@workflow
async def busy(ctx: Context, text: str) -> int:
    """Work for as long as the process lives, some durable steps a second."""
    count = 0
    while not is_there(text):
        await ctx.call(touch, "again")
        await ctx.sleep(0.5)
        count += 1
    return count


TOOLS: list[Tool[..., Any]] = [touch, pending, stuck]
WORKFLOWS: list[Workflow[..., Any]] = [waiting, stuck_in_a_thread, busy]


def make_runtime(database: str) -> Runtime:
    # What never ends need not be waited for in a test.
    return Runtime(database, tools=TOOLS, workflows=WORKFLOWS, settings=Settings(drain=timedelta(seconds=0.1)))


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def hear() -> str:
    return sys.stdin.readline().strip()


async def until(run: RunHandle[Any], is_so: Callable[[RunView], bool]) -> None:
    while not is_so(await run.status()):  # noqa: ASYNC110 - from outside there is nothing to wait for
        await asyncio.sleep(0.005)


# Ways to end


async def started(runtime: Runtime, gate: str) -> None:
    run = await runtime.with_options(id="open").start(waiting, gate)
    say(f"started {run.id}")
    await until(run, lambda view: view.steps_done == 2 and len(view.in_flight) == 1)


async def forget_to_close(database: str, gate: str) -> None:
    runtime = make_runtime(database)
    await runtime.__aenter__()
    await started(runtime, gate)


async def forget_to_close_and_raise(database: str, gate: str) -> None:
    await forget_to_close(database, gate)
    raise ZeroDivisionError("nobody handles it")


async def raise_inside(database: str, gate: str) -> None:
    async with make_runtime(database) as runtime:
        await started(runtime, gate)
        raise ZeroDivisionError("nobody handles it")


async def exit_inside(database: str, gate: str) -> None:
    async with make_runtime(database) as runtime:
        await started(runtime, gate)
        sys.exit(7)


async def exit_at_once(database: str, gate: str) -> None:
    async with make_runtime(database) as runtime:
        await started(runtime, gate)
        os._exit(8)


async def stop_the_loop(database: str, gate: str) -> None:
    await forget_to_close(database, gate)
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3600)


async def leave_a_thread_behind(database: str, gate: str) -> None:
    runtime = make_runtime(database)
    await runtime.__aenter__()
    run = await runtime.with_options(id="open").start(stuck_in_a_thread, gate)
    say(f"started {run.id}")
    await until(run, lambda view: view.in_flight == ("stuck#1",))


def forget_the_blocking_front(database: str, gate: str) -> None:
    front = BlockingRuntime(database, tools=TOOLS, workflows=WORKFLOWS)
    front.__enter__()
    run = front.start_as("open", waiting, gate)
    say(f"started {run.id}")
    while run.status().steps_done != 2:
        pass


ENDINGS: dict[str, Callable[[str, str], Awaitable[None]]] = {
    made.__name__: made
    for made in (
        forget_to_close, forget_to_close_and_raise, raise_inside, exit_inside, exit_at_once, stop_the_loop,
        leave_a_thread_behind,
    )
}  # fmt: skip
