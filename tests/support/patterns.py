"""Definitions that are killed: agents that note what they did outside, and a life without and with a crash to compare.

An effect is what an agent did outside, under its idempotency key. The invariant: what was in flight when the process
died may be done again, nothing else; and all ends as if the process had not died.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias

from perdure import Recorded, RunHandle, Runtime, ToolContext
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.defined.model import Step, WorkflowDefinition
from perdure.store.records import Query
from perdure.testing import MemoryDisk, TestClock
from tests.support.defined import finish
from tests.support.runs import Box, disk_until

End: TypeAlias = tuple[str, str, dict[str, Any]]
"""How a run stands, and the last of its events."""

EVENTS = [("paid", {"amount": 3}), ("paid", {"amount": 30}), ("left", {})]
"""What others publish, whoever waits for it."""


class World:
    """The agents and what they did outside, on one clock."""

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self.effects: dict[str, Any] = {}
        self.calls: list[str] = []
        self.agents = [Agent(name, handle) for name, handle in (("work", self.work), ("bad", self.bad))]

    async def work(self, message: AgentMessage, context: ToolContext) -> Any:
        """Do something outside, after a while, at the attempt that it is told to."""
        told = message.data
        self.calls.append(context.idempotency_key)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_after(told.get("micros", 1000), lambda: finish(over))
        try:
            await over
        finally:
            timer.cancel()
        if context.attempt < told.get("attempts", 1) or told.get("item") == "bad":
            raise ValueError(f"attempt {context.attempt}")
        self.effects[context.idempotency_key] = [message.type, told]
        n = told.get("n", 0) + 1
        return {"n": n, "items": ["a", "bad", "c"], "cursor": None if told.get("cursor") else "next"}

    async def bad(self, message: AgentMessage, context: ToolContext) -> AgentResponse:
        """Refuse."""
        self.calls.append(context.idempotency_key)
        return AgentResponse(success=False, error=f"{message.type} refused")

    def box(self, definitions: list[WorkflowDefinition], disk: MemoryDisk | None) -> Box:
        return Box(disk, self.clock, agents=self.agents, workflows=definitions)


def work(id: str, **fields: Any) -> Step:
    """A step that counts `n` up."""
    fields = {"agent": "work", "input_mapping": {"n": "n"}, "output_mapping": {"n": "n"}, **fields}
    return Step(id=id, **fields)


BEFORE_THE_OTHER = {"child-started", "parent-told"}
"""What is one unit with the next event, that of the child or of the parent: there is no disk with only the first."""


async def attend(box: Box, rt: Runtime) -> End:
    """See the run to its end, while others publish."""
    await publish_all(box, rt)
    return await end_of(box, rt)


async def publish_all(box: Box, rt: Runtime) -> None:
    for number, (kind, given) in enumerate(EVENTS):
        await box.clock.settle()
        await rt.publish(kind, given, id=f"e{number}")


async def end_of(box: Box, rt: Runtime) -> End:
    run: RunHandle[Any] = rt.run("r")
    view = await run.status()
    for _ in range(20):
        await box.clock.advance(50)
        view = await run.status()
        if view.is_closed:
            break
    assert view.is_closed, (view, [(each.type, each.data) for each in await run.history()])
    end = (await run.history())[-1]
    return view.status, end.type, json.loads(end.data or "{}")


async def logged(rt: Runtime) -> list[Recorded]:
    found: list[Recorded] = []
    while page := await rt.read(Query(after=found[-1].position if found else 0)):
        found += page
    return found


def done_by(history: list[Recorded], position: int) -> set[str]:
    ended = (e for e in history if e.position <= position and e.type == "step-completed")
    return {f"{e.stream.partition('/')[2]}:{json.loads(e.data or '{}')['step']}" for e in ended}


def borders(history: list[Recorded], after: str = "run-started") -> list[Recorded]:
    """The events of a life after which the process may die, from the first of the type *after* on."""
    first = next(e.position for e in history if e.type == after)
    last = max(e.position for e in history if e.stream == "run/r")
    # The cancel of a run that sleeps is one unit with its waking.
    halves = {e.position for e, following in pairwise(history) if _is_woken_by(e, following)}
    whole = (e for e in history if e.position not in halves)
    return [e for e in whole if first <= e.position < last and e.type not in BEFORE_THE_OTHER]


def _is_woken_by(event: Recorded, following: Recorded) -> bool:
    types = (event.type, following.type)
    return types == ("run-cancel-requested", "run-parked") and event.stream == following.stream


async def relive(
    definitions: list[WorkflowDefinition],
    border: Recorded,
    lived: tuple[World, list[Recorded], MemoryDisk],
    attend: Callable[[Box, Runtime], Awaitable[End]] = attend,
) -> tuple[World, End]:
    """Go on after a crash at *border* of a life; return the world and the end, where nothing was done again."""
    whole, history, disk = lived
    clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=border.at))
    world, done = World(clock), done_by(history, border.position)
    world.effects = {key: whole.effects[key] for key in done if key in whole.effects}
    box = world.box(definitions, disk_until(disk, border.position))
    found = await attend(box, await box.open())
    await box.close()
    assert done.isdisjoint(world.calls), f"done again after a crash at {border.position}, {border.type}"
    return world, found


async def check_every_crash(definitions: list[WorkflowDefinition], given: dict[str, Any]) -> tuple[World, int]:
    """Run `w` without a crash and with one at each border; return the world as it is to be, and how many there were."""
    whole = World(TestClock())
    box = whole.box(definitions, None)
    rt = await box.open()
    await rt.with_options(id="r").start("w", given)
    expected = await attend(box, rt)
    history = await logged(rt)
    await box.close()
    assert isinstance(box.storage, MemoryDisk)
    crashes = borders(history)
    for border in crashes:
        world, found = await relive(definitions, border, (whole, history, box.storage))
        where = f"after a crash at {border.position}, {border.stream} {border.type}"
        assert found == expected, where
        assert world.effects == whole.effects, where
    return whole, len(crashes)
