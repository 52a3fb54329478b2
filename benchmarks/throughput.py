"""Durable steps a second when many runs go on at once, against the most that SQLite can append of the same rows."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.raw import batches, events_of, raw_log
from benchmarks.rows import Row, Size, Target, against, spread
from benchmarks.workloads import STEPS, run_once, runtime

RAW_BATCH = 1_000


class Burst(msgspec.Struct, frozen=True):
    """What one burst of runs came to."""

    seconds: float
    events: int
    commits: int


async def burst(path: Path, runs: int) -> Burst:
    """Start *runs* runs at once in a new log and wait for the durable end of each."""
    async with runtime(path) as rt:
        before = (await rt.statistics()).log
        started = time.perf_counter()
        await asyncio.gather(*(run_once(rt, number, STEPS) for number in range(runs)))
        seconds = time.perf_counter() - started
        after = (await rt.statistics()).log
    return Burst(seconds, after.events - before.events, after.commits - before.commits)


def measure(size: Size) -> dict[str, Row]:
    runs, repetitions = size.pick(1_000, 200), size.pick(7, 3)
    with TemporaryDirectory() as folder:
        asyncio.run(burst(Path(folder, "warm.db"), runs // 10))
        pairs: list[tuple[Burst, float]] = []
        sizes: list[int] = []
        for number in range(repetitions):
            path = Path(folder, f"{number}.db")
            done = asyncio.run(burst(path, runs))
            sizes.append(path.stat().st_size)
            pairs.append((done, _raw_rate(path)))
    return {"throughput": _throughput(pairs, runs), "disk": _disk(sizes, pairs[0][0].events, runs * STEPS)}


def _raw_rate(path: Path) -> float:
    """Return the events a second that SQLite appends of the rows in the log at *path*."""
    shape, rows = events_of(path)
    parameters = batches(rows, RAW_BATCH)
    with raw_log(path.with_suffix(".raw"), shape) as log:
        return len(rows) / log.write(parameters)


def _throughput(pairs: list[tuple[Burst, float]], runs: int) -> Row:
    steps = runs * STEPS
    return against(
        f"events of durable steps, {runs:,} runs of {STEPS} steps at once, FULL",
        "events/s",
        [(done.events / done.seconds, raw) for done, raw in pairs],
        baseline_is=f"raw append of the same rows, {RAW_BATCH:,} a commit",
        target=Target("at least", 0.20),
        extra={
            "steps/s": spread([steps / done.seconds for done, _ in pairs]).median,
            "events a step": pairs[0][0].events / steps,
            "commits": spread([done.commits for done, _ in pairs]).median,
        },
    )


def _disk(sizes: list[int], events: int, steps: int) -> Row:
    return Row(
        what="the log's file, all of it, by the steps in it",
        unit="bytes/step",
        figure=spread([size / steps for size in sizes]),
        extra={"bytes an event": spread([size / events for size in sizes]).median},
    )
