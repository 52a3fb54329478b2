"""What a model is told of large results, of secrets, of refusals; what a tool is told of its call."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import CircuitOpenError, Context, Secret, ToolContext, ToolFailedError, tool, workflow
from perdure.runtime.dispatch import PREVIEW_CHARACTERS, text_of, text_of_error
from perdure.store.codec import BLOB_THRESHOLD_BYTES
from perdure.testing import TestClock
from tests.support.runs import Box, data, on_both_logs, play, storage
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


@on_both_logs
def test_a_large_result_can_be_had_again_by_the_hash_in_its_preview(kind: str, tmp_path: Path) -> None:
    text = "ä" * BLOB_THRESHOLD_BYTES

    @tool
    async def alpha() -> str:
        return text

    async def scenario() -> tuple[bytes | None, bytes | None, bool]:
        async with box_of(alpha, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            told = msgspec.json.decode(await rt.dispatch("alpha"))
            before = await rt.blob(told["sha256"])
            await box.crash()
            rt = await box.open()
            [ended] = await history(rt, "alpha", "call-succeeded")
            return before, await rt.blob(told["sha256"]), told["sha256"] in (ended.blobs or "")

    encoded = msgspec.json.encode(text)
    assert play(scenario) == (encoded, encoded, True)


def test_a_large_result_that_reports_an_error_can_be_had_again_too() -> None:
    page = {"page": "x" * BLOB_THRESHOLD_BYTES, "error": "not found"}

    @tool
    async def alpha() -> dict[str, str]:
        return page

    async def scenario() -> bytes | None:
        async with box_of(alpha) as box:
            rt = await box.open()
            told = msgspec.json.decode(await rt.dispatch("alpha"))
            return await rt.blob(told["sha256"])

    assert play(scenario) == msgspec.json.encode(page)


def test_a_result_at_the_threshold_is_not_kept() -> None:
    @tool
    async def alpha() -> str:
        return "x" * (BLOB_THRESHOLD_BYTES - 2)

    async def scenario() -> tuple[bool, bytes | None]:
        async with box_of(alpha) as box:
            rt = await box.open()
            await rt.call(alpha)
            [ended] = await facts_of(rt, "call-succeeded")
            return "result" in ended, await rt.blob("0" * 64)

    assert play(scenario) == (False, None)


def test_the_hash_of_a_preview_finds_the_same_result_of_a_run() -> None:
    text = "x" * BLOB_THRESHOLD_BYTES

    @tool
    async def alpha() -> str:
        return text

    @workflow
    async def asking(ctx: Context) -> int:
        found: str = await ctx.call(alpha)
        return len(found)

    async def scenario() -> bytes | None:
        async with Box(None, TestClock(), workflows=[asking]) as box:
            rt = await box.open()
            await (await rt.start(asking)).result()
            return await rt.blob(msgspec.json.decode(text_of(msgspec.json.encode(text)))["sha256"])

    assert play(scenario) == msgspec.json.encode(text)


def test_an_actor_is_brought_back_without_the_large_results_of_its_tool() -> None:
    @tool(scope="conversation")
    async def alpha() -> str:
        return "x" * BLOB_THRESHOLD_BYTES

    async def scenario() -> tuple[list[set[str]], int]:
        async with box_of(alpha) as box:
            rt = await box.open()
            await rt.with_options(conversation="c").dispatch("alpha")
            await box.crash()
            rt = await box.open()
            asked: list[set[str]] = []
            load = rt._log.blobs

            async def blobs(hashes: Iterable[str]) -> Mapping[str, bytes]:
                asked.append(set(hashes))
                return await load(asked[-1])

            rt._log.blobs = blobs  # type: ignore[method-assign]
            await rt.with_options(conversation="c").dispatch("alpha")
            return asked, (await figures(rt, "alpha@c")).calls

    asked, calls = play(scenario)

    assert calls == 2
    assert asked
    assert set().union(*asked) == set()


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
