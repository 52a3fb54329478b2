"""Opening a log with open runs in it: with a million events of closed runs before them, against the same runs alone."""

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, Target, against
from benchmarks.streams import append_closed_runs
from benchmarks.workloads import Gate, increment
from perdure import Context, Runtime, Settings, Workflow, workflow
from perdure.store.sqlite import SqliteEventLog

STEPS_OF_A_CLOSED_RUN = 10


def measure(size: Size) -> dict[str, Row]:
    runs, events, repetitions = size.pick(1_000, 100), size.pick(1_000_000, 50_000), size.pick(7, 3)
    with TemporaryDirectory() as folder:
        pairs = asyncio.run(_in_turns(Path(folder), runs, events, repetitions))
    row = against(
        f"open with {runs:,} open runs in a log of {events:,} events",
        "ms",
        pairs,
        baseline_is="open with the same runs alone in the log",
        target=Target("at most", 2.0),
        extra={"µs an open run": min(figure for figure, _ in pairs) / runs * 1000},
    )
    return {"open": row}


async def _in_turns(folder: Path, runs: int, events: int, repetitions: int) -> list[tuple[float, float]]:
    alone, long = folder / "alone.db", folder / "long.db"
    await _start_runs(alone, runs)
    shutil.copyfile(alone, long)
    log = await SqliteEventLog.open(long)
    try:
        await append_closed_runs(log, events, steps=STEPS_OF_A_CLOSED_RUN)
    finally:
        await log.close()
    await _open(alone, runs)
    return [(await _open(long, runs), await _open(alone, runs)) for _ in range(repetitions)]


def _half_done(gate: Gate) -> Workflow[[int], int]:
    @workflow
    async def half_done(ctx: Context, x: int) -> int:
        for _ in range(2):
            x = await ctx.call(increment, x)
        return await ctx.call(gate.tool, x)

    return half_done


def _runtime(path: Path, half_done: Workflow[[int], int]) -> Runtime:
    return Runtime(path, workflows=[half_done], settings=Settings(drain=timedelta(0)))


async def _start_runs(path: Path, runs: int) -> None:
    gate = Gate()
    half_done = _half_done(gate)
    async with _runtime(path, half_done) as rt:
        await asyncio.gather(*(rt.start(half_done, number) for number in range(runs)))
        await gate.until_waiting(runs)


async def _open(path: Path, runs: int) -> float:
    """Return the milliseconds until all runs are back; both logs grow by the same events each time."""
    gate = Gate()
    half_done = _half_done(gate)
    started = time.perf_counter()
    async with _runtime(path, half_done) as rt:
        milliseconds = (time.perf_counter() - started) * 1000
        assert (await rt.statistics()).runs_in_memory == runs
        await gate.until_waiting(runs)
    return milliseconds
