"""What is read of tools and of the whole for those who ask: figures, and which tool is best for a task."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.messages import Command
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.selection import Candidate, select_best
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.tools.tool import GetToolStatistics
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.machinery import Machinery
from perdure.store.records import StreamId

Ask: TypeAlias = Callable[[StreamId, Command], Answer[Any]]
"""Asks an actor; the answer rests on nothing that is not durable."""


async def read_figures(machinery: Machinery, ask: Ask) -> RuntimeStatistics:
    """Return the figures of an open runtime. See `Runtime.statistics`."""
    engine, directory = machinery.engine, machinery.system.directory
    executor = machinery.parts.executor
    streams = {f"tool/{name}" for name in machinery.parts.tools}
    streams |= {shell.stream for shell in directory.shells("tool/")}
    return RuntimeStatistics(
        life=engine.life,
        runs_in_memory=len(engine),
        actors_in_memory=len(directory),
        failed_actors={str(stream): reason for stream, reason in directory.parked().items()},
        tools={s.partition("/")[2]: await ask(StreamId(s), GetToolStatistics()) for s in sorted(streams)},
        log=machinery.log.statistics(),
        slots=None if executor is None else executor.statistics(),
        queues=dict(engine.queues.statistics()),
    )


async def select_tool(tools: Registry, ask: Ask, required: Iterable[str], *, partial: bool) -> Tool[..., Any] | None:
    """Return the tool that has all these capabilities, or None. See `Runtime.select`."""
    candidates: list[Candidate] = []
    for tool in tools.in_order():
        figures: ToolStatistics = await ask(tool.stream(None), GetToolStatistics())
        usable = figures.state != "open" and tools.is_available(tool.name)
        candidates.append(Candidate(tool.name, tool.offer.capabilities, usable))
    name = select_best(candidates, frozenset(required), partial=partial)
    return None if name is None else tools[name]
