"""One life of a process whose trajectories run commands in slots until it is killed. No test.

What it does is in `slot_plan`. An acknowledgement is a line in the file `acks`, written after the runtime gave its
answer.
"""

import asyncio
import functools
import inspect
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from perdure import Bubblewrap, ExecutorConfig, Runtime, SlotLimits, ToolCall, ToolResult, Trajectory
from perdure.runtime.sandbox.local import LocalBackend
from perdure.runtime.sandbox.outcomes import Outcome
from perdure.runtime.sandbox.spawn import Command
from perdure.store.committer import SqliteCommitter
from tests.crash.left_processes import strangers
from tests.crash.slot_plan import SLOTS, STAY, TRAJECTORIES, Order, id_of, is_leaver, name_of, plan
from tests.crash.workload import append_line, lines

LATEST_SECONDS = 0.9
"""How long after it has opened the log a life dies that has not come to the point where it was to die."""

POINTS: dict[str, tuple[type, str]] = {
    "acquire": (LocalBackend, "acquire"),
    "begin": (Outcome, "begin"),
    "commit": (SqliteCommitter, "commit"),
    "finish": (Outcome, "finish"),
    "forget": (LocalBackend, "forget"),
    "outcome": (LocalBackend, "outcome"),
    "recover": (LocalBackend, "recover"),
    "release": (LocalBackend, "release"),
    "reset": (LocalBackend, "reset"),
    "running": (Outcome, "is_running_as"),
    "start": (Command, "_start"),
}
"""Where a life can be told to die, before or after it."""


class Acknowledged(msgspec.Struct, frozen=True):
    """What former lives were told."""

    results: dict[tuple[int, int], ToolResult]
    done: Counter[int]
    """Of each trajectory, how many numbers."""

    @classmethod
    def read(cls, directory: Path) -> "Acknowledged":
        results: dict[tuple[int, int], ToolResult] = {}
        done: Counter[int] = Counter()
        for kind, *facts in map(msgspec.json.decode, lines(directory / "acks")):
            if kind == "done":
                trajectory, number, result = facts
                assert done[trajectory] == number
                done[trajectory] += 1
                if result is not None:
                    results[trajectory, number] = msgspec.convert(result, ToolResult)
        return cls(results, done)


class _Life:
    def __init__(self, order: Order, runtime: Runtime) -> None:
        self.order = order
        self.runtime = runtime
        self.before = Acknowledged.read(Path(order.directory))
        self.trajectories = [runtime.trajectory(name_of(number)) for number in range(TRAJECTORIES)]

    def ack(self, kind: str, *facts: object) -> None:
        append_line(Path(self.order.directory) / "acks", msgspec.json.encode([kind, *facts]))

    async def live(self) -> None:
        self.ack("opened", await strangers(Path(self.order.slots), self.order.tag, self.order.first_uid))
        async with asyncio.TaskGroup() as group:
            for trajectory in range(TRAJECTORIES):
                group.create_task(self.work(trajectory))

    async def work(self, trajectory: int) -> None:
        number = self.before.done[trajectory]
        if (told := self.before.results.get((trajectory, number - 1))) is not None:
            assert await self.call(trajectory, number - 1) == told, f"{id_of(trajectory, number - 1)} changed"
        while not self.order.finishes or (is_leaver(trajectory) and number % STAY):
            number = await self.step(trajectory, number)

    async def step(self, trajectory: int, number: int) -> int:
        """Do what comes next, two calls at once where that is possible; return the number after it."""
        numbers = [each for each in (number, number + 1) if plan(self.order, trajectory, each).kind != "release"]
        if not numbers or numbers[0] != number:
            await self.trajectories[trajectory].release(reset_workspace=number // STAY % 2 == 0)
            self.ack("done", trajectory, number, None)
            return number + 1
        results = await asyncio.gather(*(self.call(trajectory, each) for each in numbers))
        for each, result in zip(numbers, results, strict=True):
            self.ack("done", trajectory, each, result)
        return number + len(numbers)

    async def call(self, trajectory: int, number: int) -> ToolResult:
        planned, uniq_id = plan(self.order, trajectory, number), id_of(trajectory, number)
        call = ToolCall(planned.tool, planned.arguments, "", uniq_id)
        result = await self.runtime.executor.execute(name_of(trajectory), call, effect=planned.effect)
        if not result.metadata.get("in_doubt"):
            return result
        self.ack("doubt", trajectory, number)
        handle: Trajectory = self.trajectories[trajectory]
        await handle.settle(uniq_id, success=False, because="nobody can know")
        return await self.runtime.executor.execute(name_of(trajectory), call, effect=planned.effect)


async def _live(order: Order) -> None:
    limits = SlotLimits(grace_seconds=0.3, memory_bytes=1 << 28, processes=200)
    backend = Bubblewrap(order.slots, first_uid=order.first_uid, limits=limits)
    config = ExecutorConfig(max_slots=SLOTS, batch_window_ms=5, require_sandbox=True, allow_network=False)
    async with Runtime(Path(order.directory) / "log.db", sandbox=backend, executor=config) as runtime:
        if not order.finishes:
            seconds = LATEST_SECONDS if order.seconds is None else order.seconds
            # By another thread: the loop's own timer would only fire between two of its steps.
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        life = _Life(order, runtime)
        await life.live()
        await runtime.executor.close()  # every slot is given back and emptied
        life.ack("finished")
    await backend.start()
    for number in range(SLOTS):
        await backend.remove(backend.slot_name(number))
    await backend.stop()


def live(order: Order) -> None:
    """Live one life to its end, or to its kill."""
    if order.point is not None:
        edge, _, point = order.point.partition(" ")
        name, _, number = point.partition(":")
        _die_at(*POINTS[name], edge, int(number))
    asyncio.run(_live(order))


def _die_at(owner: type, method: str, edge: str, number: int) -> None:
    original: Callable[..., Any] = getattr(owner, method)
    count = 0

    def come_to(here: str) -> None:
        nonlocal count
        count += here == "before"
        if here == edge and count >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    async def later(*args: Any, **kwargs: Any) -> Any:
        come_to("before")
        result = await original(*args, **kwargs)
        come_to("after")
        return result

    @functools.wraps(original)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        come_to("before")
        result = original(*args, **kwargs)
        come_to("after")
        return result

    setattr(owner, method, later if inspect.iscoroutinefunction(original) else at_once)
