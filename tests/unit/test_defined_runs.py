"""Definitions through whole runs: what is sent and shared, what is told of a failure, and what a deploy changes."""

from typing import Any

import msgspec
import pytest

from perdure import (
    Agent,
    Context,
    OrchestrationError,
    Query,
    RunCancelledError,
    RunConflictError,
    UnknownWorkflowError,
    tool,
    workflow,
)
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.defined.model import RetryPolicy, Step, WorkflowDefinition
from perdure.runtime.executions import Executions
from perdure.store.records import Recorded, StreamId
from tests.support.defined import Troupe, defined, execute
from tests.support.runs import Box, box_with, disk_until, events, play


def played(troupe: Troupe, definition: Any, given: dict[str, Any] | None = None, **options: Any) -> Any:
    """What came of one run of a definition, and the events of it that say what was skipped."""

    async def scenario() -> Any:
        async with troupe.box(definition, **options) as box:
            rt = await box.open()
            found = await execute(troupe, rt, given, seconds=20)
            return found, await events(rt, "r", "step-skipped")

    return play(scenario)


# What is sent


@pytest.mark.row("A2-03")
def test_every_kind_of_agent_is_sent_the_same_message_and_answers_with_the_same_response() -> None:
    seen: list[Any] = []

    class Kept:
        async def process(self, message: AgentMessage) -> AgentResponse:
            seen.append(message)
            return AgentResponse(data={"by": "class"})

    def called(message: AgentMessage) -> dict[str, Any]:
        seen.append(message)
        return {"by": "function"}

    troupe = Troupe()
    troupe.agents = [Agent("kept", Kept), Agent("called", called)]
    steps = [Step(id="s1", agent="kept", action="look"), Step(id="s2", agent="called", action="look")]

    found, _ = played(troupe, defined("sequential", *steps), {"k": "v"})

    assert [type(message) for message in seen] == [AgentMessage, AgentMessage]
    told = [(each.type, each.data, each.sender, each.recipient, each.metadata) for each in seen]
    assert told == [
        ("look", {"k": "v"}, "orchestrator", "kept", {"workflow_step": "s1"}),
        ("look", {"k": "v"}, "orchestrator", "called", {"workflow_step": "s2"}),
    ]
    assert [each["data"] for each in found["result"]["step_results"]] == [{"by": "class"}, {"by": "function"}]


@pytest.mark.row("A2-04")
@pytest.mark.parametrize("pattern", ["sequential", "parallel", "fan_out_fan_in", "conditional", "saga"])
def test_in_every_pattern_a_mapping_that_finds_nothing_sends_nothing(pattern: Any) -> None:
    troupe = Troupe()
    troupe.agent("one", {})

    played(troupe, defined(pattern, Step(id="s1", agent="one", input_mapping={"a": "nowhere"})), {"secret": 1})

    assert troupe.data("one") == [{}]


@pytest.mark.row("A2-04")
def test_a_tool_whose_mapping_finds_nothing_is_not_called() -> None:
    called: list[str] = []

    @tool
    async def search(query: str) -> str:
        called.append(query)
        return query

    step = Step(id="s1", tool="search", input_mapping={"query": "nowhere"})

    error, _ = played(Troupe(), defined("sequential", step), {"query": "all of it"}, tools=[search])

    assert (error.status, error.step_id, error.error_type) == ("failed", "s1", "InvalidArgumentsError")
    assert called == []


def spoil(message: AgentMessage) -> Any:
    """Change all that was sent, as an agent should not."""
    answer = {"was": len(message.data["shared"]["list"]), "list": message.data["shared"]["list"]}
    message.data["shared"]["list"].append("spoiled")
    message.data["shared"]["more"] = "spoiled"
    return answer


