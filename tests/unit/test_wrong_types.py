"""A wrong type is a `UsageError` that names the parameter and says what is expected, wherever an application calls."""

import asyncio
import enum
import inspect
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol
from unittest import mock

import msgspec
import pytest

import perdure
from perdure import (
    AgentRuntimeConfig,
    BreakerPolicy,
    Context,
    EntryPoint,
    ExecutorConfig,
    FormField,
    Goal,
    On,
    OnEvent,
    PerdureError,
    Query,
    Queue,
    RateLimit,
    Retry,
    Runtime,
    Schedule,
    Secret,
    Settings,
    SlotLimits,
    UsageError,
    Webhook,
    WebhookRoute,
    connect,
    tool,
    workflow,
)
from perdure.runtime.options import Options
from perdure.runtime.sagas import Sagas
from perdure.store.expected import check_fields, checked
from perdure.testing import MemoryDisk

CALLED: list[type] = [
    perdure.Agent, perdure.Agents, perdure.Choice, perdure.Confirm, perdure.Connection, perdure.Conversation,
    perdure.Conversations, perdure.EntryPoints, perdure.EventBus, perdure.Events, perdure.Form, perdure.FreeText,
    perdure.GoalReader, perdure.Goals, perdure.LogReader, perdure.Registry, perdure.RemoteBackend, perdure.RunHandle,
    Options, Runtime, Sagas, perdure.Schedules, perdure.SharedState, perdure.ToolExecutor, perdure.Topic,
    perdure.Trajectory, perdure.WebhookServer, perdure.Webhooks, perdure.Workflows,
]  # fmt: skip
"""What applications call from outside of runs."""

NOT_CHECKED = {
    "Context", "Saga", "Pursuit", "StateView", "ToolContext", "Approval",  # in runs: nothing is to be done per step
    "Tool", "Workflow", "DefinedWorkflow",  # made by decorators, which check
    "AnswerForm", "Backend",  # to be derived from
    "BlockingRun", "BlockingRuntime", "BlockingTrajectory",  # what blocks is made of what is awaited, which checks
    "EventSubscription", "Subscription", "InputOutcome",  # only given, and asked nothing that could be wrong
}  # fmt: skip

TELLS_ITSELF = {
    "Runtime.start", "Runtime.call", "Connection.start", "Connection.call", "Options.start", "Options.call",
    "Registry.register", "WebhookServer.open", "Runtime.http_api",
}  # fmt: skip
"""Said in the words of tools and workflows, or of types that only the extra `serve` brings."""

FUNCTIONS = [
    perdure.Bubblewrap, perdure.PlainProcess, perdure.agent, connect, perdure.has_tool_call, perdure.load_definition,
    perdure.parse_tool_calls, perdure.reflective, perdure.simulate, perdure.slot_of, tool, perdure.webhook_tool,
    workflow,
]  # fmt: skip

MADE: dict[type[msgspec.Struct], dict[str, Any]] = {
    AgentRuntimeConfig: {}, BreakerPolicy: {}, EntryPoint: {"id": "a", "workflow": "w"}, ExecutorConfig: {},
    FormField: {"name": "a"}, On: {"type": "a"}, OnEvent: {"types": "a"}, Query: {}, Queue: {"name": "a"},
    RateLimit: {"calls": 1}, Retry: {}, Schedule: {"every": timedelta(1)}, Secret: {"name": "a"}, Settings: {},
    SlotLimits: {}, Webhook: {"path": "/a"}, WebhookRoute: {"source": "a", "path": "/a"},
}  # fmt: skip
"""What applications make, with what it takes at least. Definitions and goals are checked whole, when registered."""


class Wrong:
    """Of no type that anything takes."""


def parameters_of(function: Any) -> Iterator[str]:
    for one in inspect.signature(function).parameters.values():
        takes_all = one.annotation in (Any, object, "object") or one.name in {"self", "transport", "handler"}
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and not takes_all:
            yield one.name


def methods_of(kind: type) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        static = inspect.getattr_static(kind, name)
        is_mapping_get = name == "get" and hasattr(kind, "__getitem__")
        if name.startswith("_") or is_mapping_get or f"{kind.__name__}.{name}" in TELLS_ITSELF:
            continue
        if isinstance(static, (classmethod, staticmethod)):
            yield name, getattr(kind, name)
        elif inspect.isfunction(static):
            yield name, getattr(object.__new__(kind), name)


