"""The agents of a runtime: by name, by capability, with those in memory (`residents.py`).

Calls go through an agent's tool; here is what stands behind it. Invariant: a name means one agent.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from perdure.actors.kernel.clock import SECOND, Clock
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.invoke import Threads
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.selection import Candidate, find, select_best
from perdure.actors.tools.statistics import ToolStatistics
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.errors import UnknownAgentError
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse, as_response
from perdure.actors.workflows.agents.residents import Resident, Residents
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but

MAX_LOADED = 10
"""Agents in memory at the same time, unless the settings say otherwise."""

UNLOAD_AFTER = timedelta(minutes=15)
"""How long an agent may be idle in memory, unless the settings say otherwise."""

Figures: TypeAlias = Callable[[Agent], Awaitable[ToolStatistics]]


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of an agent."""

    name: str
    description: str
    capabilities: tuple[str, ...]
    priority: int
    preload: bool
    is_loaded: bool
    """Whether it is in memory; what need not be loaded always is."""
    usage_count: int
    """Calls in this life of the runtime."""
    idle_seconds: float | None
    """Since it was used last; None: never in this life."""
    load_seconds: float | None
    """How long its last loading took; None: never, or nothing to load."""


class AgentStatistics(msgspec.Struct, frozen=True):
    """Figures of the agents of a runtime, in this life."""

    registered: int
    loaded: tuple[str, ...]
    loads: int
    unloads: int
    max_loaded: int


@checked_but("__init__")
class Agents(Mapping[str, Agent]):
    """Agents by name, in the order of registration."""

    def __init__(
        self,
        agents: Iterable[Agent],
        tools: Registry,
        *,
        max_loaded: int = MAX_LOADED,
        unload_after: timedelta = UNLOAD_AFTER,
    ) -> None:
        """Register *agents*; their tools join *tools*.

        Raises:
            UsageError: two have the same name, one is no agent, or a limit makes no sense.
        """
        if max_loaded < 1 or unload_after <= timedelta(0):
            raise UsageError("max_loaded_agents is at least 1, and unload_agents_after more than nothing")
        self._agents: dict[str, Agent] = {}
        self._tools = tools
        self._max_loaded = max_loaded
        self._unload_after = unload_after
        self._residents: Residents | None = None
        self._clock: Clock
        self._figures: Figures
        for agent in agents:
            self.register(agent)

    def __getitem__(self, name: str) -> Agent:
        try:
            return self._agents[name]
        except KeyError:
            raise UnknownAgentError(agent=name, known=", ".join(sorted(self._agents)) or "none") from None

    def get(self, name: str, default: Any = None) -> Any:
        """Return an agent by name, or *default*."""
        return self._agents.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._agents

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)

    def register(self, agent: Agent) -> None:
        """Add an agent; the same one again changes nothing.

        Raises:
            UsageError: another one has the name.
        """
        if self._agents.get(agent.name, agent) is not agent:
            raise UsageError(f"two agents are called {agent.name!r}: give one of them another name")
        self._tools.register(agent.tool)
        self._agents[agent.name] = agent

    # Opening and closing

    async def open(self, threads: Threads, clock: Clock, figures: Figures) -> None:
        """Take up the work, and bring into memory what is to be there from the start.

        Raises:
            Whatever an agent that is to be preloaded raises.
        """
        self._clock, self._figures = clock, figures
        self._residents = Residents(self._max_loaded, self._unload_after, threads, clock)
        for agent in self._agents.values():
            if agent.preload:
                await self._residents.bring(agent)

    async def close(self) -> None:
        """Shut down those in memory."""
        residents, self._residents = self._residents, None
        if residents is not None:
            await residents.close()

    @property
    def _open(self) -> Residents:
        if self._residents is None:
            raise UsageError("agents are in memory only while their runtime is open: `async with Runtime(…) as rt:`")
        return self._residents

    async def process(self, agent: Agent, message: AgentMessage, context: ToolContext) -> AgentResponse:
        """Have *agent* handle a message; called by its tool.

        Raises:
            UnknownActionError: it has no handler for it.
            UsageError: it is a workflow, which only a run can call.
            Whatever loading it, or its handler, raises.
        """
        if agent.workflow is not None:
            detail = f"agent {agent.name} is a workflow: name it in a step, or write `await ctx.run(…)` in a workflow"
            raise UsageError(detail)
        async with self._open.using(agent) as loaded:
            return as_response(await loaded.handle(message, context), agent.name)

    async def load(self, name: str) -> None:
        """Bring an agent into memory before it is needed.

        Raises:
            UnknownAgentError: there is none of that name.
            Whatever loading it raises.
        """
        await self._open.bring(self[name])

    async def unload(self, name: str) -> bool:
        """Take an agent out of memory, unless it is in use; return whether that was done.

        Raises:
            UnknownAgentError: there is none of that name.
        """
        return await self._open.take_out(self[name])

    # Finding

    def find(self, capability: str) -> list[AgentInfo]:
        """Return the agents that have a capability: by priority, then in the order of registration."""
        found = find(self._candidates(), {capability})
        return [self._info(self._agents[candidate.name]) for candidate in found]

    async def select_best(self, required: Iterable[str], *, partial: bool = False) -> Agent | None:
        """Return the agent that has all these capabilities (with *partial*, most of them), or None.

        One whose circuit is open is chosen only if there is no other. On ties the one of the highest priority is, and
        among these the first one registered.

        Raises:
            UsageError: a text was given for the capabilities, or the runtime is not open.
        """
        if isinstance(required, str):
            raise UsageError(f"capabilities are a list: [{required!r}]")
        _, wanted = self._open, frozenset(required)
        candidates = [
            msgspec.structs.replace(candidate, is_available=await self._is_available(self._agents[candidate.name]))
            for candidate in find(self._candidates(), wanted, partial=partial)
        ]
        name = select_best(candidates, wanted, partial=partial)
        return None if name is None else self._agents[name]

    def discover(self) -> list[AgentInfo]:
        """Return all agents: by priority, then by use."""
        found = [self._info(agent) for agent in self._agents.values()]
        return sorted(found, key=lambda info: (-info.priority, -info.usage_count))

    def stats(self) -> AgentStatistics:
        """Return the figures of the agents in this life of the runtime."""
        residents = self._open
        return AgentStatistics(
            len(self._agents), tuple(residents.loaded), residents.loads, residents.unloads, self._max_loaded
        )

    def _candidates(self) -> list[Candidate]:
        by_priority = sorted(self._agents.values(), key=lambda agent: -agent.priority)
        return [Candidate(agent.name, agent.capabilities) for agent in by_priority]

    async def _is_available(self, agent: Agent) -> bool:
        return agent.workflow is not None or (await self._figures(agent)).state != "open"

    def _info(self, agent: Agent) -> AgentInfo:
        resident = Resident(agent) if self._residents is None else self._residents[agent]
        now = 0 if self._residents is None else self._clock.moment().steady
        return AgentInfo(
            name=agent.name,
            description=agent.description,
            capabilities=tuple(sorted(agent.capabilities)),
            priority=agent.priority,
            preload=agent.preload,
            is_loaded=not agent.is_loaded_lazily or resident.loaded is not None,
            usage_count=resident.uses,
            idle_seconds=(now - resident.last_used) / SECOND if resident.uses else None,
            load_seconds=resident.load_micros / SECOND if resident.loads else None,
        )
