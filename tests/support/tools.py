"""What the tests of tools share: a tool that does what its argument says, and short ways to look at it."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from perdure import Recorded, Runtime, Tool, ToolStatistics, tool
from perdure.store.records import Query, stream_id
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, data

MICROSECOND = timedelta(microseconds=1)


class Double:
    """A tool that is told by its argument what to do; `hold` waits for `release`."""

    def __init__(self, name: str = "alpha", **options: Any) -> None:
        self.calls: list[str] = []
        self._held: list[asyncio.Future[str]] = []
        self.tool: Tool[..., Any] = tool(name=name, **options)(self._handle)

    async def _handle(self, do: str = "ok") -> str:
        self.calls.append(do)
        if do == "hold":
            held: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._held.append(held)
            do = await held
        if do == "fail":
            raise RuntimeError("boom")
        return f'{{"did": "{do}"}}'

    @property
    def held(self) -> int:
        """How many calls are held now."""
        return sum(not held.done() for held in self._held)

    def release(self, do: str = "ok", *, last: bool = False) -> None:
        """Let the first call that is held, or the last one, go on to do something."""
        waiting = [held for held in self._held if not held.done()]
        waiting[-1 if last else 0].set_result(do)


def box_of(*tools: Tool[..., Any] | Double, on: Path | MemoryDisk | None = None, **options: Any) -> Box:
    made = [one.tool if isinstance(one, Double) else one for one in tools]
    return Box(on, TestClock(), tools=made, **options)


async def dispatch(rt: Runtime, name: str, do: str = "ok") -> dict[str, Any]:
    """What a model is told, decoded."""
    told: dict[str, Any] = msgspec.json.decode(await rt.dispatch(name, {"do": do}))
    return told


async def figures(rt: Runtime, name: str = "alpha") -> ToolStatistics:
    return (await rt.statistics()).tools[name]


async def state(rt: Runtime, name: str = "alpha") -> str:
    return (await figures(rt, name)).state


async def fail(rt: Runtime, times: int = 3, name: str = "alpha") -> None:
    for _ in range(times):
        await dispatch(rt, name, "fail")


async def begun(box: Box, *calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Start calls beside the test, and let them come as far as they can."""
    tasks = [asyncio.create_task(call) for call in calls]
    await box.clock.settle()
    return tasks


async def history(rt: Runtime, name: str = "alpha", *types: str) -> list[Recorded]:
    return await rt.read(Query(stream=stream_id(f"tool/{name}"), types=types or None))


async def kinds(rt: Runtime, name: str = "alpha") -> list[str]:
    return [event.type for event in await history(rt, name)]


async def facts_of(rt: Runtime, kind: str, name: str = "alpha") -> list[dict[str, Any]]:
    return [data(event) for event in await history(rt, name, kind)]
