"""Tool calls by name, as a model makes them: what comes back, and what counts as a failure of the tool."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure import CircuitOpenError, Query, Tool, ToolFailedError, tool
from tests.support.runs import play
from tests.support.tools import Double, begun, box_of, dispatch, fail, figures, kinds, state


def returning(value: object) -> Tool[..., Any]:
    @tool(name="alpha")
    async def give() -> Any:
        return value

    return give


@pytest.mark.row("A0-01")
def test_the_handler_gets_the_arguments_and_its_text_comes_back_unchanged() -> None:
    given: list[dict[str, object]] = []
    text = '{"z": 1,  "a": [true]}'

    @tool
    async def alpha(query: str, limit: int) -> str:
        given.append({"query": query, "limit": limit})
        return text

    async def scenario() -> str:
        async with box_of(alpha) as box:
            rt = await box.open()
            return await rt.dispatch("alpha", {"query": "cats", "limit": 3})

    assert play(scenario) == text
    assert given == [{"query": "cats", "limit": 3}]


@pytest.mark.row("A0-01")
def test_arguments_may_come_as_json_text_as_models_send_them() -> None:
    async def scenario() -> tuple[str, str, str]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            return (
                await rt.dispatch("alpha", '{"do": "this"}'),
                await rt.dispatch("alpha", b'{"do": "that"}'),
                await rt.dispatch("alpha", ""),
            )

    assert play(scenario) == ('{"did": "this"}', '{"did": "that"}', '{"did": "ok"}')


@pytest.mark.row("A0-02")
def test_an_unknown_name_is_an_answer_and_leaves_nothing_behind() -> None:
    async def scenario() -> tuple[set[str], list[str], list[str]]:
        async with box_of(Double()) as box:
            rt = await box.open()
            told = {await rt.dispatch("nope", {}) for _ in range(5)}
            return told, list((await rt.statistics()).tools), await kinds(rt, "nope")

    assert play(scenario) == ({'{"error":"Unknown tool: nope"}'}, ["alpha"], [])


@pytest.mark.row("A0-03")
def test_a_handler_that_raises_is_an_answer_and_one_failure() -> None:
    async def scenario() -> tuple[dict[str, Any], int, int]:
        async with box_of(Double()) as box:
            rt = await box.open()
            told = await dispatch(rt, "alpha", "fail")
            after = await figures(rt)
            return told, after.failures, after.calls

    assert play(scenario) == ({"error": "Tool execution failed: RuntimeError: boom"}, 1, 1)


@pytest.mark.row("A0-04")
def test_an_async_handler_leaves_the_loop_to_the_others() -> None:
    ticks: list[int] = []

    async def scenario() -> str:
        ticked = asyncio.Event()

        @tool
        async def alpha() -> str:
            await ticked.wait()
            return "done"

        async def tick() -> None:
            while len(ticks) < 3:
                await asyncio.sleep(0.01)
                ticks.append(1)
            ticked.set()

        async with box_of(alpha) as box:
            rt = await box.open()
            _, told = await asyncio.gather(tick(), rt.dispatch("alpha"))
            return told

    assert play(scenario) == "done"
    assert len(ticks) == 3


@pytest.mark.row("A0-04")
def test_a_handler_that_blocks_does_so_on_a_thread() -> None:
    async def scenario() -> str:
        ticked = threading.Event()

        @tool
        def alpha() -> str:
            ticked.wait()
            return "done"

        async def tick() -> None:
            await asyncio.sleep(0.01)
            ticked.set()

        async with box_of(alpha) as box:
            rt = await box.open()
            _, told = await asyncio.gather(tick(), rt.dispatch("alpha"))
            return told

    assert play(scenario) == "done"


@pytest.mark.row("A0-17")
@pytest.mark.parametrize("result", ['{"error": null}', '{"error": ""}', '{"ok": 1}'])
@pytest.mark.parametrize("read", [str, msgspec.json.decode], ids=["text", "object"])
def test_an_error_that_says_nothing_is_a_success(result: str, read: Callable[[str], object]) -> None:
    async def scenario() -> tuple[int, int, object]:
        async with box_of(returning(read(result))) as box:
            rt = await box.open()
            told = msgspec.json.decode(await rt.dispatch("alpha"))
            after = await figures(rt)
            return after.successes, after.failures, told

    assert play(scenario) == (1, 0, msgspec.json.decode(result))


@pytest.mark.parametrize("error", [False, 0, [], {}])
def test_an_error_that_is_empty_or_false_is_a_success(error: object) -> None:
    async def scenario() -> int:
        async with box_of(returning({"error": error})) as box:
            rt = await box.open()
            await rt.dispatch("alpha")
            return (await figures(rt)).successes

    assert play(scenario) == 1


@pytest.mark.row("A0-18")
@pytest.mark.parametrize("result", ['{"error": "x"}', '{"error" : "x"}', '{"error": {"code": 1}}'])
@pytest.mark.parametrize("read", [str, msgspec.json.decode], ids=["text", "object"])
def test_an_error_that_says_something_is_a_failure_and_is_handed_on(result: str, read: Callable[[str], object]) -> None:
    async def scenario() -> tuple[int, int, object]:
        async with box_of(returning(read(result))) as box:
            rt = await box.open()
            told = msgspec.json.decode(await rt.dispatch("alpha"))
            after = await figures(rt)
            return after.successes, after.failures, told

    assert play(scenario) == (0, 1, msgspec.json.decode(result))


@pytest.mark.row("A0-19")
@pytest.mark.parametrize(
    "text", ['log: "error": 5', "plain", '[{"error": "x"}]', '{"a": {"error": "x"}}', '{"error": ']
)
def test_text_that_is_no_object_with_an_error_is_not_judged(text: str) -> None:
    async def scenario() -> tuple[str, int, int]:
        async with box_of(returning(text)) as box:
            rt = await box.open()
            told = await rt.dispatch("alpha")
            after = await figures(rt)
            return told, after.successes, after.failures

    assert play(scenario) == (text, 1, 0)


@pytest.mark.row("A0-20")
def test_a_dict_is_handed_on_as_json() -> None:
    async def scenario() -> tuple[str, int]:
        async with box_of(returning({"a": [1, None]})) as box:
            rt = await box.open()
            return await rt.dispatch("alpha"), (await figures(rt)).successes

    assert play(scenario) == ('{"a":[1,null]}', 1)


@pytest.mark.row("A0-20")
@pytest.mark.parametrize(("value", "name"), [(None, "NoneType"), (b"raw", "bytes"), (bytearray(b"raw"), "bytearray")])
def test_none_and_bytes_are_failures_that_name_the_type(value: object, name: str) -> None:
    async def scenario() -> tuple[dict[str, str], int]:
        async with box_of(returning(value)) as box:
            rt = await box.open()
            return msgspec.json.decode(await rt.dispatch("alpha")), (await figures(rt)).failures

    told, failures = play(scenario)

    assert list(told) == ["error"]
    assert f"returned {name}:" in told["error"]
    assert failures == 1


@pytest.mark.row("A0-20")
def test_none_and_bytes_are_fine_where_the_tool_declares_them() -> None:
    @tool
    async def nothing() -> None: ...

    @tool
    async def some() -> int | None:
        return None

    @tool
    async def raw() -> bytes:
        return b"raw"

    async def scenario() -> tuple[list[Any], list[str]]:
        async with box_of(nothing, some, raw) as box:
            rt = await box.open()
            tools: list[Tool[..., Any]] = [nothing, some, raw]
            results = [await rt.call(one) for one in tools]
            return results, [await rt.dispatch(name) for name in ("nothing", "some", "raw")]

    assert play(scenario) == ([None, None, b"raw"], ["null", "null", "cmF3"])


@pytest.mark.row("A0-21")
@pytest.mark.parametrize(
    "arguments",
    [
        '{"do": 1}',
        '{"do": "ok", "more": 1}',
        "[]",
        "null",
        "{",
        b"\xff",
        {"do": float("nan")},
        {"do": "\ud800"},
        '"\ud800"',
    ],
    ids=repr,
)
def test_arguments_that_do_not_fit_are_the_callers_mistake(arguments: Any) -> None:
    async def scenario() -> tuple[list[str], list[str], str, list[str]]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            told = [msgspec.json.decode(await rt.dispatch("alpha", arguments))["error"] for _ in range(5)]
            return told, alpha.calls, await state(rt), await kinds(rt)

    told, calls, circuit, recorded = play(scenario)

    assert len(told) == 5
    assert all(text.startswith("Invalid arguments for alpha: ") for text in told)
    assert (calls, circuit, recorded) == ([], "closed", [])


@pytest.mark.row("A0-21")
def test_json_that_is_nested_without_end_or_too_large_is_the_callers_mistake() -> None:
    async def scenario() -> list[str]:
        async with box_of(Double()) as box:
            rt = await box.open()
            deep, large = "[" * 100_000, msgspec.json.encode({"do": "x" * 9_000_000})
            return [msgspec.json.decode(await rt.dispatch("alpha", given))["error"] for given in (deep, large)]

    assert all(text.startswith("Invalid arguments for alpha: ") for text in play(scenario))


@pytest.mark.row("A0-27")
def test_a_call_whose_caller_is_cancelled_is_neither_success_nor_failure() -> None:
    async def scenario() -> tuple[tuple[int, ...], list[str]]:
        async with box_of(Double()) as box:
            rt = await box.open()
            (call,) = await begun(box, dispatch(rt, "alpha", "hold"))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            after = await figures(rt)
            return (after.cancelled, after.successes, after.failures, after.calls), await kinds(rt)

    assert play(scenario) == ((1, 0, 0, 0), ["call-started", "call-cancelled"])


@pytest.mark.row("A0-27")
def test_a_cancelled_probe_makes_room_for_another() -> None:
    async def scenario() -> tuple[str, str]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.advance(301)
            (probe,) = await begun(box, dispatch(rt, "alpha", "hold"))
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            between = await state(rt)
            await dispatch(rt, "alpha")
            return between, await state(rt)

    assert play(scenario) == ("half_open", "closed")


def test_code_gets_exceptions_where_a_model_gets_texts() -> None:
    async def scenario() -> tuple[str, str, str]:
        alpha = Double(failure_threshold=1)
        async with box_of(alpha) as box:
            rt = await box.open()
            with pytest.raises(ToolFailedError) as failed:
                await rt.call(alpha.tool, "fail")
            with pytest.raises(CircuitOpenError) as refused:
                await rt.call(alpha.tool, "ok")
            return failed.value.error_type, repr(failed.value.__cause__), str(refused.value)

    kind, cause, text = play(scenario)

    assert (kind, cause) == ("RuntimeError", "RuntimeError('boom')")
    assert text.startswith("Circuit breaker open for alpha: open since position ")
    assert text.endswith("1 of 1 calls failed, last RuntimeError; try again in 300.0 s")


def test_what_opened_the_circuit_is_named_by_its_position() -> None:
    async def scenario() -> tuple[int | None, str]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await fail(rt)
            with pytest.raises(CircuitOpenError) as refused:
                await rt.call(alpha.tool)
            [opened] = [
                e for e in await rt.read(Query(types=("circuit-opened",))) if e.position == refused.value.position
            ]
            return refused.value.position, opened.stream

    position, stream = play(scenario)

    assert position is not None
    assert stream == "tool/alpha"
