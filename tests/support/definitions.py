"""Random definitions without faults, and agents, tools and children for them that do all that agents do.

Who is called answers as its name, its idempotency key and the attempt say, so that a life can be compared with another.
"""

import asyncio
from typing import Any

import msgspec
from hypothesis import strategies as st

from perdure import BreakerPolicy, Context, ToolContext, tool, workflow
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.defined.items import MAP_AND_REDUCE
from perdure.actors.workflows.defined.model import (
    PATTERNS,
    Branching,
    Compensation,
    RetryPolicy,
    Step,
    Trigger,
    WorkflowDefinition,
)
from perdure.testing import MemoryDisk, TestClock
from tests.support.defined import finish
from tests.support.runs import Box

ODD: tuple[Any, ...] = (None, [], "text", 3.5, True, {"items": "none", "cursor": 1}, {"": 1}, {"a.b": [None]}, 0)
"""What an agent may answer that nobody expects."""

EVENTS: tuple[tuple[str, Any], ...] = (("paid", {"amount": 3}), ("left", None), ("paid", {"amount": 30}), ("made", [1]))


class MuteError(Exception):
    """An error that cannot even be told."""

    def __str__(self) -> str:
        raise ValueError("no words")


@tool
async def add(n: int, by: int = 1) -> dict[str, int]:
    return {"n": n + by}


@workflow
async def inner(ctx: Context, n: int = 0) -> dict[str, int]:
    return {"n": n + int(ctx.random() < 2)}


CHILDREN = [
    inner,
    WorkflowDefinition(id="child", steps=(Step(id="c", agent="ok", output_mapping={"n": "n"}),)),
    WorkflowDefinition(
        id="undone",
        pattern="saga",
        steps=(Step(id="c", agent="ok", compensation=Compensation(agent="quick")), Step(id="d", agent="bad")),
    ),
]


class Cast:
    """The agents, on one clock."""

    NAMES = ("ok", "quick", "flaky", "bad", "slow", "odd", "nan", "gone", "mute", "flow")

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        breaker = BreakerPolicy(1000)
        handlers: dict[str, Any] = {name: getattr(self, name) for name in self.NAMES if name != "flow"}
        self.agents = [Agent(name, handler, breaker=breaker) for name, handler in handlers.items()]
        self.agents.append(Agent("flow", inner))

    def box(self, definition: WorkflowDefinition, disk: MemoryDisk | None) -> Box:
        predicates = {"risky": lambda data: bool(data.get("n")), "broken": lambda data: 1 / 0}
        reducers = {"count": len, "broken": lambda given: 1 / 0, "odd": lambda given: {object()}}
        return Box(
            disk,
            self.clock,
            agents=self.agents,
            tools=[add],
            workflows=[*CHILDREN, definition],
            predicates=predicates,
            reducers=reducers,
        )

    async def _spend(self, micros: int) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_after(micros, lambda: finish(over))
        try:
            await over
        finally:
            timer.cancel()

    async def ok(self, message: AgentMessage) -> dict[str, Any]:
        await self._spend(1000)
        n = message.data.get("n")
        following = None if message.data.get("cursor") else "next"
        counted = n + 1 if isinstance(n, int) else 1
        return {"n": counted, "items": [1, {"n": 2}, None], "cursor": following, "text": "t", "nested": {"a": [1]}}

    def quick(self, message: AgentMessage) -> dict[str, Any]:
        return message.data

    async def flaky(self, message: AgentMessage, context: ToolContext) -> dict[str, Any]:
        if context.attempt == 1:
            raise ValueError("the first time")
        return await self.ok(message)

    def bad(self, message: AgentMessage) -> AgentResponse:
        return AgentResponse(success=False, data=message.data, error="refused")

    async def slow(self, message: AgentMessage) -> dict[str, Any]:
        await self._spend(30_000_000)
        return await self.ok(message)

    def odd(self, message: AgentMessage, context: ToolContext) -> Any:
        return ODD[sum(context.idempotency_key.encode()) % len(ODD)]

    def nan(self, message: AgentMessage, context: ToolContext) -> Any:
        return (float("nan"), object(), "\ud800")[sum(context.idempotency_key.encode()) % 3]

    async def gone(self, message: AgentMessage) -> None:
        raise asyncio.CancelledError

    def mute(self, message: AgentMessage) -> None:
        raise MuteError


