"""Which agents are in memory: loaded on first use, unloaded when idle, at most so many at a time.

Not durable: what an agent must remember belongs in the log. Invariant: an agent in use, and one that is preloaded, is
never unloaded; and however many calls come at once, it is loaded once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from perdure.actors.kernel.clock import Clock, Timer
from perdure.actors.kernel.logs import logger
from perdure.actors.tools.invoke import Threads
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.loading import Loaded, load

_log = logger("perdure.agents")

LAST_WORDS = 10.0
"""Seconds that agents have to shut down when the runtime closes."""


class Resident:
    """What is known of one agent in this process."""

    __slots__ = ("agent", "in_use", "last_used", "leaving", "load_micros", "loaded", "loading", "loads", "uses")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.loaded: Loaded | None = None
        self.loading: asyncio.Task[Loaded] | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.in_use = 0
        self.uses = 0
        self.loads = 0
        self.load_micros = 0
        self.last_used = 0
        """On the steady clock; 0: never."""

    @property
    def takes_room(self) -> bool:
        """Whether it is in memory, or on its way there."""
        return self.agent.is_loaded_lazily and (self.loaded is not None or self.loading is not None)

    @property
    def may_go(self) -> bool:
        """Whether nobody would miss it."""
        return self.takes_room and self.loaded is not None and not self.in_use and not self.agent.preload


class Residents:
    """Brings agents into memory and takes them out."""

    def __init__(self, maximum: int, unload_after: timedelta, threads: Threads, clock: Clock) -> None:
        self._maximum = maximum
        self._unload_after = unload_after // timedelta(microseconds=1)
        self._threads = threads
        self._clock = clock
        self._known: dict[Agent, Resident] = {}
        """Those that were ever used, the one used last at the end."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: Timer | None = None
        self._is_closed = False
        self.unloads = 0

    def __getitem__(self, agent: Agent) -> Resident:
        """Return what is known of *agent*."""
        return self._known.setdefault(agent, Resident(agent))

    @property
    def loads(self) -> int:
        """How often an agent was brought into memory."""
        return sum(resident.loads for resident in self._known.values())

    @property
    def loaded(self) -> list[str]:
        """The names of those in memory, the one used last at the end."""
        return [each.agent.name for each in self._known.values() if each.takes_room and each.loaded is not None]

    @asynccontextmanager
    async def using(self, agent: Agent) -> AsyncGenerator[Loaded]:
        """Have *agent* in memory while the block runs.

        Whoever is cancelled while it loads leaves the loading to go on, for the next one.

        Raises:
            Whatever loading it raises; the next call tries again.
        """
        resident = self[agent]
        resident.in_use += 1
        try:
            loaded = resident.loaded or await self._load(resident)
            resident.uses += 1
            self._touch(resident)
            yield loaded
        finally:
            resident.in_use -= 1
            self._touch(resident)
            self._make_room(self._maximum)
            self._plan()

    async def bring(self, agent: Agent) -> None:
        """Load *agent* now, if it is not in memory."""
        resident = self[agent]
        if resident.loaded is None:
            await self._load(resident)
            self._touch(resident)
            self._plan()

    async def take_out(self, agent: Agent) -> bool:
        """Unload *agent* now, unless it is in use or was never loaded; return whether it was."""
        resident = self[agent]
        if resident.in_use or not resident.takes_room or resident.loaded is None:
            return False
        await asyncio.shield(self._unload(resident))
        return True

    async def close(self) -> None:
        """Unload all. One that does not shut down in time is left behind, and said so."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for resident in self._known.values():
            if resident.loading is not None:
                resident.loading.cancel()
            if resident.takes_room and resident.loaded is not None:
                self._unload(resident)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=LAST_WORDS)
            for task in late:
                _log.warning("an agent did not shut down in time", task=task.get_name())
                task.cancel()

    def _touch(self, resident: Resident) -> None:
        resident.last_used = self._clock.moment().steady
        self._known[resident.agent] = self._known.pop(resident.agent)

    async def _load(self, resident: Resident) -> Loaded:
        if resident.loading is None:
            resident.loading = self._beside(self._bring(resident), f"load {resident.agent.name}")
        return await asyncio.shield(resident.loading)

    async def _bring(self, resident: Resident) -> Loaded:
        agent, began = resident.agent, self._clock.moment().steady
        try:
            if resident.leaving is not None:
                await resident.leaving  # the former instance may hold what the new one needs
            self._make_room(self._maximum)
            loaded = await load(agent, self._threads)
            if self._is_closed:
                await _shut_down(agent, loaded)
                raise asyncio.CancelledError
            resident.loaded = loaded
            if agent.is_loaded_lazily:
                resident.loads += 1
                resident.load_micros = self._clock.moment().steady - began
            return loaded
        finally:
            resident.loading = None

    def _make_room(self, maximum: int) -> None:
        """Unload those that were used longest ago and may go, until there are no more than *maximum*."""
        surplus = sum(resident.takes_room for resident in self._known.values()) - maximum
        for resident in list(self._known.values()):
            if surplus <= 0:
                return
            if resident.may_go:
                self._unload(resident)
                surplus -= 1

    def _unload(self, resident: Resident) -> "asyncio.Task[None]":
        loaded, resident.loaded = resident.loaded, None
        self.unloads += 1
        task = self._beside(_shut_down(resident.agent, loaded), f"unload {resident.agent.name}")
        resident.leaving = task
        return task

    def _plan(self) -> None:
        """Have the next one that nobody uses unloaded when it has been idle for long enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle = [resident.last_used for resident in self._known.values() if resident.may_go]
        if idle and not self._is_closed:
            wait = max(0, min(idle) + self._unload_after - self._clock.moment().steady)
            self._timer = self._clock.call_after(wait, self._unload_idle)

    def _unload_idle(self) -> None:
        until = self._clock.moment().steady - self._unload_after
        for resident in list(self._known.values()):
            if resident.may_go and resident.last_used <= until:
                self._unload(resident)
        self._timer = None
        self._plan()

    def _beside(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(_ended(self._tasks))
        return task


def _ended(tasks: "set[asyncio.Task[Any]]") -> "Callable[[asyncio.Task[Any]], None]":
    def forget(task: "asyncio.Task[Any]") -> None:
        tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waited for it; nobody may have

    return forget


async def _shut_down(agent: Agent, loaded: Loaded | None) -> None:
    if loaded is None:
        return
    try:
        await loaded.shut_down()
    except Exception as error:  # noqa: BLE001 - it is out of use; what it could not do does not stop anybody
        _log.warning("an agent failed to shut down", agent=agent.name, error=f"{type(error).__name__}: {error}")
