"""Every pattern killed after every single event: the result, the effects and what was undone are as if it had not been.

An effect is what an agent did outside, under its idempotency key; what was in flight may be done again, nothing else.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import Recorded, RunHandle, Runtime, ToolContext
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.defined.model import (
    Branching,
    Compensation,
    RetryPolicy,
    Step,
    Trigger,
    WorkflowDefinition,
)
from perdure.store.records import Query
from perdure.testing import MemoryDisk, TestClock
from tests.support.defined import finish
from tests.support.runs import Box, disk_until, play

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
    fields = {"agent": "work", "input_mapping": {"n": "n"}, "output_mapping": {"n": "n"}, **fields}
    return Step(id=id, **fields)


RETRIED = RetryPolicy(max_retries=2)
FALLS_BACK = RetryPolicy(max_retries=1, fallback_agent="work")
UNDONE = Compensation(agent="work")
UNDONE_AT_LAST = Compensation(agent="work", input_mapping={"n": "step_result.n", "attempts": "original_data.attempts"})
HELD = {"if": "n", "gt": 100}

SCENARIOS: dict[str, list[WorkflowDefinition]] = {
    "sequential": [
        WorkflowDefinition(
            id="w",
            steps=(
                work("a", arguments={"attempts": 3}, retry=RETRIED),
                work("skipped", conditions=HELD),
                work("b", agent="bad", retry=FALLS_BACK),
                work("c", agent="bad", on_failure="continue"),
                work("d", arguments={"micros": 100_000_000}, publish="made"),
            ),
        )
    ],
    "sequential that fails": [WorkflowDefinition(id="w", steps=(work("a"), work("b", agent="bad"), work("c")))],
    "sequential that is late": [
        WorkflowDefinition(id="w", steps=(work("a"), work("b", arguments={"micros": 9_000_000})), timeout=2)
    ],
    "parallel": [
        WorkflowDefinition(
            id="w",
            pattern="parallel",
            steps=(work("a", arguments={"attempts": 2}, retry=RETRIED), work("b", agent="bad"), work("c"), work("d")),
            concurrency=2,
        )
    ],
    "fan_out_fan_in": [
        WorkflowDefinition(
            id="w",
            pattern="fan_out_fan_in",
            steps=(work("a", arguments={"micros": 5000}), work("b"), work("s", conditions=HELD), work("c")),
            merge="first_wins",
        )
    ],
    "conditional": [
        WorkflowDefinition(
            id="w",
            pattern="conditional",
            steps=(
                work("a", next=Branching(condition={"if": "n", "lt": 4}, if_true="a", if_false="b")),
                work("b", conditions=HELD, next="c"),
                work("c"),
            ),
        )
    ],
    "conditional that goes round": [
        WorkflowDefinition(
            id="w",
            pattern="conditional",
            steps=(work("a", next=Branching(condition={"if": "n", "gt": 0}, if_true="a")),),
            max_visits=3,
        )
    ],
    "map_reduce": [
        WorkflowDefinition(
            id="w",
            pattern="map_reduce",
            steps=(
                Step(id="s", agent="work", input_mapping={"cursor": "cursor"}),
                Step(id="m", agent="work"),
                Step(id="r", agent="work", input_mapping={"all": "map_results"}),
            ),
            on_item_failure="continue",
            concurrency=2,
        )
    ],
    "saga": [
        WorkflowDefinition(
            id="w",
            pattern="saga",
            steps=(
                work("a", compensation=UNDONE),
                work("b", arguments={"attempts": 2}, retry=RETRIED, compensation=UNDONE_AT_LAST),
                work("c"),
                work("d", agent="bad", compensation=Compensation(agent="work", unsure=True)),
            ),
        )
    ],
    "saga past its pivot": [
        WorkflowDefinition(
            id="w", pattern="saga", steps=(work("a", compensation=UNDONE), work("b", pivot=True), work("c"))
        )
    ],
    "event_driven": [
        WorkflowDefinition(
            id="w",
            pattern="event_driven",
            steps=(
                work("first"),
                work("a", on=(Trigger(event="paid", filter={"if": "amount", "gt": 10}),)),
                work("b", on=(Trigger(event="left"), Trigger(event="paid")), input_mapping={"n": "event.data.amount"}),
                work("c", on=(Trigger(event="left", within=3600.0),)),
            ),
        )
    ],
    "children": [
        WorkflowDefinition(id="w", steps=(work("a"), Step(id="b", workflow="child", input_mapping={"n": "n"}))),
        WorkflowDefinition(id="child", pattern="saga", steps=(work("x", compensation=UNDONE), work("y", agent="bad"))),
    ],
}

BEFORE_THE_OTHER = {"child-started", "parent-told"}
"""What is one unit with the next event, that of the child or of the parent: there is no disk with only the first."""


async def attend(box: Box, rt: Runtime) -> tuple[str, str, dict[str, Any]]:
    """See the run to its end, while others publish; return how it stands and the last of its events."""
    run: RunHandle[Any] = rt.run("r")
    for number, (kind, given) in enumerate(EVENTS):
        await box.clock.settle()
        await rt.publish(kind, given, id=f"e{number}")
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


@pytest.mark.row("A2-35")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_pattern_that_is_killed_after_any_event_ends_as_if_it_had_not_been(name: str) -> None:
    definitions = SCENARIOS[name]

    async def scenario() -> int:
        whole = World(TestClock())
        box = whole.box(definitions, None)
        rt = await box.open()
        await rt.with_options(id="r").start("w", {"n": 0})
        expected = await attend(box, rt)
        history = await logged(rt)
        await box.close()
        assert isinstance(box.storage, MemoryDisk)
        first = next(e.position for e in history if e.type == "run-started")
        last = max(e.position for e in history if e.stream == "run/r")
        borders = [e for e in history if first <= e.position < last and e.type not in BEFORE_THE_OTHER]
        for border in borders:
            await killed(border, history, box.storage, expected, whole)
        return len(borders)

    async def killed(border: Recorded, history: list[Recorded], disk: MemoryDisk, expected: Any, whole: World) -> None:
        clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=border.at))
        world, done = World(clock), done_by(history, border.position)
        world.effects = {key: whole.effects[key] for key in done if key in whole.effects}
        box = world.box(definitions, disk_until(disk, border.position))
        found = await attend(box, await box.open())
        await box.close()
        where = f"after a crash at {border.position}, {border.stream} {border.type}"
        assert found == expected, where
        assert world.effects == whole.effects, where
        assert done.isdisjoint(world.calls), f"done again {where}"

    assert play(scenario) > 5
