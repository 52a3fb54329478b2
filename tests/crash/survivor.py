"""A process that brings its tools into a bad way and waits to be killed. No test.

Run as `python -m tests.crash.survivor DIR`; it prints `ready` when a circuit is open, a backoff is being waited, a
bucket of a rate limit is half empty, and all of it is durable.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from perdure import Context, RateLimit, Retry, Runtime, ToolContext, tool, workflow
from tests.crash.workload import Effects

RESET_SECONDS = 300
BACKOFF = timedelta(minutes=10)
LIMIT = RateLimit(calls=4, per=timedelta(minutes=40), max_wait=timedelta(0))


class Shop:
    """The tools and the workflow, in whichever process."""

    def __init__(self, directory: Path) -> None:
        effects = Effects(directory / "executions")
        retry = Retry(attempts=2, backoff=BACKOFF, cap=BACKOFF, jitter=False)

        @tool(reset_timeout=RESET_SECONDS)
        async def broken(context: ToolContext) -> str:
            effects.add(context)
            raise ConnectionError("down")

        @tool(retry=retry)
        async def flaky(context: ToolContext) -> int:
            effects.add(context)
            if context.attempt == 1:
                raise ConnectionError("busy")
            return context.attempt

        @tool(rate=LIMIT)
        async def limited(context: ToolContext) -> str:
            return effects.add(context)

        @workflow
        async def patient(ctx: Context) -> int:
            return await ctx.call(flaky)

        self.effects = effects
        self.tools = (broken, flaky, limited)
        self.patient = patient

    def runtime(self, directory: Path, **options: object) -> Runtime:
        return Runtime(directory / "log.db", tools=self.tools, workflows=[self.patient], **options)  # type: ignore[arg-type]


async def main(directory: Path) -> None:
    shop = Shop(directory)
    async with shop.runtime(directory) as rt:
        await rt.with_options(id="patient").start(shop.patient)
        for _ in range(4):
            await rt.dispatch("broken")
        for _ in range(2):
            await rt.dispatch("limited")
        async for event in rt.tail():  # of what is durable
            if event.type == "attempt-failed":
                break
        print("ready", flush=True)  # noqa: T201 - its answer
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
