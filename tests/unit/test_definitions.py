"""Definitions as data: read from JSON and TOML, checked whole, registered, listed, removed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Agent,
    AgentMessage,
    Branching,
    Compensation,
    Context,
    InvalidDefinitionError,
    OrchestrationError,
    Runtime,
    Step,
    Trigger,
    UnknownWorkflowError,
    UsageError,
    WorkflowDefinition,
    Workflows,
    load_definition,
    tool,
    workflow,
)
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.names import lacking
from perdure.testing import MemoryDisk
from tests.support.runs import box_with, events, play


async def answer(message: AgentMessage) -> dict[str, Any]:
    return {"got": message.data}


@tool
async def search(query: str, limit: int = 5) -> str:
    return query * limit


def known() -> Known:
    made = (Agent("anita", answer), Agent("zumbi", actions={"detect": answer}), Agent("plain", plain))
    agents = {agent.name: agent for agent in made}
    predicates = {"risky": bool}
    return Known(agents=agents, tools={"search": search}, predicates=predicates, reducers={"total": sum})


def definition(*steps: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "order", "steps": list(steps) or [step()], **fields}


def step(id: str = "s1", **fields: Any) -> dict[str, Any]:
    called = {} if fields.keys() & {"tool", "workflow", "agent"} else {"agent": "anita"}
    return {"id": id, **called, **fields}


def faults(source: Any, names: Known | None = None) -> dict[str, str]:
    """The faults of a definition, by path."""
    with pytest.raises(InvalidDefinitionError) as refused:
        Workflows([source], names or known())
    return {fault.path: fault.text for fault in refused.value.faults}


def accepted(source: Any) -> bool:
    return len(Workflows([source], known())) == 1


# Reading

JSON = '{"id": "order", "pattern": "conditional", "steps": [{"id": "a", "agent": "anita", "timeout": 5, \
"next": {"condition": {"if": "x.y", "gt": 0}, "true": "b"}}, {"id": "b", "agent": "anita"}], "metadata": {"by": "me"}}'

TOML = """
id = "order"
pattern = "conditional"
metadata = { by = "me" }

[[steps]]
id = "a"
agent = "anita"
timeout = 5
next = { condition = { if = "x.y", gt = 0 }, true = "b" }

