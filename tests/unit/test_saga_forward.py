"""Past a saga's pivot there is only forward: a child run that fails waits for a person there, as a step does."""

import json
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, Recorded, RetryPolicy, RunHandle, RunView, Settings, UnencodableError, tool, workflow
from perdure.actors.workflows.defined.model import Step, WorkflowDefinition
from perdure.testing import MemoryDisk
from tests.support.cli import Here
from tests.support.defined import Troupe
from tests.support.lives import MarkedDisk
from tests.support.runs import DAY, HOUR, MINUTE, Box, box_with, disk_until, events, facts, play

seen: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()
    broken.clear()


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(tmp_path, capsys)


@tool(failure_threshold=1000)
async def deliver(what: str) -> str:
    seen.append(what)
    if what in broken:
        raise ValueError(f"no {what}")
    return what


@workflow
async def delivery(ctx: Context, what: str) -> str:
    return await ctx.call(deliver, what)


@workflow
async def order(ctx: Context, timeout: float = 0) -> str:
    async with ctx.saga() as saga:
        await saga.undo_with(deliver, "undone").call(deliver, "paid")
        saga.pivot()
        found = await ctx.run(delivery, "goods")
        await saga.call(deliver, "told")
    return found


async def begin(box: Box, wf: Any = order, **options: Any) -> RunView:
    rt = await box.open()
    await rt.with_options(id="r", **options).start(wf)
    await box.clock.advance(600)
    return await rt.run("r").status()


async def settle(box: Box, how: str) -> None:
    run: RunHandle[Any] = box.runtime.run("r")
    match how:
        case "done":
            await run.settle_done("delivery#1", "by hand")
        case "not done":
            broken.clear()
            await run.settle_not_done("delivery#1")
        case _:
            await run.settle_failed("delivery#1", "no money")


ENDS = {"done": ("completed", '"by hand"'), "not done": ("completed", '"goods"'), "failed": ("failed", "null")}


@pytest.mark.parametrize("way", ["in memory", "parked", "after a crash"])
@pytest.mark.parametrize("how", list(ENDS))
def test_a_child_that_fails_past_the_pivot_waits_for_a_person(how: str, way: str) -> None:
    broken.add("goods")
    settings = Settings(park_after=DAY if way == "in memory" else MINUTE)

    async def scenario() -> RunView:
        async with box_with(order, delivery, settings=settings) as box:
            view = await begin(box)
            assert (view.waits_on, view.in_doubt) == ("attention", ("delivery#1",))
            [doubt] = await events(box.runtime, "r", "step-in-doubt")
            assert (doubt["stuck"], doubt["child"]) == ("pivot", "delivery")
            assert "no goods" in doubt["reason"]
            assert doubt["reason"].startswith("failed past the pivot: ")
            if way == "after a crash":
                await box.crash_and_reopen()
                await box.clock.settle()
            await settle(box, how)
            await box.clock.advance(600)
            return await box.runtime.run("r").status()

    view = play(scenario)

    assert (view.status, view.result) == ENDS[how]
    assert seen == ["paid", "goods", *([] if how == "failed" else ["goods"] * (how == "not done") + ["told"])]
    assert view.in_doubt == ()


@pytest.mark.parametrize("how", list(ENDS))
def test_a_crash_after_any_event_of_it_changes_nothing(how: str) -> None:
    async def life(disk: MemoryDisk, *, is_new: bool = False) -> tuple[Any, list[Recorded]]:
        async with box_with(order, delivery, on=disk) as box:
            rt = await box.open()
            if is_new:
                await rt.with_options(id="r").start(order)
            await box.clock.advance(600)
            run: RunHandle[Any] = rt.run("r")
            if (await run.status()).in_doubt:
                await settle(box, how)
            await box.clock.advance(600)
            view = await run.status()
            return (view.status, view.result, view.error, view.steps_done, view.in_doubt), await run.history()

    async def scenario() -> None:
        whole = MarkedDisk()
        broken.add("goods")
        expected, history = await life(whole, is_new=True)
        assert expected[0] == ENDS[how][0]
        # Once a person has had it started anew, the child goes well.
        anew = next((e.position for e in history if e.type == "step-not-done"), history[-1].position)
        borders = [b for b in sorted(whole.borders) if history[0].position <= b < history[-1].position]
        assert len(borders) > 8
        for border in borders:
            broken.clear()
            broken.update({"goods"} if border < anew else ())
            found, _ = await life(disk_until(whole, border))
            assert found == expected, border

    play(scenario)


def test_the_child_of_a_second_attempt_has_an_id_of_its_own_and_may_fail_again() -> None:
    broken.add("goods")

    async def scenario() -> tuple[list[str], RunView]:
        async with box_with(order, delivery) as box:
            await begin(box)
            await box.runtime.run("r").settle_not_done("delivery#1")
            await box.clock.advance(600)
            assert (await box.runtime.run("r").status()).in_doubt == ("delivery#1",)
            await settle(box, "not done")
            await box.clock.advance(600)
            started = await events(box.runtime, "r", "child-started")
            return [one["run"] for one in started], await box.runtime.run("r").status()

    runs, view = play(scenario)

    assert runs == ["r/delivery#1", "r/delivery#1~r2", "r/delivery#1~r3"]
    assert (view.status, view.steps_done) == ("completed", 3)


def test_before_the_pivot_a_child_that_fails_is_raised_and_the_saga_undone() -> None:
    broken.add("goods")

    @workflow
    async def early(ctx: Context) -> None:
        async with ctx.saga() as saga:
            await saga.undo_with(deliver, "undone").call(deliver, "paid")
            await ctx.run(delivery, "goods")
            saga.pivot()

    async def scenario() -> RunView:
        async with box_with(early, delivery) as box:
            return await begin(box, early)

    assert play(scenario).status == "failed"
    assert seen == ["paid", "goods", "undone"]


