"""Each field of a step and of a definition, in each pattern: it makes a difference, or it is refused with its path.

docs/definitions.md has the table that is walked here. A difference is another result, another message or another event.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from perdure import (
    AgentMessage,
    Branching,
    BreakerPolicy,
    Compensation,
    InvalidDefinitionError,
    RetryPolicy,
    Step,
    Trigger,
    WorkflowDefinition,
    Workflows,
    tool,
)
from perdure.actors.workflows.defined.checking import check
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import PATTERNS
from perdure.runtime.sagas import check_step
from tests.support.defined import Troupe
from tests.support.patterns import logged
from tests.support.runs import Box, play

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "definitions.md").read_text(encoding="utf-8")
Fields: TypeAlias = dict[str, Any]

ROLES = ("map_reduce: items", "map_reduce: each", "map_reduce: all")
"""The steps of a map-reduce, by what they are there for."""
SAGA_BY_STEP = "rt.sagas"
STEP_COLUMNS = (*(pattern for pattern in PATTERNS if pattern != "map_reduce"), *ROLES, SAGA_BY_STEP)

TICK = (Trigger(event="tick"),)
LOOP = Branching(condition={"if": "given"}, if_true="s")

# Beside each field: what is changed, and what is there before and after it.
OF_STEPS: dict[str, tuple[Fields, Fields]] = {
    "id": ({"id": "t"}, {}),
    "agent": ({"agent": "two"}, {}),
    "tool": ({"agent": None, "tool": "echo"}, {}),
    "workflow": ({"agent": None, "workflow": "child"}, {}),
    "action": ({"action": "look"}, {}),
    "arguments": ({"arguments": {"more": 1}}, {}),
    "input_mapping": ({"input_mapping": {"in": "given"}}, {}),
    "output_mapping": ({"output_mapping": {"v": "w"}}, {}),
    "conditions": ({"conditions": {"if": "nowhere"}}, {}),
    "retry": ({"retry": RetryPolicy(max_retries=1)}, {"agent": "fails"}),
    "timeout": ({"timeout": 1.0}, {"agent": "slow"}),
    "effect": ({"effect": "irreversible"}, {}),
    "on_failure": ({"on_failure": "continue"}, {"agent": "fails"}),
    "compensation": ({"compensation": Compensation(agent="two")}, {"after": "fails"}),
    "pivot": ({"pivot": True}, {"after": "fails"}),
    "publish": ({"publish": "made"}, {}),
    "pause": ({"pause": True}, {}),
    "answer": ({"answer": "word"}, {"pause": True}),
    "next": ({"next": Branching(condition={"if": "nowhere"}, if_true="z")}, {"next": "z"}),
    "on": ({"on": (Trigger(event="never"),)}, {}),
}
OF_DEFINITIONS: dict[str, tuple[Fields, Fields]] = {
    "id": ({"id": "other"}, {}),
    "name": ({"name": "Other"}, {}),
    "description": ({"description": "other"}, {}),
    "steps": ({}, {}),
    "metadata": ({"metadata": {"k": 1}}, {}),
    "timeout": ({"timeout": 1.0}, {"agent": "slow"}),
    "start": ({"start": "z"}, {"next_of_z": LOOP, "max_visits": 2}),
    "entry_steps": ({"entry_steps": ("z",)}, {}),
    "max_visits": ({"max_visits": 1}, {"next_of_z": LOOP, "max_visits": 2}),
    "items": ({"items": "others"}, {}),
    "on_item_failure": ({"on_item_failure": "continue"}, {"agent": "fails"}),
    "page_size": ({"page_size": 1}, {}),
    "reduce": ({"reduce": "fold"}, {}),
    "concurrency": ({"concurrency": 1}, {}),
    "merge": ({"merge": "first_wins"}, {}),
    "until": ({"until": {"if": "given"}}, {}),
}


@tool
async def echo(given: int = 0) -> dict[str, int]:
    return {"v": given}


CHILD = WorkflowDefinition(id="child", steps=(Step(id="c", agent="two"),))


def cast() -> Troupe:
    def fail(message: AgentMessage) -> None:
        raise ValueError(message.type)

    troupe = Troupe()
    breaker = BreakerPolicy(1000)
    troupe.agent("one", {"v": 1, "items": [7, 8], "cursor": None})
    troupe.agent("two", {"v": 2, "items": [9], "cursor": None})
    troupe.agent("slow", {"v": 3, "items": [], "cursor": None}, seconds=30, breaker=breaker)
    troupe.agent("fails", fail, breaker=breaker)
    return troupe


AGENTS = {agent.name: agent for agent in cast().agents}


def stated(step: Fields, before: Fields) -> list[Step]:
    """The step that is looked at and the one after it, called as *before* says."""
    own = {name: value for name, value in before.items() if name in Step.__struct_fields__}
    return [
        Step(**{"id": "s", "agent": "one", **own, **step}),
        Step(id="z", agent=before.get("after", "two"), next=before.get("next_of_z")),
    ]


def definition_of(column: str, step: Fields, before: Fields, fields: Fields | None = None) -> WorkflowDefinition:
    """A definition of a pattern without faults, unless what is looked at is one."""
    own: Fields = {"max_visits": before["max_visits"]} if "max_visits" in before else {}
    pattern, _, role = column.partition(": ")
    first, last = stated(step, before)
    steps: tuple[Step, ...]
    match pattern, role:
        case ("map_reduce", "items"):
            steps = (first, Step(id="each", agent="two"), last)
        case ("map_reduce", "all"):
            steps = (Step(id="each", agent="two"), first)
        case ("parallel" | "fan_out_fan_in", ""):
            steps = (first,) if fields is None else (first, last)
        case ("event_driven", ""):
            steps = (first, msgspec.structs.replace(last, on=TICK))
        case ("conditional", ""):
            steps = (first if first.next is not None else msgspec.structs.replace(first, next="z"), last)
        case _:
            steps = (first, last)
    saga = "saga" if pattern == SAGA_BY_STEP else pattern
    return WorkflowDefinition(**{"id": "w", "pattern": saga, "steps": steps, **own, **(fields or {})})


class Stage:
    """One runtime in which definitions are run one after the other, each under the same name."""

    def __init__(self, column: str, troupe: Troupe, box: Box) -> None:
        self._column = column
        self._troupe = troupe
        self._box = box
        self._lives: dict[bytes, Any] = {}

    async def seen(self, definition: WorkflowDefinition) -> Any:
        """What there is to see of a run of it: its end, what was sent, what happened, and what the lists say."""
        key = msgspec.json.encode(definition)
        if key not in self._lives:
            self._lives[key] = await self.live(definition, f"life-{len(self._lives)}.")
        return self._lives[key]

    async def live(self, definition: WorkflowDefinition, id: str) -> Any:
        rt, sent = self._box.runtime, len(self._troupe.sent)
        before = (await logged(rt))[-1].position
        rt.workflows.register(definition, replace=True)
        told = await (self._step_by_step if self._column == SAGA_BY_STEP else self._at_once)(definition, id)
        happened = [
            (e.type, effect(e.data))
            for e in await logged(rt)
            if e.position > before and (e.stream.startswith(f"run/{id}") or e.type == "event-published")
            if e.type not in ("run-parked", "run-resumed")  # when, is a matter of chance
        ]
        info = next(each for each in rt.workflows.list() if each.id == definition.id)
        return without_times((told, self._troupe.sent[sent:])).replace(id, "LIFE"), happened, info

    async def _at_once(self, definition: WorkflowDefinition, id: str) -> Any:
        rt, clock = self._box.runtime, self._box.clock
        run = await rt.with_options(id=id).start(definition.id, {"given": 1, "items": [1, 2], "others": [3]})
        await clock.settle()
        if self._column == "event_driven":
            await rt.publish("tick", {}, id=f"{id}tick")
        await clock.advance(50)
        first = await run.status()
        if first.status == "paused":
            await run.resume("yes")
            await clock.advance(50)
        view = await run.status()
        return first.status, first.paused_at, view.status, view.workflow, (await run.history())[-1].data

    async def _step_by_step(self, definition: WorkflowDefinition, id: str) -> Any:
        rt = self._box.runtime
        await rt.sagas.start("w", 2, {"given": 1}, id=id)
        states: list[Any] = []
        for step in definition.steps:
            asked = asyncio.create_task(rt.sagas.execute(id, step))
            await self._box.clock.advance(50)
            states.append(await asked)
            if states[-1].failed:
                break
        return msgspec.to_builtins(states), (await rt.run(id).history())[-1].data


async def on_stage(column: str, look: Callable[[Stage], Awaitable[None]]) -> None:
    troupe = cast()
    async with troupe.box(CHILD, tools=[echo]) as box:
        await box.open()
        await look(Stage(column, troupe, box))


def effect(data: str | None) -> Any:
    return msgspec.json.decode(data or "{}").get("effect")


def without_times(told: Any) -> str:
    return re.sub(r'\\?"(duration|micros)\\?":[0-9.e-]+', "", str(told))


def rows_of(table: str) -> dict[str, dict[str, str]]:
    """A table of the page: of each field, what it is in each column."""
    lines = PAGE.split(f"{table}\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    cells = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
    columns = cells[0][1:]
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in cells[2:]}


def known() -> Known:
    workflows = Workflows([CHILD], Known(agents=AGENTS))
    return Known(agents=AGENTS, tools={"echo": echo}, workflows={"child": workflows["child"]})


STEPS, DEFINITIONS = rows_of("Of a step:"), rows_of("Of a definition:")


def test_the_tables_have_every_field_and_every_pattern() -> None:
    assert set(STEPS) == set(Step.__struct_fields__) == set(OF_STEPS)
    assert (
        set(DEFINITIONS) | {"pattern"} == set(WorkflowDefinition.__struct_fields__) == set(OF_DEFINITIONS) | {"pattern"}
    )
    assert all(tuple(row) == STEP_COLUMNS for row in STEPS.values())
    assert all(tuple(row) == PATTERNS for row in DEFINITIONS.values())
    assert {cell for row in (*STEPS.values(), *DEFINITIONS.values()) for cell in row.values()} == {"applied", "refused"}


def faults_of_step(column: str, step: Step, definition: WorkflowDefinition) -> list[str]:
    if column == SAGA_BY_STEP:
        try:
            check_step("w", step, known())
        except InvalidDefinitionError as error:
            return [fault.path.removeprefix("steps[0].") for fault in error.faults]
        return []
    at = f"steps[{definition.steps.index(step)}]."
    return [fault.path.removeprefix(at) for fault in check(definition, known())]


@pytest.mark.parametrize("column", STEP_COLUMNS)
def test_a_field_of_a_step_makes_a_difference_or_is_refused(column: str) -> None:
    async def look(stage: Stage) -> None:
        for field, (change, before) in OF_STEPS.items():
            is_applied = STEPS[field][column] == "applied"
            there = before if is_applied or field != "answer" else {}
            plain, changed = definition_of(column, {}, there), definition_of(column, change, there)
            step = next(each for each in changed.steps if each.id == change.get("id", "s"))
            assert faults_of_step(column, step, changed) == ([] if is_applied else [field]), field
            if is_applied:
                assert await stage.seen(changed) != await stage.seen(plain), f"{field} makes no difference"

    play(lambda: on_stage(column, look))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_field_of_a_definition_makes_a_difference_or_is_refused(pattern: str) -> None:
    async def look(stage: Stage) -> None:
        for field, (change, before) in OF_DEFINITIONS.items():
            is_applied = DEFINITIONS[field][pattern] == "applied"
            there = before if is_applied else {}
            plain, changed = definition_of(pattern, {}, there, {}), definition_of(pattern, {}, there, change)
            if field == "steps":
                first, last = plain.steps
                changed = msgspec.structs.replace(plain, steps=(msgspec.structs.replace(first, agent="two"), last))
            if field == "entry_steps":  # it makes a step reached that is not
                plain, changed = (cut(each) if is_applied else each for each in (plain, changed))
                assert [fault.path for fault in check(plain, known())] == (["steps[1]"] if is_applied else [])
            assert [fault.path for fault in check(changed, known())] == ([] if is_applied else [field]), field
            if is_applied and field != "entry_steps":
                assert await stage.seen(changed) != await stage.seen(plain), f"{field} makes no difference"

    play(lambda: on_stage(pattern, look))


def cut(definition: WorkflowDefinition) -> WorkflowDefinition:
    first, last = definition.steps
    return msgspec.structs.replace(definition, steps=(msgspec.structs.replace(first, next=None), last))


@pytest.mark.parametrize("column", STEP_COLUMNS)
def test_the_same_definition_twice_makes_no_difference(column: str) -> None:
    async def look(stage: Stage) -> None:
        definition = definition_of(column, {}, {})
        assert await stage.live(definition, "one-life.") == await stage.live(definition, "another-life.")

    play(lambda: on_stage(column, look))
