"""Sagas that a caller drives step by step: what is waited for, what a fallback means, what travels with a step."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from perdure import InvalidDefinitionError, SignalConflictError
from perdure.actors.workflows.defined.model import Compensation, RetryPolicy, Step, WorkflowDefinition
from tests.support.defined import Troupe, failing
from tests.support.runs import Box, events, play

ONE = {"agent": "a", "service": "do"}


def troupe_of(*names: str) -> Troupe:
    troupe = Troupe()
    for name in names:
        troupe.agent(name, {"did": name})
    return troupe


async def begun(box: Box, asking: Coroutine[Any, Any, Any]) -> None:
    """Ask for a step, and stop waiting while it is under way."""
    task = asyncio.create_task(asking)
    await box.clock.settle()
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


def test_a_step_after_one_that_a_person_settled_is_waited_for() -> None:
    troupe = troupe_of("a")
    troupe.agent("pay", {"paid": True}, seconds=5, effect="irreversible")

    async def scenario() -> tuple[Any, Any, Any, Any]:
        box = troupe.box()
        rt = await box.open()
        await rt.sagas.start("order", 3, id="s")
        await begun(box, rt.sagas.execute("s", Step(id="step-1", agent="pay")))
        rt = await box.crash_and_reopen()  # the payment was in flight
        await box.clock.settle()
        waiting = await rt.sagas.execute("s", Step(id="step-1", agent="pay"))
        await rt.run("s").settle_done("step-1", {"success": True, "data": {"paid": "by hand"}})
        await box.clock.settle()
        settled = await rt.sagas.state("s")
        second = await rt.sagas.execute("s", ONE)
        third = await rt.sagas.execute("s", ONE)
        await box.close()
        return waiting, settled, second, third

    waiting, settled, second, third = play(scenario)
    assert (waiting.in_doubt, waiting.current_step, waiting.failed) == (("step-1",), 0, False)
    assert (settled.in_doubt, settled.current_step) == ((), 1)
    assert settled.completed_steps[0]["result"] == {"paid": "by hand"}
    assert (second.current_step, second.completed, second.in_doubt) == (2, False, ())
    assert (third.current_step, third.completed) == (3, True)


def test_a_step_that_the_fallback_performed_is_done_and_undone_by_it() -> None:
    troupe = troupe_of("a")
    troupe.agent("bad", errors=(failing("no"), failing("no")))
    troupe.agent("worse", errors=(failing("never"),))
    falls_back = Step(
        id="x",
        agent="bad",
        action="do",
        retry=RetryPolicy(max_retries=0, fallback_agent="a"),
        compensation=Compensation(action="undo"),
    )

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box()
        rt = await box.open()
        await rt.sagas.start("order", 3, id="s")
        one = await rt.sagas.execute("s", falls_back)
        two = await rt.sagas.execute("s", {"agent": "worse", "service": "do"})
        await box.close()
        return one, two

    one, two = play(scenario)
    assert (one.current_step, one.completed_steps) == (1, ({"step": "step-1~", "result": {"did": "a"}},))
    assert (two.failed, two.compensated_steps) == (True, ("step-1~",))
    assert troupe.actions() == [("bad", "do"), ("a", "do"), ("worse", "do"), ("a", "undo")]


def test_a_workflow_may_be_a_step() -> None:
    troupe = troupe_of("a")
    child = WorkflowDefinition(id="child", steps=(Step(id="c", agent="a", action="in"),))

    async def scenario() -> Any:
        box = troupe.box(child)
        rt = await box.open()
        await rt.sagas.start("order", 2, id="s")
        state = await rt.sagas.execute("s", Step(id="x", workflow="child"))
        await box.close()
        return state

    state = play(scenario)
    assert (state.current_step, state.completed) == (1, False)
    assert state.completed_steps[0]["result"]["pattern"] == "sequential"


def test_the_compensation_of_a_step_falls_back_on_another_agent_after_its_last_attempt() -> None:
    troupe = troupe_of("a", "standby")
    troupe.agent("bad", errors=(failing("no"),))
    troupe.agent("undoer", errors=tuple(failing("cannot") for _ in range(9)))
    undo = Compensation(
        agent="undoer", action="undo", retry=RetryPolicy(max_retries=1, jitter=False, fallback_agent="standby")
    )
    steps = (Step(id="one", agent="a", compensation=undo), Step(id="two", agent="bad"))

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box(WorkflowDefinition(id="w", pattern="saga", steps=steps))
        rt = await box.open()
        run = await rt.with_options(id="r").start("w", {"order": 7})
        await box.clock.advance(60)
        view, doubts = await run.status(), await events(rt, "r", "step-in-doubt")
        (undone,) = await events(rt, "r", "saga-compensated")
        await box.close()
        return (view.status, view.error_type, doubts), undone

    (status, _, doubts), undone = play(scenario)
    assert (status, doubts, undone["undone"]) == ("failed", [], ["one"])
    assert troupe.actions()[2:] == [("undoer", "undo"), ("undoer", "undo"), ("standby", "undo")]
    message = troupe.sent[-1][1]
    assert message.data == {"original_data": {"order": 7}, "step_result": {"did": "a"}}
    assert (message.sender, message.recipient) == ("saga_compensator", "standby")


def test_a_compensation_whose_fallback_fails_too_waits_for_a_person() -> None:
    troupe = troupe_of("a")
    troupe.agent("bad", errors=tuple(failing("no") for _ in range(9)))
    undo = Compensation(agent="bad", retry=RetryPolicy(max_retries=0, fallback_agent="bad"))
    steps = (Step(id="one", agent="a", compensation=undo), Step(id="two", agent="bad"))

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box(WorkflowDefinition(id="w", pattern="saga", steps=steps))
        rt = await box.open()
        run = await rt.with_options(id="r").start("w", {})
        await box.clock.advance(60)
        before = await run.status()
        await run.settle_done(before.in_doubt[0], {"success": True})
        await box.clock.settle()
        after = await run.status()
        await box.close()
        return before, after

    before, after = play(scenario)
    assert (before.waits_on, before.in_doubt) == ("attention", ("one#undo~",))
    assert after.status == "failed"


def test_what_a_step_is_sent_under_the_name_of_a_secret_is_found_and_only_its_constants_are_redacted() -> None:
    troupe = troupe_of("a")
    step = Step(
        id="x",
        agent="a",
        input_mapping={"token": "order.token", "n": "order.n"},
        output_mapping={"did": "password"},
        arguments={"api_key": "constant"},
    )

    async def scenario() -> list[Any]:
        box = troupe.box()
        rt = await box.open()
        await rt.sagas.start("order", 2, {"order": {"n": 7, "token": "data"}}, id="s")
        await rt.sagas.execute("s", step)
        (signal,) = await events(rt, "s", "signal-received")
        await box.close()
        return [json.loads(signal["value"])]

    (sent,) = play(scenario)
    assert sent["input_mapping"] == {"token": "order.token", "n": "order.n"}
    assert sent["output_mapping"] == {"did": "password"}
    assert sent["arguments"] == {"api_key": "[redacted]"}
    assert troupe.data("a") == [{"api_key": "[redacted]", "token": "[redacted]", "n": 7}]


@pytest.mark.parametrize(
    ("step", "path"),
    [
        (Step(id="x", agent="a", on_failure="continue"), r"steps\[0\].on_failure"),
        (Step(id="x", agent="a", conditions={"if": "x"}), r"steps\[0\].conditions"),
        (Step(id="x", agent="a", pause=True), r"steps\[0\].pause"),
        (Step(id="x", agent="nobody"), r"steps\[0\].agent"),
    ],
)
def test_a_step_that_means_nothing_by_itself_is_refused_and_nothing_is_recorded(step: Step, path: str) -> None:
    troupe = troupe_of("a")

    async def scenario() -> list[Any]:
        box = troupe.box()
        rt = await box.open()
        await rt.sagas.start("order", 2, id="s")
        with pytest.raises(InvalidDefinitionError, match=path):
            await rt.sagas.execute("s", step)
        found = await events(rt, "s", "signal-received")
        await box.close()
        return found

    assert play(scenario) == []


def test_another_step_in_the_place_of_one_that_is_under_way_is_refused() -> None:
    troupe = troupe_of("a")
    troupe.agent("slow", {}, seconds=5)

    async def scenario() -> None:
        box = troupe.box()
        rt = await box.open()
        await rt.sagas.start("order", 2, id="s")
        await begun(box, rt.sagas.execute("s", {"agent": "slow"}))
        with pytest.raises(SignalConflictError):
            await rt.sagas.execute("s", ONE)
        await box.close()

    play(scenario)
