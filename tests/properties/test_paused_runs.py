"""Random workflows that an operator pauses at any time, and whose process dies after any event: they end as if not.

While a run is paused nothing new begins in it, whatever it is sent and however much time passes.
"""

import contextlib
import json
from datetime import timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import QuestionNotOpenError, RunHandle, Runtime, RunView, Settings
from perdure.testing import MemoryDisk, TestClock
from tests.properties.test_crash_points import Program, bank, crashes, keep_or_park, outcome
from tests.properties.test_waiting_crash_points import ASKS_AT_ONCE, attend, check_waits, converse, programs
from tests.support.runs import Box, facts, play

BEGINS = {"step-started", "attempt-started", "timer-set", "signal-awaited", "question-asked", "branches-opened"}


async def pause_and_resume(box: Box, rt: Runtime) -> None:
    """Pause the run if it is open, send it what it may wait for, let time pass, and let it go on."""
    run: RunHandle[Any] = rt.run("r")
    await box.clock.settle()
    if (await run.status()).is_closed:
        return
    await run.pause()
    await box.clock.settle()
    view = await run.status()
    if view.is_closed:  # it was done before it took notice
        return
    assert view.status == "paused"
    before = await facts(rt, "r")
    for question in await rt.questions():
        with contextlib.suppress(QuestionNotOpenError):
            await run.answer(question.id, json.loads(question.text[:-1]))
    await box.clock.advance(100)
    began = [fact for fact in (await facts(rt, "r"))[len(before) :] if fact in BEGINS]
    assert began == []
    await run.resume()


async def ending(box: Box, rt: Runtime, rounds: int) -> RunView:
    for _ in range(rounds):
        await pause_and_resume(box, rt)
    view, history = await attend(box, rt)
    check_waits(history)
    return view


@settings(max_examples=25, deadline=None)
@given(program=programs, chosen=keep_or_park, rounds=st.integers(1, 3))
@example(program=ASKS_AT_ONCE, chosen=Settings(idle_after=timedelta(days=1)), rounds=2)
def test_pauses_and_a_crash_after_any_event_change_nothing(program: Program, chosen: Settings, rounds: int) -> None:
    async def scenario() -> None:
        bank.clear()
        plain = Box(None, TestClock(), workflows=[converse], settings=chosen)
        rt = await plain.open()
        await rt.with_options(id="r").start(converse, program)
        expected: Any = outcome(await ending(plain, rt, 0))
        await plain.close()

        bank.clear()
        whole = Box(None, TestClock(), workflows=[converse], settings=chosen)
        rt = await whole.open()
        await rt.with_options(id="r").start(converse, program)
        assert outcome(await ending(whole, rt, rounds)) == expected
        history = await rt.run("r").history()
        await whole.close()
        assert isinstance(whole.storage, MemoryDisk)
        for position, disk, clock in crashes(whole.storage, history):
            box = Box(disk, clock, workflows=[converse], settings=chosen)
            rt = await box.open()
            await box.clock.settle()
            if not (await rt.run("r").status()).is_closed:
                await rt.run("r").resume()
            assert outcome(await ending(box, rt, 1)) == expected, f"after a crash at {position}"
            await box.close()

    play(scenario)
