"""What it costs to start a run and to wait for its result from another process, beside doing it in the owner's own.

The owner is a process of its own, so that both have a core; each run has one recorded step, at FULL.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, against
from perdure import Connection, Context, Runtime, connect, tool, workflow

AT_ONCE = 100


@tool(effect="read")
async def increment(x: int) -> int:
    return x + 1


@workflow
async def step(ctx: Context, x: int) -> int:
    return await ctx.call(increment, x)


def measure(size: Size) -> dict[str, Row]:
    alone: list[tuple[float, float]] = []
    together: list[tuple[float, float]] = []
    for _ in range(size.pick(7, 2)):
        with TemporaryDirectory() as folder:
            here = asyncio.run(_inside(Path(folder) / "here.db", size))
            there = _outside(Path(folder) / "there.db", size)
        alone.append((there[0], here[0]))
        together.append((there[1], here[1]))
    return {
        "connect latency": against(
            "start and result of a run of one step, one after the other, from another process",
            "µs",
            alone,
            baseline_is="the same inside of the owner",
        ),
        "connect": against(
            f"starts and results a second, {AT_ONCE} at once, from another process",
            "runs/s",
            together,
            baseline_is="the same inside of the owner",
        ),
    }


async def _inside(path: Path, size: Size) -> tuple[float, float]:
    async with Runtime(path, tools=[increment], workflows=[step]) as rt:
        return await _both(rt, size)


def _outside(path: Path, size: Size) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.connecting", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:  # noqa: S603 - this module
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        found = asyncio.run(_connected(path, size))
        owner.communicate(b"")
    return found


async def _connected(path: Path, size: Size) -> tuple[float, float]:
    async with connect(path) as rt:
        return await _both(rt, size)


async def _both(rt: Runtime | Connection, size: Size) -> tuple[float, float]:
    await _seconds(rt, 20, 1)
    calls, rounds = size.pick(400, 40), size.pick(20, 3)
    return await _seconds(rt, calls, 1) / calls * 1e6, AT_ONCE * rounds / await _seconds(rt, rounds, AT_ONCE)


async def _seconds(rt: Runtime | Connection, rounds: int, at_once: int) -> float:
    async def one_by_one() -> None:
        for x in range(rounds):
            assert await (await rt.start(step, x)).result() == x + 1

    started = time.perf_counter()
    await asyncio.gather(*(one_by_one() for _ in range(at_once)))
    return time.perf_counter() - started


async def _own(path: Path) -> None:
    async with Runtime(path, tools=[increment], workflows=[step]):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_own(Path(sys.argv[1])))
