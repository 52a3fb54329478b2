"""Histories that were recorded once fit today's engine: whole, and cut off after every event, as by a crash."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import RunHandle, Settings
from perdure.actors.tools.tool import ToolBehavior
from perdure.actors.workflows.run import RunBehavior
from perdure.store.codec import Event
from perdure.testing import MemoryDisk, TestClock
from tests.histories.code import WORKFLOWS
from tests.histories.loading import FOLDER, Expected, disk_of, read
from tests.support.runs import DAY, Box, play

WITHOUT_A_RUN = {"slots"}
"""Replayed by tests of their own."""

NAMES = sorted({path.stem for path in FOLDER.glob("*.jsonl")} - WITHOUT_A_RUN)


async def end_of(disk: MemoryDisk, at: int, expected: Expected) -> tuple[str, str, str]:
    """Go on with the run of a history and return how it ends."""
    clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at))
    # Actors stay in memory: looking for idle ones twice a minute would be most of what happens in three days.
    settings = Settings(idle_after=7 * DAY)
    async with Box(disk, clock, workflows=[WORKFLOWS[expected.workflow]], settings=settings) as box:
        run: RunHandle[Any] = (await box.open()).run("golden")
        await clock.settle()
        if expected.workflow == "doubt" and not (await run.status()).in_doubt:
            run = (await box.crash_and_reopen()).run("golden")
            await clock.settle()
        if expected.is_cancelled:
            await run.cancel("enough")
        for step in (await run.status()).in_doubt:
            await run.settle_done(step, "by hand")
        await clock.advance(3 * DAY)
        view = await run.status()
        return view.status, view.result, view.error


def test_there_is_a_history_of_every_workflow() -> None:
    assert sorted(WORKFLOWS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_history_fits_wherever_it_is_cut(name: str) -> None:
    expected, lines = read(name)

    async def scenario() -> list[tuple[str, str, str]]:
        born = next(number for number, line in enumerate(lines) if line.type == "run-started")
        cuts = range(born + 1, len(lines) + 1)
        return [await end_of(await disk_of(lines[:cut]), lines[cut - 1].at, expected) for cut in cuts]

    ends = play(scenario)

    assert len(ends) > 5
    assert set(ends) == {(expected.status, expected.result, expected.error)}


def test_the_histories_hold_every_kind_of_event_that_runs_and_tools_have() -> None:
    """What is not in a history is not guarded; these are left out on purpose, each with the reason."""
    on_purpose = {
        "call-started", "call-cancelled", "call-lost",  # calls outside of runs are not replayed
        "run-blocked", "run-failed", "run-suspended",  # ends and rests: nothing is replayed from them
        "step-cancelled", "step-not-done", "branches-failed",
    }  # fmt: skip
    recorded = {line.type for name in NAMES for line in read(name)[1]}
    kinds: tuple[type[Event], ...] = (*ToolBehavior.events, *RunBehavior.events)
    known = {str(kind.__struct_config__.tag) for kind in kinds}

    assert known - recorded <= on_purpose
