"""Random workflows, killed after every single event of their history: the run ends as if nothing had been.

The crash is made by opening a log that holds only the first events. Beside the result it is checked that no finished
step runs again, that what is irreversible happens once, that every step has one outcome at most, and that an unchanged
program is never taken for a changed one.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import (
    Context,
    Done,
    NotDone,
    Recorded,
    Retry,
    RunView,
    Settings,
    StepFailedError,
    ToolContext,
    tool,
    workflow,
)
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, disk_until, play

Program: TypeAlias = list[Any]

calls: list[str] = []
bank: dict[str, int] = {}
"""What happened outside and cannot be undone, by idempotency key."""


@tool(failure_threshold=100_000)
async def echo(context: ToolContext, number: int) -> int:
    calls.append(context.idempotency_key)
    return number


@tool(effect="read", failure_threshold=100_000)
async def look(context: ToolContext, number: int) -> int:
    calls.append(context.idempotency_key)
    return number


@tool(failure_threshold=100_000)
async def broken(number: int) -> int:
    raise ValueError(f"broken {number}")


@tool(failure_threshold=100_000, retry=Retry(attempts=3, backoff=timedelta(seconds=7), jitter=False))
async def flaky(context: ToolContext, number: int) -> int:
    if context.attempt < 3:
        raise OSError("not yet")
    calls.append(context.idempotency_key)
    return number


async def ask_bank(key: str) -> Done | NotDone:
    return Done(bank[key]) if key in bank else NotDone()


@tool(effect="irreversible", reconcile=ask_bank, failure_threshold=100_000)
async def pay(context: ToolContext, number: int) -> int:
    assert context.idempotency_key not in bank, "paid twice"
    bank[context.idempotency_key] = number
    calls.append(context.idempotency_key)
    return number


@workflow
async def interpret(ctx: Context, program: Program) -> Any:
    return await perform(ctx, program)


async def perform(ctx: Context, program: Program) -> list[Any]:  # noqa: C901 - one case an operation
    found: list[Any] = []
    for kind, argument in program:
        match kind:
            case "echo":
                found.append(await ctx.call(echo, argument))
            case "look":
                found.append(await ctx.call(look, argument))
            case "pay":
                found.append(await ctx.call(pay, argument))
            case "flaky":
                found.append(await ctx.call(flaky, argument))
            case "caught":
                found.append(await caught(ctx, argument))
            case "raise":
                await ctx.call(broken, argument)
            case "sleep":
                await ctx.sleep(argument)
            case "draw":
                ctx.random()
            case "gather":
                found.append(await failing(ctx, argument, 0))
            case "map":
                found.append(await failing(ctx, argument[1:], argument[0]))
            case "careful":
                found.append(await careful(ctx, *argument))
            case _:
                raise AssertionError(kind)
    return found


async def caught(ctx: Context, number: int) -> str:
    try:
        found: int = await ctx.call(broken, number)
    except StepFailedError as error:
        return error.error
    return str(found)


async def failing(ctx: Context, parts: list[Program], concurrency: int) -> Any:
    try:
        if concurrency:
            return await ctx.map(partial(perform, ctx), parts, concurrency=concurrency)
        return list(await ctx.gather(*(perform(ctx, part) for part in parts)))
    except StepFailedError:
        return "failed"  # which of them was first is a matter of time, and a crash takes time


async def careful(ctx: Context, body: Program, cleanup: Program) -> Any:
    try:
        return await perform(ctx, body)
    finally:
        await perform(ctx, cleanup)


numbers = st.integers(0, 9)
leaves = st.one_of(
    st.tuples(st.sampled_from(["echo", "pay", "look", "flaky", "caught", "raise", "draw"]), numbers),
    st.tuples(st.just("sleep"), st.sampled_from([0, 1, 5, 30, 500])),
)
harmless = st.lists(
    st.one_of(st.tuples(st.sampled_from(["echo", "look", "flaky"]), numbers), st.tuples(st.just("sleep"), numbers)),
    max_size=2,
)
programs = st.recursive(
    st.lists(leaves, max_size=4),
    lambda inner: st.lists(
        st.one_of(
            leaves,
            st.tuples(st.just("gather"), st.lists(inner, max_size=3)),
            st.tuples(st.just("map"), st.tuples(st.integers(1, 2), inner, inner, inner).map(list)),
            st.tuples(st.just("careful"), st.tuples(inner, harmless)),
        ),
        min_size=1,
        max_size=4,
    ),
    max_leaves=12,
)
# Nobody looks for idle actors: that would be most of what happens in an hour.
keep_or_park = st.sampled_from([timedelta(seconds=60), timedelta(days=1)]).map(
    lambda park_after: Settings(park_after=park_after, idle_after=timedelta(days=1))
)


def outcome(view: RunView) -> tuple[str, str, str]:
    return view.status, view.result, view.error_type


def check(history: list[Recorded]) -> None:
    """Check what holds for every history of a run."""
    ended: dict[str, str] = {}
    begun = set[str]()
    for event in history:
        step = json.loads(event.data or "{}").get("step")
        if event.type == "step-started":
            assert step not in begun, f"{step} started twice"
            begun.add(step)
        elif event.type in {"attempt-started", "attempt-failed", "attempt-refused"}:
            assert step in begun
            assert step not in ended, f"{event.type} of {step} after {ended[step]}"
        elif event.type in {"step-completed", "step-failed", "step-cancelled"}:
            assert step not in ended, f"{step} ended as {ended[step]} and {event.type}"
            ended[step] = event.type
    types = [event.type for event in history]
    assert "run-blocked" not in types
    assert types[-1] in {"run-completed", "run-failed", "run-cancelled"}
    assert set(ended) == begun


async def finish(box: Box, run: str, *, cancel: bool = False) -> tuple[RunView, list[Recorded]]:
    rt = await box.open()
    if cancel:
        await rt.run(run).cancel("enough")
    await box.clock.advance(3600)
    view, history = await rt.run(run).status(), await rt.run(run).history()
    await box.close()
    return view, history


def done_in(history: list[Recorded], position: int) -> set[str]:
    ended = (e for e in history if e.position <= position and e.type == "step-completed")
    return {"r:" + json.loads(e.data or "{}")["step"] for e in ended}


def crashes(disk: MemoryDisk, history: list[Recorded]) -> Iterator[tuple[int, MemoryDisk, TestClock]]:
    """Every event of *history* as the last one on the disk, with a clock that shows its time.

    Of an irreversible step in flight it happened, in every other of these worlds.
    """
    for number, event in enumerate(history[:-1]):
        clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.at))
        calls.clear()
        bank.clear()
        before = [(e.type, json.loads(e.data or "{}")) for e in history if e.position <= event.position]
        done = {fact["step"] for type_, fact in before if type_ == "step-completed"}
        for type_, fact in before:
            if type_ == "step-started" and fact["tool"] == "pay" and (number % 2 or fact["step"] in done):
                bank["r:" + fact["step"]] = fact["arguments"]["number"]
        yield event.position, disk_until(disk, event.position), clock


# Branches of a former life that are opened again while their fork is cancelled were not counted once, and a run whose
# branches seemed to wait all of them was parked for ever.
COUNTED_WRONG: Program = [
    (
        "map",
        [
            2,
            [],
            [("echo", 0), ("echo", 0), ("raise", 0)],
            [("echo", 0), ("map", [1, [], [("look", 0)], [("echo", 0)]])],
        ],
    )
]


@settings(max_examples=60)
@given(program=programs, chosen=keep_or_park)
@example(program=COUNTED_WRONG, chosen=Settings())
def test_a_crash_after_any_event_changes_nothing(program: Program, chosen: Settings) -> None:
    async def scenario() -> None:
        bank.clear()
        whole = Box(None, TestClock(), workflows=[interpret], settings=chosen)
        rt = await whole.open()
        await rt.with_options(id="r").start(interpret, program)
        await whole.clock.advance(3600)
        expected, history = await rt.run("r").status(), await rt.run("r").history()
        await whole.close()
        check(history)
        assert isinstance(whole.storage, MemoryDisk)
        for position, disk, clock in crashes(whole.storage, history):
            view, again = await finish(Box(disk, clock, workflows=[interpret], settings=chosen), "r")
            check(again)
            assert outcome(view) == outcome(expected), f"after a crash at {position}"
            assert done_in(history, position).isdisjoint(calls), f"ran again after a crash at {position}"

    play(scenario)


@settings(max_examples=40)
@given(program=programs, chosen=keep_or_park, after=st.sampled_from([0, 0.5, 3, 10, 100]))
def test_a_cancel_and_a_crash_after_any_event_end_the_run_and_clean_up(
    program: Program, chosen: Settings, after: float
) -> None:
    async def scenario() -> None:
        bank.clear()
        whole = Box(None, TestClock(), workflows=[interpret], settings=chosen)
        rt = await whole.open()
        await rt.with_options(id="r").start(interpret, program)
        await whole.clock.advance(after)
        await rt.run("r").cancel("enough")
        await whole.clock.advance(3600)
        history = await rt.run("r").history()
        await whole.close()
        check(history)
        assert isinstance(whole.storage, MemoryDisk)
        for position, disk, clock in crashes(whole.storage, history):
            _, again = await finish(Box(disk, clock, workflows=[interpret], settings=chosen), "r", cancel=True)
            check(again)
            assert done_in(history, position).isdisjoint(calls), f"ran again after a crash at {position}"

    play(scenario)
