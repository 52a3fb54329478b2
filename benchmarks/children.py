"""Child runs a second, at FULL: awaited, detached, and runs that go on as new ones; beside runs started from outside.

A run that an application starts and waits for is the same work, less what parent and child record of one another.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import Row, Size, against, spread
from perdure import Context, Query, Runtime, Settings, Workflow, tool, workflow

PARENTS = 20
AT_ONCE = 16

Work = Callable[[Runtime, int], Awaitable[int]]
"""Has as many children run for each parent; returns how many that were."""


@tool
async def increment(x: int) -> int:
    return x + 1


@workflow
async def child(ctx: Context, x: int) -> int:
    return await ctx.call(increment, x)


@workflow
async def awaiting(ctx: Context, count: int) -> int:
    return len(await ctx.map(lambda x: ctx.run(child, x), range(count), concurrency=AT_ONCE))


@workflow
async def detaching(ctx: Context, count: int) -> int:
    return len(await ctx.map(lambda x: ctx.start(child, x), range(count), concurrency=AT_ONCE))


@workflow
async def going_on(ctx: Context, left: int) -> int:
    await ctx.call(increment, left)
    if left > 1:
        ctx.continue_as_new(left - 1)
    return left


def measure(size: Size) -> dict[str, Row]:
    each, repetitions = size.pick(100, 10), size.pick(7, 2)
    kinds: dict[str, tuple[str, Work]] = {
        "child": (f"awaited children of one step, {AT_ONCE} at once of each of {PARENTS} parents", _awaited),
        "child detached": (f"detached children of one step, {AT_ONCE} at once of each of {PARENTS} parents", _detached),
        "child chain": (f"runs of one step that go on as new ones, {PARENTS * AT_ONCE} chains at once", _chained),
    }
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    with TemporaryDirectory() as folder:
        _rate(Path(folder, "warm.db"), _awaited, each // 5 or 1)
        for number in range(repetitions):
            outside = _rate(Path(folder, f"outside-{number}.db"), _outside, each)
            for name, (_, work) in kinds.items():
                samples[name].append((_rate(Path(folder, f"{name}-{number}.db"), work, each), outside))
    return {name: _row(what, samples[name]) for name, (what, _) in kinds.items()}


def _row(what: str, pairs: list[tuple[float, float]]) -> Row:
    micros = spread([1e6 / ours - 1e6 / other for ours, other in pairs]).median
    baseline = f"as many runs of the same workflow, started from outside, {PARENTS * AT_ONCE} at once"
    return against(what, "runs/s", pairs, baseline_is=baseline, extra={"µs more a run": micros})


def _rate(path: Path, work: Work, each: int) -> float:
    return asyncio.run(_runs_a_second(path, work, each))


async def _runs_a_second(path: Path, work: Work, each: int) -> float:
    workflows: list[Workflow[..., Any]] = [child, awaiting, detaching, going_on]
    async with Runtime(path, tools=[increment], workflows=workflows, settings=Settings(socket=False)) as rt:
        started = time.perf_counter()
        children = await work(rt, each)
        seconds = time.perf_counter() - started
        assert len(await rt.read(Query(types=("step-completed",), limit=2 * children))) == children
    return children / seconds


async def _awaited(rt: Runtime, each: int) -> int:
    handles = await asyncio.gather(*(rt.start(awaiting, each) for _ in range(PARENTS)))
    return sum([await handle.result() for handle in handles])


async def _detached(rt: Runtime, each: int) -> int:
    handles = await asyncio.gather(*(rt.start(detaching, each) for _ in range(PARENTS)))
    started = sum([await handle.result() for handle in handles])
    await rt.until_idle()
    return started


async def _chained(rt: Runtime, each: int) -> int:
    length = max(2, each // AT_ONCE)
    handles = await asyncio.gather(*(rt.start(going_on, length) for _ in range(PARENTS * AT_ONCE)))
    return length * sum([await handle.result() for handle in handles])


async def _outside(rt: Runtime, each: int) -> int:
    async def one_by_one(first: int) -> None:
        for x in range(first, PARENTS * each, PARENTS * AT_ONCE):
            assert await (await rt.start(child, x)).result() == x + 1

    await asyncio.gather(*(one_by_one(first) for first in range(PARENTS * AT_ONCE)))
    return PARENTS * each
