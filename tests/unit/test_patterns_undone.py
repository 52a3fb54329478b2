"""Sagas as definitions: what is undone, by whom, with what, in which order, and how it is told."""

from typing import Any

import pytest

from perdure import WorkflowFailedError
from perdure.actors.workflows.defined.model import Compensation, RetryPolicy, Step
from perdure.runtime.sagas import SagaClosedError
from perdure.testing import TestClock
from tests.support.defined import Troupe, defined, execute, failing
from tests.support.runs import events, play


def step(name: str, *, undo: Compensation | None = Compensation(), **fields: Any) -> Step:  # noqa: B008 - frozen
    return Step(id=name, agent=name, action="do", compensation=undo, **fields)


def troupe_of(*names: str, **errors: Any) -> Troupe:
    troupe = Troupe()
    for name in names:
        failures = tuple([failing(errors[name])] * 9) if name in errors else ()

        def answer(message: Any, name: str = name) -> Any:
            return {"did": name}

        troupe.agent(name, answer, errors=failures)
    return troupe


@pytest.mark.row("A2-29")
def test_a_saga_whose_steps_all_succeed_is_completed() -> None:
    troupe = troupe_of("a", "b", "c")

    async def scenario() -> Any:
        box = troupe.box(defined("saga", step("a"), step("b"), step("c")))
        found = await execute(troupe, await box.open())
        await box.close()
        return found

    result = play(scenario)["result"]
    told = (result["completed"], result["failed"], result["completed_steps"], result["compensated_steps"])
    assert told == (True, False, 3, 0)


@pytest.mark.row("A2-30")
def test_a_saga_that_fails_is_undone_in_reverse_with_what_was_sent_and_answered() -> None:
    troupe = troupe_of("a", "b", "c", c="no stock")

    async def scenario() -> Any:
        box = troupe.box(defined("saga", step("a"), step("b"), step("c", undo=None)))
        error = await execute(troupe, await box.open(), {"order": 7})
        await box.close()
        return error

    error: Any = play(scenario)
    assert type(error) is WorkflowFailedError
    assert (error.status, error.step_id, error.agent) == ("compensated", "c", "c")
    assert troupe.actions() == [("a", "do"), ("b", "do"), ("c", "do"), ("b", "compensate"), ("a", "compensate")]
    undo = troupe.sent[-1][1]
    assert undo.data == {"original_data": {"order": 7}, "step_result": {"did": "a"}}
    assert (undo.sender, undo.metadata) == ("saga_compensator", {"saga_id": error.result["saga_id"]})
    told = {key: error.result[key] for key in ("completed", "failed", "completed_steps", "compensated_steps")}
    assert told == {"completed": False, "failed": True, "completed_steps": 2, "compensated_steps": 2}


@pytest.mark.row("A2-34")
def test_a_step_that_nothing_undoes_is_passed_over_and_not_counted() -> None:
    troupe = troupe_of("a", "b", "c", c="no stock")

    async def scenario() -> Any:
        box = troupe.box(defined("saga", step("a"), step("b", undo=None), step("c", undo=None)))
        error = await execute(troupe, await box.open())
        await box.close()
        return error

    error = play(scenario)
    assert troupe.actions()[3:] == [("a", "compensate")]
    assert error.result["compensated_steps"] == 1


@pytest.mark.row("A2-33")
def test_a_compensation_that_fails_for_good_waits_for_a_person_while_the_others_run() -> None:
    troupe = troupe_of("a", "b", "c", c="no stock", undoer="cannot")
    troupe.agent("undoer", errors=tuple(failing("cannot") for _ in range(9)))
    undo = Compensation(agent="undoer", retry=RetryPolicy(max_retries=1, jitter=False))

    async def scenario() -> tuple[Any, Any, Any, Any]:
        box = troupe.box(defined("saga", step("a"), step("b", undo=undo), step("c", undo=None)))
        rt = await box.open()
        run = await rt.with_options(id="r").start("w", {})
        await box.clock.advance(60)
        view, doubts = await run.status(), await events(rt, "r", "step-in-doubt")
        calls = troupe.actions()[3:]
        await run.settle_failed(view.in_doubt[0], "written off")
        error = await execute(troupe, rt)
        await box.close()
        return view, doubts, calls, error

    view, doubts, calls, error = play(scenario)
    assert calls == [("undoer", "compensate"), ("undoer", "compensate"), ("a", "compensate")]
    assert (view.status, view.waits_on, view.in_doubt) == ("waiting", "attention", ("b#undo",))
    assert "compensation failed" in doubts[0]["reason"]
    assert (error.status, error.result["compensated_steps"]) == ("failed", 1)