CONDITIONS: st.SearchStrategy[Any] = st.sampled_from([
    {}, {}, {}, "risky", "broken", {"if": "n", "gt": 0}, {"not": {"if": "text", "gt": 1}},
    {"if": "nested.a.0", "in": [1]},
    {"and": [{"if": "n", "exists": True}, {"or": [{"predicate": "risky"}, {"if": "gone"}]}]}, {"if": "n", "lt": 3},
])  # fmt: skip
SECONDS = st.sampled_from([0.0005, 2.0, 40.0, 1000.0])
NAMES = st.sampled_from(("ok", "ok", "ok", *Cast.NAMES))
ABLE = st.sampled_from([name for name in Cast.NAMES if name != "flow"])
RETRIES = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 2),
    jitter=st.just(False),
    initial_seconds=st.sampled_from([0.0, 1.0]),
    fallback_agent=st.none() | ABLE,
    retry_on=st.sampled_from([(), ("ValueError",), ("TimeoutError", "Nonsense")]),
)
COMPENSATIONS = st.one_of(
    st.none(),
    st.builds(
        Compensation,
        agent=ABLE,
        retry=st.none() | RETRIES,
        timeout=SECONDS,
        unsure=st.booleans(),
        input_mapping=st.sampled_from([{}, {"n": "original_data.n"}, {"cursor": "step_result.cursor"}]),
    ),
    st.builds(Compensation, tool=st.just("add"), input_mapping=st.sampled_from([{}, {"n": "step_result.n"}])),
)
INPUTS = st.sampled_from(
    [{}, {"n": "n"}, {"n": "n", "all": "."}, {"x": "nowhere"}, {"cursor": "cursor", "n": "items.1.n"}]
)
OUTPUTS = st.sampled_from([
    {}, {"n": "n"}, {".": "last"}, {"nested.a": "n.a"}, {"text": "nested.a.0"}, {"items": "items", "n": "text"},
    {".": "."},
])  # fmt: skip
GIVEN = st.sampled_from([
    {}, {"n": 0, "items": [1, 2, 3, 4, 5]}, {"n": "text", "items": "none"}, {"n": None, "items": [{"n": 1}, None, "x"]},
])  # fmt: skip


@st.composite
def steps_called(draw: st.DrawFn) -> dict[str, Any]:
    """Whom a step calls, with what of what such a call can have."""
    kind = draw(st.sampled_from(["agent"] * 6 + ["tool", "workflow"]))
    retry = draw(st.none() | RETRIES)
    if kind == "tool":
        sent = draw(st.sampled_from([{}, {"n": "n"}, {"n": "items.0", "by": "nested.a.0"}]))
        return {"tool": "add", "input_mapping": sent, "retry": retry}
    name = draw(NAMES if kind == "agent" else st.sampled_from(["inner", "child", "undone"]))
    called: dict[str, Any] = {kind: name, "input_mapping": draw(INPUTS), "retry": retry}
    if kind == "workflow" or name == "flow":
        return {**called, "retry": None if retry is None else msgspec.structs.replace(retry, max_retries=0)}
    return {**called, "effect": draw(st.sampled_from([None, None, None, "read", "idempotent", "irreversible"]))}


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    """A definition without faults."""
    pattern = draw(st.sampled_from(PATTERNS))
    count = draw(st.integers(2, 3) if pattern == "map_reduce" else st.integers(1, 4))
    own = draw(_fields(pattern, count))
    pivot = draw(st.integers(0, 9)) if pattern == "saga" else 9
    steps: list[Step] = []
    for number in range(count):
        is_fold = own.get("reduce") == "fold" and number == count - 1
        is_mapper = pattern == "map_reduce" and number == count - 2
        common = {
            "output_mapping": draw(OUTPUTS) if pattern not in ("parallel", "map_reduce") else {},
            "conditions": draw(CONDITIONS),
            "timeout": draw(st.none() | SECONDS),
            "on_failure": "stop" if is_fold or is_mapper else draw(st.sampled_from(["stop", "stop", "continue"])),
            "publish": draw(st.sampled_from([None, None, "made"])),
        }
        particular = draw(_of_pattern(pattern, number, count, pivot))
        steps.append(Step(id=f"s{number}", **draw(steps_called()), **common, **particular))
    limit = draw(st.sampled_from([None, None, 0.0015, 35.0, 5000.0]))
    return WorkflowDefinition(id="w", pattern=pattern, steps=tuple(steps), timeout=limit, **own)


@st.composite
def _fields(draw: st.DrawFn, pattern: str, count: int) -> dict[str, Any]:
    wide = {"concurrency": draw(st.integers(1, 3))}
    match pattern:
        case "map_reduce":
            policy, way = draw(st.sampled_from(["fail", "continue"])), draw(st.sampled_from(["all", "fold"]))
            return {
                **wide,
                "on_item_failure": policy,
                "reduce": way,
                **({"page_size": draw(st.integers(1, 3))} if count == MAP_AND_REDUCE else {}),
            }
        case "fan_out_fan_in":
            ways = ["last_wins", "first_wins", "error", "count", "broken", "odd"]
            return {**wide, "merge": draw(st.sampled_from(ways))}
        case "parallel":
            return wide
        case "conditional":
            return {"max_visits": draw(st.integers(1, 4))}
        case "event_driven":
            return {"until": draw(st.sampled_from([None, {"if": "n", "gt": 1}, "broken"]))}
        case _:
            return {}


@st.composite
def _of_pattern(draw: st.DrawFn, pattern: str, number: int, count: int, pivot: int) -> dict[str, Any]:
    following = f"s{number + 1}" if number + 1 < count else None
    if pattern == "saga":
        return {"compensation": draw(COMPENSATIONS) if number < pivot else None, "pivot": number == pivot}
    if pattern == "conditional" and following is not None:
        turn = Branching(condition=draw(CONDITIONS), if_true=following, if_false=draw(st.sampled_from([None, "s0"])))
        return {"next": draw(st.sampled_from([turn, following]))}
    if pattern == "event_driven" and (number == 0 or draw(st.booleans())):
        within = draw(st.none() | SECONDS)
        wait = st.builds(
            Trigger, event=st.sampled_from(["paid", "left", "made"]), filter=CONDITIONS, within=st.just(within)
        )
        return {"on": tuple(draw(st.lists(wait, min_size=1, max_size=2)))}
    return {}