@pytest.mark.row("A2-52")
@pytest.mark.parametrize("pattern", ["sequential", "parallel", "fan_out_fan_in", "saga"])
def test_an_agent_that_changes_what_it_was_sent_changes_nothing_for_others(pattern: Any) -> None:
    troupe = Troupe()
    troupe.agent("spoils", spoil)
    steps = [
        Step(id="s1", agent="spoils"),
        Step(id="s2", agent="spoils", input_mapping={"shared": "shared"}),
        Step(id="s3", agent="spoils", input_mapping={}, arguments={"shared": {"list": []}}),
    ]
    given = {"shared": {"list": [{"n": 1}]}}

    found, _ = played(troupe, defined(pattern, *steps), given)

    result = found["result"]
    assert given == {"shared": {"list": [{"n": 1}]}}
    assert result.get("final_data", given) == given
    answers = result.get("step_results") or result.get("results") or result.get("fan_out_results") or []
    assert [each["data"]["was"] for each in answers] == ([] if pattern == "saga" else [1, 1, 1])
    assert [len(data["shared"]["list"]) for data in troupe.data("spoils")] == [2, 2, 2]  # each spoiled its own


@pytest.mark.row("A2-52")
def test_what_a_step_answered_is_not_changed_by_the_step_that_is_sent_it() -> None:
    troupe = Troupe()
    answer = {"list": [1]}
    troupe.agent("gives", answer)
    troupe.agent("spoils", spoil)
    steps = [
        Step(id="s1", agent="gives", output_mapping={".": "shared"}),
        Step(id="s2", agent="spoils"),
        Step(id="s3", agent="spoils"),
    ]

    found, _ = played(troupe, defined("sequential", *steps))

    assert [each["data"] for each in found["result"]["step_results"][1:]] == [{"was": 1, "list": [1, "spoiled"]}] * 2
    assert found["result"]["final_data"] == {"shared": {"list": [1]}}
    assert answer == {"list": [1]}


# Conditions


@pytest.mark.row("A2-06")
def test_conditions_are_evaluated_in_a_run_and_what_cannot_be_compared_is_skipped_with_the_reason() -> None:
    troupe = Troupe()
    troupe.agent("one", lambda message: message.data["here"])
    conditions: dict[str, dict[str, Any]] = {
        "eq": {"eq": 3}, "ne": {"ne": 4}, "gt": {"gt": 2}, "ge": {"ge": 3}, "lt": {"lt": 4}, "le": {"le": 3},
        "in": {"in": [1, 3]}, "anded": {"gt": 2, "lt": 9}, "not-anded": {"gt": 2, "lt": 3}, "text": {"gt": "2"},
    }  # fmt: skip
    steps = [
        Step(id=name, agent="one", arguments={"here": name}, conditions={"if": "n", **each})
        for name, each in conditions.items()
    ]

    found, skipped = played(troupe, defined("sequential", *steps), {"n": 3})

    assert found["status"] == "completed"
    performed = [each["data"] for each in found["result"]["step_results"]]
    assert performed == ["eq", "ne", "gt", "ge", "lt", "le", "in", "anded"]
    assert [(each["step"], each["reason"]) for each in skipped] == [
        ("not-anded", "n is 3, not lt 3"),
        ("text", 'n is 3, which cannot be compared: gt "2"'),
    ]


@pytest.mark.row("A2-07")
@pytest.mark.parametrize("given", [{"k": False}, {}])
def test_a_step_whose_key_is_false_or_missing_is_skipped(given: dict[str, Any]) -> None:
    troupe = Troupe()
    troupe.agent("one", {})

    found, skipped = played(troupe, defined("sequential", Step(id="s1", agent="one", conditions={"if": "k"})), given)

    assert (found["status"], found["result"]["steps_executed"], troupe.sent) == ("completed", 0, [])
    assert [each["step"] for each in skipped] == ["s1"]


# Map and reduce


@pytest.mark.row("A2-14")
def test_the_results_of_a_map_are_in_the_order_of_the_items_whoever_ends_first() -> None:
    troupe = Troupe()
    troupe.agent(
        "square", lambda message: message.data["item"] ** 2, seconds=lambda message: 0.1 * message.data["item"]
    )
    troupe.agent("total", lambda message: {"all": message.data["map_results"]})
    definition = defined("map_reduce", Step(id="m", agent="square"), Step(id="r", agent="total"))

    found, _ = played(troupe, definition, {"items": [3, 1, 2]})

    assert found["result"]["reduce_result"] == {"all": [9, 1, 4]}
    assert found["result"]["map_count"] == 3
    assert found["duration"] == 0.3


def summing(message: AgentMessage) -> int:
    total: int = sum(message.data["map_results"], message.data.get("reduced") or 0)
    return total


