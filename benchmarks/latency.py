"""How long one durable step takes in one run that is alone, against one raw commit of the same rows."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.raw import batches, events_of, raw_log
from benchmarks.rows import Row, Size, Target, against
from benchmarks.workloads import run_once, runtime
from perdure import Runtime

EVENTS_A_STEP = 3


def measure(size: Size) -> dict[str, Row]:
    steps, repetitions = size.pick(300, 60), size.pick(11, 3)
    with TemporaryDirectory() as folder:
        pairs = asyncio.run(_in_turns(Path(folder), steps, repetitions))
    row = against(
        "one durable step of a run that is alone",
        "µs",
        pairs,
        baseline_is="one raw commit of the step's three rows",
        target=Target("at most", 3.0),
        extra={"steps/s one by one": 1e6 / min(figure for figure, _ in pairs)},
    )
    return {"latency": row}


async def _in_turns(folder: Path, steps: int, repetitions: int) -> list[tuple[float, float]]:
    shape, parameters = await _rows_of_a_run(folder / "rows.db", steps)
    pairs: list[tuple[float, float]] = []
    async with runtime(folder / "log.db") as rt:
        with raw_log(folder / "warm.raw", shape) as warm:
            warm.write(parameters)
        await _seconds(rt, steps)
        for number in range(repetitions):
            with raw_log(folder / f"{number}.raw", shape) as log:
                baseline = log.write(parameters) / len(parameters)
            pairs.append((await _seconds(rt, steps) / steps * 1e6, baseline * 1e6))
    return pairs


async def _rows_of_a_run(path: Path, steps: int) -> tuple[str, list[tuple[bytes, bytes]]]:
    async with runtime(path) as rt:
        await _seconds(rt, steps)
    shape, rows = events_of(path)
    return shape, batches(rows[: steps * EVENTS_A_STEP], EVENTS_A_STEP)


async def _seconds(rt: Runtime, steps: int) -> float:
    started = time.perf_counter()
    await run_once(rt, 0, steps)
    return time.perf_counter() - started
