"""What a model is told of large results, of secrets, of refusals; what a tool is told of its call."""

import asyncio
import hashlib
from typing import Any

import msgspec
import pytest

from perdure import CircuitOpenError, Secret, ToolContext, ToolFailedError, tool
from perdure.runtime.dispatch import PREVIEW_CHARACTERS, text_of_error
from perdure.store.codec import BLOB_THRESHOLD_BYTES
from tests.support.runs import data, play
from tests.support.tools import Double, box_of, facts_of, figures, history


def test_a_large_result_is_shown_as_a_preview_that_says_so() -> None:
    text = "ä" * BLOB_THRESHOLD_BYTES

    @tool
    async def alpha() -> str:
        return text

    async def scenario() -> Any:
        async with box_of(alpha) as box:
            return msgspec.json.decode(await (await box.open()).dispatch("alpha"))

    encoded = msgspec.json.encode(text)
    assert play(scenario) == {
        "preview": text[:PREVIEW_CHARACTERS],
        "truncated": True,
        "bytes": len(encoded),
        "sha256": hashlib.sha256(encoded).hexdigest(),
    }


def test_a_result_at_the_threshold_is_shown_as_it_is() -> None:
    text = "x" * (BLOB_THRESHOLD_BYTES - 2)  # its quotes count

    @tool
    async def alpha() -> str:
        return text

    async def scenario() -> str:
        async with box_of(alpha) as box:
            return await (await box.open()).dispatch("alpha")

    assert play(scenario) == text


def test_a_large_result_that_reports_an_error_still_does_in_its_preview() -> None:
    @tool
    async def alpha() -> dict[str, str]:
        return {"page": "x" * BLOB_THRESHOLD_BYTES, "error": "not found"}

    async def scenario() -> Any:
        async with box_of(alpha) as box:
            rt = await box.open()
            return msgspec.json.decode(await rt.dispatch("alpha")), (await figures(rt)).failures

    told, failures = play(scenario)

    assert (told["error"], told["truncated"], failures) == ("not found", True, 1)


def test_an_error_without_end_is_recorded_with_an_end() -> None:
    @tool
    async def alpha(how: str) -> dict[str, Any]:
        if how == "raise":
            raise RuntimeError("x" * 100_000)
        return {"error": {"trace": "x" * 100_000}}

    async def scenario() -> list[int]:
        async with box_of(alpha) as box:
            rt = await box.open()
            for how in ("raise", "report"):
                await rt.dispatch("alpha", {"how": how})
            return [len(event.data or "") for event in await history(rt, "alpha", "call-failed")]

    assert all(size < 5_000 for size in play(scenario))


def test_a_secret_that_a_tool_revealed_is_in_no_answer_and_in_no_event() -> None:
    @tool
    async def alpha(key: Secret, how: str) -> dict[str, str]:
        value = key.reveal()
        if how == "raise":
            raise RuntimeError(f"refused {value}")
        return {"error" if how == "report" else "said": f"hello {value}"}

    async def scenario() -> tuple[list[str], str]:
        async with box_of(alpha, secrets={"API": "s3cr3t"}, on=None) as box:
            rt = await box.open()
            arguments = [{"key": {"$secret": "API"}, "how": how} for how in ("return", "report", "raise")]
            told = [await rt.dispatch("alpha", one) for one in arguments]
            return told, "".join(event.data or "" for event in await history(rt))

    told, recorded = play(scenario)

    assert told[0] == '{"said":"hello [secret API]"}'
    assert told[1] == '{"error":"hello [secret API]"}'
    assert told[2] == '{"error":"Tool execution failed: RuntimeError: refused [secret API]"}'
    assert "s3cr3t" not in recorded
    assert "[secret API]" in recorded


def test_a_tool_is_told_of_its_call() -> None:
    seen: list[ToolContext] = []

    @tool
    async def alpha(context: ToolContext) -> str:
        seen.append(context)
        return "ok"

    async def scenario() -> list[dict[str, Any]]:
        async with box_of(alpha) as box:
            rt = await box.open()
            await rt.dispatch("alpha")
            return await facts_of(rt, "call-started")

    [started] = play(scenario)

    [context] = seen
    assert (context.tool, context.attempt, context.run_id) == ("alpha", 1, None)
    assert context.call_id == context.idempotency_key == started["call"]


def test_a_timeout_is_a_failure_that_says_how_long_it_waited() -> None:
    alpha = Double(timeout=5)

    async def scenario() -> tuple[str, str]:
        async with box_of(alpha) as box:
            rt = await box.open()
            task = asyncio.create_task(rt.dispatch("alpha", {"do": "hold"}))
            await box.clock.advance(5)
            return await task, (await figures(rt)).last_error

    told, last = play(scenario)

    assert told == '{"error":"Tool execution failed: TimeoutError: no result within 5 s"}'
    assert last == "TimeoutError: no result within 5 s"


def test_a_model_is_told_no_time_that_nobody_knows() -> None:
    error = CircuitOpenError(tool="alpha", reason="a probe is in flight", position=7, retry_after_seconds=0.0)

    assert str(error) == "Circuit breaker open for alpha: a probe is in flight"
    assert msgspec.json.decode(text_of_error(error))["retry_after_s"] == 0


@pytest.mark.parametrize("effect", ["idempotent", "irreversible"])
def test_a_direct_call_that_the_process_died_in_is_lost_and_said_so(effect: Any) -> None:
    alpha = Double(effect=effect)

    async def scenario() -> tuple[list[dict[str, Any]], int, list[str]]:
        async with box_of(alpha) as box:
            rt = await box.open()
            task = asyncio.create_task(rt.call(alpha.tool, "hold"))
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            with pytest.raises(Exception):  # noqa: B017, PT011
                await task
            lost = [data(event) for event in await history(rt, "alpha", "call-lost")]
            return lost, (await figures(rt)).lost, alpha.calls

    lost, count, calls = play(scenario)

    assert [one["effect"] for one in lost] == [effect]
    assert (count, calls) == (1, ["hold"])


def test_the_original_exception_is_the_cause_where_code_calls() -> None:
    alpha = Double()

    async def scenario() -> BaseException | None:
        async with box_of(alpha) as box:
            rt = await box.open()
            with pytest.raises(ToolFailedError) as failed:
                await rt.call(alpha.tool, "fail")
            return failed.value.__cause__

    assert isinstance(play(scenario), RuntimeError)
