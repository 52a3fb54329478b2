"""Agents: what one can be, how it is called, who is in memory, who is chosen, and the reflective loop."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from perdure import (
    Agent,
    AgentLoadError,
    AgentMessage,
    AgentResponse,
    BreakerPolicy,
    CircuitOpenError,
    Context,
    Reflection,
    Retry,
    Runtime,
    Settings,
    StepFailedError,
    ToolContext,
    ToolFailedError,
    UnknownAgentError,
    UsageError,
    agent,
    reflective,
    workflow,
)
from perdure.testing import MemoryDisk
from tests.support.agents import HISTORY, A
from tests.support.runs import Box, box_with, play

MODULE = "tests.support.agents"


@pytest.fixture(autouse=True)
def fresh_history() -> Iterator[None]:
    HISTORY.clear()
    yield
    HISTORY.clear()


def box_of(*agents: Agent, **options: Any) -> Box:
    return box_with(agents=agents, **options)


async def ask(rt: Runtime, name: str, action: str = "process", /, **data: Any) -> AgentResponse:
    return await rt.call(rt.agents[name].tool, AgentMessage(type=action, data=data))


def lazy(name: str, **options: Any) -> Agent:
    return Agent(name, f"{MODULE}:{name}", **options)


# What an agent can be


class Greeter:
    """Says hello."""

    capabilities = ("greet",)

    def process(self, message: AgentMessage) -> str:
        return f"hello {message.data['name']}"


async def echo(message: AgentMessage) -> dict[str, Any]:
    return message.data


class CallableObject:
    async def __call__(self, message: AgentMessage) -> str:
        return "called"


async def with_prefix(prefix: str, message: AgentMessage) -> str:
    return f"{prefix}{message.type}"


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (echo, {"name": "ada"}),
        (Greeter, "hello ada"),
        (CallableObject(), "called"),
        (partial(with_prefix, "> "), "> process"),
        (lambda message: message.data["name"], "ada"),
        (f"{MODULE}:A", {"by": "A", "name": "ada"}),
        (f"{MODULE}:blocking", "blocked for process"),
    ],
)
def test_functions_classes_and_import_paths_answer(handler: Any, expected: Any) -> None:
    async def scenario() -> AgentResponse:
        async with box_of(Agent("x", handler)) as box:
            return await ask(await box.open(), "x", name="ada")

    assert play(scenario) == AgentResponse(success=True, data=expected)


def test_an_agent_may_have_a_handler_for_each_action_and_takes_no_other() -> None:
    async def scenario() -> tuple[Any, str]:
        async with box_of(Agent("x", actions={"greet": Greeter().process, "echo": echo})) as box:
            rt = await box.open()
            with pytest.raises(ToolFailedError) as refused:
                await ask(rt, "x", "gret")
            return (await ask(rt, "x", "greet", name="ada")).data, str(refused.value)

    greeting, refusal = play(scenario)

    assert greeting == "hello ada"
    assert "x has no action 'gret'; it has echo, greet" in refusal


def test_a_handler_is_told_the_idempotency_key_in_its_context() -> None:
    async def keyed(message: AgentMessage, context: ToolContext) -> str:
        return context.idempotency_key

    @workflow
    async def order(ctx: Context) -> str:
        response = await ctx.with_options(key="pay").call(payer.tool, AgentMessage())
        return str(response.data)

    payer = Agent("payer", keyed)

    async def scenario() -> str:
        async with box_with(order, agents=[payer]) as box:
            rt = await box.open()
            return await (await rt.with_options(id="r").start(order)).result()

    assert play(scenario) == "r:pay"


def test_the_decorator_makes_an_agent_with_the_name_and_the_words_of_the_function() -> None:
    @agent(capabilities=["sums"], priority=2)
    async def adder(message: AgentMessage) -> int:
        """Add two numbers."""
        return sum(message.data["numbers"])

    assert (adder.name, adder.description, adder.capabilities) == ("adder", "Add two numbers.", frozenset({"sums"}))
    assert (adder.tool.name, adder.priority) == ("agent:adder", 2)


def test_models_are_not_offered_agents_as_tools() -> None:
    async def scenario() -> list[Any]:
        async with box_of(Agent("x", echo)) as box:
            return (await box.open()).tools.definitions()

    assert play(scenario) == []


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Agent("no spaces", echo), "an agent's name is 1 to 100 letters"),
        (lambda: Agent("x"), "neither a handler nor actions"),
        (lambda: Agent("x", "no-path"), "is 'package.module:Name'"),
        (lambda: Agent("x", 7), "is a function, a class or an import path, not 7"),  # type: ignore[arg-type] # on purpose
        (lambda: Agent("x", lambda: 1), r"takes \(message\) or \(message, context\)"),
        (lambda: Agent("x", dict), "has no method process"),
        (lambda: Agent("x", echo, timeout=-1), "timeout of agent:x is more than 0"),
        (lambda: reflective(Agent("x", echo), max_loops=0), "max_loops is at least 1"),
    ],
)
def test_what_is_no_agent_is_refused_where_it_is_written(make: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


def test_two_agents_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two agents are called 'x'"):
        Runtime("unused", agents=[Agent("x", echo), Agent("x", Greeter)])


def test_an_agent_called_outside_of_a_runtime_says_what_to_write() -> None:
    async def scenario() -> None:
        x = Agent("x", echo)
        with pytest.raises(UsageError, match=r"write `await ctx.call\(agent.tool, …\)`"):
            await x.tool.function(None, AgentMessage())  # type: ignore[call-arg, arg-type] # as somebody may try

    asyncio.run(scenario())


# Answers


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (AgentResponse(success=False, error="no luck"), "no luck"),
        (AgentResponse(success=False, data={"partly": 1}), "x answered success=False"),
        (AgentResponse(error="odd"), "odd"),
    ],
)
def test_an_answer_without_success_is_a_failed_call(answered: AgentResponse, reason: str) -> None:
    async def scenario() -> tuple[str, str]:
        async with box_of(Agent("x", lambda message: answered)) as box:
            with pytest.raises(ToolFailedError) as failed:
                await ask(await box.open(), "x")
            return failed.value.reason, failed.value.result or ""

    told, result = play(scenario)

    assert told == reason
    assert '"success":false' in result


@pytest.mark.row("A2-28")
def test_an_answer_without_success_is_a_failed_attempt_under_retry() -> None:
    asked: list[str] = []

    def moody(message: AgentMessage) -> AgentResponse:
        asked.append(message.type)
        return AgentResponse(success=len(asked) == 3, data=len(asked), error=None)

    @workflow
    async def persist(ctx: Context) -> Any:
        return (await ctx.call(x.tool, AgentMessage())).data

    x = Agent("x", moody, retry=Retry(attempts=3, backoff=timedelta(0)))

    async def scenario() -> Any:
        async with box_with(persist, agents=[x]) as box:
            return await (await (await box.open()).start(persist)).result()

    assert (play(scenario), len(asked)) == (3, 3)


# Breakers


@pytest.mark.row("A2-37")
@pytest.mark.row("A2-42")
def test_five_failing_calls_of_runs_open_the_circuit_of_an_agent_that_loads_well() -> None:
    calls: list[str] = []

    class Failing:
        def process(self, message: AgentMessage) -> None:
            calls.append(message.type)
            raise ValueError("boom")

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.call(x.tool, AgentMessage())

    x = Agent("x", Failing)

    async def scenario() -> tuple[list[str], str, list[str], int]:
        errors: list[str] = []
        async with box_with(order, agents=[x]) as box:
            rt = await box.open()
            for _ in range(6):
                run = await rt.start(order)
                view = await rt.ended(run.id)
                errors.append(view.error or "")
            with pytest.raises(CircuitOpenError, match="Circuit breaker open for agent:x"):
                await ask(rt, "x")
            statistics = (await rt.statistics()).tools["agent:x"]
            return errors, statistics.state, list(rt.agents.stats().loaded), rt.agents.stats().loads

    errors, state, loaded, loads = play(scenario)

    assert ["boom" in error for error in errors] == [True] * 5 + [False]
    assert "Circuit breaker open for agent:x" in errors[5]
    assert (state, len(calls), loaded, loads) == ("open", 5, ["x"], 1)


@pytest.mark.row("A2-42")
def test_an_agent_that_says_nothing_of_its_breaker_has_the_defaults() -> None:
    x = Agent("x", echo)

    assert x.tool.breaker == BreakerPolicy(5, timedelta(seconds=60), successes_to_close=3)


# Finding


def finders(**options: Any) -> list[Agent]:
    return [Agent("a", echo, capabilities=["p", "q"]), Agent("b", echo, capabilities=["p", "q", "r"], **options)]


async def chosen(rt: Runtime, *required: str, partial: bool = False) -> str | None:
    found = await rt.agents.select_best(required, partial=partial)
    return None if found is None else found.name


@pytest.mark.row("A2-43")
@pytest.mark.row("A2-44")
def test_the_best_agent_has_all_that_is_required_and_is_the_first_on_ties() -> None:
    async def scenario() -> list[str | None]:
        async with box_of(*finders()) as box:
            rt = await box.open()
            return [
                await chosen(rt, "p", "q"),
                await chosen(rt, "zz"),
                await chosen(rt, "r", "zz"),
                await chosen(rt, "r", "zz", partial=True),
                await chosen(rt, "zz", partial=True),
            ]

    assert play(scenario) == ["a", None, None, "b", None]


def test_among_those_who_fit_the_highest_priority_is_chosen() -> None:
    async def scenario() -> str | None:
        async with box_of(*finders(priority=1)) as box:
            return await chosen(await box.open(), "p")

    assert play(scenario) == "b"


@pytest.mark.row("A2-45")
def test_an_agent_whose_circuit_is_open_is_chosen_only_if_there_is_no_other() -> None:
    async def scenario() -> list[str | None]:
        async with box_of(*finders()) as box:
            rt = await box.open()
            await rt.force_circuit("agent:a", "open", because="a test")
            before = await chosen(rt, "p", "q")
            await rt.force_circuit("agent:b", "open", because="a test")
            return [before, await chosen(rt, "p", "q")]

    assert play(scenario) == ["b", "a"]


def test_agents_are_found_by_capability_and_discovered_by_priority_and_use() -> None:
    async def scenario() -> tuple[list[str], list[str], list[tuple[str, int]]]:
        c = Agent("c", Greeter, priority=5)
        async with box_of(*finders(), c) as box:
            rt = await box.open()
            await ask(rt, "b")
            found = rt.agents.discover()
            uses = [(info.name, info.usage_count) for info in found]
            return [i.name for i in rt.agents.find("p")], [i.name for i in rt.agents.find("greet")], uses

    assert play(scenario) == (["a", "b"], ["c"], [("c", 0), ("b", 1), ("a", 0)])


def test_capabilities_given_as_a_text_are_refused() -> None:
    async def scenario() -> None:
        async with box_of(*finders()) as box:
            with pytest.raises(UsageError, match="required is a list, not 'p'"):
                await (await box.open()).agents.select_best("p")

    play(scenario)


# Loading


@pytest.mark.row("A2-54")
def test_an_agent_that_nobody_registered_is_an_error_that_names_those_there_are() -> None:
    async def scenario() -> None:
        async with box_of(lazy("A"), lazy("D")) as box:
            rt = await box.open()
            with pytest.raises(UnknownAgentError, match="unknown agent: B; registered are A, D"):
                await rt.agents.load("B")

    play(scenario)


@pytest.mark.row("A2-54")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"{MODULE}:Deaf", "Deaf has no method process"),
        (f"{MODULE}:Needy", r"Needy\(\) is made without arguments, but missing a required argument: 'url'"),
        (f"{MODULE}:NUMBER", "is a function, a class or an import path, not 7"),
        (f"{MODULE}:a_workflow", "it is a Workflow, which is passed itself"),
        (f"{MODULE}:Gone", "has no Gone"),
        ("tests.support.gone:A", "importing tests.support.gone raised ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_an_agent_is_refused_when_it_is_loaded(path: str, reason: str) -> None:
    async def scenario() -> None:
        async with box_of(Agent("x", path)) as box:
            rt = await box.open()
            with pytest.raises(AgentLoadError, match=reason):
                await rt.agents.load("x")
            with pytest.raises(ToolFailedError, match="cannot be loaded"):
                await ask(rt, "x")

    play(scenario)


def test_an_agent_is_loaded_once_however_many_call_it_at_once() -> None:
    async def scenario() -> int:
        async with box_of(lazy("A")) as box:
            rt = await box.open()
            assert HISTORY == []
            await asyncio.gather(*[ask(rt, "A") for _ in range(5)])
            return rt.agents.stats().loads

    assert play(scenario) == 1
    assert ["A initialized", *["A process"] * 5, "A shut down"] == HISTORY


def test_a_load_that_failed_is_tried_again_by_the_next_call() -> None:
    attempts: list[int] = []

    class Late:
        async def initialize(self) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise OSError("not yet")

        async def process(self, message: AgentMessage) -> str:
            return "ready"

    async def scenario() -> Any:
        async with box_of(Agent("x", Late)) as box:
            rt = await box.open()
            with pytest.raises(ToolFailedError, match="OSError: not yet"):
                await ask(rt, "x")
            return (await ask(rt, "x")).data

    assert play(scenario) == "ready"


@pytest.mark.row("A2-55")
def test_the_one_used_longest_ago_leaves_when_there_are_too_many() -> None:
    names = ("A", "A_b", "A_b_c", "D")

    async def scenario() -> tuple[str, ...]:
        settings = Settings(max_loaded_agents=3)
        async with box_of(*[lazy(name) for name in names], settings=settings) as box:
            rt = await box.open()
            for name in ("A", "A_b", "A_b_c", "A"):
                await ask(rt, name)
            await ask(rt, "D")
            return rt.agents.stats().loaded

    assert play(scenario) == ("A_b_c", "A", "D")
    assert "A_b shut down" in HISTORY[:-3]


@pytest.mark.row("A2-55")
def test_preloaded_agents_and_those_in_use_stay() -> None:
    async def scenario() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        release = asyncio.Event()

        class Busy:
            async def process(self, message: AgentMessage) -> str:
                await release.wait()
                return "done"

        agents = [lazy("A", preload=True), Agent("busy", Busy), lazy("A_b"), lazy("A_b_c")]
        async with box_of(*agents, settings=Settings(max_loaded_agents=3)) as box:
            rt = await box.open()
            at_first = rt.agents.stats().loaded
            call = asyncio.ensure_future(ask(rt, "busy"))
            await ask(rt, "A_b")
            await ask(rt, "A_b_c")
            meanwhile = rt.agents.stats().loaded
            release.set()
            await call
            await ask(rt, "A_b")
            return at_first, meanwhile, rt.agents.stats().loaded

    at_first, meanwhile, after = play(scenario)

    assert at_first == ("A",)
    assert meanwhile == ("A", "busy", "A_b_c")
    assert after == ("A", "busy", "A_b")


def test_an_agent_that_is_idle_for_long_leaves_and_comes_back_as_the_same_class() -> None:
    async def scenario() -> list[Any]:
        async with box_of(lazy("A"), lazy("D", preload=True)) as box:
            rt = await box.open()
            await ask(rt, "A")
            await box.clock.advance(timedelta(minutes=14))
            before = rt.agents.stats().loaded
            await box.clock.advance(timedelta(minutes=2))
            after = rt.agents.stats().loaded
            answer = await ask(rt, "A")
            return [before, after, answer.data, rt.agents["A"].handler, rt.agents.stats().unloads]

    assert play(scenario) == [("D", "A"), ("D",), {"by": "A"}, f"{MODULE}:A", 1]
    assert A.__module__ == MODULE


def test_an_agent_that_cannot_be_preloaded_keeps_the_runtime_from_opening() -> None:
    async def scenario() -> None:
        runtime = Runtime("unused", agents=[Agent("x", f"{MODULE}:Gone", preload=True)], log=MemoryDisk().open)
        with pytest.raises(AgentLoadError, match="has no Gone"):
            await runtime.__aenter__()

    play(scenario)


def test_an_agent_can_be_loaded_and_unloaded_by_hand() -> None:
    async def scenario() -> list[Any]:
        async with box_of(lazy("A")) as box:
            rt = await box.open()
            await rt.agents.load("A")
            return [rt.agents.stats().loaded, await rt.agents.unload("A"), await rt.agents.unload("A")]

    assert play(scenario) == [("A",), True, False]
    assert HISTORY == ["A initialized", "A shut down"]


def test_two_runtimes_have_instances_of_their_own() -> None:
    shared = Agent("x", Greeter)

    async def scenario() -> list[int]:
        async with (
            Runtime("one", agents=[shared], log=MemoryDisk().open) as one,
            Runtime("two", agents=[shared], log=MemoryDisk().open) as two,
        ):
            await ask(one, "x", name="a")
            return [one.agents.stats().loads, two.agents.stats().loads]

    assert play(scenario) == [1, 0]


# Reflection


def critic(qualities: list[float], seen: list[dict[str, Any]]) -> Agent:
    async def think(message: AgentMessage) -> AgentResponse:
        seen.append(message.data)
        quality = qualities[len(seen) - 1]
        return AgentResponse(data=len(seen), metadata={"quality": quality, "feedback": f"only {quality}"})

    return Agent("thinker", think)


@pytest.mark.row("A2-56")
def test_the_third_answer_of_a_reflective_agent_is_good_enough() -> None:
    seen: list[dict[str, Any]] = []

    async def scenario() -> AgentResponse:
        async with box_of(reflective(critic([0.4, 0.6, 0.8], seen), threshold=0.7, max_loops=3)) as box:
            return await ask(await box.open(), "thinker", topic="t")

    answered = play(scenario)

    assert (answered.data, answered.success) == (3, True)
    assert answered.metadata == {"quality": 0.8, "feedback": "only 0.8", "reflection_iterations": 3}
    assert seen == [
        {"topic": "t"},
        {"topic": "t", "reflection_feedback": "only 0.4", "reflection_iteration": 1},
        {"topic": "t", "reflection_feedback": "only 0.6", "reflection_iteration": 2},
    ]


@pytest.mark.row("A2-56")
def test_an_answer_that_never_is_good_enough_says_so() -> None:
    seen: list[dict[str, Any]] = []

    async def scenario() -> AgentResponse:
        async with box_of(reflective(critic([0.1, 0.2, 0.3], seen))) as box:
            return await ask(await box.open(), "thinker")

    answered = play(scenario)

    assert (answered.data, len(seen)) == (3, 3)
    assert answered.metadata["max_reflections_reached"] is True


def test_somebody_else_may_judge_the_answers_of_a_class_that_is_loaded_when_needed() -> None:
    async def judge(message: AgentMessage, response: AgentResponse) -> Reflection:
        return Reflection(1.0 if "reflection_feedback" in message.data else 0.0, "more of it")

    async def scenario() -> tuple[Any, str]:
        async with box_of(reflective(lazy("A"), quality=judge)) as box:
            rt = await box.open()
            answered = await ask(rt, "A")
            return answered.data, ", ".join(rt.agents.stats().loaded)

    assert play(scenario) == ({"by": "A", "reflection_feedback": "more of it", "reflection_iteration": 1}, "A")


def test_a_reflective_agent_that_nobody_judges_fails_with_what_to_write() -> None:
    async def scenario() -> None:
        async with box_of(reflective(Agent("x", echo))) as box:
            with pytest.raises(ToolFailedError, match="or is given quality="):
                await ask(await box.open(), "x")

    play(scenario)


def test_a_step_that_an_agent_fails_says_the_same_live_and_replayed() -> None:
    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.call(x.tool, AgentMessage())
        except StepFailedError as error:
            await ctx.signal("go", of=bool)
            return f"{error.error_type}: {error.error}"
        return "no failure"

    def fail(message: AgentMessage) -> None:
        raise KeyError("lost")

    x = Agent("x", fail)

    async def scenario() -> str:
        disk = MemoryDisk()
        async with box_with(order, on=disk, agents=[x]) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(order)
            await box.clock.advance(1)
            await box.crash()
            rt = await box.open()
            await rt.run(run.id).signal("go", True)
            return str(await rt.run(run.id, order).result())

    assert play(scenario) == "KeyError: 'lost'"
