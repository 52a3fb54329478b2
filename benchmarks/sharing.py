"""Updates of shared state by runs at once: what a step costs that changes a value that all share.

Beside it the same runs that publish an event in place of each update: the same two events in one unit, of which one is
in the stream of another actor. It is checked that no update is lost.
"""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, against
from perdure import Context, Runtime, Settings, workflow

RUNS = 20


@workflow
async def updates(ctx: Context, times: int) -> None:
    """Add one so many times to a value that all share."""
    for _ in range(times):
        await ctx.state.update("n", lambda n: n + 1, default=0, scope="global")


@workflow
async def publishes(ctx: Context, times: int) -> None:
    """Publish so many events."""
    for number in range(times):
        await ctx.publish("counted", number)


def measure(size: Size) -> dict[str, Row]:
    times, repetitions = size.pick(500, 50), size.pick(5, 2)
    pairs = [asyncio.run(_both(times)) for _ in range(repetitions)]
    what = f"updates of one shared value by {RUNS} runs at once, durable"
    return {"state": against(what, "updates/s", pairs, baseline_is="the same runs publish an event instead")}


async def _both(times: int) -> tuple[float, float]:
    with TemporaryDirectory() as folder:
        settings = Settings(socket=False)
        async with Runtime(Path(folder, "a.db"), workflows=[updates, publishes], settings=settings) as rt:
            rates: list[float] = []
            for one in (updates, publishes):
                begun = time.perf_counter()
                runs = [await rt.start(one, times) for _ in range(RUNS)]
                for run in runs:
                    await run.result()
                rates.append(RUNS * times / (time.perf_counter() - begun))
            assert await rt.state.read("n") == RUNS * times
            return rates[0], rates[1]
