"""Many runs that wait for a person in one log: opening it, `perdure ps`, and one answer that wakes one run.

Beside each figure the same with a log in which 100 runs wait: what waits is to cost nothing. It is checked that none of
the runs is in memory, and that an answer resumes exactly one. `waiting active` and `waiting asleep` are the memory of
many runs at once, as memory.py measures it for fewer.
"""

import asyncio
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.memory import ACTIVE_LIMIT, ASLEEP_LIMIT, probe
from benchmarks.memory_probe import resident_bytes
from benchmarks.rows import Row, Size, Target, against, spread
from perdure import Context, Query, Runtime, Settings, workflow

FEW = 100
AT_ONCE = 1_000


class Woken(msgspec.Struct, frozen=True):
    """What opening a log and answering one question came to."""

    open_ms: float
    open_bytes: int
    """By how much the resident set grew."""
    answer_ms: float
    """From the answer to the run's durable result."""


@workflow
async def approval(ctx: Context, number: int) -> str:
    """Ask a person, for 30 days at most."""
    return await ctx.ask(f"publish {number}?", of=str, timeout=timedelta(days=30))


def measure(size: Size) -> dict[str, Row]:
    runs, repetitions = size.pick(100_000, 2_000), size.pick(5, 2)
    with TemporaryDirectory() as folder:
        many, few = Path(folder, "many.db"), Path(folder, "few.db")
        seconds = asyncio.run(fill(many, runs))
        asyncio.run(fill(few, FEW))
        pairs = [(_woken(many, runs, n), _woken(few, FEW, n)) for n in range(repetitions)]
        shown = [(_ps(many), _ps(few)) for _ in range(repetitions)]
        whole = spread([_ps(many, "--limit", str(runs)) for _ in range(size.pick(2, 1))]).median
        extra = {"µs to start one and have it wait": seconds / runs * 1e6, "bytes a run": many.stat().st_size / runs}
    return {
        "waiting open": _open(pairs, runs, extra),
        "waiting ps": _beside("`perdure ps`", shown, runs, {"ms to list all of them": whole}),
        "waiting answer": _beside(
            "one answer, until the run that asked has its durable end",
            [(many.answer_ms, few.answer_ms) for many, few in pairs],
            runs,
        ),
        **_memory(size),
    }


def _open(pairs: list[tuple[Woken, Woken]], runs: int, extra: dict[str, float]) -> Row:
    grown = spread([many.open_bytes - few.open_bytes for many, few in pairs]).median
    times = [(many.open_ms, few.open_ms) for many, few in pairs]
    return _beside("opening the log", times, runs, {**extra, "KiB of memory more": grown / 1024})


def _beside(what: str, pairs: list[tuple[float, float]], runs: int, extra: dict[str, float] | None = None) -> Row:
    baseline_is = f"the same with {FEW} runs that wait"
    return against(f"{what}, {runs:,} runs wait for a person", "ms", pairs, baseline_is=baseline_is, extra=extra)


def _memory(size: Size) -> dict[str, Row]:
    active, asleep = size.pick(10_000, 500), size.pick(100_000, 1_000)
    grown = probe("active", active, "traced")
    slept = probe("asleep", asleep, "traced")
    return {
        "waiting active": against(
            f"an active run over its data, {active:,} waiting in a tool",
            "bytes/run",
            [(grown.memory - grown.data, ACTIVE_LIMIT)],
            baseline_is="the limit of 10 KB",
            target=Target("at most", 1.0),
        ),
        "waiting asleep": against(
            f"a sleeping run, {asleep:,} beside as many",
            "bytes/run",
            [(slept.memory, ASLEEP_LIMIT)],
            baseline_is="two pointers: none is kept",
            target=Target("at most", 1.0),
        ),
    }


async def fill(path: Path, runs: int) -> float:
    """Have *runs* runs wait in a log of their own; return the seconds that took."""
    started = time.perf_counter()
    async with _runtime(path) as rt:
        for first in range(0, runs, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, runs))
            await asyncio.gather(*(rt.with_options(id=_id(n)).start(approval, n) for n in numbers))
            await rt.until_idle()
    return time.perf_counter() - started


def _runtime(path: Path) -> Runtime:
    return Runtime(path, workflows=[approval], settings=Settings(socket=False))


def _id(number: int) -> str:
    return f"r{number:06}"


def _woken(path: Path, runs: int, number: int) -> Woken:
    """Return what it is to answer one of *runs* questions, in a process of its own: one that has never seen the log."""
    command = [sys.executable, "-m", "benchmarks.waiting", str(path), _id(runs // 2 + number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120)  # noqa: S603 - this module
    return msgspec.json.decode(done.stdout, type=Woken)


async def _answer(path: Path, run: str) -> Woken:
    async with Runtime(path.with_name("warm.db"), workflows=[approval]):
        pass  # what is loaded on first use is there
    before, started = resident_bytes(), time.perf_counter()
    async with _runtime(path) as rt:
        opened = time.perf_counter()
        grown = resident_bytes() - before
        assert (await rt.statistics()).runs_in_memory == 0
        position = (await rt.statistics()).log.position
        asked = time.perf_counter()
        handle = rt.run(run, approval)
        await handle.answer(f"{run}:ask#1", "yes")
        assert await handle.result() == "yes"
        answered = time.perf_counter()
        resumed = await rt.read(Query(types=("run-resumed",), after=position))
        assert [one.stream for one in resumed] == [f"run/{run}"]
    return Woken((opened - started) * 1e3, grown, (answered - asked) * 1e3)


def _ps(path: Path, *options: str) -> float:
    """Return the milliseconds of `perdure ps`, the start of the interpreter included."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "perdure", "ps", "--db", str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    _, path, run = sys.argv
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_answer(Path(path), run))))


if __name__ == "__main__":
    main()