def test_past_its_pivot_a_saga_undoes_nothing_and_waits_for_a_person() -> None:
    troupe = troupe_of("a", "b", "c", c="no stock")

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box(defined("saga", step("a"), step("b", undo=None, pivot=True), step("c", undo=None)))
        rt = await box.open()
        run = await rt.with_options(id="r").start("w", {})
        await box.clock.settle()
        view = await run.status()
        await run.settle_done("c", {"success": True, "data": {"by": "hand"}})
        found = await execute(troupe, rt)
        await box.close()
        return view, found

    view, found = play(scenario)
    assert view.in_doubt == ("c",)
    assert found["result"]["completed"] is True
    assert [name for name, action in troupe.actions() if action == "compensate"] == []


def test_a_step_that_may_have_happened_is_undone_where_the_definition_says_so() -> None:
    troupe = troupe_of("a")
    troupe.agent("slow", {}, seconds=5)
    undo = Compensation(agent="a", unsure=True)

    async def scenario() -> Any:
        box = troupe.box(defined("saga", step("a"), step("slow", undo=undo, timeout=1)))
        error = await execute(troupe, await box.open(), seconds=10)
        await box.close()
        return error

    error = play(scenario)
    assert error.error == "Step slow timed out after 1s"
    assert troupe.data("a")[1] == {"original_data": {}, "step_result": None}
    assert error.result["compensated_steps"] == 2


def test_a_saga_whose_time_is_up_is_undone() -> None:
    troupe = troupe_of("a")
    troupe.agent("slow", {}, seconds=5)

    async def scenario() -> Any:
        box = troupe.box(defined("saga", step("a"), step("slow", undo=None), timeout=2))
        error = await execute(troupe, await box.open(), seconds=10)
        await box.close()
        return error

    assert play(scenario).status == "timed_out"
    assert troupe.actions() == [("a", "do"), ("slow", "do"), ("a", "compensate")]


@pytest.mark.row("A2-36")
def test_two_sagas_started_in_the_same_microsecond_have_ids_of_their_own() -> None:
    troupe = troupe_of("a")

    async def scenario() -> set[str]:
        box = troupe.box(defined("saga", step("a")))
        rt = await box.open()
        runs = [await rt.with_options().start("w", {}) for _ in range(2)]
        ids = {(await run.result())["saga_id"] for run in runs}
        ids |= {(await rt.sagas.start("order", 1)).saga_id for _ in range(2)}
        assert box.clock.moment().now == TestClock().moment().now  # no time has passed
        await box.close()
        return ids

    assert len(play(scenario)) == 4


@pytest.mark.row("A2-31")
def test_a_saga_of_three_steps_of_which_one_was_performed_is_not_completed() -> None:
    troupe = troupe_of("a", "b", "c")

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box()
        rt = await box.open()
        saga = await rt.sagas.start("order", 3, {"order": 7})
        one = await rt.sagas.execute(saga.saga_id, {"agent": "a", "service": "do", "compensation": "undo"})
        rt = await box.crash_and_reopen()
        two = await rt.sagas.execute(saga.saga_id, {"agent": "b", "service": "do"})
        three = await rt.sagas.execute(saga.saga_id, {"agent": "c", "service": "do"})
        await box.close()
        assert (two.completed, two.current_step) == (False, 2)
        return one, three

    one, three = play(scenario)
    assert (one.completed, one.failed, one.current_step, one.data) == (False, False, 1, {"order": 7})
    assert one.completed_steps == ({"step": "step-1", "result": {"did": "a"}},)
    assert (three.completed, three.current_step) == (True, 3)
    assert troupe.actions() == [("a", "do"), ("b", "do"), ("c", "do")]


@pytest.mark.row("A2-32")
def test_a_step_on_a_failed_saga_is_refused_and_nothing_is_undone_again() -> None:
    troupe = troupe_of("a", "b", b="no stock")

    async def scenario() -> Any:
        box = troupe.box()
        rt = await box.open()
        saga = await rt.sagas.start("order", 3)
        await rt.sagas.execute(saga.saga_id, {"agent": "a", "service": "do", "compensation": "undo"})
        failed = await rt.sagas.execute(saga.saga_id, {"agent": "b", "service": "do", "compensation": "undo"})
        with pytest.raises(SagaClosedError, match="has failed"):
            await rt.sagas.execute(saga.saga_id, {"agent": "a", "service": "do"})
        await box.clock.settle()
        await box.close()
        return failed

    failed = play(scenario)
    assert (failed.failed, failed.completed, failed.compensated_steps) == (True, False, ("step-1",))
    assert "no stock" in failed.error
    assert troupe.actions() == [("a", "do"), ("b", "do"), ("a", "undo")]
