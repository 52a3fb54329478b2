"""Many random workflows side by side in one runtime that crashes and closes again and again at any moment.

Whatever the places in memory and the times of parking are, every run ends as it would have undisturbed.
"""

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import RunHandle, Settings
from perdure.testing import TestClock
from tests.properties.test_crash_points import Program, bank, check, interpret, outcome, programs
from tests.support.runs import DAY, Box, play


async def undisturbed(chosen: list[Program]) -> list[tuple[str, str, str]]:
    async with Box(None, TestClock(), workflows=[interpret], settings=Settings(idle_after=30 * DAY)) as box:
        rt = await box.open()
        runs = [await rt.with_options(id=f"w{number}").start(interpret, p) for number, p in enumerate(chosen)]
        await box.clock.advance(DAY)
        return [outcome(await run.status()) for run in runs]


async def live_on(box: Box, chance: Random) -> None:
    """Let a little time pass, or none, and end this life one way or the other."""
    for _ in range(chance.randrange(60)):
        await asyncio.sleep(0)
    if chance.random() < 0.5:
        await box.clock.advance(chance.choice([0, 0.5, 1, 7, 30]))
    if chance.random() < 0.7:
        await box.crash_and_reopen()
    else:
        await box.close_and_reopen()


def any_settings(chance: Random) -> Settings:
    return Settings(
        park_after=timedelta(seconds=chance.choice([1, 60, 86_400])),
        idle_after=timedelta(seconds=chance.choice([60, 100_000])),
        max_active_runs=chance.choice([3, 10, 1000]),
        drain=timedelta(0),
    )


@pytest.mark.slow
@settings(max_examples=12)
@given(chosen=st.lists(programs, min_size=5, max_size=20), seed=st.integers(0, 2**32))
def test_every_run_ends_as_if_nothing_had_been(chosen: list[Program], seed: int) -> None:
    async def scenario() -> None:
        expected = await undisturbed(chosen)
        bank.clear()
        chance = Random(seed)
        async with Box(None, TestClock(), workflows=[interpret], settings=any_settings(chance)) as box:
            rt = await box.open()
            for number, program in enumerate(chosen):
                await rt.with_options(id=f"r{number}").start(interpret, program)
            for _ in range(10):
                await live_on(box, chance)
            await box.clock.advance(2 * DAY)
            for number, ends in enumerate(expected):
                run: RunHandle[Any] = box.runtime.run(f"r{number}")
                check(await run.history())
                assert outcome(await run.status()) == ends

    play(scenario)
