"""What a definition costs: each of the seven patterns beside the same steps as code, many runs at once, at FULL.

The code calls the same tools with the same arguments, in the way that one writes it; nothing else is the same, so the
ratio is all that a definition adds: its steps' mappings, time limits and answers, and what it records beside them.
"""

import asyncio
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from benchmarks.pattern_code import (
    ITEMS,
    NAMES,
    STEPS,
    conditional,
    event_driven,
    fan_out_fan_in,
    map_reduce,
    parallel,
    saga,
    sequential,
    tools,
)
from benchmarks.pattern_definitions import definition
from benchmarks.rows import Row, Size, against, spread
from perdure import Runtime, Settings, Workflow

STEPS_OF = {"map_reduce": ITEMS + 1}
CODE: Sequence[Workflow[..., Any]] = (
    sequential,
    parallel,
    fan_out_fan_in,
    conditional,
    saga,
    map_reduce,
    event_driven,
)
EVENTS = [f"tick.{name}" for name in NAMES]


class Burst(msgspec.Struct, frozen=True):
    """What one burst of runs came to."""

    seconds: float
    events: int


def measure(size: Size) -> dict[str, Row]:
    runs, repetitions = size.pick(500, 50), size.pick(5, 2)
    return {f"pattern {code.name}": _row(code, runs, repetitions) for code in CODE}


def _row(code: Workflow[..., Any], runs: int, repetitions: int) -> Row:
    steps = STEPS_OF.get(code.name, STEPS)
    with _folder() as folders:
        asyncio.run(burst(next(folders), code, runs // 10, is_defined=True))
        pairs = [_pair(folders, code, runs) for _ in range(repetitions)]
    defined, plain = pairs[0]
    return against(
        f"{code.name.replace('_', '-')}, {runs} runs of {steps} steps at once",
        "runs/s",
        [(runs / ours.seconds, runs / other.seconds) for ours, other in pairs],
        baseline_is="the same steps as code",
        extra={
            "steps/s": spread([runs * steps / ours.seconds for ours, _ in pairs]).median,
            "steps/s as code": spread([runs * steps / other.seconds for _, other in pairs]).median,
            "events a step": defined.events / runs / steps,
            "events a step as code": plain.events / runs / steps,
        },
    )


def _pair(folders: Iterator[Path], code: Workflow[..., Any], runs: int) -> tuple[Burst, Burst]:
    defined = asyncio.run(burst(next(folders), code, runs, is_defined=True))
    return defined, asyncio.run(burst(next(folders), code, runs, is_defined=False))


@contextmanager
def _folder() -> Generator[Iterator[Path]]:
    """Give paths of new logs, all of which are gone at the end."""
    with TemporaryDirectory() as folder:
        yield (Path(folder, f"{number}.db") for number in range(10_000))


async def burst(path: Path, code: Workflow[..., Any], runs: int, *, is_defined: bool) -> Burst:
    """Run a definition, or its twin in code, so many times at once in a new log, to the durable end of each."""
    workflow: Any = definition(code.name) if is_defined else code
    settings = Settings(socket=False)
    async with Runtime(path, tools=tools, workflows=[workflow], events=EVENTS, settings=settings) as rt:
        before = (await rt.statistics()).log.events
        started = time.perf_counter()
        handles = await asyncio.gather(*(rt.start(rt.workflows[code.name], _data(code, n)) for n in range(runs)))
        if code is event_driven:
            for event in EVENTS:
                await rt.publish(event)
        for handle in handles:
            await handle.result()
        seconds = time.perf_counter() - started
        events = (await rt.statistics()).log.events - before
    return Burst(seconds, events)


def _data(code: Workflow[..., Any], number: int) -> dict[str, Any]:
    return {"items": [number + n for n in range(ITEMS)]} if code is map_reduce else {"x": number}
