"""What a command in a slot costs: beside a bare subprocess, and beside bubblewrap alone with the same jail.

The baselines record nothing and confine nothing (`subprocess`), or confine the same way and record nothing (`bwrap`).
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.rows import Row, Size, against, spread
from perdure import Bubblewrap, ExecutorConfig, Runtime, Trajectory

COMMAND = "true"
TRAJECTORIES = (1, 10, 100)
SUBPROCESS = ["/bin/sh", "-c", COMMAND]
BWRAP = [
    *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"),
    *("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - its own
    *("--", *SUBPROCESS),
]


def measure(size: Size) -> dict[str, Row]:
    if shutil.which("bwrap") is None:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="perdure-slots-"))
    folder.chmod(0o755)  # each slot has a user of its own, who must be able to come here
    try:
        return asyncio.run(_measure(folder, size))
    finally:
        shutil.rmtree(folder)


async def _measure(folder: Path, size: Size) -> dict[str, Row]:
    repetitions = size.pick(9, 2)
    starts = [await _starts(folder / f"start-{n}") for n in range(repetitions)]
    alone = [await _alone(folder / f"alone-{n}", size.pick(60, 10)) for n in range(repetitions)]
    rows = {
        "slot cold": against(
            "the first command of a trajectory whose slot must be made", "ms",
            [(cold, bare) for cold, _, bare in starts], baseline_is="bare bwrap",
        ),
        "slot warm": against(
            "the first command of a trajectory when an empty slot is ready", "ms",
            [(warm, bare) for _, warm, bare in starts], baseline_is="bare bwrap",
        ),
        "command": against(
            "one command after the other, intent and outcome durable, without a window", "ms",
            [(ours, bare) for ours, bare, _ in alone], baseline_is="bare bwrap",
            extra={"bare subprocess, ms": spread([plain for _, _, plain in alone]).median},
        ),
    }  # fmt: skip
    for count in TRAJECTORIES:
        rows[f"commands {count}"] = await _throughput(folder / f"many-{count}", count, size)
    return rows


async def _starts(folder: Path) -> tuple[float, float, float]:
    """Return milliseconds: cold, warm, bare."""
    config = ExecutorConfig(batch_window_ms=0)
    async with Runtime(_log(folder / "cold"), sandbox=Bubblewrap(folder / "cold"), executor=config) as rt:
        cold = await _timed(rt.trajectory("t").run(COMMAND))
    config = ExecutorConfig(batch_window_ms=0, warm_slots=1, min_slots=1)
    async with Runtime(_log(folder / "warm"), sandbox=Bubblewrap(folder / "warm"), executor=config) as rt:
        warm = await _timed(rt.trajectory("t").run(COMMAND))
    return cold, warm, await _timed(_bare(BWRAP))


async def _alone(folder: Path, commands: int) -> tuple[float, float, float]:
    """Return milliseconds a command: ours, bare bwrap, bare subprocess."""
    config = ExecutorConfig(batch_window_ms=0)
    async with Runtime(_log(folder), sandbox=Bubblewrap(folder), executor=config) as rt:
        work = rt.trajectory("t")
        await work.run(COMMAND)
        ours = await _timed(_repeat(lambda: work.run(COMMAND), commands)) / commands
    bare = await _timed(_repeat(lambda: _bare(BWRAP), commands)) / commands
    plain = await _timed(_repeat(lambda: _bare(SUBPROCESS), commands)) / commands
    return ours, bare, plain


async def _throughput(folder: Path, trajectories: int, size: Size) -> Row:
    """Return commands a second over so many trajectories at once, with the window and without."""
    each = max(2, size.pick(200, 20) // trajectories)
    pairs: list[tuple[float, float]] = []
    without: list[float] = []
    plain: list[float] = []
    total = trajectories * each
    for number in range(size.pick(3, 1)):
        rates: list[float] = []
        for window in (20, 0):
            config = ExecutorConfig(batch_window_ms=window, max_slots=trajectories)
            place = folder / f"{number}-{window}"
            async with Runtime(_log(place), sandbox=Bubblewrap(place), executor=config) as rt:
                works = [rt.trajectory(f"t{n}") for n in range(trajectories)]
                await asyncio.gather(*(work.run(COMMAND) for work in works))
                calls = (_commands(work, each) for work in works)
                rates.append(total / (await _timed(_all(calls)) / 1e3))
        bare = (_repeat(lambda: _bare(BWRAP), each) for _ in range(trajectories))
        pairs.append((rates[0], total / (await _timed(_all(bare)) / 1e3)))
        without.append(rates[1])
        plains = (_repeat(lambda: _bare(SUBPROCESS), each) for _ in range(trajectories))
        plain.append(total / (await _timed(_all(plains)) / 1e3))
    return against(
        f"commands of {trajectories} trajectories at once, each one after the other, window 20 ms",
        "commands/s",
        pairs,
        baseline_is="as many tasks with bare bwrap",
        extra={
            "without a window, commands/s": spread(without).median,
            "bare subprocess, commands/s": spread(plain).median,
        },
    )


def _log(folder: Path) -> Path:
    folder.mkdir(parents=True, mode=0o755)
    return folder.with_suffix(".db")


async def _all(works: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*works)


async def _commands(work: Trajectory, times: int) -> None:
    for _ in range(times):
        await work.run(COMMAND)


async def _repeat(call: Callable[[], Awaitable[object]], times: int) -> None:
    for _ in range(times):
        await call()


async def _bare(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}
    )
    if await process.wait():
        raise RuntimeError(f"{command[0]} failed")


async def _timed(work: Awaitable[object]) -> float:
    """Return milliseconds."""
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1e3
