"""Sagas in code: what is undone, in which order and with what, and what a saga says of itself."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    InvalidArgumentsError,
    Retry,
    RunView,
    Saga,
    Settings,
    StepFailedError,
    ToolContext,
    UsageError,
    Workflow,
    tool,
)
from tests.support.runs import DAY, box_with, events, play

seen: list[str] = []

STAYS = Settings(park_after=7 * DAY)
"""A run that sleeps stays in memory, so that every crash makes for a replay."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@tool(failure_threshold=1000)
async def reserve(name: str) -> str:
    if name.startswith("bad"):
        raise ValueError(f"no {name}")
    seen.append(f"reserve {name}")
    return f"ref-{name}"


@tool(failure_threshold=1000)
async def release(ref: str | None) -> None:
    seen.append(f"release {ref}")


@tool(failure_threshold=1000)
async def pause(name: str) -> None:
    seen.append(f"pause {name}")
    await asyncio.get_running_loop().create_future()


@tool(failure_threshold=1000)
async def clear() -> None:
    seen.append("clear")


def played(code: Callable[[Context], Any], *, advance: float = 3600) -> RunView:
    """Run *code* to its end and return how it ended."""
    wf = Workflow(code, "wf")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(advance)
            return await rt.run("r").status()

    return play(scenario)


def replayed(code: Callable[[Context], Any]) -> list[Any]:
    """Run *code*, which sleeps for a day at its end, and replay it twice; return what it said each time."""
    said: list[Any] = []

    async def body(ctx: Context) -> None:
        said.append(await code(ctx))
        await ctx.sleep(DAY)

    wf = Workflow(body, "wf")

    async def scenario() -> None:
        async with box_with(wf, settings=STAYS) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.advance(3600)
            for _ in range(2):
                rt = await box.crash_and_reopen()
                await box.clock.settle()
            await box.clock.advance(2 * DAY)
            assert (await rt.run("r").status()).status == "completed"

    play(scenario)
    return said


async def failing(saga: Saga) -> None:
    async with saga:
        await saga.undo_with(release).call(reserve, "b")
        await saga.call(reserve, "bad")


async def attempted(ctx: Context, body: Callable[[Saga], Any]) -> tuple[Saga, str]:
    """Run *body* in a saga; return the saga and what it raised."""
    saga = ctx.saga()
    try:
        async with saga:
            await body(saga)
    except (StepFailedError, LookupError) as error:
        return saga, type(error).__name__
    return saga, ""