[[steps]]
id = "b"
agent = "anita"
"""

PYTHON = WorkflowDefinition(
    id="order",
    pattern="conditional",
    steps=(
        Step(id="a", agent="anita", timeout=5, next=Branching(condition={"if": "x.y", "gt": 0}, if_true="b")),
        Step(id="b", agent="anita"),
    ),
    metadata={"by": "me"},
)


def test_json_toml_files_and_python_give_the_same_definition(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(JSON, encoding="utf-8")
    (tmp_path / "order.TOML").write_text(TOML, encoding="utf-8")

    sources = (JSON, JSON.encode(), TOML, tmp_path / "order.json", str(tmp_path / "order.TOML"), PYTHON)

    assert [load_definition(source) for source in sources] == [PYTHON] * len(sources)


def test_a_file_that_is_no_definition_by_its_name_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends with .json or .toml, which agents.db does not"):
        load_definition(tmp_path / "agents.db")


def test_every_fault_of_the_shape_is_told_with_its_path() -> None:
    bad = step(timout=5, agent=3, retry={"max_retries": "x"}, on={}, input_mapping={"q": 1}, effect="reads")

    assert faults({"id": 1, "pattern": "seqential", "steps": [bad, 7], "extra": {}}) == {
        "id": "it is a text, not a number",
        "pattern": "'seqential' is none of its values; did you mean sequential?",
        "extra": "there is no such field; there are " + ", ".join(sorted(WorkflowDefinition.__struct_encode_fields__)),
        "steps[0].timout": "there is no such field; did you mean timeout?",
        "steps[0].agent": "it is a text, not a number",
        "steps[0].retry.max_retries": "it is a whole number, not a text",
        "steps[0].on": "it is a list, not an object",
        "steps[0].input_mapping.q": "it is a text, not a number",
        "steps[0].effect": "'reads' is none of its values; did you mean read?",
        "steps[1]": "it is an object, not a number",
    }


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('{"id": ', "is not JSON: Expecting value: line 1 column 8"),
        ("id = ", "is not TOML: Invalid value"),
        ('{"id": "a", "timeout": NaN, "steps": []}', "NaN is not JSON"),
        ("[]", "it is an object, not a list"),
        (b"\xff\xfe", "is not text in UTF-8"),
        ({"id": "a", "steps": [], "metadata": {"at": {"x": float("inf")}}}, "metadata.at.x: it cannot be written"),
        ({"id": "a", "steps": [], "metadata": {"x": object()}}, "cannot be written as JSON"),
        (WorkflowDefinition(id="a", steps=3), "steps: it is a list, not a number"),  # type: ignore[arg-type] # on purpose
        ('{"a":' * 100_000, "is not JSON"),
        ('{"a":' * 100 + "1" + "}" * 100, "more than 64 objects deep"),
    ],
)
def test_what_is_no_definition_at_all_says_why(source: Any, text: str) -> None:
    with pytest.raises(InvalidDefinitionError) as refused:
        load_definition(source)

    assert text in str(refused.value)


# Checking


def test_all_faults_of_a_definition_are_in_one_message() -> None:
    bad = definition(
        step("a", agent="Anita", conditions={"if": "x", "gtt": 1}),
        step("a", tool="serach"),
        step("c d", agent="zumbi", action="detekt", timeout=0),
    )

    with pytest.raises(InvalidDefinitionError) as refused:
        Workflows([bad], known())

    assert isinstance(refused.value, OrchestrationError)
    assert str(refused.value).splitlines() == [
        "the definition order cannot be used:",
        "  steps[0].agent: there is no agent 'Anita'; did you mean anita?",
        "  steps[0].conditions.gtt: 'gtt' is not an operator; did you mean gt?",
        "  steps[1].id: 'a' is the id of steps[0] too: each step has its own",
        "  steps[1].tool: there is no tool 'serach'; did you mean search?",
        "  steps[2].id: an id is 1 to 100 letters, digits and the characters _ . : -, not 'c d'",
        "  steps[2].action: agent zumbi has no action 'detekt'; did you mean detect?",
        "  steps[2].timeout: it is seconds, more than 0 and at most ten years, not 0",
    ]


@pytest.mark.row("A2-08")
@pytest.mark.parametrize(
    ("conditions", "path"),
    [
        ({"if": "x", "gtt": 1}, "steps[0].conditions.gtt"),
        ({"and": [{"if": "x"}, {"iff": "y"}]}, "steps[0].conditions.and[1].iff"),
        ("unheard_of", "steps[0].conditions"),
    ],
)
def test_an_unknown_operator_or_key_is_refused_when_the_workflow_is_registered(conditions: Any, path: str) -> None:
    assert path in faults(definition(step(conditions=conditions)))


@pytest.mark.row("A2-16")
@pytest.mark.parametrize("count", [1, 4])
def test_a_map_reduce_without_a_step_for_items_and_one_for_results_is_refused(count: int) -> None:
    steps = [step(f"s{number}") for number in range(count)]

    assert "a step for each item and one for all" in faults(definition(*steps, pattern="map_reduce"))["steps"]


@pytest.mark.row("A2-20")
def test_an_event_that_nobody_knows_is_refused_when_the_workflow_is_registered() -> None:
    names = Known(agents=known().agents, events=frozenset({"order.placed"}))
    bad = definition(step(on=[{"event": "order.placd"}]), pattern="event_driven")

    assert faults(bad, names) == {"steps[0].on[0].event": "there is no event 'order.placd'; did you mean order.placed?"}


@pytest.mark.parametrize(
    ("bad", "path", "text"),
    [
        (definition(pattern="map_reduce", steps=[]), "steps", "one step or more"),
        (definition(id="no spaces"), "id", "an id is"),
        (definition(timeout=-1), "timeout", "more than 0"),
        (definition(step(agent="anita", tool="search")), "steps[0]", "names agent and tool"),
        (definition({"id": "s"}), "steps[0]", "names nobody"),
        (definition(step(tool="search", arguments={"querry": 1})), "steps[0].arguments.querry", "did you mean query?"),
        (definition(step(tool="search", input_mapping={"limit": "x"})), "steps[0].input_mapping", "needs query too"),
        (definition(step(tool="search", action="go")), "steps[0].action", "only an agent"),
        (definition(step(workflow="other")), "steps[0].workflow", "there is no workflow 'other'"),
        (definition(step(input_mapping={"a": "x..y"})), "steps[0].input_mapping.a", "empty key"),
        (definition(step(output_mapping={"": "x"})), 'steps[0].output_mapping[""]', "empty key"),
        (definition(step(retry={"backoff": 0.5})), "steps[0].retry.backoff", "at least 1"),
        (definition(step(retry={"fallback_agent": "x"})), "steps[0].retry.fallback_agent", "there is no agent 'x'"),
        (definition(step(compensation={})), "steps[0].compensation", "only a step of saga"),
        (definition(step(pivot=True), pattern="parallel"), "steps[0].pivot", "only a step of saga"),
        (definition(step(next="s1")), "steps[0].next", "only a step of conditional"),
        (definition(merge="first_wins"), "merge", "only fan_out_fan_in has it"),
        (definition(pattern="fan_out_fan_in", merge="totl"), "merge", "did you mean total?"),
        (definition(concurrency=0, pattern="parallel"), "concurrency", "1 to 10,000"),
        (definition(pattern="saga", steps=[step("a", pivot=True), step("b", compensation={})]),
         "steps[1].compensation", "it would never be called"),
        (definition(step(tool="search", compensation={}), pattern="saga"), "steps[0].compensation", "names nobody"),
        (definition(step(compensation={"agent": "zumbi"}), pattern="saga"),
         "steps[0].compensation.action", "no action"),
        (definition(pattern="event_driven"), "steps", "no step waits for an event"),
        (definition(step(on=[{"event": "no spaces"}]), pattern="event_driven"), "steps[0].on[0].event", "a type of"),
        (definition(step(on=[{"event": "e", "filter": {"iff": 1}}]), pattern="event_driven"),
         "steps[0].on[0].filter.iff", "did you mean if?"),
        (definition(step(next="s2"), pattern="conditional"), "steps[0].next", "there is no step 's2'"),
        (definition(start="x", pattern="conditional"), "start", "there is no step 'x'"),
        (definition(step("a"), step("b"), pattern="conditional"), "steps[1]", "no way from a leads to b"),
        (definition(step("a", next="b"), step("b", next="a"), pattern="conditional"), "steps[0].next", "for ever"),
        (definition(step(next={"condition": {}}), pattern="conditional"), "steps[0].next", "names no step"),
        (definition(step("a", pause=True), step("b"), step("a_resume")), "steps[1]", "no way from a leads to b"),
        (definition(step("a", pause=True), step("b", pause=True), step("a_resume"), step("c"), step("b_resume"),
                    pattern="saga"), "steps[1]", "no way from a leads to b"),
        (definition(step("a"), step("b", workflow="order")), "steps[1].workflow", "for ever: order runs order"),
        (definition(step("a"), step("b", workflow="order"), pattern="parallel"), "steps[1].workflow", "for ever"),
        (definition(step("a"), step("b", workflow="order"), pattern="map_reduce"), "steps[1].workflow", "for ever"),
        (definition(step("a", workflow="order"), step("b", on=[{"event": "e"}]), pattern="event_driven"),
         "steps[0].workflow", "for ever"),
        (definition(step("a", next={"condition": "risky", "true": "b", "default": "c"}), step("b", next="d"),
                    step("c", next="d"), step("d", workflow="order"), pattern="conditional"),
         "steps[3].workflow", "for ever"),
        (definition(step(workflow="order", effect="read")), "steps[0].effect", "no effect class"),
        (definition(step(agent="plain", effect="read")), "steps[0].effect", "no effect class"),
        (definition(step(workflow="order", retry={})), "steps[0].retry.max_retries", "which is run once"),
        (definition(step(agent="plain", retry={"fallback_agent": "anita"})),
         "steps[0].retry.max_retries", "write 0 for a fallback_agent alone"),
        (definition(step(retry={"fallback_agent": "zumbi"})), "steps[0].retry.action", "no action 'process'"),
        (definition(step(compensation={"retry": {"fallback_agent": "zumbi"}}), pattern="saga"),
         "steps[0].compensation.retry.action", "no action 'compensate'"),
        (definition(step(compensation={}, agent="plain"), pattern="saga"), "steps[0].compensation", "undoes nothing"),
        (definition(step("a"), step("b"), reduce="fold"), "reduce", "only map_reduce has it"),
        (definition(step("a"), step("b", on_failure="continue"), pattern="map_reduce", reduce="fold"),
         "steps[1].on_failure", "the results of a page would be lost"),
        (definition(step("a", on_failure="continue"), step("b"), pattern="map_reduce"),
         "steps[0].on_failure", "on_item_failure says"),
        (definition(step("a"), step("b"), step("c"), pattern="map_reduce", page_size=7),
         "page_size", "the first step says how many"),
        (definition(step("a"), step("b", output_mapping={"x": "y"}), pattern="map_reduce"),
         "steps[1].output_mapping", "only a step of sequential, conditional, saga, event_driven or fan_out_fan_in"),
        (definition(step(on=[{"event": "e", "within": 9}, {"event": "f"}]), pattern="event_driven"),
         "steps[0].on[1].within", "equally long: as steps[0].on[0] says"),
        (definition(step(compensation={"tool": "search", "action": "undo"}), pattern="saga"),
         "steps[0].compensation.action", "only an agent is told an action"),
    ],
)  # fmt: skip
def test_a_definition_that_could_not_work_is_refused_with_the_path(bad: Any, path: str, text: str) -> None:
    found = faults(bad)

    assert path in found, found
    assert text in found[path]


@pytest.mark.parametrize(
    "good",
    [
        definition(step(conditions="risky")),
        definition(step(tool="search")),
        definition(step(tool="search", arguments={"limit": 2}, input_mapping={"query": "q"})),
        definition(step(workflow="order", conditions="risky")),
        definition(step("a"), step("b", workflow="order", on_failure="continue")),
        definition(step(workflow="order", retry={"max_retries": 0, "fallback_agent": "anita"})),
        definition(step("a", workflow="order"), step("b"), pattern="map_reduce"),
        definition(step(workflow="order", on=[{"event": "e"}]), pattern="event_driven"),
        definition(step("a", next={"condition": "risky", "true": "b"}), step("b", workflow="order"),
                   pattern="conditional"),
        definition(step("a", pause=True, conditions="risky"), step("b"), step("a_resume")),
        definition(step("a", pause=True, conditions="risky"), step("a_resume", next="a"), pattern="conditional"),
        definition(step("a"), step("b"), pattern="map_reduce", reduce="fold"),
        definition(step(agent="zumbi", action="detect")),
        definition(step("a"), step("b"), pattern="map_reduce", items="found.items"),
        definition(step("get"), step("a"), step("b"), pattern="map_reduce"),
        definition(pattern="fan_out_fan_in", merge="total"),
        definition(step("a", next={"condition": "risky", "true": "b"}), step("b", next="a"), pattern="conditional"),
        definition(step(compensation={}), step("b", pivot=True), step("c"), pattern="saga"),
        definition(step(on=[{"event": "any.thing", "within": 5}]), pattern="event_driven", until={"if": "done"}),
    ],
)  # fmt: skip
def test_a_definition_that_can_work_is_accepted(good: Any) -> None:
    assert accepted(good)


def test_a_compensation_and_a_trigger_are_written_in_python_too() -> None:
    undo = Step(id="s", agent="anita", compensation=Compensation(tool="search"))
    wait = Step(id="s", agent="anita", on=(Trigger(event="e"),))

    assert accepted(WorkflowDefinition(id="a", pattern="saga", steps=(undo,)))
    assert accepted(WorkflowDefinition(id="b", pattern="event_driven", steps=(wait,)))


# The registry


@workflow
async def plain(ctx: Context) -> int:
    """Say one."""
    return 1


@pytest.mark.row("A2-53")
def test_workflows_are_registered_found_listed_and_removed() -> None:
    workflows = Workflows([plain], known())

    order = workflows.register(definition(name="Order", description="What is ordered", metadata={"team": "x"}))

    assert workflows["order"] is order
    assert workflows.get("order") is order
    assert [(info.id, info.name, info.pattern, info.steps) for info in workflows.list()] == [
        ("plain", "plain", None, ()),
        ("order", "Order", "sequential", ("s1",)),
    ]
    assert workflows.remove("order") is order
    assert (list(workflows), "order" in workflows, workflows.get("order")) == (["plain"], False, None)


@pytest.mark.row("A2-53")
def test_a_second_workflow_of_a_name_is_refused_unless_it_replaces_the_first() -> None:
    workflows = Workflows([definition()], known())
    first = workflows["order"]

    with pytest.raises(UsageError, match="two workflows are called 'order'"):
        workflows.register(definition(step("other")))

    assert workflows.register(definition()) is first
    assert workflows.register(definition(step("other")), replace=True) is not first


@pytest.mark.row("A2-53")
def test_two_steps_of_one_id_are_refused() -> None:
    assert faults(definition(step("a"), step("b"), step("a"))) == {
        "steps[2].id": "'a' is the id of steps[0] too: each step has its own"
    }


def test_of_several_workflows_none_is_registered_when_one_is_refused() -> None:
    workflows = Workflows([plain], known())

    with pytest.raises(InvalidDefinitionError):
        workflows.register_all([definition(id="fine"), definition(step(agent="gone"))])

    assert list(workflows) == ["plain"]


def test_definitions_may_name_one_another_in_any_order() -> None:
    one = definition(step(workflow="two"), id="one")
    two = definition(step(workflow="plain"), id="two")

    assert list(Workflows([one, two, plain], known())) == ["one", "two", "plain"]


def test_definitions_that_run_one_another_for_ever_are_refused_whoever_comes_last() -> None:
    one = definition(step("a"), step("b", workflow="two"), id="one")
    two = definition(step(workflow="one"), id="two")
    bounded = definition(step(workflow="one", conditions="risky"), id="two")

    with pytest.raises(InvalidDefinitionError, match=r"steps\[1\].workflow: .* for ever: one runs two, which runs one"):
        Workflows([one, two], known())

    workflows = Workflows([one, bounded], known())
    with pytest.raises(InvalidDefinitionError, match=r"steps\[0\].workflow: .* for ever: two runs one, which runs two"):
        workflows.register(two, replace=True)
    assert workflows["two"] is workflows.register(bounded)


def test_what_is_no_workflow_is_refused_with_a_sentence() -> None:
    with pytest.raises(UsageError, match="is not a workflow: decorate it with @workflow"):
        Workflows([search])  # type: ignore[list-item] # on purpose


@pytest.mark.row("A2-01")
def test_an_unknown_workflow_is_an_orchestration_error_with_the_id() -> None:
    with pytest.raises(OrchestrationError, match="workflow 'ordr' not found; registered are plain") as unknown:
        Workflows([plain])["ordr"]

    assert isinstance(unknown.value, UnknownWorkflowError)
    assert unknown.value.workflow_id == "ordr"


# In a runtime


def test_what_a_definition_lacks_in_a_later_life_is_told() -> None:
    merged = load_definition(
        definition(step(conditions={"and": [{"predicate": "risky"}]}), pattern="fan_out_fan_in", merge="total")
    )

    agents = known().agents
    later = (Known(agents=agents), Known(agents=agents, predicates={"risky": bool}))
    told = [lacking(merged, names) for names in later]

    assert [str(error) for error in told] == [
        "unknown predicate: risky; registered are none",
        "unknown reducer: total; registered are none",
    ]
    assert lacking(merged, known()) is None


def test_a_runtime_refuses_a_definition_with_faults_before_anything_is_opened() -> None:
    with pytest.raises(
        InvalidDefinitionError, match=r"steps\[0\].agent: there is no agent 'anita'; none is registered"
    ):
        Runtime("unused.db", workflows=[definition()])


def test_a_run_keeps_the_definition_that_it_started_with() -> None:
    async def scenario() -> tuple[Any, list[str]]:
        disk, old = MemoryDisk(), definition(step("first"), step("second", conditions={"if": "never"}))
        agents = [Agent("anita", answer)]
        async with box_with(old, on=disk, agents=agents) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(rt.workflows["order"], {"n": 1})
            await run.result()
            (started,) = await events(rt, "r", "run-started")
        return started["input"]["data"], [each["id"] for each in started["input"]["definition"]["steps"]]

    assert play(scenario) == ({"n": 1}, ["first", "second"])


def test_names_in_a_definition_are_not_redacted_and_its_constants_are() -> None:
    async def scenario() -> Any:
        secretive = definition(step(input_mapping={"token": "x"}, arguments={"password": "p"}), metadata={"token": "t"})
        async with box_with(secretive, agents=[Agent("anita", answer)]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r").start(rt.workflows["order"], {"token": "t", "x": 1})).result()
            (started,) = await events(rt, "r", "run-started")
        definition_kept = started["input"]["definition"]
        return definition_kept["steps"][0], definition_kept["metadata"], started["input"]["data"]

    kept, metadata, data = play(scenario)

    assert kept["input_mapping"] == {"token": "x"}
    assert (kept["arguments"], metadata) == ({"password": "[redacted]"}, {"token": "[redacted]"})
    assert data == {"token": "[redacted]", "x": 1}


def test_the_input_of_a_defined_workflow_is_one_object() -> None:
    async def scenario() -> None:
        async with Runtime(
            "unused", workflows=[definition()], agents=[Agent("anita", answer)], log=MemoryDisk().open
        ) as rt:
            with pytest.raises(UsageError, match="it takes the data as one object, not n"):
                await rt.start(rt.workflows["order"], n=1)
            with pytest.raises(UsageError, match=r"Expected `object`, got `int` - at `\$.data`"):
                await rt.start(rt.workflows["order"], 1)

    asyncio.run(scenario())
