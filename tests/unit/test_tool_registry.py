"""The registry: names, availability, toolsets, and the schemas that models and MCP clients are given."""

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pytest

from perdure import Registry, Secret, Tool, ToolContext, Toolset, UnknownToolError, UsageError, tool
from tests.support.runs import play
from tests.support.tools import Double, box_of


def named(name: str, **options: Any) -> Tool[..., Any]:
    return Double(name, **options).tool


def fails() -> bool:
    raise OSError("no network")


# Names


def test_registering_the_same_tool_again_changes_nothing() -> None:
    alpha = named("alpha")
    registry = Registry([alpha])

    registry.register(alpha)

    assert registry["alpha"] is alpha
    assert len(registry) == 1


def test_registering_another_tool_of_the_same_name_is_an_error_that_changes_nothing() -> None:
    alpha = named("alpha")
    registry = Registry([alpha])

    with pytest.raises(UsageError, match=r"two tools are called 'alpha'.*replace=True"):
        registry.register(named("alpha"))

    assert registry["alpha"] is alpha


def test_a_tool_may_be_replaced_on_purpose() -> None:
    registry, other = Registry([named("alpha"), named("beta")]), named("alpha")

    registry.register(other, replace=True)

    assert registry["alpha"] is other
    assert [one.name for one in registry.in_order()] == ["alpha", "beta"]


def test_a_tool_that_was_replaced_is_called_in_the_new_form_behind_the_old_circuit() -> None:
    async def scenario() -> tuple[str, int, str]:
        old, new = Double(), Double(name="alpha")
        async with box_of(old) as box:
            rt = await box.open()
            await rt.dispatch("alpha", {"do": "fail"})
            rt.tools.register(new.tool, replace=True)
            told = await rt.dispatch("alpha", {"do": "fail"})
            with pytest.raises(UsageError, match="two tools are called 'alpha'"):
                await rt.call(old.tool)
            return told, (await rt.statistics()).tools["alpha"].failures, new.calls[0]

    told, failures, called = play(scenario)

    assert "boom" in told
    assert (failures, called) == (2, "fail")


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(UsageError, match="decorate it with @tool"):
        Registry([print])  # type: ignore[list-item]


def test_an_unknown_name_names_those_that_are_known() -> None:
    registry = Registry([named("beta"), named("alpha")])

    with pytest.raises(UnknownToolError, match="unknown tool: nope; registered are alpha, beta"):
        registry["nope"]

    assert registry.get("nope") is None
    assert "nope" not in registry
    assert list(registry) == ["alpha", "beta"]


@pytest.mark.parametrize("name", ["", "a b", "a@b", "a/b", "x" * 129, "ä"])
def test_a_name_that_cannot_be_a_streams_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="a tool's name is"):
        tool(name=name or " ")(_nothing)


async def _nothing() -> str:
    return ""


# Availability


@pytest.mark.row("A0-05")
@pytest.mark.parametrize("check", [lambda: False, fails], ids=["says no", "raises"])
def test_definitions_are_sorted_and_leave_out_what_cannot_be_used(check: Any) -> None:
    registry = Registry([named("b"), named("a"), named("hidden", check=check)])

    found = registry.definitions({"b", "a", "hidden", "unknown"})

    assert [one["function"]["name"] for one in found] == ["a", "b"]
    assert all(set(one) == {"type", "function"} and one["type"] == "function" for one in found)
    assert [one["function"] for one in found] == [registry[name].schema["function"] for name in ("a", "b")]
    assert registry.definitions() == found


@pytest.mark.row("A0-06")
def test_a_toolset_whose_check_raises_is_not_available() -> None:
    registry = Registry([named("a", toolset="web"), named("b", toolset="files")])
    registry.describe_toolset("web", "The web.", check=fails)

    available, lacking = registry.availability()

    assert not registry.is_toolset_available("web")
    assert available == ["files"]
    assert [(one.name, one.tools) for one in lacking] == [("web", ("a",))]
    assert [one["function"]["name"] for one in registry.definitions()] == ["b"]


def test_a_tool_needs_its_variables() -> None:
    environ: dict[str, str] = {"EMPTY": ""}
    registry = Registry([named("a", requires_env=["KEY"]), named("b", requires_env=["EMPTY"])], environ=environ)

    before = [registry.is_available(name) for name in ("a", "b")]
    environ["KEY"] = "x"

    assert before == [False, False]
    assert [registry.is_available(name) for name in ("a", "b")] == [True, False]


def test_a_toolset_says_what_it_lacks() -> None:
    registry = Registry([named("a", toolset="web", requires_env=["KEY", "HOST"])], environ={"HOST": "h"})
    registry.describe_toolset("web", "The web.", requires_env=["PROXY"])

    assert registry.toolsets() == {"web": Toolset("web", False, ("a",), "The web.", ("PROXY", "KEY", "HOST"))}
    assert registry.availability()[1][0].missing_env == ("PROXY", "KEY")