@pytest.mark.parametrize(("count", "calls"), [(0, 1), (1, 1), (4, 2), (7, 4)])
def test_a_reduce_that_folds_is_asked_for_each_page_with_what_it_came_to_so_far(count: int, calls: int) -> None:
    troupe = Troupe()
    troupe.agent("same", lambda message: message.data["item"])
    troupe.agent("sum", summing)
    steps = [Step(id="m", agent="same"), Step(id="r", agent="sum")]

    found, _ = played(
        troupe, defined("map_reduce", *steps, reduce="fold", page_size=2), {"items": list(range(1, count + 1))}
    )

    assert (found["result"]["reduce_result"], found["result"]["map_count"]) == (count * (count + 1) // 2, count)
    assert len(troupe.data("sum")) == calls
    assert all(len(each["map_results"]) <= 2 for each in troupe.data("sum"))


def test_items_that_failed_are_told_by_their_number_whatever_page_they_were_in() -> None:
    troupe = Troupe()

    def odd(message: AgentMessage) -> int:
        if message.data["item"] % 2:
            raise ValueError("odd")
        return int(message.data["item"])

    troupe.agent("odd", odd)
    troupe.agent("sum", summing)
    steps = [Step(id="m", agent="odd"), Step(id="r", agent="sum")]
    definition = defined("map_reduce", *steps, reduce="fold", page_size=2, on_item_failure="continue")

    found, _ = played(troupe, definition, {"items": [0, 1, 2, 3, 4]})

    assert [each["index"] for each in found["result"]["failed_items"]] == [1, 3]
    assert found["result"]["reduce_result"] == 6


@pytest.mark.parametrize("reduce", ["all", "fold"])
def test_more_results_than_one_call_can_be_sent_are_an_error_that_folding_does_not_have(reduce: Any) -> None:
    troupe = Troupe()
    troupe.agent("large", "x" * 3_000_000)
    troupe.agent("count", lambda message: (message.data.get("reduced") or 0) + len(message.data["map_results"]))
    steps = [Step(id="m", agent="large"), Step(id="r", agent="count")]
    definition = defined("map_reduce", *steps, reduce=reduce, page_size=1)

    found, _ = played(troupe, definition, {"items": [1, 2, 3]})

    if reduce == "all":
        assert (found.status, found.step_id, found.error_type) == ("failed", "r", "PayloadTooLargeError")
        assert "8388608" in found.error.replace(",", "").replace("_", "")
    else:
        assert found["result"]["reduce_result"] == 3


# Failures


@pytest.mark.row("A2-25", "A2-51")
def test_an_error_is_told_alike_live_and_replayed_and_has_its_cause_only_live() -> None:
    original = KeyError("gone")
    definition = defined("sequential", Step(id="s1", agent="bad", retry=RetryPolicy(max_retries=1, jitter=False)))

    async def scenario() -> list[Any]:
        troupe = Troupe()
        troupe.agent("bad", errors=(OSError("first"), original))
        box = troupe.box(definition)
        rt = await box.open()
        found = [await execute(troupe, rt, seconds=10)]
        history = await rt.run("r").history()
        await box.close()
        for border in ("step-failed", "run-failed"):  # its code runs again; it is read only
            position = next(event.position for event in history if event.type == border)
            again = Troupe()
            again.agent("bad", errors=(AssertionError("called again"),))
            async with again.box(definition, on=disk_until(box.storage, position)) as replayed:
                found.append(await execute(again, await replayed.open(), seconds=10))
        return found

    live, *later = play(scenario)

    def told(error: Any) -> tuple[Any, ...]:
        return type(error), error.workflow_id, error.step_id, error.agent, error.error_type, error.error, error.status

    assert told(live)[1:] == ("w", "s1", "bad", "KeyError", "Step s1 failed: 'gone'", "failed")
    assert live.__cause__ is original
    assert [told(error) for error in later] == [told(live)] * 2
    assert not any(isinstance(error.__cause__, KeyError) for error in later)


# Figures


@pytest.mark.row("A2-01")
def test_an_unknown_workflow_is_an_error_with_its_id_and_changes_no_figure() -> None:
    troupe = Troupe()
    troupe.agent("one", {})

    async def scenario() -> tuple[Any, Any, Any, int]:
        async with troupe.box(defined("sequential", Step(id="s1", agent="one"))) as box:
            rt = await box.open()
            await execute(troupe, rt)
            before, events_before = await rt.get_stats(), len(await rt.read(Query()))
            with pytest.raises(OrchestrationError, match="workflow 'nothing' not found") as unknown:
                await rt.execute("nothing", {})
            assert len(await rt.read(Query())) == events_before
            return unknown.value, before, await rt.get_stats(), before["total_executions"]

    error, before, after, total = play(scenario)
    assert isinstance(error, UnknownWorkflowError)
    assert (error.workflow_id, total) == ("nothing", 1)
    assert after == before


@pytest.mark.row("A2-49", "A2-50")
def test_executions_are_successful_failed_cancelled_or_running_at_any_time() -> None:
    troupe = Troupe()
    troupe.agent("work", {}, seconds=0.2)
    troupe.agent("bad", errors=(ValueError("no"),))
    one = defined("sequential", Step(id="s1", agent="work"))
    other = {"id": "f", "steps": [{"id": "s1", "agent": "bad"}]}

    async def scenario() -> list[dict[str, Any]]:
        async with troupe.box(one, other) as box:
            rt = await box.open()
            found = [await rt.get_stats()]
            await execute(troupe, rt, id="a", seconds=1)
            found.append(await rt.get_stats())
            await execute(troupe, rt, id="b", workflow="f")
            found.append(await rt.get_stats())
            run = await rt.with_options(id="c").start("w", {})
            await box.clock.settle()
            found.append(await rt.get_stats())
            await run.cancel("enough")
            with pytest.raises(RunCancelledError):
                await run.result()
            found.append(await rt.get_stats())
            await rt.run("b").retry()
            await rt.run("b").result()
            found.append(await rt.get_stats())
            rt = await box.crash_and_reopen()
            assert await rt.get_stats() == {**found[-1], "circuit_breakers": (await rt.get_stats())["circuit_breakers"]}
            return found

    found = play(scenario)
    keys = ("total", "successful", "failed", "cancelled", "running")
    counted = [tuple(each[f"{key}_executions"] for key in keys) for each in found]
    assert counted == [
        (0, 0, 0, 0, 0), (1, 1, 0, 0, 0), (2, 1, 1, 0, 0), (3, 1, 1, 0, 1), (3, 1, 1, 1, 0), (3, 2, 0, 1, 0),
    ]  # fmt: skip
    assert [each["success_rate"] for each in found[:3]] == [0, 1, 0.5]
    assert found[2]["average_duration"] == 0.2
    assert found[2]["agent_performance"] == {
        "bad": {"executions": 1, "avg_time": 0, "min_time": 0, "max_time": 0},
        "work": {"executions": 1, "avg_time": 0.2, "min_time": 0.2, "max_time": 0.2},
    }


@pytest.mark.row("A2-50")
def test_an_execution_that_goes_on_as_another_run_is_one_and_has_not_ended() -> None:
    given = msgspec.json.encode({"definition": {"id": "w", "pattern": "saga"}, "data": {}}).decode()

    def event(at: int, stream: str, type: str, data: str) -> Recorded:
        return Recorded(position=at, stream=StreamId(stream), version=1, type=type, type_version=1, at=at, data=data)

    started = '{"workflow":"w","input":' + given + "}"
    executions = Executions()
    executions.add([
        event(1, "run/r", "run-started", started),
        event(2, "run/r", "run-continued", '{"run":"r~2"}'),
        event(3, "run/r~2", "run-started", started),
    ], {})  # fmt: skip
    going_on = executions.figures()
    executions.add([event(4_000_001, "run/r~2", "run-completed", "{}")], {})

    after = executions.figures()
    assert (going_on["total_executions"], going_on["running_executions"]) == (1, 1)
    assert (after["total_executions"], after["successful_executions"], after["running_executions"]) == (1, 1, 0)
    assert (after["average_duration"], after["pattern_usage"]) == (4.0, {"saga": 1})


# Registration


@pytest.mark.row("A2-53")
def test_a_runtime_takes_workflows_in_and_out_while_it_is_open() -> None:
    troupe = Troupe()
    troupe.agent("one", {"v": 1})
    ad_hoc = WorkflowDefinition(id="ad-hoc", steps=(Step(id="s1", agent="one"),))

    async def scenario() -> tuple[Any, list[str], Any]:
        async with troupe.box() as box:
            rt = await box.open()
            made = rt.workflows.register(ad_hoc)
            assert rt.workflows.get("ad-hoc") is made
            found = await execute(troupe, rt, workflow="ad-hoc")
            ids = [info.id for info in rt.workflows.list()]
            rt.workflows.remove("ad-hoc")
            with pytest.raises(UnknownWorkflowError):
                await rt.execute("ad-hoc")
            return found, ids, [info.id for info in rt.workflows.list()]

    found, ids, left = play(scenario)
    assert (found["status"], ids, left) == ("completed", ["ad-hoc"], [])


@pytest.mark.row("A2-53")
def test_two_steps_of_one_id_are_refused_by_an_open_runtime() -> None:
    troupe = Troupe()
    troupe.agent("one", {})
    twice = WorkflowDefinition(id="w", steps=(Step(id="s1", agent="one"), Step(id="s1", agent="one")))

    async def scenario() -> list[str]:
        async with troupe.box() as box:
            rt = await box.open()
            with pytest.raises(ValueError, match=r"steps\[1\].id: 's1' is the id of steps\[0\] too"):
                rt.workflows.register(twice)
            return list(rt.workflows)

    assert play(scenario) == []


# A deploy


def test_a_start_with_the_same_id_and_data_is_the_same_run_after_its_definition_changed() -> None:
    troupe = Troupe()
    troupe.agent("one", {}, seconds=5)
    troupe.agent("two", {})
    old = defined("sequential", Step(id="s1", agent="one"))
    new = defined("sequential", Step(id="s1", agent="two"), Step(id="s2", agent="two"))

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box(old)
        rt = await box.open()
        await rt.with_options(id="r").start("w", {"order": 7})
        await box.crash()
        deployed = Box(box.storage, troupe.clock, agents=troupe.agents, workflows=[new])
        rt = await deployed.open()
        with pytest.raises(RunConflictError, match="other input"):
            await rt.with_options(id="r").start("w", {"order": 8})
        found = await execute(troupe, rt, {"order": 7}, seconds=10)
        later = await execute(troupe, rt, {"order": 7}, id="r2")
        await deployed.close()
        return found, later

    found, later = play(scenario)
    assert [each["step_id"] for each in found["result"]["step_results"]] == ["s1"]
    assert [each["step_id"] for each in later["result"]["step_results"]] == ["s1", "s2"]


def test_a_run_goes_on_over_a_child_whose_definition_changed_meanwhile() -> None:
    troupe = Troupe()
    troupe.agent("slow", {"by": "old"}, seconds=5)
    troupe.agent("two", {"by": "new"})
    parent = defined("sequential", Step(id="s1", workflow="child"))
    old = WorkflowDefinition(id="child", steps=(Step(id="c1", agent="slow", output_mapping={"by": "by"}),))
    new = WorkflowDefinition(id="child", steps=(Step(id="c1", agent="two", output_mapping={"by": "by"}),))

    async def scenario() -> Any:
        box = troupe.box(parent, old)
        rt = await box.open()
        await rt.with_options(id="r").start("w", {})
        await box.clock.settle()
        await box.crash()
        deployed = Box(box.storage, troupe.clock, agents=troupe.agents, workflows=[parent, new])
        rt = await deployed.open()
        found = await execute(troupe, rt, {}, seconds=10)
        await deployed.close()
        return found

    found = play(scenario)
    assert found["status"] == "completed"
    assert found["result"]["step_results"][0]["data"]["final_data"] == {"by": "old"}


def test_a_function_that_went_on_as_another_run_is_executed_to_its_last_end() -> None:
    @workflow
    async def rounds(ctx: Context, left: int) -> str:
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    troupe = Troupe()

    async def scenario() -> Any:
        async with troupe.box(rounds) as box:
            return await execute(troupe, await box.open(), {"left": 2}, workflow="rounds")

    found = play(scenario)
    assert (found["status"], found["result"]) == ("completed", "done")


def test_a_run_whose_agent_is_not_registered_any_more_waits_for_it() -> None:
    async def echo(message: AgentMessage) -> AgentResponse:
        return AgentResponse(success=True, data=message.data)

    steps = (Step(id="one", agent="anita"), Step(id="two", agent="zumbi"))
    definition = WorkflowDefinition(id="both", name="both", pattern="sequential", steps=steps)
    anita, zumbi = Agent("anita", echo), Agent("zumbi", echo)

    async def scenario() -> dict[str, Any]:
        async with box_with(definition, agents=[anita, zumbi]) as box:
            rt = await box.open()
            await rt.with_options(id="r").start("both", {"n": 1})
            await box.crash()
            other = WorkflowDefinition(id="both", name="both", pattern="sequential", steps=steps[:1])
            rt = await box.open(workflows=[other], agents=[anita])
            await box.clock.advance(60)
            (waiting,) = await rt.waiting()
            assert (waiting.id, "unknown agent: zumbi" in str(waiting)) == ("r", True)
            await box.crash_and_reopen()
            await box.clock.settle()
            result: dict[str, Any] = await box.runtime.run("r").result()
            return result

    assert play(scenario)["steps_executed"] == 2


def is_open(data: dict[str, Any]) -> bool:
    return "n" in data


@tool
async def stamp(n: int = 0) -> int:
    return n


@workflow
async def inner(ctx: Context, n: int = 0) -> int:
    return n


ASK = {"id": "ask", "agent": "anita", "pause": True}


@pytest.mark.parametrize(
    ("steps", "fields", "text"),
    [
        ([ASK, {"id": "s", "tool": "stamp"}], {}, "unknown tool: stamp; registered are agent:anita"),
        ([ASK, {"id": "s", "workflow": "inner", "input_mapping": {"n": "n"}}], {}, "unknown workflow: inner"),
        ([ASK, {"id": "s", "agent": "anita", "conditions": {"not": "is_open"}}], {}, "unknown predicate: is_open"),
        ([{**ASK, "next": {"condition": {"or": [{"predicate": "is_open"}, {"if": "n"}]}, "true": "s"}},
          {"id": "s", "agent": "anita"}], {"pattern": "conditional"}, "unknown predicate: is_open"),
        ([{"id": "s", "agent": "anita", "on": [{"event": "e", "filter": "is_open"}]}], {"pattern": "event_driven"},
         "unknown predicate: is_open"),
        ([{**ASK, "compensation": {"tool": "stamp"}}], {"pattern": "saga"}, "unknown tool: stamp"),
    ],
)  # fmt: skip
def test_a_run_decides_nothing_while_what_it_names_is_not_registered(
    steps: list[Any], fields: dict[str, Any], text: str
) -> None:
    async def echo(message: AgentMessage) -> AgentResponse:
        return AgentResponse(success=True, data=message.data)

    def both(steps: list[Any], **fields: Any) -> dict[str, Any]:
        return {"id": "both", "steps": steps, **fields}

    async def scenario() -> None:
        agents, workflows = [Agent("anita", echo)], [both(steps, **fields), inner]
        names: dict[str, Any] = {"tools": [stamp], "predicates": {"is_open": is_open}}
        bare: dict[str, Any] = {"workflows": [both([{"id": "s", "agent": "anita"}])], "tools": [], "predicates": {}}
        async with box_with(*workflows, agents=agents, **names) as box:
            rt = await box.open()
            await rt.with_options(id="r").start("both", {"n": 1})
            await box.clock.settle()
            await box.crash()
            rt = await box.open(**bare)
            before = len(await rt.run("r").history())
            await (rt.publish("e", {"n": 1}) if fields.get("pattern") == "event_driven" else rt.run("r").resume("yes"))
            await box.clock.advance(60)
            await rt.resume()
            (waiting,) = await rt.waiting()
            assert text in str(waiting)
            facts = {event.type for event in (await rt.run("r").history())[before:]}
            assert {"run-resumed", "step-started", "step-skipped", "path-taken", "run-failed"}.isdisjoint(facts)

            await box.crash_and_reopen()
            await box.clock.settle()
            assert (await box.runtime.run("r").status()).status == "completed"

    play(scenario)
