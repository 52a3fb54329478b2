"""Runs that come in by an entry point, beside the same runs started by hand: what the entry point's books cost.

Such a run waits for its turn, and the entry point takes note of its start and of its end. So the baseline is a start
without a queue, or one in a queue of as many places: what is slow for want of places is not slow for the entry point.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, against
from perdure import Context, EntryPoint, Queue, RunHandle, Runtime, Settings, tool, workflow

STEPS = 5
FEW = 10
MANY = 1_000


@tool(effect="idempotent")
async def increment(number: int) -> int:
    return number + 1


@workflow
async def counts(ctx: Context, number: int) -> int:
    """Take some steps."""
    for _ in range(STEPS):
        number = await ctx.call(increment, number)
    return number


def measure(size: Size) -> dict[str, Row]:
    runs, repetitions = size.pick(1_000, 100), size.pick(7, 2)
    found = [asyncio.run(_samples(runs)) for _ in range(repetitions)]
    what, by_hand = f"runs of {STEPS} steps triggered at once, to their durable ends", "the same runs started by hand"
    return {
        "trigger": against(
            f"{what}; as many places as runs",
            "runs/s",
            [(one["wide"], one["plain"]) for one in found],
            baseline_is=by_hand,
        ),
        "trigger ten": against(
            f"{what}; {FEW} places, as an entry point has them unless it says otherwise",
            "runs/s",
            [(one["narrow"], one["queue"]) for one in found],
            baseline_is=f"{by_hand} in a queue of {FEW} places",
        ),
        "trigger latency": against(
            "one run after the other, from its trigger to its durable end",
            "µs",
            [(one["one triggered"], one["one started"]) for one in found],
            baseline_is=by_hand,
        ),
    }


async def _samples(runs: int) -> dict[str, float]:
    """Return runs a second of each way to start them, and microseconds a run of two."""
    entries = [EntryPoint("wide", counts, max_concurrent=MANY), EntryPoint("narrow", counts, max_concurrent=FEW)]
    with TemporaryDirectory() as folder:
        async with Runtime(
            Path(folder, "a.db"),
            tools=[increment],
            workflows=[counts],
            queues=[Queue("few", concurrency=FEW)],
            entry_points=entries,
            settings=Settings(socket=False, max_concurrent_executions=MANY),
        ) as rt:
            queued = rt.with_options(queue="few")

            async def plain(number: int) -> str:
                return (await rt.start(counts, number)).id

            async def queue(number: int) -> str:
                return (await queued.start(counts, number)).id

            async def wide(number: int) -> str:
                return await rt.trigger("wide", {"number": number})

            async def narrow(number: int) -> str:
                return await rt.trigger("narrow", {"number": number})

            for one in (wide, plain):
                await _rate(rt, one, 50)
            rates = {one.__name__: await _rate(rt, one, runs) for one in (wide, plain, narrow, queue)}
            alone = {"one triggered": await _micros(rt, wide), "one started": await _micros(rt, plain)}
            return {**rates, **alone}


async def _rate(rt: Runtime, begin: Callable[[int], Awaitable[str]], runs: int) -> float:
    begun = time.perf_counter()
    ids = await asyncio.gather(*[begin(number) for number in range(runs)])
    handles: list[RunHandle[int]] = [rt.run(id) for id in ids]
    ends = await asyncio.gather(*[run.result() for run in handles])
    seconds = time.perf_counter() - begun
    assert sorted(ends) == [number + STEPS for number in range(runs)]
    return runs / seconds


async def _micros(rt: Runtime, begin: Callable[[int], Awaitable[str]], runs: int = 50) -> float:
    begun = time.perf_counter()
    for number in range(runs):
        assert await rt.run(await begin(number)).result() == number + STEPS
    return (time.perf_counter() - begun) / runs * 1e6
