"""The tools at an engine: the actors that guard them, and what is in memory only of each.

It calls no tool. Invariant: the actor of a registered tool, where conversations share it, stays in memory.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.limits import Gate
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.retry import NO_RETRY
from perdure.store.errors import UsageError
from perdure.store.records import Query, StreamId


class Toolbox:
    """Finds a tool's actor, and the gate before it."""

    def __init__(self, tools: Registry) -> None:
        self._tools = tools
        self._system: ActorSystem
        self._pinned: set[str] = set()
        self._gates: dict[StreamId, Gate] = {}
        self.as_tool = lru_cache(maxsize=1024)(_as_tool)

    async def attach(self, system: ActorSystem) -> None:
        """Bring the actors of all registered tools into memory, where they stay."""
        self._system = system
        for tool in list(self._tools.values()):
            await self._bring(tool)

    async def _bring(self, tool: Tool[..., Any]) -> None:
        shell = await self._system.directory.activate(tool.stream(None))
        if tool.name not in self._pinned:
            self._pinned.add(tool.name)
            shell.pins += 1

    def shell_in_memory(self, tool: Tool[..., Any], conversation: str | None = None) -> Shell | None:
        """Return the actor of *tool* if it is registered and in memory, as it nearly always is."""
        if not self._tools.holds(tool):
            return None
        return self._system.directory.active(tool.stream(conversation))

    async def shell(self, tool: Tool[..., Any], conversation: str | None = None) -> Shell:
        """Return the actor that guards *tool* in a conversation, registering the tool if it is new.

        Raises:
            UsageError: another tool has the name.
            ActorFailedError: the tool's actor failed and has not come back.
        """
        self._tools.register(tool)
        if tool.name not in self._pinned:
            await self._bring(tool)
        return await self._system.directory.activate(tool.stream(conversation))

    def gate(self, tool: Tool[..., Any], stream: StreamId) -> Gate:
        """Return what is in memory only of the actor at *stream*: who runs, who waits for a place or the circuit."""
        gate = self._gates.get(stream)
        if gate is None:
            gate = self._gates[stream] = Gate(tool.concurrency, tool.queue)
        return gate

    def circuit_moved(self, stream: StreamId) -> None:
        """Tell those whom the circuit of the tool at *stream* refused that it has moved."""
        if (gate := self._gates.get(stream)) is not None:
            gate.circuit_moved()

    def settle_gate(self, stream: StreamId) -> None:
        """Forget a gate that nobody stands at."""
        gate = self._gates.get(stream)
        if gate is not None and gate.is_idle:
            del self._gates[stream]

    async def opened_by(self, stream: StreamId) -> int | None:
        """Return the position of the event that opened the circuit of the tool at *stream*."""
        types = ("circuit-opened", "circuit-forced")
        found = await self._system.log.read(Query(stream=stream, types=types, newest_first=True, limit=1))
        return found[0].position if found else None


def _as_tool(function: Callable[..., Any]) -> Tool[..., Any]:
    if not inspect.iscoroutinefunction(function):
        raise UsageError(f"ctx.step takes an async function; make {function!r} async, or a @tool, which may block")
    name = getattr(function, "__qualname__", "step").replace("<locals>.", "").replace("<lambda>", "lambda")
    made: Tool[..., Any] = Tool(
        function, name=name, effect="idempotent", breaker=BreakerPolicy(), retry=NO_RETRY, timeout=None, reconcile=None
    )
    # A tool that says nothing is broken; a function that says nothing, and does not promise to, is just a function.
    made.declares_none = made.declares_none or "return" not in getattr(function, "__annotations__", {})
    return made
