"""The workflows and tools that are measured: small, so that what is measured is the runtime and not they."""

import asyncio
from pathlib import Path

from perdure import Context, Runtime, Tool, tool, workflow

STEPS = 5


@tool
async def increment(x: int) -> int:
    """Add one; of the effect class `idempotent`, so its intent is durable before it runs."""
    return x + 1


@workflow
async def steps(ctx: Context, x: int, count: int) -> int:
    """Call a tool again and again."""
    for _ in range(count):
        x = await ctx.call(increment, x)
    return x


async def run_once(runtime: Runtime, x: int, count: int) -> None:
    """Run the workflow to its durable end, as an application does."""
    run = await runtime.start(steps, x, count)
    assert await run.result() == x + count


def runtime(path: Path) -> Runtime:
    """Return a runtime as an application gets it, with nothing tuned."""
    return Runtime(path, tools=[increment], workflows=[steps])


class Gate:
    """A tool whose calls wait until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = asyncio.Event()
        self._arrived = asyncio.Event()
        self.tool: Tool[[int], int] = tool(name="wait_at_gate")(self._wait)

    async def _wait(self, x: int) -> int:
        self.waiting += 1
        self._arrived.set()
        await self._opened.wait()
        return x

    async def until_waiting(self, calls: int) -> None:
        """Return once so many calls wait."""
        while self.waiting < calls:
            self._arrived.clear()
            await self._arrived.wait()
