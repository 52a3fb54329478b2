"""Random definitions really run, cancelled and killed at any event: each comes to an end that is documented.

Never an error of Perdure's own, a mismatch or a wait for ever; and where nothing depends on the time that a crash
takes, the end is the one without the crash. `PERDURE_DEFINITIONS` says how many are drawn.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import Recorded, RunHandle, Runtime, RunView, WorkflowFailedError
from perdure.actors.workflows.defined.model import WorkflowDefinition
from perdure.testing import MemoryDisk, TestClock
from tests.support.definitions import EVENTS, GIVEN, Cast, definitions
from tests.support.patterns import borders, logged
from tests.support.runs import Box, disk_until, play

EXAMPLES = int(os.environ.get("PERDURE_DEFINITIONS", "0"))
STATUSES = {"completed", "failed", "compensated", "timed_out", "cancelled"}
KEYS = {
    "sequential": {"steps_executed", "final_data", "step_results"},
    "parallel": {"steps_executed", "results", "errors"},
    "fan_out_fan_in": {"fan_out_results", "aggregated_data"},
    "conditional": {"steps_executed", "path", "final_data"},
    "saga": {"saga_id", "completed", "failed", "completed_steps", "compensated_steps", "final_data"},
    "map_reduce": {"map_count", "reduce_result", "failed_items"},
    "event_driven": {"steps_executed", "final_data", "step_results"},
}


async def end_of(box: Box, rt: Runtime, definition: WorkflowDefinition) -> RunView:
    """See the run to its end: others publish, and a person settles what is in doubt."""
    run: RunHandle[Any] = rt.run("r")
    for number, (kind, data) in enumerate(EVENTS):
        await box.clock.settle()
        await rt.publish(kind, data, id=f"e{number}")
    view = await run.status()
    for number in range(60):
        await box.clock.advance(100)
        view = await run.status()
        if view.is_closed:
            return view
        assert view.status != "blocked", view
        for step in view.in_doubt:
            await run.settle_failed(step, "nobody knows")
        if number > 30 and definition.pattern == "event_driven" and not view.in_doubt:
            await run.cancel("no event comes any more")
    raise AssertionError((view, [(event.type, event.data) for event in await run.history()]))


async def check_end(rt: Runtime, definition: WorkflowDefinition, given: Any, view: RunView) -> None:
    """Check that a run came to an end that is documented, and that it is told as such."""
    assert view.status in ("completed", "failed", "cancelled"), view
    assert view.error_type not in ("InternalError", "KeyError", "TypeError", "AttributeError"), view
    if view.status == "completed":
        found = await rt.with_options(id="r").execute("w", given)
        assert found["status"] == "completed"
        assert set(found["result"]) == KEYS[definition.pattern] | {"pattern"}
        return
    with pytest.raises(WorkflowFailedError) as failed:
        await rt.with_options(id="r").execute("w", given)
    assert failed.value.status in STATUSES - {"completed"}
    assert failed.value.workflow_id == "w"
    assert failed.value.error_type


def is_free_of_time(definition: WorkflowDefinition) -> bool:
    """Whether nothing in it depends on how long it takes, or on what a person says after a crash."""
    return (
        definition.timeout is None
        and definition.pattern != "event_driven"
        and not any(step.effect == "irreversible" for step in definition.steps)
    )


def ended(history: list[Recorded]) -> tuple[str, Any]:
    last = [event for event in history if event.stream == "run/r"][-1]
    return last.type, json.loads(last.data or "{}")


async def live(
    definition: WorkflowDefinition,
    given: Any,
    *,
    border: Recorded | None = None,
    disk: MemoryDisk | None = None,
    cancel_after: int | None = None,
) -> tuple[list[Recorded], MemoryDisk]:
    """Run a definition from its start, or from a crash, to its end."""
    at = None if border is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=border.at)
    clock = TestClock() if at is None else TestClock(at)
    box = Cast(clock).box(definition, None if border is None else disk_until(disk, border.position))
    rt = await box.open()
    await rt.with_options(id="r").start("w", given)
    if cancel_after is not None:
        await clock.advance(timedelta(microseconds=cancel_after))
        await rt.run("r").cancel("enough")
    await check_end(rt, definition, given, await end_of(box, rt, definition))
    history = await logged(rt)
    await box.close()
    assert isinstance(box.storage, MemoryDisk)
    return history, box.storage


@settings(max_examples=EXAMPLES or 25)
@given(
    definition=definitions(),
    given=GIVEN,
    cancel_after=st.none() | st.sampled_from([0, 500, 1500, 3_000_000]),
    seed=st.integers(0, 2**32),
)
def test_a_random_definition_comes_to_a_documented_end_whenever_it_is_cancelled_and_killed(
    definition: WorkflowDefinition, given: Any, cancel_after: int | None, seed: int
) -> None:
    async def scenario() -> None:
        history, disk = await live(definition, given, cancel_after=cancel_after)
        places = borders(history)
        for border in Random(seed).sample(places, min(2, len(places))):
            again, _ = await live(definition, given, border=border, disk=disk)
            if cancel_after is None and is_free_of_time(definition):
                assert ended(again) == ended(history), (border.position, border.type)

    play(scenario)