def test_a_result_that_does_not_fit_the_child_is_refused_and_the_run_waits_on() -> None:
    broken.add("goods")

    async def scenario() -> RunView:
        async with box_with(order, delivery) as box:
            await begin(box)
            with pytest.raises(UnencodableError):
                await box.runtime.run("r").settle_done("delivery#1", {"no": "text"})
            return await box.runtime.run("r").status()

    assert play(scenario).in_doubt == ("delivery#1",)


def test_the_deadline_of_the_run_does_not_reach_a_child_past_the_pivot() -> None:
    @workflow
    async def slow(ctx: Context, what: str) -> str:
        await ctx.sleep(3600)
        return await ctx.call(deliver, what)

    @workflow
    async def late(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.pivot()
            await ctx.run(slow, "goods")

    async def scenario() -> list[str]:
        async with box_with(late, slow) as box:
            await begin(box, late, deadline=MINUTE)
            await box.clock.advance(HOUR.total_seconds())
            return (await facts(box.runtime, "r"))[-1:]

    assert play(scenario) == ["run-completed"]
    assert seen == ["goods"]


def test_a_child_that_stands_still_beside_a_branch_that_raises_is_given_up_and_started_anew_by_a_retry() -> None:
    broken.update(("goods", "code"))

    @workflow
    async def both(ctx: Context) -> None:
        async def fail() -> None:
            await ctx.sleep(60)
            if "code" in broken:
                raise LookupError("a bug")

        async with ctx.saga() as saga:
            saga.pivot()
            await ctx.gather(ctx.run(delivery, "goods"), fail())

    async def scenario() -> RunView:
        async with box_with(both, delivery) as box:
            failed = await begin(box, both)
            assert (failed.status, failed.in_doubt) == ("failed", ())
            broken.clear()
            await box.runtime.run("r").retry()
            await box.clock.advance(600)
            return await box.runtime.run("r").status()

    assert play(scenario).status == "completed"
    assert seen == ["goods", "goods"]


def test_a_fork_from_after_the_failure_starts_the_child_anew() -> None:
    broken.add("goods")

    async def scenario() -> RunView:
        async with box_with(order, delivery) as box:
            await begin(box)
            broken.clear()
            fork: RunHandle[Any] = await box.runtime.run("r").fork("delivery#1", id="f")
            await box.clock.advance(600)
            return await fork.status()

    assert play(scenario).status == "completed"
    assert seen == ["paid", "goods", "goods", "told"]


def test_in_a_definition_a_fallback_agent_is_asked_before_a_person() -> None:
    definition = WorkflowDefinition(
        id="w",
        pattern="saga",
        steps=(
            Step(id="a", agent="good", pivot=True),
            Step(id="b", agent="bad", retry=RetryPolicy(max_retries=0, fallback_agent="good")),
            Step(id="c", workflow="child", retry=RetryPolicy(max_retries=0, fallback_agent="good")),
            Step(id="d", workflow="child"),
        ),
    )
    child = WorkflowDefinition(id="child", steps=(Step(id="x", agent="bad"),))

    async def scenario() -> tuple[RunView, list[str]]:
        troupe = Troupe()
        troupe.agent("good", {"v": 1})
        troupe.agent("bad", errors=(ValueError("no"),) * 9)
        async with troupe.box(definition, child) as box:
            await (await box.open()).with_options(id="r").start("w", {})
            await box.clock.advance(600)
            return await box.runtime.run("r").status(), troupe.called()

    view, called = play(scenario)

    assert called == ["good", "bad", "good", "bad", "good", "bad"]
    assert view.in_doubt == ("d",)


def test_how_many_steps_are_done_is_the_same_for_the_command_line(here: Here) -> None:
    broken.add("goods")

    async def scenario() -> None:
        async with box_with(order, delivery, on=here.db) as box:
            await begin(box)
            await settle(box, "not done")
            await box.clock.advance(600)
            assert (await box.runtime.run("r").status()).steps_done == 3

    play(scenario)

    rows = [json.loads(line) for line in here("ps", "--db", here.db, "--all", "--json").out.splitlines()]
    [row] = [one for one in rows if one["run"] == "r"]
    assert (row["status"], row["steps_done"], row["in_flight"]) == ("completed", 3, 0)


@pytest.mark.parametrize("value", [None, "no number"])
def test_a_wait_past_the_pivot_that_fails_is_raised_and_a_retry_waits_once_more(value: str | None) -> None:
    @workflow
    async def waiting(ctx: Context) -> int:
        async with ctx.saga() as saga:
            await saga.undo_with(deliver, "undone").call(deliver, "paid")
            saga.pivot()
            return await ctx.signal("go", of=int, timeout=HOUR)

    async def scenario() -> tuple[RunView, RunView]:
        async with box_with(waiting) as box:
            await begin(box, waiting)
            run: RunHandle[Any] = box.runtime.run("r")
            if value is not None:
                await run.signal("go", value)
            await box.clock.advance(HOUR.total_seconds())
            failed = await run.status()
            await run.retry()
            await run.signal("go", 7)
            await box.clock.advance(1)
            return failed, await run.status()

    failed, done = play(scenario)

    assert (failed.status, failed.error_type, failed.in_doubt) == ("failed", "StepFailedError", ())
    assert (done.status, done.result, seen) == ("completed", "7", ["paid"])