def test_a_toolset_is_described_once() -> None:
    registry = Registry()
    registry.describe_toolset("web")

    with pytest.raises(UsageError, match="described before"):
        registry.describe_toolset("web")


def test_a_toolset_with_one_tool_that_can_be_used_is_available() -> None:
    registry = Registry([named("a", toolset="web", check=fails), named("b", toolset="web")])

    assert registry.availability() == (["web"], [])
    assert registry.is_toolset_available("nobody described it")


def test_a_check_is_asked_each_time() -> None:
    answers = [False, True]
    registry = Registry([named("a", check=lambda: answers.pop(0))])

    assert [registry.is_available("a"), registry.is_available("a")] == [False, True]


# Schemas


@dataclass
class Page:
    number: int
    size: int = 10


@tool(effect="read")
async def search(
    context: ToolContext,
    query: Annotated[str, msgspec.Meta(description="what to look for", min_length=1)],
    page: Page,
    kind: Literal["new", "old"] = "new",
    token: Secret | None = None,
) -> list[str]:
    """Search the index.

    Finds at most ten.
    """
    return [query, kind, str(page), str(token), context.tool]


def test_the_openai_form_has_the_docstring_and_the_parameters() -> None:
    schema = search.schema

    function = schema["function"]
    parameters = function["parameters"]
    assert (schema["type"], set(function)) == ("function", {"name", "description", "parameters"})
    assert (function["name"], function["description"]) == ("search", "Search the index.\n\nFinds at most ten.")
    assert (parameters["type"], parameters["required"]) == ("object", ["query", "page"])
    assert list(parameters["properties"]) == ["query", "page", "kind", "token"]
    assert parameters["properties"]["query"] == {"type": "string", "description": "what to look for", "minLength": 1}
    assert parameters["properties"]["kind"]["enum"] == ["new", "old"]
    assert parameters["additionalProperties"] is False


def test_nested_types_are_defined_where_they_are_referred_to() -> None:
    parameters = search.schema["function"]["parameters"]

    assert parameters["properties"]["page"] == {"$ref": "#/$defs/Page"}
    assert parameters["$defs"]["Page"]["properties"]["size"] == {"type": "integer", "default": 10}


def test_a_tool_without_parameters_has_an_object_without_properties() -> None:
    nothing = tool(_nothing)

    parameters = nothing.schema["function"]["parameters"]

    assert (parameters["type"], parameters["properties"], parameters["required"]) == ("object", {}, [])


@pytest.mark.parametrize(
    ("effect", "hints"),
    [("read", (True, True, False)), ("idempotent", (False, True, False)), ("irreversible", (False, False, True))],
)
def test_the_mcp_form_has_hints_that_follow_from_the_effect_class(effect: Any, hints: tuple[bool, ...]) -> None:
    registry = Registry([named("b", effect=effect), named("a"), named("hidden", check=fails)])

    listed = registry.mcp_definitions()

    assert [one["name"] for one in listed] == ["a", "b"]
    one = listed[1]
    assert tuple(one["annotations"][h] for h in ("readOnlyHint", "idempotentHint", "destructiveHint")) == hints
    assert one["inputSchema"] == registry["b"].schema["function"]["parameters"]


def test_the_schema_is_what_arguments_are_checked_against() -> None:
    async def scenario() -> tuple[str, str]:
        async with box_of(search) as box:
            rt = await box.open()
            good = await rt.dispatch("search", {"query": "x", "page": {"number": 1}})
            bad = await rt.dispatch("search", {"query": "", "page": {"number": 1}})
            return good, bad

    good, bad = play(scenario)

    assert msgspec.json.decode(good) == ["x", "new", "Page(number=1, size=10)", "None", "search"]
    assert "Invalid arguments for search" in bad


def test_a_parameter_without_a_name_is_refused() -> None:
    async def many(*items: int) -> str:
        return str(items)

    with pytest.raises(UsageError, match="name every parameter"):
        tool(many)


def test_a_tool_tells_what_it_was_told_about_itself() -> None:
    one = named("a", toolset="web", tags=["slow"], capabilities=["search"], requires_env=["KEY"], scope="conversation")

    assert (one.toolset, set(one.offer.tags), set(one.offer.capabilities)) == ("web", {"slow"}, {"search"})
    assert (one.offer.requires_env, one.scope) == (("KEY",), "conversation")


@pytest.mark.parametrize("options", [{"effect": "odd"}, {"scope": "odd"}, {"reconcile": fails}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        named("a", **options)


def test_a_name_and_a_conversation_of_any_length_make_a_streams_name() -> None:
    one = named("x" * 128, scope="conversation")

    streams = {one.stream(conversation) for conversation in ("c" * 60, "r" * 128, "r" * 127 + "s")}

    assert len(streams) == 3
    assert max(len(stream) for stream in streams) <= 200


def test_what_is_called_but_is_no_function_is_refused() -> None:
    def add(left: int, right: int) -> int:
        return left + right

    with pytest.raises(UsageError, match=r"a function or a method: wrap functools\.partial"):
        tool(functools.partial(add, 1))
