"""What a tool and a workflow are: a schema, validated arguments, defaults, and refusals that say what to write."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pytest

from perdure import Context, InvalidArgumentsError, Secret, ToolContext, UsageError, tool, workflow
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.tools.definition import NotDone

PLAIN = Redaction()


class Filter(msgspec.Struct):
    field: str
    value: int = 0


@dataclass
class Page:
    number: int
    size: int = 10


@tool
async def search(
    query: Annotated[str, msgspec.Meta(min_length=1, description="what to look for")],
    filters: list[Filter],
    mode: Literal["fast", "deep"] = "fast",
    limit: int | None = None,
    page: Page = Page(1),  # noqa: B008 - a default is data
    context: ToolContext | None = None,
) -> list[str]:
    """Search the index.

    Everything after the first line is part of the description too.
    """
    return [query]


@tool
async def described(query: str, context: ToolContext) -> str:
    """Say something."""
    return context.tool + query


def test_the_schema_has_the_form_that_models_are_given() -> None:
    assert described.schema == {
        "type": "function",
        "function": {
            "name": "described",
            "description": "Say something.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }


def test_the_schema_holds_constraints_defaults_and_nested_types() -> None:
    @tool
    async def find(
        query: Annotated[str, msgspec.Meta(min_length=1, description="what to look for")],
        filters: list[Filter],
        mode: Literal["fast", "deep"] = "fast",
        limit: int | None = None,
    ) -> None:
        """Find."""

    parameters = find.schema["function"]["parameters"]

    assert parameters["required"] == ["query", "filters"]
    assert parameters["properties"]["query"] == {"type": "string", "minLength": 1, "description": "what to look for"}
    assert parameters["properties"]["filters"] == {"type": "array", "items": {"$ref": "#/$defs/Filter"}}
    assert parameters["properties"]["mode"]["enum"] == ["deep", "fast"]
    assert parameters["$defs"]["Filter"]["required"] == ["field"]
    msgspec.json.encode(find.schema)


def test_a_tool_without_parameters_has_a_schema_too() -> None:
    @tool
    async def ping() -> str:
        return "pong"

    parameters = ping.schema["function"]["parameters"]

    assert (parameters["type"], parameters["properties"], parameters["required"]) == ("object", {}, [])


def arguments(*args: Any, **kwargs: Any) -> bytes:
    return find.encode_arguments(args, kwargs, PLAIN)


@tool(name="find")
async def find(query: str, page: Page, mode: Literal["fast", "deep"] = "fast", limit: int | None = 5) -> list[str]:
    return [query]


def test_arguments_are_recorded_by_name_and_defaults_are_not() -> None:
    assert arguments("x", Page(1)) == b'{"page":{"number":1,"size":10},"query":"x"}'


def test_equal_calls_give_equal_bytes_however_they_are_written() -> None:
    assert arguments("x", Page(1), "deep") == arguments(mode="deep", page=Page(1, 10), query="x")


def test_arguments_come_back_as_their_types_and_defaults_stay_those_of_the_function() -> None:
    given = find.decode_arguments(arguments("x", Page(2), limit=None), ToolContext("c", "find", "k", 1))

    assert given == {"query": "x", "page": Page(2, 10), "limit": None}


def test_the_call_is_handed_to_who_asks_for_it_and_cannot_be_given() -> None:
    context = ToolContext("c", "described", "k", 1)

    assert described.decode_arguments(b'{"query":"x"}', context) == {"query": "x", "context": context}
    with pytest.raises(InvalidArgumentsError, match="context"):
        described.encode_arguments(("x",), {"context": 5}, PLAIN)


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ((), {}, "query"),
        (("x",), {}, "page"),
        ((5, Page(1)), {}, "str"),
        (("x", "y"), {}, "page"),
        (("x", Page(1), "slow"), {}, "slow"),
        (("x", Page(1)), {"color": "red"}, "color"),
        (("x", Page(1)), {"query": "y"}, "'query' is given twice"),
        (("x", Page(1), "fast", 1, 2), {}, "takes 4 arguments, 5 were given"),
        (("x", {"number": "1"}), {}, "number"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_reason(args: Any, kwargs: Any, reason: str) -> None:
    with pytest.raises(InvalidArgumentsError, match=reason) as caught:
        arguments(*args, **kwargs)

    assert caught.value.tool == "find"


def test_untyped_parameters_take_anything() -> None:
    @tool
    async def loose(a, b=None, *, c=3):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - that is what is tested
        return a

    data = loose.encode_arguments(({"x": [1]},), {"c": None}, PLAIN)

    assert loose.decode_arguments(data, ToolContext("c", "loose", "k", 1)) == {"a": {"x": [1]}, "c": None}


def test_the_function_stays_callable_as_it_was() -> None:
    @tool
    def double(number: int) -> int:
        return 2 * number

    assert double(21) == 42
    assert (double.name, double.is_async, double.effect) == ("double", False, "idempotent")
    assert search.is_async


def test_a_tool_may_take_a_secret_by_reference() -> None:
    @tool
    async def login(key: Secret) -> str:
        return key.reveal()

    data = login.encode_arguments((Secret("API"),), {}, PLAIN)

    assert data == b'{"key":{"$secret":"API"}}'
    assert login.decode_arguments(data, ToolContext("c", "login", "k", 1)) == {"key": Secret("API")}


async def _reconcile(key: str) -> NotDone:
    return NotDone()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "with space"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "naïve"}, "name"),
        ({"effect": "write"}, "effect"),
        ({"reconcile": _reconcile}, "irreversible"),
        ({"failure_threshold": 0}, "failure_threshold"),
        ({"reset_timeout": -1}, "reset_timeout"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):

        @tool(**options)
        async def f() -> int:
            return 1


def test_parameters_without_a_name_are_refused() -> None:
    for bad in (lambda *args: 1, lambda **kwargs: 1, eval("lambda a, /: 1")):  # noqa: S307 - a syntax of its own
        with pytest.raises(UsageError, match="name every parameter"):
            tool(name="bad")(bad)


def test_hints_that_cannot_be_read_are_refused() -> None:
    class Custom:
        pass

    def takes(x: Custom) -> int:
        return 1

    def returns() -> Custom:
        return Custom()

    def unknown(x: "Missing") -> int:  # type: ignore[name-defined] # noqa: F821 - on purpose
        return 1

    for bad in (takes, returns):
        with pytest.raises(UsageError, match="cannot be read back"):
            tool(bad)
    with pytest.raises(UsageError, match="type hints of unknown"):
        tool(unknown)


def test_a_workflow_must_be_async_and_take_a_context() -> None:
    with pytest.raises(UsageError, match="async def plain"):

        @workflow  # type: ignore[arg-type] # on purpose
        def plain(ctx: Context) -> None: ...

    with pytest.raises(UsageError, match="takes no context"):

        @workflow  # type: ignore[arg-type] # on purpose
        async def alone() -> None: ...


def test_the_input_of_a_workflow_is_validated_like_arguments() -> None:
    @workflow
    async def wf(ctx: Context, page: Page, name: str = "x") -> None: ...

    assert wf.encode_input((Page(1),), {}, PLAIN) == b'{"page":{"number":1,"size":10}}'
    assert wf.decode_input(b'{"page":{"number":1}}') == {"page": Page(1)}
    with pytest.raises(InvalidArgumentsError):
        wf.encode_input((), {"page": 5}, PLAIN)
