"""Runs that wait for a person, many of them in one file: opening it, `perdure ps`, and one answer that wakes one run.

Beside the figures it is checked that none of them is in memory, and that an answer resumes exactly one.
"""

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import msgspec

from perdure import Context, Query, Runtime, Settings, workflow

RUNS = 100_000
_AT_ONCE = 1000


class Figures(msgspec.Struct, frozen=True):
    """What was measured, in seconds but where the name says otherwise."""

    runs: int
    write: float
    file_mib: float
    open: float
    open_extra_mib: float
    in_memory: int
    ps_first_rows: float
    ps_all: float
    answer: float
    resumed: int


@workflow
async def approval(ctx: Context, number: int) -> str:
    """Ask a person, for 30 days at most."""
    return await ctx.ask(f"publish {number}?", of=str, timeout=timedelta(days=30))


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def fill(path: Path, runs: int) -> float:
    """Have *runs* runs wait in a log of their own; return how long that took."""
    begun = time.perf_counter()
    async with Runtime(path, workflows=[approval], settings=Settings(socket=False)) as rt:
        for first in range(0, runs, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, runs))
            await asyncio.gather(*(rt.with_options(id=f"r{n:06}").start(approval, n) for n in numbers))
            await rt.until_idle()
    return time.perf_counter() - begun


async def answer_one(path: Path, runs: int) -> tuple[float, float, int, float, int]:
    """Open the log and answer one question; return the times, the memory and how many runs were resumed."""
    before, begun = _resident_mib(), time.perf_counter()
    async with Runtime(path, workflows=[approval], settings=Settings(socket=False)) as rt:
        opened = time.perf_counter() - begun
        in_memory = (await rt.statistics()).runs_in_memory
        extra = _resident_mib() - before
        begun = time.perf_counter()
        run = rt.run(f"r{runs // 2:06}", approval)
        await run.answer(f"{run.id}:ask#1", "yes")
        await run.result()
        answered = time.perf_counter() - begun
        tail = await rt.read(Query(types=("run-resumed",), limit=10))
    return opened, extra, in_memory, answered, len(tail)


def ps(path: Path, *options: str) -> float:
    """Return how long `perdure ps` takes, the start of the interpreter included."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "perdure", "ps", "--db", str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    return time.perf_counter() - begun


def measure(folder: Path, runs: int = RUNS) -> Figures:
    """Return the figures of *runs* waiting runs in a file below *folder*; opening is in a process of its own."""
    path = folder / "waiting.db"
    write = asyncio.run(fill(path, runs))
    call = f"w.answer_one(pathlib.Path({str(path)!r}), {runs})"
    code = f"import asyncio, benchmarks.waiting as w, pathlib; print(asyncio.run({call}))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603 - our own
    opened, extra, in_memory, answered, resumed = (float(part) for part in ran.stdout.strip("()\n ").split(","))
    assert in_memory == 0, "runs that wait are not in memory"
    assert resumed == 1, "one answer wakes one run"
    return Figures(
        runs, write, path.stat().st_size / 2**20, opened, extra, int(in_memory), ps(path), ps(path, "--all"), answered,
        int(resumed),
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
    for field, value in msgspec.structs.asdict(found).items():
        print(f"{field:16} {value:12.3f}" if isinstance(value, float) else f"{field:16} {value:12}")