async def said_by(function: Any, name: str) -> str:
    """Return what is said of a wrong value for a parameter, by a method of an object that nothing was put into."""
    try:
        made = function(**{name: Wrong()})
        if inspect.isawaitable(made):
            await made
    except PerdureError as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("kind", CALLED)
def test_every_public_method_names_the_parameter_that_has_a_wrong_type(kind: type) -> None:
    async def scenario() -> None:
        for name, method in methods_of(kind):
            for parameter in parameters_of(method):
                told = await said_by(method, parameter)
                assert told.startswith(f"{kind.__name__}.{name}: {parameter} is ")
                assert ", not " in told

    asyncio.run(scenario())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_public_function_names_the_parameter_that_has_a_wrong_type(function: Any) -> None:
    async def scenario() -> None:
        for parameter in parameters_of(function):
            assert f"{function.__name__}: {parameter} is " in await said_by(function, parameter)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [perdure.Agent, perdure.EventBus, perdure.Registry, Runtime, perdure.RemoteBackend])
def test_what_an_application_makes_names_the_parameter_that_has_a_wrong_type(kind: Any) -> None:
    for name in parameters_of(kind):
        with pytest.raises(UsageError, match=f"^{kind.__name__}: {name} is "):
            kind(**{name: Wrong()})


@pytest.mark.parametrize("kind", MADE)
def test_what_is_made_of_data_names_the_field_that_has_a_wrong_type(kind: type[msgspec.Struct]) -> None:
    hints = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name in kind.__struct_fields__:
        if hints[name] is not Any:
            with pytest.raises(UsageError) as refused:
                kind(**(MADE[kind] | {name: Wrong()}))
            assert name in str(refused.value) or (kind, name) == (OnEvent, "types")


def test_no_public_class_and_no_function_is_forgotten() -> None:
    public = {name: getattr(perdure, name) for name in perdure.__all__}
    classes = {name for name, one in public.items() if inspect.isclass(one) and not issubclass(one, BaseException)}
    with_methods = {name for name in classes if not issubclass(public[name], msgspec.Struct)} - NOT_CHECKED

    assert with_methods == {kind.__name__ for kind in CALLED} - {"Options", "Sagas"}
    assert {name for name, value in public.items() if inspect.isfunction(value)} == {one.__name__ for one in FUNCTIONS}


@tool
async def price(item: str) -> int:
    return len(item)


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


MISTAKES: dict[str, Any] = {
    "inject_input: target is a text, not 5": lambda rt, run: rt.inject_input(5, "yes"),
    "with_options: timeout is a timedelta": lambda rt, run: rt.with_options(timeout="x").call(price, "a"),
    "history: limit is a whole number, not 'x'": lambda rt, run: run.history(limit="x"),
    "history: after is a whole number, not True": lambda rt, run: run.history(after=True),
    "Query: limit is a whole number, not None": lambda rt, run: rt.read(Query(limit=None)),  # type: ignore[arg-type]
    "run: run_id is a text, not None": lambda rt, run: rt.run(None).status(),
    "trigger_and_wait: timeout is a timedelta": lambda rt, run: rt.trigger_and_wait("a", timeout="x"),
    "5 is not a workflow": lambda rt, run: rt.start(5),
    "5 is not a tool": lambda rt, run: rt.call(5),
    "select: required is a list, not 'fast'": lambda rt, run: rt.select("fast"),
    "force_circuit: to is one of": lambda rt, run: rt.force_circuit("price", "ajar", because="x"),
    "publish: id is a text or None, not 5": lambda rt, run: rt.publish("a", id=5),
}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_common_mistake_is_told_and_nothing_is_recorded(told: str) -> None:
    async def scenario() -> None:
        async with Runtime("a.db", workflows=[waits], tools=[price], log=MemoryDisk().open) as rt:
            run = await rt.with_options(id="r").start(waits)
            await rt.until_idle()
            before = await rt.read(Query(limit=1, newest_first=True))

            with pytest.raises(UsageError) as refused:
                await MISTAKES[told](rt, run)

            assert told in str(refused.value)
            assert await rt.read(Query(limit=1, newest_first=True)) == before

    asyncio.run(scenario())


def test_secrets_are_told_of_by_their_type_alone() -> None:
    wrong: Any = ["hunter2"]

    with pytest.raises(UsageError, match="secrets is a mapping such as a dict, a function or None") as refused:
        Runtime("a.db", secrets=wrong)

    assert "hunter2" not in str(refused.value)


