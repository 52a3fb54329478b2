"""Random workflows that wait for people and programs, killed after every single event: they end as if nothing had been.

Somebody answers every question and sends a signal for every wait; a signal that nobody sends expires.
"""

import contextlib
import json
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import (
    Context,
    QuestionNotOpenError,
    Recorded,
    RunClosedError,
    RunHandle,
    Runtime,
    RunView,
    Settings,
    StepFailedError,
    workflow,
)
from perdure.testing import MemoryDisk, TestClock
from tests.properties.test_crash_points import (
    Program,
    bank,
    broken,
    calls,
    check,
    crashes,
    done_in,
    echo,
    keep_or_park,
    outcome,
    pay,
)
from tests.support.runs import Box, play

ENDS = {"signal-taken", "signal-expired", "signal-wait-withdrawn", "question-answered", "question-expired"}


@workflow
async def converse(ctx: Context, program: Program) -> Any:
    return await perform(ctx, program)


async def perform(ctx: Context, program: Program) -> list[Any]:  # noqa: C901 - one case an operation
    found: list[Any] = []
    for kind, argument in program:
        match kind:
            case "echo":
                found.append(await ctx.call(echo, argument))
            case "pay":
                found.append(await ctx.call(pay, argument))
            case "raise":
                await ctx.call(broken, argument)
            case "sleep":
                await ctx.sleep(argument)
            case "signal":
                found.append(await ctx.signal("go", of=str))
            case "ask":
                found.append(await ctx.ask(f"{argument}?", of=int, choices=[argument, 10]))
            case "nobody":
                found.append(await nobody(ctx, argument))
            case "gather":
                found.append(await failing(ctx, argument))
            case "careful":
                found.append(await careful(ctx, *argument))
            case _:
                raise AssertionError(kind)
    return found


async def nobody(ctx: Context, seconds: int) -> str:
    try:
        return await ctx.signal("never", of=str, timeout=timedelta(seconds=seconds))
    except StepFailedError as error:
        return error.error


async def failing(ctx: Context, parts: list[Program]) -> Any:
    try:
        return await ctx.map(partial(perform, ctx), parts, concurrency=2)
    except StepFailedError:
        return "failed"  # which of them was first is a matter of time, and a crash takes time


async def careful(ctx: Context, body: Program, cleanup: Program) -> Any:
    try:
        return await perform(ctx, body)
    finally:
        await perform(ctx, cleanup)


numbers = st.integers(0, 9)
leaves = st.one_of(
    st.tuples(st.sampled_from(["echo", "pay", "raise", "signal", "ask", "ask", "signal"]), numbers),
    st.tuples(st.sampled_from(["sleep", "nobody"]), st.sampled_from([1, 5, 500])),
)
cleanups = st.lists(st.tuples(st.sampled_from(["echo", "ask", "signal"]), numbers), max_size=2)
programs = st.recursive(
    st.lists(leaves, max_size=4),
    lambda inner: st.lists(
        st.one_of(
            leaves,
            st.tuples(st.just("gather"), st.lists(inner, max_size=3)),
            st.tuples(st.just("careful"), st.tuples(inner, cleanups)),
        ),
        min_size=1,
        max_size=4,
    ),
    max_leaves=10,
)


def check_waits(history: list[Recorded]) -> None:
    """Check that each wait ended once, and each signal was taken once."""
    check(history)
    facts = [(event.type, json.loads(event.data or "{}")) for event in history]
    begun = {fact["step"] for type_, fact in facts if type_ in {"signal-awaited", "question-asked"}}
    ended = Counter(fact["step"] for type_, fact in facts if type_ in ENDS)
    withdrawn = {fact["step"] for type_, fact in facts if type_ == "question-withdrawn"}
    taken = Counter(fact["signal"] for type_, fact in facts if type_ == "signal-taken")
    assert max(ended.values(), default=1) == 1
    assert set(ended) | withdrawn == begun
    assert max(taken.values(), default=1) == 1


async def attend(box: Box, rt: Runtime) -> tuple[RunView, list[Recorded]]:
    """Give the run what it waits for until it has ended."""
    run: RunHandle[Any] = rt.run("r")
    await box.clock.settle()
    view = await run.status()
    for _ in range(100):
        if (view := await run.status()).is_closed:
            break
        assert view.status != "blocked", view.error
        for question in await rt.questions():
            with contextlib.suppress(QuestionNotOpenError):  # an answer before this one had it withdrawn
                await run.answer(question.id, json.loads(question.text[:-1]))
        with contextlib.suppress(RunClosedError):  # an answer was the last that it waited for
            for _ in range(3):
                await run.signal("go", "went")
        await box.clock.advance(50)
    assert view.is_closed, await run.history()
    return view, await run.history()


ASKS_AT_ONCE: Program = [
    ("signal", 0),
    ("gather", [[("ask", 1), ("pay", 1)], [("ask", 2), ("signal", 0)]]),
    ("careful", [[("gather", [[("ask", 3)], [("nobody", 5), ("raise", 0)]])], [("ask", 4)]]),
]


@settings(max_examples=40, deadline=None)
@given(program=programs, chosen=keep_or_park)
@example(program=ASKS_AT_ONCE, chosen=Settings(idle_after=timedelta(days=1)))
def test_a_crash_after_any_event_of_a_run_that_waits_changes_nothing(program: Program, chosen: Settings) -> None:
    async def scenario() -> None:
        bank.clear()
        whole = Box(None, TestClock(), workflows=[converse], settings=chosen)
        rt = await whole.open()
        await rt.with_options(id="r").start(converse, program)
        expected, history = await attend(whole, rt)
        await whole.close()
        check_waits(history)
        assert isinstance(whole.storage, MemoryDisk)
        for position, disk, clock in crashes(whole.storage, history):
            box = Box(disk, clock, workflows=[converse], settings=chosen)
            view, again = await attend(box, await box.open())
            await box.close()
            check_waits(again)
            assert outcome(view) == outcome(expected), f"after a crash at {position}"
            assert done_in(history, position).isdisjoint(calls), f"ran again after a crash at {position}"

    play(scenario)


@settings(max_examples=30, deadline=None)
@given(program=programs, chosen=keep_or_park, rounds=st.integers(0, 2))
@example(program=ASKS_AT_ONCE, chosen=Settings(idle_after=timedelta(days=1)), rounds=0)
def test_a_cancel_and_a_crash_after_any_event_of_a_run_that_waits_end_it(
    program: Program, chosen: Settings, rounds: int
) -> None:
    async def scenario() -> None:
        bank.clear()
        whole = Box(None, TestClock(), workflows=[converse], settings=chosen)
        rt = await whole.open()
        run = await rt.with_options(id="r").start(converse, program)
        for _ in range(rounds):
            await whole.clock.settle()
            if not (await run.status()).is_closed:
                await run.signal("go", "went")
        await run.cancel("enough")
        _, history = await attend(whole, rt)
        await whole.close()
        check_waits(history)
        assert isinstance(whole.storage, MemoryDisk)
        for _, disk, clock in crashes(whole.storage, history):
            box = Box(disk, clock, workflows=[converse], settings=chosen)
            rt = await box.open()
            await rt.run("r").cancel("enough")
            _, again = await attend(box, rt)
            await box.close()
            check_waits(again)

    play(scenario)
