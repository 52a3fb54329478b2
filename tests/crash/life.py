"""One life of a process that will be killed: opens the log, acknowledges what it was told, works. No test.

`live` runs in a child of `nursery.py`. An acknowledgement is a line in the file `acks`, written after the runtime gave
its answer; what is in that file must be in the log for ever.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from perdure import (
    CircuitOpenError,
    Query,
    RunBlockedError,
    RunHandle,
    Runtime,
    ToolFailedError,
)
from perdure.store.committer import SqliteCommitter
from tests.crash.workload import Effects, Workload, append_line


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one life is to do."""

    directory: str
    name: str
    """Of this life; its runs are called after it."""
    kill: str | None = None
    """`before:3`: die when the third commit begins; `after:3`: when it has returned and nobody was told."""
    starts: tuple[str, ...] = ("order", "fragile", "partial", "strike")
    """Workflows of which it starts a run each."""
    calls: int = 3
    """Direct calls of each of two tools."""
    finishes: bool = False
    """Whether it waits until no run is open."""


class _Life:
    def __init__(self, order: Order, runtime: Runtime, workload: Workload) -> None:
        self.order = order
        self.runtime = runtime
        self.workload = workload
        self._acks = Path(order.directory) / "acks"

    def ack(self, kind: str, *facts: object) -> None:
        append_line(self._acks, msgspec.json.encode([kind, *facts]))

    async def report(self) -> None:
        """Acknowledge the figures of all tools, with what is needed to foretell them."""
        before = time.time_ns() // 1000
        statistics = await self.runtime.statistics()
        self.ack("figures", statistics.log.durable_position, before, time.time_ns() // 1000, statistics.tools)

    async def follow(self) -> None:
        async for event in self.runtime.tail():
            if event.position > self._seen:
                self.ack("seen", event.position, event.stream, event.version, event.type, event.data)

    _seen = 0

    async def settle_doubts(self) -> None:
        """Be the person who says what became of irreversible steps."""
        while True:
            for event in await self.runtime.read(Query(types=("step-in-doubt",))):
                handle: RunHandle[Any] = self.runtime.run(event.stream.partition("/")[2])
                for step in (await handle.status()).in_doubt:
                    key = f"{handle.id}:{step}"
                    if self.workload.effects.happened(key):
                        await handle.settle_done(step, key)
                    else:
                        await handle.settle_not_done(step)
            await asyncio.sleep(0.01)

    async def start(self, name: str) -> None:
        run, item = f"{name}-{self.order.name}", self.order.name
        handle = await self.runtime.with_options(id=run).start(self.workload.workflows[name], item)
        self.ack("started", run)
        await self.result_of(handle)

    async def result_of(self, handle: RunHandle[Any]) -> None:
        try:
            self.ack("result", handle.id, await handle.result())
        except RunBlockedError as blocked:
            self.ack("blocked", handle.id, blocked.kind)

    async def call(self, name: str) -> None:
        for number in range(self.order.calls):
            try:
                self.ack("called", name, await self.runtime.call(self.workload.tools[name], f"direct-{number}"))
            except ToolFailedError:
                self.ack("call failed", name)
            except CircuitOpenError:
                self.ack("call refused", name)

    async def live(self) -> None:
        newest = await self.runtime.read(Query(limit=1, newest_first=True))
        self._seen = newest[0].position - 1 if newest else 0
        old = await self.runtime.waiting()
        await self.report()
        async with asyncio.TaskGroup() as beside:
            servants = [beside.create_task(work) for work in (self.follow(), self.settle_doubts())]
            await self.runtime.resume()
            async with asyncio.TaskGroup() as group:
                for name in self.order.starts:
                    group.create_task(self.start(name))
                for name in ("put", "broken"):
                    group.create_task(self.call(name))
                if self.order.finishes:
                    for run in old:
                        group.create_task(self.result_of(self.runtime.run(run.id)))
            await self.report()
            for servant in servants:
                servant.cancel()


async def _live(order: Order) -> None:
    directory = Path(order.directory)
    workload = Workload(Effects(directory / "executions"))
    runtime = Runtime(
        directory / "log.db", tools=workload.tools.values(), workflows=workload.workflows.values(), resume=False
    )
    async with runtime:
        await _Life(order, runtime, workload).live()


def live(order: Order) -> None:
    """Live one life to its end, or to its kill."""
    if order.kill is not None:
        _kill_at_commit(*order.kill.split(":"))
    asyncio.run(_live(order))


def _kill_at_commit(edge: str, number: str) -> None:
    original: Callable[..., Any] = SqliteCommitter.commit
    count = 0

    async def commit(self: SqliteCommitter, batch: Any) -> None:
        nonlocal count
        count += 1
        if edge == "before" and count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        await original(self, batch)
        if edge == "after" and count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    SqliteCommitter.commit = commit  # type: ignore[method-assign]
