"""The process that mapping.py measures: `python -m benchmarks.map_probe code|definition|source COUNT LOG`.

One run that maps a tool over COUNT items and adds up what came of them. Prints how long that took, and what this
process grew by at its highest.
"""

import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from perdure import Context, Runtime, Settings, Step, Workflow, WorkflowDefinition, tool, workflow

PAGE = 1_000
CONCURRENCY = 256


class Mapped(msgspec.Struct, frozen=True):
    """What a map came to."""

    seconds: float
    commits: int
    peak: int
    """Bytes of resident set at the highest, over what the process had before the run."""


@tool
async def double(item: int) -> int:
    return item * 2


@tool(effect="read")
async def total(map_results: list[int]) -> int:
    return sum(map_results)


@tool(effect="read")
async def numbers(count: int, cursor: int | None) -> dict[str, Any]:
    """Return one page of items and where the next one is."""
    first = cursor or 0
    following = min(first + PAGE, count)
    return {"items": list(range(first, following)), "cursor": following if following < count else None}


@workflow
async def code(ctx: Context, data: dict[str, Any]) -> int:
    return sum(await ctx.map(double, range(data["count"]), concurrency=CONCURRENCY))


_MAP_AND_REDUCE = (Step(id="double", tool="double"), Step(id="total", tool="total"))
_FIELDS: dict[str, Any] = {"pattern": "map_reduce", "concurrency": CONCURRENCY, "page_size": PAGE, "timeout": None}

WORKFLOWS: dict[str, Workflow[..., Any] | WorkflowDefinition] = {
    "code": code,
    "definition": WorkflowDefinition(id="definition", steps=_MAP_AND_REDUCE, **_FIELDS),
    "source": WorkflowDefinition(id="source", steps=(Step(id="numbers", tool="numbers"), *_MAP_AND_REDUCE), **_FIELDS),
}


async def mapped(what: str, count: int, path: Path) -> Mapped:
    """Run one of the workflows over *count* items to its durable end."""
    given: dict[str, Any] = {"items": list(range(count))} if what == "definition" else {"count": count}
    settings = Settings(socket=False)
    async with Runtime(path, tools=[double, total, numbers], workflows=[WORKFLOWS[what]], settings=settings) as rt:
        await (await rt.start(rt.workflows[what], {"items": [1], "count": 1})).result()
        before, commits = _peak(), (await rt.statistics()).log.commits
        started = time.perf_counter()
        result: Any = await (await rt.start(rt.workflows[what], given)).result()
        seconds = time.perf_counter() - started
        assert (result if what == "code" else result["reduce_result"]) == count * (count - 1)
        return Mapped(seconds, (await rt.statistics()).log.commits - commits, _peak() - before)


def _peak() -> int:
    """Return the highest resident set of this process so far, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except FileNotFoundError:  # not Linux, where getrusage would count the process that started this one
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024


def main() -> None:
    _, what, count, path = sys.argv
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(mapped(what, int(count), Path(path)))))


if __name__ == "__main__":
    main()
