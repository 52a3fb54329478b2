"""Every pattern killed after every single event: the result, the effects and what was undone are as if it had not been.

So is a saga of six steps that fails at each of them, and what a cancel leaves behind, whenever it came.
"""

from datetime import timedelta

import pytest

from perdure import Recorded, Runtime
from perdure.actors.workflows.defined.model import (
    Branching,
    Compensation,
    RetryPolicy,
    Step,
    Trigger,
    WorkflowDefinition,
)
from perdure.testing import MemoryDisk, TestClock
from tests.support.patterns import (
    End,
    World,
    attend,
    borders,
    check_every_crash,
    end_of,
    logged,
    publish_all,
    relive,
    work,
)
from tests.support.runs import Box, play

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
            steps=tuple(
                work(id, **fields, output_mapping={})
                for id, fields in (
                    ("a", {"arguments": {"attempts": 2}, "retry": RETRIED}),
                    ("b", {"agent": "bad"}),
                    ("c", {}),
                    ("d", {}),
                )
            ),
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
    "map_reduce that folds": [
        WorkflowDefinition(
            id="w",
            pattern="map_reduce",
            steps=(
                Step(id="s", agent="work", input_mapping={"cursor": "cursor"}),
                Step(id="m", agent="work"),
                Step(id="r", agent="work", input_mapping={"n": "reduced.n", "all": "map_results"}),
            ),
            on_item_failure="continue",
            reduce="fold",
            concurrency=2,
        )
    ],
    "saga that others undo": [
        WorkflowDefinition(
            id="w",
            pattern="saga",
            steps=(
                work("a", compensation=Compensation(agent="bad", retry=FALLS_BACK)),
                work("b", agent="bad", retry=FALLS_BACK, compensation=Compensation()),
                work("c", agent="bad"),
            ),
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


@pytest.mark.row("A2-35")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_pattern_that_is_killed_after_any_event_ends_as_if_it_had_not_been(name: str) -> None:
    _, crashes = play(lambda: check_every_crash(SCENARIOS[name], {"n": 0}))

    assert crashes > 5


STEPS = 6


def six_steps(failing: int, *, unsure: bool = False) -> list[WorkflowDefinition]:
    """A saga whose step number *failing* fails, the first one being 1; 0: none does."""
    undo = Compensation(agent="work", action="undo", input_mapping={"n": "original_data.n"}, unsure=unsure)
    steps = [
        work(f"s{n}", agent="bad" if n == failing else "work", action="do", compensation=undo)
        for n in range(1, STEPS + 1)
    ]
    return [WorkflowDefinition(id="w", pattern="saga", steps=tuple(steps))]


@pytest.mark.row("A2-30", "A2-35")
@pytest.mark.parametrize("unsure", [False, True])
@pytest.mark.parametrize("failing", range(STEPS + 1))
def test_a_saga_of_six_steps_that_fails_at_any_and_is_killed_after_any_event_is_undone_once(
    failing: int, unsure: bool
) -> None:
    whole, crashes = play(lambda: check_every_crash(six_steps(failing, unsure=unsure), {"n": 0}))

    done = range(1, failing or STEPS + 1)
    undone = range(failing if unsure else failing - 1, 0, -1)
    assert list(whole.effects) == [*(f"r:s{n}" for n in done), *(f"r:s{n}#undo" for n in undone)]
    assert crashes >= 2 * (failing or STEPS)


async def cancel_at(box: Box, rt: Runtime, micros: int) -> End:
    """See the run to its end while others publish; *micros* after its start it is cancelled."""
    await publish_all(box, rt)
    await box.clock.advance(timedelta(microseconds=micros))
    await rt.run("r").cancel("enough")
    return await end_of(box, rt)


async def cancel_now(box: Box, rt: Runtime) -> End:
    return await cancel_at(box, rt, 0)


UNDONE_STEPS = {
    "saga": {"a", "b"},
    "saga that others undo": {"a", "b~"},
    "saga past its pivot": {"a"},
    "children": {"x"},
}


def check_undone(name: str, world: World, status: str) -> None:
    """Check that a saga left all or nothing: what can be undone was undone, unless it completed or passed its pivot."""
    if status == "completed" or (name == "saga past its pivot" and "r:b" in world.effects):
        return
    steps = UNDONE_STEPS.get(name, set())
    done = [key for key in world.effects if key.rpartition(":")[2] in steps]
    assert [key for key in done if not {f"{key}#undo", f"{key}#undo~"} & world.effects.keys()] == []


@pytest.mark.row("A2-35")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_pattern_that_is_cancelled_at_any_time_and_killed_after_any_event_leaves_the_same(name: str) -> None:
    definitions = SCENARIOS[name]

    async def lived(micros: int | None) -> tuple[World, End, list[Recorded], MemoryDisk]:
        whole = World(TestClock())
        box = whole.box(definitions, None)
        rt = await box.open()
        await rt.with_options(id="r").start("w", {"n": 0})
        end = await (attend(box, rt) if micros is None else cancel_at(box, rt, micros))
        history = await logged(rt)
        await box.close()
        assert isinstance(box.storage, MemoryDisk)
        return whole, end, history, box.storage

    async def scenario() -> int:
        _, _, history, _ = await lived(None)
        began = next(event.at for event in history if event.type == "run-started")
        times = sorted({event.at - began for event in history if event.stream.startswith("run/")})
        count = 0
        for micros in {0, *(at + 500 for at in times[:: max(1, len(times) // 3)])}:
            whole, expected, history, disk = await lived(micros)
            assert expected[0] in ("cancelled", "completed", "failed")
            check_undone(name, whole, expected[0])
            if not any(event.type == "run-cancel-requested" for event in history):
                continue  # it was over
            asked = next(event.position for event in history if event.type == "run-cancel-requested")
            for border in borders(history):
                is_asked = border.position >= asked
                world, found = await relive(
                    definitions, border, (whole, history, disk), end_of if is_asked else cancel_now
                )
                where = f"cancelled after {micros}, after a crash at {border.position}, {border.stream} {border.type}"
                check_undone(name, world, found[0])
                if is_asked:
                    assert found == expected, where
                    assert world.effects == whole.effects, where
                else:
                    assert found[0] in ("cancelled", "completed", "failed"), where
                count += 1
        return count

    assert play(scenario) > 5
