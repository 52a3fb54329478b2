"""Sagas that need a person, are cancelled, run out of time or leave memory: all is undone, and nothing twice."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, NotInDoubtError, Retry, RunView, Settings, ToolContext, tool, workflow
from tests.support.runs import DAY, HOUR, Box, box_with, events, facts, play

seen: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()
    broken.clear()


@tool(failure_threshold=1000)
async def reserve(name: str) -> str:
    seen.append(f"reserve {name}")
    if name in broken:
        raise ValueError(f"no {name}")
    return name


@tool(failure_threshold=1000)
async def release(context: ToolContext, name: str) -> str:
    seen.append(f"release {name}")
    assert context.deadline is None
    if f"release {name}" in broken:
        raise OSError("out of order")
    return f"{name} is free"


@tool(failure_threshold=1000)
async def endless(name: str) -> str:
    seen.append(f"endless {name}")
    await asyncio.get_running_loop().create_future()
    return name


@workflow
async def booking(ctx: Context, sleep: float = 0) -> str:
    async with ctx.saga() as saga:
        for name in "abc":
            await saga.undo_with(release).call(reserve, name)
        await ctx.sleep(sleep)
        await saga.call(reserve, "last")
    return "booked"


@workflow
async def paying(ctx: Context) -> str:
    async with ctx.saga() as saga:
        await saga.undo_with(release).call(reserve, "a")
        saga.pivot()
        paid = await ctx.call(reserve, "pay")
        await ctx.sleep(30)
        await saga.undo_with(release).call(reserve, "b")
    return paid


async def begin(box: Box, wf: Any = booking, *args: Any, advance: float = 1800, **options: Any) -> RunView:
    rt = await box.open()
    await rt.with_options(id="r", **options).start(wf, *args)
    await box.clock.advance(advance)
    return await rt.run("r").status()


async def after(box: Box, seconds: float = 1800) -> RunView:
    await box.clock.advance(seconds)
    return await box.runtime.run("r").status()


# A compensation that fails for good


@pytest.mark.row("A2-33")
def test_a_compensation_is_tried_again_then_parked_and_the_others_still_run() -> None:
    broken.update({"last", "release c", "release b"})

    async def scenario() -> None:
        async with box_with(booking) as box:
            view = await begin(box)
            assert (view.status, view.waits_on) == ("waiting", "attention")
            assert view.in_doubt == ("reserve#3#undo", "reserve#2#undo")
            doubts = await events(box.runtime, "r", "step-in-doubt")
            assert {(d["stuck"], d["reason"]) for d in doubts} == {
                ("compensation", "compensation failed: OSError: out of order")
            }
            assert (await box.runtime.statistics()).runs_in_memory == 0

    play(scenario)

    assert seen[4:] == ["release c"] * 5 + ["release b"] * 5 + ["release a"]


@pytest.mark.row("A2-33")
def test_a_compensation_that_a_person_made_good_counts_as_undone() -> None:
    broken.update({"last", "release b"})

    async def scenario() -> list[dict[str, Any]]:
        async with box_with(booking) as box:
            await begin(box)
            await box.runtime.run("r").settle_done("reserve#2#undo")  # nothing need fit what release returns
            view = await after(box)
            assert (view.status, view.error_type) == ("failed", "StepFailedError")
            return await events(box.runtime, "r", "saga-compensated")

    [ended] = play(scenario)

    assert ended == {"step": "saga#1", "undone": ["reserve#3", "reserve#2", "reserve#1"], "given_up": []}
    assert seen.count("release b") == 5


@pytest.mark.row("A2-33")
def test_a_compensation_is_tried_again_as_often_as_before_when_a_person_says_so() -> None:
    broken.update({"last", "release b"})

    async def scenario() -> None:
        async with box_with(booking) as box:
            await begin(box)
            await box.runtime.run("r").settle_not_done("reserve#2#undo")
            view = await after(box)
            assert view.in_doubt == ("reserve#2#undo",)
            assert seen.count("release b") == 10
            broken.clear()
            await box.runtime.run("r").settle_not_done("reserve#2#undo")
            view = await after(box)
            assert (view.status, view.error_type) == ("failed", "StepFailedError")

    play(scenario)

    assert seen.count("release b") == 11
    assert seen.count("release c") == seen.count("release a") == 1


@pytest.mark.row("A2-33")
def test_a_compensation_that_a_person_gives_up_is_named_by_the_runs_failure() -> None:
    broken.update({"last", "release b"})

    async def scenario() -> tuple[RunView, list[dict[str, Any]]]:
        async with box_with(booking) as box:
            await begin(box)
            await box.runtime.run("r").settle_failed("reserve#2#undo", "it was sold")
            return await after(box), await events(box.runtime, "r", "saga-compensated")

    view, [ended] = play(scenario)

    assert (view.status, view.error_type) == ("failed", "CompensationFailedError")
    assert view.error == (
        "saga r:saga#1 was not undone: reserve#2 given up, after: step reserve#4 failed: ValueError: no last"
    )
    assert (ended["undone"], ended["given_up"]) == (["reserve#3", "reserve#1"], ["reserve#2"])


@pytest.mark.parametrize("crash", [False, True], ids=["live", "after a crash"])
def test_compensations_are_settled_in_any_order(crash: bool) -> None:
    broken.update({"last", "release c", "release a"})

    async def scenario() -> RunView:
        async with box_with(booking) as box:
            await begin(box)
            await box.runtime.run("r").settle_done("reserve#1#undo")
            view = await after(box)
            assert (view.status, view.in_doubt) == ("waiting", ("reserve#3#undo",))
            if crash:
                await box.crash_and_reopen()
            await box.runtime.run("r").settle_done("reserve#3#undo")
            return await after(box)

    assert play(scenario).error_type == "StepFailedError"
    assert seen.count("release b") == 1


def test_a_verdict_that_comes_while_other_compensations_run_is_taken() -> None:
    broken.update({"last", "release c"})
    gate: list[asyncio.Event] = []

    @tool
    async def slow(name: str) -> None:
        gate.append(asyncio.Event())
        await gate[0].wait()

    @workflow
    async def wf(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(slow).call(reserve, "a")
            await saga.undo_with(release).call(reserve, "c")
            await saga.call(reserve, "last")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            view = await begin(box, wf)
            assert view.in_doubt == ("reserve#2#undo",)
            await box.runtime.run("r").settle_done("reserve#2#undo")
            await box.clock.settle()
            gate[0].set()
            return await after(box)

    assert play(scenario).error_type == "StepFailedError"


def test_an_irreversible_compensation_in_doubt_keeps_no_other_waiting() -> None:
    @tool(effect="irreversible", timeout=5)
    async def refund(name: str) -> None:
        seen.append(f"refund {name}")
        await asyncio.get_running_loop().create_future()

    @workflow
    async def wf(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(release).call(reserve, "a")
            await saga.undo_with(refund).call(reserve, "b")
            raise LookupError("enough")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            view = await begin(box, wf)
            assert (view.status, view.in_doubt) == ("waiting", ("reserve#2#undo",))
            await box.runtime.run("r").settle_done("reserve#2#undo")
            return await after(box)

    assert play(scenario).error == "enough"
    assert seen == ["reserve a", "reserve b", "refund b", "release a"]


def test_a_compensation_that_does_not_fit_its_tool_needs_a_person_too() -> None:
    @tool
    async def counts(number: int) -> None: ...

    @workflow
    async def wf(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(release).call(reserve, "a")
            await saga.undo_with(counts).call(reserve, "b")  # type: ignore[arg-type] # on purpose
            raise LookupError("enough")

    async def scenario() -> list[dict[str, Any]]:
        async with box_with(wf) as box:
            assert (await begin(box, wf)).in_doubt == ("reserve#2#undo",)
            return await events(box.runtime, "r", "step-in-doubt")

    [doubt] = play(scenario)

    assert doubt["reason"].startswith("compensation failed: InvalidArgumentsError")
    assert seen[-1] == "release a"


# The pivot


def test_past_the_pivot_a_step_that_fails_for_good_waits_for_a_person() -> None:
    broken.add("b")

    async def scenario() -> RunView:
        async with box_with(paying) as box:
            view = await begin(box, paying)
            assert (view.status, view.waits_on, view.in_doubt) == ("waiting", "attention", ("reserve#3",))
            [doubt] = await events(box.runtime, "r", "step-in-doubt")
            assert (doubt["stuck"], doubt["reason"]) == ("pivot", "failed past the pivot: ValueError: no b")
            broken.clear()
            await box.runtime.run("r").settle_not_done("reserve#3")
            return await after(box)

    view = play(scenario)

    assert (view.status, view.result) == ("completed", '"pay"')
    assert seen == ["reserve a", "reserve pay", "reserve b", "reserve b"]


def test_past_the_pivot_a_person_gives_the_result_of_a_step_by_hand() -> None:
    broken.add("pay")

    async def scenario() -> RunView:
        async with box_with(paying) as box:
            await begin(box, paying)
            await box.runtime.run("r").settle_done("reserve#2", "by hand")
            return await after(box)

    assert play(scenario).result == '"by hand"'


def test_past_the_pivot_a_step_that_is_given_up_fails_the_run_and_nothing_is_undone() -> None:
    broken.add("pay")

    async def scenario() -> RunView:
        async with box_with(paying) as box:
            await begin(box, paying)
            await box.runtime.run("r").settle_failed("reserve#2", "no money")
            return await after(box)

    view = play(scenario)

    assert (view.status, view.error) == ("failed", "step reserve#2 failed: SettledAsFailed: no money")
    assert seen == ["reserve a", "reserve pay"]


def test_past_the_pivot_a_fallback_comes_before_a_person() -> None:
    broken.add("pay")

    @tool(failure_threshold=1000)
    async def borrow(name: str) -> str:
        return f"borrowed to {name}"

    @workflow
    async def wf(ctx: Context) -> str:
        async with ctx.saga() as saga:
            saga.pivot()
            return await ctx.with_options(fallback=borrow).call(reserve, "pay")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            return await begin(box, wf)

    assert play(scenario).result == '"borrowed to pay"'


def test_after_the_block_a_failure_is_raised_again() -> None:
    broken.add("later")

    @workflow
    async def wf(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.pivot()
            await ctx.gather(ctx.call(reserve, "a"), ctx.call(reserve, "b"))
        await ctx.call(reserve, "later")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            return await begin(box, wf)

    assert play(scenario).error_type == "StepFailedError"


def test_in_branches_past_the_pivot_failures_wait_for_a_person_too() -> None:
    broken.update("ab")

    @workflow
    async def wf(ctx: Context) -> list[str]:
        async with ctx.saga() as saga:
            saga.pivot()
            return await ctx.map(reserve, ["a", "b"])

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            view = await begin(box, wf)
            assert (view.status, len(view.in_doubt)) == ("waiting", 2)
            for step in view.in_doubt:
                await box.runtime.run("r").settle_done(step, "x")
            return await after(box)

    assert play(scenario).result == '["x","x"]'


# Cancel


@pytest.mark.parametrize("crash", [False, True], ids=["live", "after a crash"])
@pytest.mark.parametrize("sleep", [30, 3600], ids=["in memory", "parked"])
def test_a_cancel_undoes_what_was_done(sleep: float, crash: bool) -> None:
    async def scenario() -> RunView:
        async with box_with(booking) as box:
            await begin(box, booking, sleep, advance=1)
            if crash:
                await box.crash_and_reopen()
            await box.runtime.run("r").cancel("enough")
            return await after(box)

    view = play(scenario)

    assert (view.status, view.error) == ("cancelled", "enough")
    assert seen == ["reserve a", "reserve b", "reserve c", "release c", "release b", "release a"]


@pytest.mark.parametrize("unsure", [False, True])
def test_a_cancel_undoes_a_step_in_flight_only_where_it_may_have_happened(unsure: bool) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(release, "a", unsure=unsure).call(endless, "a")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            await begin(box, wf, advance=1)
            await box.runtime.run("r").cancel("enough")
            return await after(box)

    assert play(scenario).status == "cancelled"
    assert seen == (["endless a", "release a"] if unsure else ["endless a"])


def test_a_cancel_before_the_first_step_undoes_nothing() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.sleep(30)
        async with ctx.saga() as saga:
            await saga.undo_with(release, "a", unsure=True).call(reserve, "a")

    async def scenario() -> list[str]:
        async with box_with(wf) as box:
            await begin(box, wf, advance=1)
            await box.runtime.run("r").cancel("enough")
            assert (await after(box)).status == "cancelled"
            return await facts(box.runtime, "r")

    assert "saga-failed" not in play(scenario)
    assert seen == []


@pytest.mark.parametrize("crash", [False, True], ids=["live", "after a crash"])
def test_a_cancel_during_the_compensations_waits_for_their_end(crash: bool) -> None:
    broken.update({"last", "release b"})

    async def scenario() -> tuple[RunView, list[str]]:
        async with box_with(booking) as box:
            await begin(box, advance=0)
            await box.runtime.run("r").cancel("enough")
            if crash:
                await box.crash_and_reopen()
            view = await after(box)
            assert (view.status, view.in_doubt) == ("waiting", ("reserve#2#undo",))
            assert (await box.runtime.statistics()).runs_in_memory == 0
            await box.runtime.run("r").settle_done("reserve#2#undo")
            return await after(box), await facts(box.runtime, "r")

    view, types = play(scenario)

    assert (view.status, view.error_type) == ("failed", "StepFailedError")
    assert "step-cancelled" not in types
    assert seen[-1] == "release a"


def test_a_cancel_of_a_run_whose_compensation_waits_for_a_person_waits_too() -> None:
    broken.update({"last", "release b"})

    async def scenario() -> RunView:
        async with box_with(booking) as box:
            await begin(box)
            await box.runtime.run("r").cancel("enough")
            view = await after(box)
            assert (view.status, view.in_doubt) == ("waiting", ("reserve#2#undo",))
            await box.runtime.run("r").settle_done("reserve#2#undo")
            return await after(box)

    assert play(scenario).status == "failed"
    assert seen.count("release c") == seen.count("release a") == 1


def test_a_cancelled_saga_whose_compensation_is_given_up_fails() -> None:
    broken.add("release b")

    async def scenario() -> RunView:
        async with box_with(booking) as box:
            await begin(box, booking, 3600.0, advance=1)
            await box.runtime.run("r").cancel("enough")
            await after(box)
            await box.runtime.run("r").settle_failed("reserve#2#undo", "sold")
            return await after(box)

    view = play(scenario)

    assert (view.status, view.error_type) == ("failed", "CompensationFailedError")


def test_a_cancel_past_the_pivot_takes_effect_after_the_block() -> None:
    @workflow
    async def wf(ctx: Context) -> str:
        async with ctx.saga() as saga:
            await saga.undo_with(release).call(reserve, "a")
            saga.pivot()
            await ctx.sleep(30)
            await saga.call(reserve, "b")
        await ctx.call(reserve, "after")
        return "done"

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            await begin(box, wf, advance=1)
            await box.runtime.run("r").cancel("enough")
            await box.crash_and_reopen()
            return await after(box)

    assert play(scenario).status == "cancelled"
    assert seen == ["reserve a", "reserve b"]


def test_a_cancel_after_the_saga_undoes_nothing() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(release).call(reserve, "a")
        await ctx.sleep(HOUR)

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            await begin(box, wf, advance=1)
            await box.runtime.run("r").cancel("enough")
            return await after(box)

    assert play(scenario).status == "cancelled"
    assert seen == ["reserve a"]


# Time


@pytest.mark.parametrize("crash", [False, True], ids=["live", "after a crash"])
def test_the_deadline_undoes_what_was_done_however_long_that_takes(crash: bool) -> None:
    broken.add("release b")

    async def scenario() -> RunView:
        async with box_with(booking) as box:
            await begin(box, booking, 3600.0, advance=1, deadline=timedelta(minutes=5))
            if crash:
                await box.crash_and_reopen()
            view = await after(box)
            assert (view.status, view.in_doubt) == ("waiting", ("reserve#2#undo",))
            assert (await box.runtime.statistics()).runs_in_memory == 0
            await box.runtime.run("r").settle_done("reserve#2#undo")
            return await after(box)

    view = play(scenario)

    assert (view.status, view.error_type) == ("failed", "DeadlineExceededError")
    assert [s for s in seen if s != "release b"][3:] == ["release c", "release a"]


def test_leaving_memory_in_the_block_undoes_nothing() -> None:
    async def scenario() -> RunView:
        async with box_with(booking) as box:
            view = await begin(box, booking, DAY.total_seconds())
            assert (view.status, len(seen)) == ("waiting", 3)
            return await after(box, 2 * DAY.total_seconds())

    assert play(scenario).result == '"booked"'
    assert seen == ["reserve a", "reserve b", "reserve c", "reserve last"]


def test_a_runtime_that_closes_in_the_block_undoes_nothing() -> None:
    async def scenario() -> RunView:
        async with box_with(booking) as box:
            await begin(box, booking, 30.0, advance=1)
            await box.close_and_reopen()
            return await after(box)

    assert play(scenario).result == '"booked"'
    assert seen == ["reserve a", "reserve b", "reserve c", "reserve last"]


@pytest.mark.parametrize("branches", [False, True], ids=["in the root", "in a branch"])
def test_a_runtime_that_closes_during_a_compensation_does_not_wait_for_it(branches: bool) -> None:
    lives: list[int] = []

    @tool(failure_threshold=1000)
    async def slow(context: ToolContext, name: str) -> None:
        lives.append(1)
        if len(lives) == 1:
            await asyncio.get_running_loop().create_future()
        seen.append(context.idempotency_key)

    async def saga_of(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(slow).call(reserve, "a")
            raise LookupError("enough")

    @workflow
    async def wf(ctx: Context) -> None:
        if branches:
            await ctx.gather(saga_of(ctx))
        else:
            await saga_of(ctx)

    async def scenario() -> RunView:
        async with box_with(wf, settings=Settings(drain=timedelta(0))) as box:
            await begin(box, wf, advance=1)
            await box.close_and_reopen()
            return await after(box)

    view = play(scenario)

    assert view.error == "enough"
    assert seen == ["reserve a", "r:gather#1.0/reserve#1#undo" if branches else "r:reserve#1#undo"]


def test_a_backoff_of_a_compensation_survives_a_restart() -> None:
    broken.update({"last", "release c"})

    @workflow
    async def wf(ctx: Context) -> None:
        patient = Retry(attempts=2, backoff=timedelta(hours=5), cap=timedelta(hours=5), jitter=False)
        async with ctx.saga() as saga:
            await saga.undo_with(release, retry=patient).call(reserve, "c")
            await saga.call(reserve, "last")

    async def scenario() -> RunView:
        async with box_with(wf) as box:
            await begin(box, wf)
            broken.clear()
            await box.crash_and_reopen()
            await after(box, 4 * 3600)
            assert seen.count("release c") == 1
            return await after(box, 3600)

    assert play(scenario).status == "failed"
    assert seen.count("release c") == 2


def test_a_step_that_is_no_longer_stuck_cannot_be_settled() -> None:
    broken.update({"last", "release b"})

    async def scenario() -> None:
        async with box_with(booking) as box:
            await begin(box)
            await box.runtime.run("r").settle_done("reserve#2#undo")
            with pytest.raises(NotInDoubtError):
                await box.runtime.run("r").settle_done("reserve#2#undo")

    play(scenario)