def test_steps_are_undone_in_reverse_with_what_they_returned() -> None:
    async def code(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(release).call(reserve, "a")
            await saga.undo_with(release).call(reserve, "b")
            await saga.undo_with(release).call(reserve, "bad")

    view = played(code)

    assert seen == ["reserve a", "reserve b", "release ref-b", "release ref-a"]
    assert (view.status, view.error) == ("failed", "step reserve#3 failed: ValueError: no bad")


@pytest.mark.row("A2-34")
def test_a_step_without_compensation_is_not_undone_and_not_counted() -> None:
    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            await saga.undo_with(release, "given").call(reserve, "a")
            await saga.call(reserve, "b")
            await ctx.call(reserve, "c")
            await saga.undo_with(clear).with_options(key="mine").call(reserve, "d")
            await saga.call(reserve, "bad")

        saga, error = await attempted(ctx, body)
        return saga.completed, saga.compensated, saga.given_up, error

    said = replayed(code)

    assert said == [(("reserve#1", "reserve#2", "mine"), ("mine", "reserve#1"), (), "StepFailedError")] * 3
    assert seen[4:] == ["clear", "release given"]


@pytest.mark.row("A2-29")
def test_a_saga_whose_steps_all_succeed_undoes_nothing() -> None:
    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            for name in "abc":
                await saga.undo_with(release).call(reserve, name)

        saga, error = await attempted(ctx, body)
        return len(saga.completed), saga.compensated, error

    assert replayed(code) == [(3, (), "")] * 3
    assert seen == ["reserve a", "reserve b", "reserve c"]


@pytest.mark.row("A2-36")
def test_sagas_have_ids_of_their_own_live_as_replayed() -> None:
    async def code(ctx: Context) -> list[str]:
        async def inner() -> str:
            return ctx.saga().id

        return [ctx.saga().id, ctx.saga().id, *await ctx.gather(inner(), inner())]

    live, *again = replayed(code)

    assert live == ["r:saga#1", "r:saga#2", "r:gather#1.0/saga#1", "r:gather#1.1/saga#1"]
    assert again == [live, live]


def test_the_error_of_the_code_itself_undoes_too() -> None:
    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            await saga.undo_with(release).call(reserve, "a")
            raise LookupError("by itself")

        return (await attempted(ctx, body))[1]

    assert replayed(code) == ["LookupError"] * 3
    assert seen == ["reserve a", "release ref-a"]


def test_what_is_undone_is_a_recorded_step_with_a_key_of_its_own() -> None:
    keys: list[str] = []

    @tool
    async def noted(context: ToolContext, ref: str) -> None:
        keys.append(f"{context.idempotency_key} for {ref}")

    async def code(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(noted).call(reserve, "a")
            raise LookupError

    wf = Workflow(code, "wf")

    async def scenario() -> list[dict[str, Any]]:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            return await events(rt, "r", "step-started")

    first, undo = play(scenario)

    assert (first.get("undoes"), undo["step"], undo["undoes"]) == (None, "reserve#1#undo", "reserve#1")
    assert keys == ["r:reserve#1#undo for ref-a"]


def test_a_function_can_be_a_step_and_undo_one() -> None:
    async def book(name: str) -> str:
        seen.append(f"book {name}")
        return name

    async def unbook(name: str) -> None:
        seen.append(f"unbook {name}")

    async def code(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(unbook).step(book, "a")
            await saga.undo_with(unbook, "x").step(book, "b")
            raise LookupError

    played(code)

    assert seen == ["book a", "book b", "unbook x", "unbook a"]


def test_several_calls_can_be_undone_as_one() -> None:
    async def both(ctx: Context) -> str:
        return "+".join(await ctx.gather(ctx.call(reserve, "a"), ctx.call(reserve, "b")))

    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            await saga.undo_with(release).around(both(ctx))
            await ctx.call(reserve, "bad")

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [("around#1",)] * 3
    assert seen == ["reserve a", "reserve b", "release ref-a+ref-b"]


@pytest.mark.parametrize("unsure", [False, True])
def test_a_step_that_failed_is_undone_only_where_it_may_have_happened(unsure: bool) -> None:
    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            if unsure:
                await saga.undo_with(release, unsure=True).call(reserve, "bad")
            else:
                await saga.undo_with(release).call(reserve, "bad")

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [("reserve#1",) if unsure else ()] * 3
    assert seen == (["release None"] if unsure else [])


@pytest.mark.parametrize("unsure", [False, True])
def test_a_step_that_ran_out_of_time_is_undone_only_where_it_may_have_happened(unsure: bool) -> None:
    async def code(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(release, "a", unsure=unsure).with_options(timeout=5).call(pause, "a")

    played(code)

    assert seen == (["pause a", "release a"] if unsure else ["pause a"])


def test_a_step_that_its_circuit_refused_did_not_happen() -> None:
    @tool(failure_threshold=1)
    async def fragile() -> None:
        raise OSError("down")

    async def code(ctx: Context) -> Any:
        with pytest.raises(StepFailedError, match="down"):
            await ctx.call(fragile)

        async def body(saga: Saga) -> None:
            await saga.undo_with(release, "x", unsure=True).call(fragile)

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [()] * 3
    assert seen == []


def test_a_compensation_that_does_not_fit_is_refused_before_the_step() -> None:
    @tool
    async def with_retry(retry: str) -> None: ...

    async def code(ctx: Context) -> None:
        async with ctx.saga() as saga:
            with pytest.raises(InvalidArgumentsError):
                saga.undo_with(clear, "one too many")  # type: ignore[call-overload] # on purpose
            with pytest.raises(UsageError, match="wrap the tool"):
                saga.undo_with(with_retry)
            with pytest.raises(UsageError, match="async"):
                saga.undo_with(lambda ref: ref)  # type: ignore[misc] # on purpose

    assert played(code).status == "completed"


def test_a_saga_is_used_in_its_block_only() -> None:
    async def code(ctx: Context) -> None:
        saga = ctx.saga()
        with pytest.raises(UsageError, match="not open"):
            await saga.call(reserve, "a")
        with pytest.raises(UsageError, match=r"pivot\(\) is called once"):
            saga.pivot()
        async with saga:
            with pytest.raises(UsageError, match="entered once"):
                await saga.__aenter__()
            undo = saga.undo_with(release)
            saga.pivot()
        with pytest.raises(UsageError, match="not open"):
            await undo.call(reserve, "a")

    assert played(code).error == ""
    assert seen == []


def test_a_saga_within_a_saga_leaves_its_compensations_to_the_outer_one() -> None:
    async def code(ctx: Context) -> Any:
        async def body(outer: Saga) -> None:
            await outer.undo_with(release).call(reserve, "a")
            async with ctx.saga() as inner:
                await inner.undo_with(release).call(reserve, "b")
            await outer.undo_with(release).call(reserve, "c")
            raise LookupError

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [("reserve#3", "reserve#2", "reserve#1")] * 3
    assert seen[3:] == ["release ref-c", "release ref-b", "release ref-a"]


def test_a_saga_within_a_saga_that_fails_undoes_its_own_and_the_outer_one_goes_on() -> None:
    async def code(ctx: Context) -> Any:
        async def body(outer: Saga) -> None:
            await outer.undo_with(release).call(reserve, "a")
            inner = ctx.saga()
            with pytest.raises(StepFailedError):
                await failing(inner)
            await outer.undo_with(release).call(reserve, "c")

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [()] * 3
    assert seen == ["reserve a", "reserve b", "release ref-b", "reserve c"]


def test_what_an_inner_saga_did_before_its_pivot_stays_when_the_outer_one_fails() -> None:
    async def code(ctx: Context) -> Any:
        async def body(outer: Saga) -> None:
            await outer.undo_with(release).call(reserve, "a")
            async with ctx.saga() as inner:
                await inner.undo_with(release).call(reserve, "b")
                inner.pivot()
                await inner.undo_with(release).call(reserve, "c")
            raise LookupError

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [("reserve#1",)] * 3


def test_steps_of_branches_are_undone_in_the_reverse_of_their_numbers() -> None:
    """Which of them ended first is a matter of time; the order of the code is not."""

    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            async def one(name: str) -> str:
                if name == "b":
                    await ctx.sleep(30)
                await saga.undo_with(release).call(reserve, name)
                return str(await saga.undo_with(release).call(reserve, name * 2))

            await saga.undo_with(release).call(reserve, "first")
            await ctx.map(one, ["a", "b", "c"])
            await saga.undo_with(release).call(reserve, "last")
            raise LookupError

        return (await attempted(ctx, body))[0].compensated

    live, *again = replayed(code)

    assert live == (
        "reserve#2",
        "map#1.2/reserve#2", "map#1.2/reserve#1",
        "map#1.1/reserve#2", "map#1.1/reserve#1",
        "map#1.0/reserve#2", "map#1.0/reserve#1",
        "reserve#1",
    )  # fmt: skip
    assert again == [live, live]


def test_a_saga_in_each_branch_undoes_its_own_when_another_branch_fails() -> None:
    async def code(ctx: Context) -> str:
        async def one(name: str) -> None:
            async with ctx.saga() as saga:
                await saga.undo_with(release).call(reserve, name)
                await ctx.sleep(20 if name == "a" else 40)
                if name == "a":
                    await saga.call(reserve, "bad")
                await saga.undo_with(release).call(reserve, name * 2)

        try:
            await ctx.map(one, ["a", "b", "c"])
        except StepFailedError as error:
            return error.step
        return ""

    assert replayed(code) == ["map#1.0/reserve#2"] * 3
    assert sorted(seen) == sorted([f"{what}{name}" for what in ("reserve ", "release ref-") for name in "abc"])


def test_a_compensation_falls_back_where_its_tool_does() -> None:
    @tool(failure_threshold=1000, retry=Retry(attempts=2, backoff=timedelta(seconds=1)), fallback=release)
    async def broken(ref: str | None) -> None:
        seen.append(f"broken {ref}")
        raise OSError("down")

    async def code(ctx: Context) -> Any:
        async def body(saga: Saga) -> None:
            await saga.undo_with(broken).call(reserve, "a")
            raise LookupError

        return (await attempted(ctx, body))[0].compensated

    assert replayed(code) == [("reserve#1",)] * 3
    assert seen == ["reserve a", "broken ref-a", "broken ref-a", "release ref-a"]


def test_arguments_of_a_compensation_can_be_made_from_the_result() -> None:
    async def code(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_by(release, lambda ref: {"ref": f"[{ref}]"}).call(reserve, "a")
            raise LookupError

    played(code)

    assert seen == ["reserve a", "release [ref-a]"]