def test_a_goal_whose_parts_are_none_is_refused_when_a_runtime_is_made() -> None:
    wrong: Any = 5

    with pytest.raises(UsageError, match="Goal: criteria is a list, not 5"):
        Runtime("a.db", goals=[Goal(id="g", criteria=wrong)])


class Speaks(Protocol):
    @property
    def words(self) -> str: ...


class Silent:
    @property
    def words(self) -> str:
        raise RuntimeError("nothing is to be asked of it")


@checked
class Called:
    def whole(self, number: int, *, seconds: float | timedelta = 1.5, names: "tuple[str, ...]" = ()) -> Any:
        return number, seconds, names

    def unknown(self, one: "NobodyKnowsThis") -> Any:  # type: ignore[name-defined]  # noqa: F821 - the point
        return one

    def speaks(self, one: Speaks) -> Any:
        return one

    def word(self, word: Literal["read", "write"]) -> Any:
        return word

    def named(self, name: int, /, **values: Any) -> Any:
        return name, values

    async def later(self, kind: type[BaseException] | None = None) -> Any:
        return kind


def test_what_fits_is_let_through() -> None:
    called, loose, silent = Called(), ["a"], Silent()

    assert called.whole(1, seconds=2, names=("a",)) == (1, 2, ("a",))
    assert called.whole(1, seconds=timedelta(1), names=loose)[2] == ["a"]  # type: ignore[arg-type]
    assert called.unknown(5) == 5
    assert called.speaks(silent) is silent
    assert asyncio.run(called.later(ValueError)) is ValueError
    assert inspect.iscoroutinefunction(called.later)


def test_what_is_within_a_list_and_which_class_it_is_is_looked_at() -> None:
    wrong: Any = (5,)
    number: Any = int

    with pytest.raises(UsageError, match=r"^Called\.whole: names is a tuple or a list, each of it a text, not \(5,\)$"):
        Called().whole(1, names=wrong)
    with pytest.raises(UsageError, match="kind is a class of BaseException or None"):
        asyncio.run(Called().later(number))
    with pytest.raises(UsageError, match="one is a Speaks, not 5"):
        Called().speaks(wrong[0])


def test_fields_of_a_base_are_checked_too() -> None:
    class Base(msgspec.Struct, frozen=True):
        name: str

    class More(Base, frozen=True):
        size: int = 0

        def __post_init__(self) -> None:
            check_fields(self)

    wrong: Any = 5

    with pytest.raises(UsageError, match="More: name is a text, not 5"):
        More(wrong)
    assert More("a", 1).size == 1


def test_what_stands_for_what_is_expected_is_as_good_as_that() -> None:
    called, unlike, like = Called(), mock.Mock(spec=Wrong), mock.Mock(spec=Silent)

    assert called.speaks(like) is like
    with pytest.raises(UsageError, match="one is a Speaks"):
        called.speaks(unlike)


def test_a_member_of_an_enumeration_of_texts_is_the_word_that_it_equals() -> None:
    class Mode(enum.StrEnum):
        READ = "read"
        OTHER = "other"

    read: Any = Mode.READ
    other: Any = Mode.OTHER

    assert Called().word(read) == "read"
    with pytest.raises(UsageError, match="word is one of 'read', 'write', not"):
        Called().word(other)


def test_a_name_that_is_only_a_place_is_free_for_other_values() -> None:
    assert Called().named(1, name="ada") == (1, {"name": "ada"})


def test_a_set_is_as_good_as_a_tuple_where_no_order_is_meant() -> None:
    errors: Any = {ValueError, "TimeoutError"}
    wrong: Any = {5}

    assert Retry(retry_on=errors).retry_on == errors
    with pytest.raises(UsageError, match="Retry: never_on is a tuple or a list, each of it a text or a class"):
        Retry(never_on=wrong)


def test_the_fields_that_an_application_adds_or_changes_are_its_own() -> None:
    class Billed(Queue, frozen=True):
        price: float = 0
        rate: "RateLimit | list[int] | None" = None  # type: ignore[assignment]

    price: Any = Decimal("1.50")
    name: Any = 5

    assert Billed("mail", price=price, rate=[1]).price == price
    with pytest.raises(UsageError, match="Billed: name is a text, not 5"):
        Billed(name)
