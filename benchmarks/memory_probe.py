"""The process that memory.py measures: `python -m benchmarks.memory_probe active|asleep COUNT rss|traced`.

Prints what COUNT runs made it grow by, per run. Others go through it beforehand (to their end, or to sleep), so that
what Python, SQLite and the allocator keep for later is there already.
"""

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.workloads import Gate, run_once, steps
from perdure import Context, Runtime, Settings, workflow

DAY_SECONDS = 86_400
STARTED_AT_ONCE = 500


class Growth(msgspec.Struct, frozen=True):
    """Bytes per run."""

    memory: float
    data: float
    """Of the run's input and of the arguments in flight, as JSON."""
    actors: int
    """In memory at the end."""


def resident_bytes() -> int:
    """Return the resident set of this process, without what only waits for the garbage collector."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except FileNotFoundError:  # not Linux: there the peak has to do, in bytes on macOS
        import resource  # noqa: PLC0415 - not everywhere

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * 4096


def traced_bytes() -> int:
    """Return what Python has allocated, without what only waits for the garbage collector."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def active(folder: Path, count: int, used: Callable[[], int]) -> Growth:
    """Measure runs whose code waits in a tool."""
    gate = Gate()

    @workflow
    async def at_gate(ctx: Context, x: int) -> int:
        return await ctx.call(gate.tool, x)

    settings = Settings(drain=timedelta(0))
    async with Runtime(folder / "log.db", workflows=[at_gate, steps], settings=settings) as rt:
        await asyncio.gather(*(run_once(rt, x, 2) for x in range(STARTED_AT_ONCE)))
        await _until_asleep(rt)
        before = used()
        for start in range(0, count, STARTED_AT_ONCE):
            await asyncio.gather(*(rt.start(at_gate, x) for x in range(start, start + STARTED_AT_ONCE)))
        await gate.until_waiting(count)
        after = used()
        actors = (await rt.statistics()).actors_in_memory
    data = sum(2 * len(b'{"x":%d}' % x) for x in range(count)) / count
    return Growth((after - before) / count, data, actors)


async def asleep(folder: Path, count: int, used: Callable[[], int]) -> Growth:
    """Measure runs that sleep until tomorrow, beside as many that went to sleep before."""

    @workflow
    async def sleeper(ctx: Context, x: int) -> int:
        await ctx.sleep(timedelta(seconds=DAY_SECONDS + x))
        return x

    settings = Settings(idle_after=timedelta(seconds=1))
    async with Runtime(folder / "log.db", workflows=[sleeper], settings=settings) as rt:

        async def put_to_sleep() -> int:
            for start in range(0, count, STARTED_AT_ONCE):
                await asyncio.gather(*(rt.start(sleeper, x) for x in range(start, start + STARTED_AT_ONCE)))
            await _until_asleep(rt)
            return used()

        before = await put_to_sleep()
        after = await put_to_sleep()
        actors = (await rt.statistics()).actors_in_memory
    return Growth((after - before) / count, 0.0, actors)


async def _until_asleep(rt: Runtime) -> None:
    for _ in range(600):
        figures = await rt.statistics()
        if not figures.runs_in_memory and figures.actors_in_memory <= len(figures.tools) + 1:
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("the runs have not left memory within a minute")


def main() -> None:
    _, what, count, how = sys.argv
    if how == "traced":
        tracemalloc.start()
    probe = active if what == "active" else asleep
    used = traced_bytes if how == "traced" else resident_bytes
    with TemporaryDirectory() as folder:
        growth = asyncio.run(probe(Path(folder), int(count), used))
    sys.stdout.buffer.write(msgspec.json.encode(growth))


if __name__ == "__main__":
    main()
