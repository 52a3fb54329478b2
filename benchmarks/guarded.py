"""What guarding one tool call costs, outside of a run: beside breakers that keep their state in memory.

pybreaker and purgatory count failures and do nothing else. A call of ours is also validated, encoded and recorded, and
what it came to is on disk before it returns; so the rows go from a log in memory to one on disk.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pybreaker
from purgatory import AsyncCircuitBreakerFactory

from benchmarks.raw import batches, events_of, raw_log
from benchmarks.rows import Row, Size, against
from perdure import Runtime, Tool, tool
from perdure.testing import MemoryDisk

AT_ONCE = 1_000
EVENTS = {"read": 1, "idempotent": 2}
"""Events that a call records: its outcome, and before it, unless it only reads, its intent."""


async def increment(x: int) -> int:
    return x + 1


TOOLS: Mapping[str, Tool[[int], int]] = {
    "read": tool(name="read", effect="read")(increment),
    "idempotent": tool(name="idempotent")(increment),
}
Call = Callable[[int], Awaitable[int]]


def measure(size: Size) -> dict[str, Row]:
    with TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), size))


async def _measure(folder: Path, size: Size) -> dict[str, Row]:
    repetitions = size.pick(15, 3)
    alone = [await _alone(folder / f"{n}-", size.pick(2_000, 200), size.pick(150, 50)) for n in range(repetitions)]
    burst = [await _burst(folder / f"burst-{n}.db", size.pick(5, 2)) for n in range(repetitions)]
    return {
        "guard": _guard(alone),
        **{f"{name} call": _durable(name, alone) for name in EVENTS},
        "calls": _calls(burst),
    }


# One after the other: microseconds a call, by what stands before the tool.


async def _alone(prefix: Path, calls: int, durable_calls: int) -> dict[str, float]:
    found: dict[str, float] = {"bare": await _micros(increment, calls)}
    for name, guard in (("pybreaker", _pybreaker()), ("purgatory", await _purgatory())):
        found[name] = await _micros(guard, calls)
    async with Runtime("unused", tools=TOOLS.values(), log=MemoryDisk().open) as rt:
        for name in EVENTS:
            found[f"{name} in memory"] = await _micros(_called(rt, name), calls)
    for name in EVENTS:
        path = prefix.with_name(f"{prefix.name}{name}.db")
        async with Runtime(path, tools=TOOLS.values()) as rt:
            found[f"{name} on disk"] = await _micros(_called(rt, name), durable_calls)
        found[f"{name} raw"] = _raw_micros(path, durable_calls)
    return found


def _called(rt: Runtime, name: str) -> Call:
    async def call(x: int) -> int:
        return await rt.call(TOOLS[name], x)

    return call


def _pybreaker() -> Call:
    breaker = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=300)

    async def call(x: int) -> int:
        with breaker.calling():
            return await increment(x)

    return call


async def _purgatory() -> Call:
    breakers = AsyncCircuitBreakerFactory(default_threshold=3, default_ttl=300)

    async def call(x: int) -> int:
        async with await breakers.get_breaker("increment"):
            return await increment(x)

    return call


async def _micros(call: Call, calls: int) -> float:
    for x in range(calls // 10):
        await call(x)
    started = time.perf_counter()
    for x in range(calls):
        assert await call(x) == x + 1
    return (time.perf_counter() - started) / calls * 1e6


def _raw_micros(path: Path, calls: int) -> float:
    """Return what one raw commit of an event of the log at *path* takes."""
    shape, rows = events_of(path)
    parameters = batches(rows[:calls], 1)
    with raw_log(path.with_suffix(".raw"), shape) as log:
        return log.write(parameters) / len(parameters) * 1e6


def _guard(found: list[dict[str, float]]) -> Row:
    middle = {name: median(one[name] for one in found) for name in found[0]}
    return against(
        "a guarded call of a `read` tool, recorded in memory",
        "µs",
        [(one["read in memory"], one["purgatory"]) for one in found],
        baseline_is="the same function behind purgatory's breaker",
        extra={
            "µs behind pybreaker": middle["pybreaker"],
            "µs unguarded": middle["bare"],
            "µs of an `idempotent` tool in memory": middle["idempotent in memory"],
        },
    )


def _durable(name: str, found: list[dict[str, float]]) -> Row:
    commits = "a raw commit of its outcome" if EVENTS[name] == 1 else "raw commits of its intent and its outcome"
    return against(
        f"a guarded call of a tool whose effect is `{name}`, durable on return, FULL",
        "µs",
        [(one[f"{name} on disk"], one[f"{name} raw"] * EVENTS[name]) for one in found],
        baseline_is=commits,
        extra={"of it without the disk, µs": median(one[f"{name} in memory"] for one in found)},
    )


# Many at once: calls a second.


async def _burst(path: Path, rounds: int) -> dict[str, float]:
    found = {"purgatory": await _rate(await _purgatory(), rounds)}
    for name in EVENTS:
        async with _opened(path.with_stem(f"{path.stem}-{name}")) as rt:
            found[name] = await _rate(_called(rt, name), rounds)
    return found


@asynccontextmanager
async def _opened(path: Path) -> AsyncGenerator[Runtime]:
    async with Runtime(path, tools=TOOLS.values()) as rt:
        yield rt


async def _rate(call: Call, rounds: int) -> float:
    async def one_by_one(start: int) -> None:
        for x in range(start, start + rounds):
            assert await call(x) == x + 1

    started = time.perf_counter()
    await asyncio.gather(*(one_by_one(number) for number in range(AT_ONCE)))
    return AT_ONCE * rounds / (time.perf_counter() - started)


def _calls(found: list[dict[str, float]]) -> Row:
    return against(
        f"guarded calls, {AT_ONCE:,} in flight, intent and outcome durable, FULL",
        "calls/s",
        [(one["idempotent"], one["purgatory"]) for one in found],
        baseline_is="the same behind purgatory's breaker, nothing recorded",
        extra={"calls/s of a `read` tool": median(one["read"] for one in found)},
    )
