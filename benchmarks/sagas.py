"""What a saga in code costs, many runs at once at FULL: one that ends well, and one that undoes all of its steps.

Beside each the same calls made by hand: plain `ctx.call`, and for what is undone an `except` that calls again what
undoes them, last first. That is what code without sagas does, less what happens to it in a cancel or a crash.
"""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, against, spread
from perdure import Context, Runtime, Settings, Workflow, tool, workflow

STEPS = 5


class NoStockError(Exception):
    """Why the order fails."""


@tool
async def reserve(item: int) -> int:
    return item


@tool
async def release(item: int) -> None:
    """Undo `reserve`."""


@workflow
async def with_saga(ctx: Context, item: int, *, fails: bool) -> None:
    async with ctx.saga() as saga:
        for number in range(STEPS):
            await saga.undo_with(release).call(reserve, item + number)
        check_stock(fails=fails)


@workflow
async def by_hand(ctx: Context, item: int, *, fails: bool) -> None:
    done: list[int] = []
    try:
        for number in range(STEPS):
            done += [await ctx.call(reserve, item + number)]
        check_stock(fails=fails)
    except NoStockError:
        for each in reversed(done):
            await ctx.call(release, each)
        raise


def check_stock(*, fails: bool) -> None:
    if fails:
        raise NoStockError


def measure(size: Size) -> dict[str, Row]:
    runs, repetitions = size.pick(500, 50), size.pick(7, 2)
    return {"saga": _row(runs, repetitions, fails=False), "saga undone": _row(runs, repetitions, fails=True)}


def _row(runs: int, repetitions: int, *, fails: bool) -> Row:
    with TemporaryDirectory() as folder:
        _rate(Path(folder, "warm.db"), with_saga, runs // 10, fails=fails)
        pairs = [
            (
                _rate(Path(folder, f"saga-{number}.db"), with_saga, runs, fails=fails),
                _rate(Path(folder, f"hand-{number}.db"), by_hand, runs, fails=fails),
            )
            for number in range(repetitions)
        ]
    calls = STEPS * (2 if fails else 1)
    what = f"{STEPS} steps that are all undone" if fails else f"{STEPS} steps that could be undone"
    return against(
        f"sagas of {what}, {runs} at once",
        "runs/s",
        pairs,
        baseline_is="the same calls by hand",
        extra={"calls/s": spread([calls * ours for ours, _ in pairs]).median},
    )


def _rate(path: Path, code: Workflow[..., None], runs: int, *, fails: bool) -> float:
    return asyncio.run(_runs_a_second(path, code, runs, fails=fails))


async def _runs_a_second(path: Path, code: Workflow[..., None], runs: int, *, fails: bool) -> float:
    settings = Settings(socket=False)
    async with Runtime(path, tools=[reserve, release], workflows=[code], settings=settings) as rt:
        started = time.perf_counter()
        handles = await asyncio.gather(*(rt.start(code, item, fails=fails) for item in range(runs)))
        ends = await asyncio.gather(*(handle.result() for handle in handles), return_exceptions=True)
        seconds = time.perf_counter() - started
        assert sum(isinstance(end, Exception) for end in ends) == (runs if fails else 0)
    return runs / seconds
