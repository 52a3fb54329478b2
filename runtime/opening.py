"""How the parts of a runtime are made and put together on an open log, before it takes messages.

It opens and closes no file. Invariant: a life is in the log, and the calls that the last one lost are given up, before
anything else is recorded.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.slot import SlotBehavior
from perdure.actors.slots.trajectory import TrajectoryBehavior
from perdure.actors.tools.registry import Registry
from perdure.actors.tools.tool import GiveUpLost, Guard, ToolBehavior
from perdure.actors.triggers.listing import ListingBehavior
from perdure.actors.triggers.topic import TopicBehavior
from perdure.actors.workflows.engine import Engine
from perdure.actors.workflows.queue import QueueBehavior
from perdure.actors.workflows.run import RunBehavior
from perdure.runtime.clock import SystemClock
from perdure.runtime.life import RUNTIME, LifeBehavior, OpenRuntime, RuntimeOpened
from perdure.runtime.settings import Settings
from perdure.store.codec import Codec
from perdure.store.protocols import EventLog
from perdure.store.records import Query


async def start_clock(clock: Clock, log: EventLog) -> None:
    """Have the system's clock tick on this loop, and never before the newest event."""
    newest = await log.read(Query(limit=1, newest_first=True))
    if isinstance(clock, SystemClock):
        clock.start(asyncio.get_running_loop(), newest[0].at if newest else 0)


def make_system(log: EventLog, engine: Engine, tools: Registry, clock: Clock, settings: Settings) -> ActorSystem:
    """Return the actors of a runtime on *log*, none of them in memory yet."""
    behaviors = (
        ToolBehavior(Guards(tools)),
        RunBehavior(),
        LifeBehavior(),
        SlotBehavior(),
        TrajectoryBehavior(),
        QueueBehavior(),
        TopicBehavior(),
        ListingBehavior(),
    )
    return ActorSystem(
        log,
        Codec({kind for behavior in behaviors for kind in behavior.events}),
        clock,
        behaviors,
        {**engine.interpreters, **engine.exchange.interpreters},
        mailbox_bound=settings.mailbox_bound,
        idle_seconds=settings.idle_after.total_seconds(),
    )


async def begin_life(log: EventLog, system: ActorSystem, engine: Engine) -> None:
    """Record that a life begins, hand its actors to the engine, and give up the calls that the last one lost."""
    me = OpenRuntime(os.getpid(), socket.gethostname(), _version())
    opened: RuntimeOpened = await system.ref(RUNTIME).ask(me)
    await engine.attach(system, opened.life)
    after = ""
    while page := await log.open_streams("tool/", after=after):
        for row in page:
            await system.ref(row.stream).ask(GiveUpLost(opened.life))
        after = page[-1].stream


class Guards(Mapping[str, Guard]):
    """What stands before the registered tools, as they are registered."""

    def __init__(self, tools: Registry) -> None:
        self._tools = tools

    def __getitem__(self, name: str) -> Guard:
        return self._tools[name].guard

    def get(self, name: str, default: Any = None) -> Any:
        """Return a guard; asked twice for each step, and Mapping's own way is by an exception."""
        tool = self._tools.get(name)
        return default if tool is None else tool.guard

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)


def resolver(secrets: Mapping[str, str] | Callable[[str], str | None] | None) -> Callable[[str], str | None]:
    """Return what gives the value of a secret by its name; environment variables when there is no other source."""
    if secrets is None:
        return os.environ.get
    return secrets if callable(secrets) else secrets.get


def _version() -> str:
    try:
        return version("perdure")
    except PackageNotFoundError:
        return "unknown"
