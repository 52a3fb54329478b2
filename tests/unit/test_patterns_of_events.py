"""Workflows that events drive: what starts a step, when one is over, and how several of them work together."""

from typing import Any

import pytest

from perdure import Runtime, UsageError
from perdure.actors.workflows.defined.model import Step, Trigger, WorkflowDefinition
from tests.support.defined import Troupe, defined, execute
from tests.support.runs import play


@pytest.mark.row("A2-20")
def test_a_step_starts_on_its_event_and_the_workflow_is_over_when_each_has_run() -> None:
    troupe = Troupe()
    troupe.agent("look", lambda message: {"seen": message.data["amount"]})
    troupe.agent("close", {})
    definition = defined(
        "event_driven",
        Step(
            id="looked",
            agent="look",
            on=(Trigger(event="paid", filter={"if": "amount", "gt": 10}),),
            input_mapping={"amount": "event.data.amount"},
            output_mapping={"seen": "seen"},
        ),
        Step(id="closed", agent="close", on=(Trigger(event="done"), Trigger(event="given.up"))),
    )

    async def scenario() -> tuple[list[str], Any]:
        box = troupe.box(definition)
        rt = await box.open()
        run = await rt.with_options(id="r").start("w", {})
        await rt.publish("paid", {"amount": 5})
        await rt.publish("paid", {"amount": 50})
        await box.clock.settle()
        before = troupe.called()
        await rt.publish("given.up", {})
        result = await run.result()
        await box.close()
        return before, result

    before, result = play(scenario)
    assert before == ["look"]
    assert troupe.called() == ["look", "close"]
    assert result["final_data"] == {"seen": 50}
    assert result["steps_executed"] == 2


@pytest.mark.row("A2-20")
def test_an_event_that_nobody_publishes_is_refused_at_registration() -> None:
    troupe = Troupe()
    troupe.agent("look", {})
    definition = defined("event_driven", Step(id="s", agent="look", on=(Trigger(event="piad"),)))

    with pytest.raises(UsageError, match=r"steps\[0\].on\[0\].event: there is no event 'piad'"):
        Runtime("unused", agents=troupe.agents, workflows=[definition], events=["paid"])


def test_a_workflow_goes_on_until_its_data_say_so() -> None:
    troupe = Troupe()
    troupe.agent("count", lambda message: {"n": message.data.get("n", 0) + 1})
    count = Step(id="s", agent="count", on=(Trigger(event="tick"),), output_mapping={"n": "n"})

    async def scenario() -> Any:
        box = troupe.box(defined("event_driven", count, until={"if": "n", "ge": 3}))
        rt = await box.open()
        run = await rt.with_options().start("w", {})
        for _ in range(5):
            await rt.publish("tick", {})
        result = await run.result()
        await box.close()
        return result

    assert play(scenario)["final_data"] == {"n": 3}
    assert len(troupe.sent) == 3


def test_an_event_that_does_not_come_in_time_fails_the_workflow() -> None:
    troupe = Troupe()
    troupe.agent("look", {})
    step = Step(id="s", agent="look", on=(Trigger(event="paid", within=60),))

    async def scenario() -> Any:
        box = troupe.box(defined("event_driven", step))
        error = await execute(troupe, await box.open(), seconds=100)
        await box.close()
        return error

    error = play(scenario)
    assert (error.step_id, error.error) == ("s", "Step s failed: no event came within 60s")


def test_a_step_whose_event_came_in_time_is_not_late_while_the_workflow_goes_on() -> None:
    troupe = Troupe()
    troupe.agent("look", {})
    troupe.agent("close", {"closed": True})
    steps = (
        Step(id="open", agent="look", on=(Trigger(event="opened", within=60),)),
        Step(id="close", agent="close", on=(Trigger(event="closed"),), output_mapping={"closed": "closed"}),
    )

    async def scenario() -> Any:
        async with troupe.box(defined("event_driven", *steps, until={"if": "closed"})) as box:
            rt = await box.open()
            run = await rt.with_options().start("w", {})
            for event in ("opened", "opened", "closed"):
                await box.clock.advance(50)
                await rt.publish(event, {})
            return await run.result()

    assert play(scenario)["steps_executed"] == 3


def test_definitions_work_together_by_the_events_that_they_publish() -> None:
    troupe = Troupe()
    troupe.agent("order", {"id": 7})
    troupe.agent("ship", lambda message: {"shipped": message.data["id"]})
    shop = WorkflowDefinition(id="shop", steps=(Step(id="o", agent="order", publish="ordered"),))
    ship = Step(id="s", agent="ship", on=(Trigger(event="ordered"),), input_mapping={"id": "event.data.id"})
    depot = WorkflowDefinition(id="depot", pattern="event_driven", steps=(ship,))

    async def scenario() -> Any:
        box = troupe.box(shop, depot)
        rt = await box.open()
        waiting = await rt.with_options().start("depot", {})
        await rt.with_options().start("shop", {})
        result = await waiting.result()
        await box.close()
        return result

    assert play(scenario)["step_results"][0]["data"] == {"shipped": 7}
