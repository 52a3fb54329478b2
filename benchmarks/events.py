"""Published events: what publishing one costs beside a raw commit, and how soon it wakes the one run that waits for it.

The sleepers wait for an order of their own each, in the log and not in memory; the baseline is a runtime in which only
the one that is woken sleeps.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.raw import batches, events_of, raw_log
from benchmarks.rows import Row, Size, against
from perdure import Context, Runtime, workflow

AT_ONCE = 1_000


@workflow
async def shipment(ctx: Context, order: int) -> int:
    return (await ctx.event("paid", where={"if": "order", "eq": order})).position


def measure(size: Size) -> dict[str, Row]:
    with TemporaryDirectory() as folder:
        alone, together = asyncio.run(_published(Path(folder), size))
    with TemporaryDirectory() as folder:
        woken = asyncio.run(_woken(Path(folder), size))
    return {
        "publish": against(
            "events for which nobody waits, published one after the other",
            "µs",
            alone,
            baseline_is="one raw commit of the event's row",
        ),
        "publish together": against(
            f"the same, {AT_ONCE:,} at once",
            "events/s",
            together,
            baseline_is=f"raw commits of {AT_ONCE:,} of these rows each",
        ),
        "wake": against(
            f"from publish to the durable end of the one run that it wakes, of {_sleepers(size):,} that sleep",
            "ms",
            woken,
            baseline_is="the same with this run alone",
        ),
    }


def _sleepers(size: Size) -> int:
    return size.pick(10_000, 500)


async def _published(folder: Path, size: Size) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    count = size.pick(300, 50)
    alone: list[tuple[float, float]] = []
    together: list[tuple[float, float]] = []
    for number in range(size.pick(9, 2)):
        path = folder / f"{number}.db"
        async with Runtime(path) as rt:
            await rt.publish("warm")
            one_by_one = await _seconds(rt, range(count), 1) / count
            at_once = await _seconds(rt, range(AT_ONCE * size.pick(5, 1)), AT_ONCE)
        shape, rows = events_of(path)
        rows = [row for row in rows if row[3] == "event-published"]
        with raw_log(path.with_suffix(".raw"), shape) as log:
            single = log.write(batches(rows[:count], 1)) / count
            many = rows[count : count + AT_ONCE * size.pick(5, 1)]
            raw = len(many) / log.write(batches(many, AT_ONCE))
        alone.append((one_by_one * 1e6, single * 1e6))
        together.append((len(many) / at_once, raw))
    return alone, together


async def _seconds(rt: Runtime, numbers: Sequence[int], at_once: int) -> float:
    started = time.perf_counter()
    for first in range(0, len(numbers), at_once):
        await asyncio.gather(*(rt.publish("seen", {"number": n}) for n in numbers[first : first + at_once]))
    spent = time.perf_counter() - started
    await rt.until_idle()
    return spent


async def _woken(folder: Path, size: Size) -> list[tuple[float, float]]:
    sleepers, samples = _sleepers(size), size.pick(40, 5)
    async with Runtime(folder / "many.db", workflows=[shipment]) as many:
        for first in range(0, sleepers, AT_ONCE):
            await _sleep(many, range(first, min(first + AT_ONCE, sleepers)))
    pairs: list[tuple[float, float]] = []
    async with (
        Runtime(folder / "many.db", workflows=[shipment]) as many,
        Runtime(folder / "alone.db", workflows=[shipment]) as alone,
    ):
        assert (await many.statistics()).runs_in_memory == 0
        for sample in range(samples):
            order = sample * sleepers // samples
            await _sleep(alone, [order])
            pairs.append((await _wake(many, order) * 1e3, await _wake(alone, order) * 1e3))
        assert len(await many.waiting()) == sleepers - samples
    return pairs


async def _sleep(rt: Runtime, orders: Sequence[int]) -> None:
    await asyncio.gather(*(rt.with_options(id=f"order-{order}").start(shipment, order) for order in orders))
    await rt.until_idle()


async def _wake(rt: Runtime, order: int) -> float:
    run = rt.run(f"order-{order}", shipment)
    started = time.perf_counter()
    await rt.publish("paid", {"order": order})
    await run.result()
    spent = time.perf_counter() - started
    await rt.until_idle()
    return spent
