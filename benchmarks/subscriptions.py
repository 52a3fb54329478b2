"""Subscriptions: how soon a handler has what was published, and what ten thousand of them cost whoever publishes.

Each is beside the publication alone, in a runtime without subscriptions on a file of its own, taking turns.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, against
from perdure import LogEvent, Runtime

AT_ONCE = 1_000


def measure(size: Size) -> dict[str, Row]:
    with TemporaryDirectory() as folder:
        latency = asyncio.run(_latency(Path(folder), size))
    with TemporaryDirectory() as folder:
        told = asyncio.run(_told(Path(folder), size))
    with TemporaryDirectory() as folder:
        beside = asyncio.run(_beside(Path(folder), size))
    with TemporaryDirectory() as folder:
        opened = asyncio.run(_opened(Path(folder), size))
    many = f"{_many(size):,}"
    return {
        "publish to handler": against(
            "from publish to its handler, one event after the other",
            "µs",
            latency,
            baseline_is="publish to its return, without a subscription",
        ),
        "publish to handlers": against(
            f"events handled, {AT_ONCE:,} published at once",
            "events/s",
            told,
            baseline_is="the same published, without a subscription",
        ),
        "many subscriptions": against(
            f"from publish to the handler of one of {many} durable subscriptions, each to a source of its own",
            "µs",
            beside,
            baseline_is="the same with this subscription alone",
        ),
        "open subscriptions": against(
            f"opening a runtime of {many} durable subscriptions that know their cursors",
            "ms",
            opened,
            baseline_is="opening one without a subscription on a log of the same length",
        ),
    }


def _many(size: Size) -> int:
    return size.pick(10_000, 300)


class _Handler:
    """Notes when it was called, and says when it was called often enough."""

    def __init__(self) -> None:
        self.at = 0.0
        self.left = 0
        self.done = asyncio.Event()

    def expect(self, count: int) -> None:
        self.left = count
        self.done.clear()

    async def __call__(self, event: LogEvent) -> None:
        del event
        self.at = time.perf_counter()
        self.left -= 1
        if not self.left:
            self.done.set()


async def _latency(folder: Path, size: Size) -> list[tuple[float, float]]:
    handler = _Handler()
    async with Runtime(folder / "with.db") as rt, Runtime(folder / "without.db") as alone:
        rt.subscribe(handler, "paid", name="books")
        pairs = [
            (await _one(rt, handler, number), await _published(alone, [number])) for number in range(size.pick(500, 20))
        ]
    return [(handled * 1e6, published * 1e6) for handled, published in pairs[5:]]


async def _one(rt: Runtime, handler: _Handler, number: int, source: str | None = None) -> float:
    handler.expect(1)
    started = time.perf_counter()
    await rt.publish("paid", {"number": number}, source=source)
    await handler.done.wait()
    return handler.at - started


async def _published(rt: Runtime, numbers: Sequence[int]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(rt.publish("paid", {"number": number}) for number in numbers))
    return time.perf_counter() - started


async def _told(folder: Path, size: Size) -> list[tuple[float, float]]:
    pairs: list[tuple[float, float]] = []
    handler = _Handler()
    async with Runtime(folder / "with.db") as rt, Runtime(folder / "without.db") as alone:
        rt.subscribe(handler, "paid", name="books")
        for _ in range(size.pick(20, 3)):
            handler.expect(AT_ONCE)
            started = time.perf_counter()
            await _published(rt, range(AT_ONCE))
            await handler.done.wait()
            pairs.append((AT_ONCE / (handler.at - started), AT_ONCE / await _published(alone, range(AT_ONCE))))
    return pairs[1:]


async def _beside(folder: Path, size: Size) -> list[tuple[float, float]]:
    pairs: list[tuple[float, float]] = []
    one, same = _Handler(), _Handler()
    async with Runtime(folder / "many.db") as many, Runtime(folder / "one.db") as alone:
        subscriptions = [
            many.subscribe(one, "paid", name=f"s{number}", stream=f"source-{number}") for number in range(_many(size))
        ]
        for subscription in subscriptions:
            await subscription.opened()
        await alone.subscribe(same, "paid", name="s0", stream="source-0").opened()
        for number in range(size.pick(300, 20)):
            at = number * 31 % _many(size)
            pairs.append((await _one(many, one, number, f"source-{at}"), await _one(alone, same, number, "source-0")))
    return [(there * 1e6, here * 1e6) for there, here in pairs[5:]]


async def _opened(folder: Path, size: Size) -> list[tuple[float, float]]:
    many = folder / "many.db"
    await _open(many, _many(size))
    length = 0
    async with Runtime(many) as rt:
        length = rt.events.position
    bare = folder / "bare.db"
    async with Runtime(bare) as rt:
        for first in range(0, length, AT_ONCE):
            await _published(rt, range(min(AT_ONCE, length - first)))
    return [(await _open(many, _many(size)) * 1e3, await _open(bare, 0) * 1e3) for _ in range(size.pick(5, 1))]


async def _open(path: Path, count: int) -> float:
    handler = _Handler()
    rt = Runtime(path)
    for number in range(count):
        rt.subscribe(handler, "paid", name=f"s{number}", stream=f"source-{number}")
    started = time.perf_counter()
    await rt.open()
    for subscription in rt.events.list():
        await subscription.opened()
    spent = time.perf_counter() - started
    await rt.close()
    return spent
