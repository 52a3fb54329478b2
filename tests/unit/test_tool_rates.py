"""The rate limit of a tool, through the runtime: who waits, who is refused, what a restart finds."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, RateLimit, RateLimitedError, Retry, StepFailedError, UsageError, workflow
from perdure.testing import TestClock
from tests.support.runs import HOUR, Box, events, facts, on_both_logs, play, storage
from tests.support.tools import Double, begun, box_of, dispatch, facts_of, figures, history

ONE_IN_TEN_SECONDS = RateLimit(calls=1, per=timedelta(seconds=10))


def test_a_burst_goes_at_once_and_the_rest_waits_in_order_for_its_tokens() -> None:
    async def scenario() -> list[int]:
        alpha = Double(rate=RateLimit(calls=1, per=timedelta(seconds=10), burst=2))
        async with box_of(alpha) as box:
            rt = await box.open()
            tasks = await begun(box, *(dispatch(rt, "alpha") for _ in range(4)))
            seen = [len(alpha.calls)]
            for _ in range(2):
                await box.clock.advance(9.999)
                seen.append(len(alpha.calls))
                await box.clock.advance(0.001)
                seen.append(len(alpha.calls))
            await asyncio.gather(*tasks)
            return seen

    assert play(scenario) == [2, 2, 3, 3, 4]


def test_a_call_that_would_wait_too_long_is_refused_and_told_when_to_come_again() -> None:
    async def scenario() -> tuple[dict[str, Any], str, float, tuple[int, str], list[Any]]:
        alpha = Double(rate=RateLimit(calls=1, per=timedelta(seconds=90), max_wait=timedelta(seconds=60)))
        async with box_of(alpha) as box:
            rt = await box.open()
            await dispatch(rt, "alpha")
            told = await dispatch(rt, "alpha")
            with pytest.raises(RateLimitedError) as refused:
                await rt.call(alpha.tool)
            after = await figures(rt)
            by = [one["by"] for one in await facts_of(rt, "call-refused")]
            return told, str(refused.value), refused.value.retry_after_seconds, (after.rejected, after.state), by

    told, text, seconds, after, by = play(scenario)

    assert told == {"error": text, "rate_limited": True, "tool_name": "alpha", "retry_after_s": 90.0}
    assert text == "alpha: the rate limit of 1 calls in 90 s is used up; try again in 90.0 s"
    assert (seconds, after, by) == (90.0, (2, "closed"), ["rate", "rate"])


def test_each_key_has_a_bucket_of_its_own() -> None:
    async def scenario() -> list[bool]:
        alpha = Double(rate=RateLimit(calls=1, per=timedelta(seconds=10), max_wait=timedelta(0)))
        async with box_of(alpha) as box:
            rt = await box.open()
            keys = ("ada", "bob", "ada", "")
            return ["rate_limited" in await rt.with_options(limit_key=key).dispatch("alpha", {}) for key in keys]

    assert play(scenario) == [False, False, True, False]


def test_a_probe_that_the_rate_limit_refuses_leaves_the_circuit_open_for_another() -> None:
    async def scenario() -> tuple[str, str]:
        limit = RateLimit(calls=1, per=timedelta(seconds=1000), max_wait=timedelta(0), burst=1)
        alpha = Double(rate=limit, failure_threshold=1, reset_timeout=10)
        async with box_of(alpha) as box:
            rt = await box.open()
            await dispatch(rt, "alpha", "fail")
            await box.clock.advance(11)
            assert "rate_limited" in await dispatch(rt, "alpha")
            await box.clock.advance(1000)
            await dispatch(rt, "alpha")
            return (await figures(rt)).state, alpha.calls[-1]

    assert play(scenario) == ("closed", "ok")


@on_both_logs
def test_a_restart_finds_the_bucket_as_empty_as_it_was(kind: str, tmp_path: Any) -> None:
    async def scenario() -> list[bool]:
        alpha = Double(rate=RateLimit(calls=4, per=timedelta(seconds=40), max_wait=timedelta(0)))
        async with box_of(alpha, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            for _ in range(2):
                await dispatch(rt, "alpha")
            rt = await box.crash_and_reopen()
            seen = ["rate_limited" in await dispatch(rt, "alpha") for _ in range(3)]
            rt = await box.crash_and_reopen()
            await box.clock.advance(10)
            return [*seen, *["rate_limited" in await dispatch(rt, "alpha") for _ in range(2)]]

    assert play(scenario) == [False, False, True, False, True]


def test_a_call_that_is_cancelled_while_it_waits_for_its_token_is_recorded_so() -> None:
    async def scenario() -> tuple[int, list[str]]:
        alpha = Double(rate=ONE_IN_TEN_SECONDS)
        async with box_of(alpha) as box:
            rt = await box.open()
            await dispatch(rt, "alpha")
            (waiting,) = await begun(box, dispatch(rt, "alpha"))
            waiting.cancel()
            await asyncio.wait([waiting])
            return (await figures(rt)).cancelled, alpha.calls

    assert play(scenario) == (1, ["ok"])


# In runs


def test_a_step_that_waits_for_its_token_says_so_and_begins_when_it_has_it() -> None:
    alpha = Double(rate=ONE_IN_TEN_SECONDS)

    @workflow
    async def wf(ctx: Context) -> int:
        return len(await ctx.map(alpha.tool, ["ok"] * 2))

    async def scenario() -> tuple[int, int, list[str]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(9)
            early = len(alpha.calls)
            await box.clock.advance(1)
            await run.result()
            second = [e["step"] for e in await events(rt, run.id, "attempt-delayed")]
            assert second == ["map#1.1/alpha#1"]
            return early, len(alpha.calls), [k for k in await facts(rt, run.id) if k.startswith("attempt")]

    assert play(scenario) == (1, 2, ["attempt-delayed", "attempt-started"])


def test_an_irreversible_call_that_a_crash_interrupts_after_its_wait_is_in_doubt_and_not_made_again() -> None:
    pay = Double("pay", effect="irreversible", rate=ONE_IN_TEN_SECONDS)

    @workflow
    async def wf(ctx: Context) -> str:
        await ctx.call(pay.tool, "ok")
        return str(await ctx.call(pay.tool, "hold"))

    async def scenario() -> tuple[list[str], tuple[str, ...]]:
        async with box_of(pay, workflows=[wf]) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(20)
            assert pay.held == 1
            rt = await box.crash_and_reopen()
            await box.clock.advance(100)
            return pay.calls, (await rt.run(run.id).status()).in_doubt

    assert play(scenario) == (["ok", "hold"], ("pay#2",))


def test_an_irreversible_call_that_a_crash_interrupts_in_its_wait_is_made_once() -> None:
    pay = Double("pay", effect="irreversible", rate=ONE_IN_TEN_SECONDS)

    @workflow
    async def wf(ctx: Context) -> str:
        await ctx.call(pay.tool, "ok")
        return str(await ctx.call(pay.tool, "this"))

    async def scenario() -> tuple[str, list[str]]:
        async with box_of(pay, workflows=[wf]) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(5)
            rt = await box.crash_and_reopen()
            await box.clock.advance(20)
            return await rt.run(run.id, wf).result(), pay.calls

    assert play(scenario) == ('{"did": "this"}', ["ok", "this"])


def test_crashes_during_the_wait_for_a_token_are_not_blamed_on_the_step() -> None:
    alpha = Double(rate=ONE_IN_TEN_SECONDS)

    @workflow
    async def wf(ctx: Context) -> str:
        await ctx.call(alpha.tool, "ok")
        return str(await ctx.call(alpha.tool, "this"))

    async def scenario() -> tuple[str, list[bool]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            run = await rt.start(wf)
            for _ in range(4):
                await box.clock.settle()
                rt = await box.crash_and_reopen()
            await box.clock.advance(10)
            result = await rt.run(run.id, wf).result()
            return result, [e["after_crash"] for e in await events(rt, run.id, "run-resumed")]

    assert play(scenario) == ('{"did": "this"}', 4 * [False])


def test_a_step_that_the_rate_limit_refuses_waits_durably_and_that_is_no_attempt() -> None:
    alpha = Double(rate=RateLimit(calls=1, per=timedelta(seconds=100), max_wait=timedelta(0)))

    @workflow
    async def wf(ctx: Context) -> str:
        await ctx.call(alpha.tool, "ok")
        return str(await ctx.call(alpha.tool, "this"))

    async def scenario() -> tuple[str, list[int], list[int]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(30)
            rt = await box.crash_and_reopen()
            await box.clock.advance(80)
            result = await rt.run(run.id, wf).result()
            refused = [e["attempt"] for e in await events(rt, run.id, "attempt-refused")]
            return result, refused, [e["attempt"] for e in await events(rt, run.id, "step-completed")]

    assert play(scenario) == ('{"did": "this"}', [1], [1, 1])


def test_a_step_gives_up_when_its_token_would_come_after_its_total_time() -> None:
    alpha = Double(rate=RateLimit(calls=1, per=timedelta(seconds=100), max_wait=timedelta(0)))

    @workflow
    async def wf(ctx: Context) -> str:
        await ctx.call(alpha.tool, "ok")
        hurried = ctx.with_options(retry=Retry(attempts=5, total=timedelta(seconds=50)))
        try:
            return str(await hurried.call(alpha.tool, "this"))
        except StepFailedError as error:
            return error.error_type

    async def scenario() -> tuple[str, list[str]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            return await (await rt.start(wf)).result(), alpha.calls

    assert play(scenario) == ("RateLimitedError", ["ok"])


def test_a_probe_that_waits_for_its_token_keeps_its_place_and_gives_it_back_when_the_run_is_cancelled() -> None:
    limit = RateLimit(calls=1, per=timedelta(seconds=30), burst=1)
    alpha = Double(rate=limit, failure_threshold=1, reset_timeout=1)

    @workflow
    async def wf(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "ok"))

    async def scenario() -> tuple[list[str], str]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await dispatch(rt, "alpha", "fail")
            await box.clock.advance(2)
            run = await rt.start(wf)
            await box.clock.settle()
            states = [(await figures(rt)).state]
            assert "circuit_breaker" in await dispatch(rt, "alpha")
            await run.cancel()
            await box.clock.settle()
            (probe,) = await begun(box, dispatch(rt, "alpha"))
            await box.clock.advance(60)
            return states, "closed" if "did" in await probe else (await figures(rt)).state

    assert play(scenario) == (["half_open"], "closed")


def test_a_probe_whose_run_leaves_memory_while_it_waits_for_its_token_comes_back_as_the_same_probe() -> None:
    limit = RateLimit(calls=1, per=timedelta(minutes=5), burst=1, max_wait=timedelta(hours=1))
    alpha = Double(rate=limit, failure_threshold=1, reset_timeout=1)

    @workflow
    async def wf(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "ok"))

    async def scenario() -> tuple[str, str]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await dispatch(rt, "alpha", "fail")
            await box.clock.advance(2)
            run = await rt.start(wf)
            await box.clock.advance(timedelta(hours=2))
            return await run.result(), (await figures(rt)).state

    assert play(scenario) == ('{"did": "ok"}', "closed")


@pytest.mark.parametrize(
    "options",
    [
        {"calls": 0},
        {"calls": 1, "per": timedelta(0)},
        {"calls": 1, "burst": 0},
        {"calls": 1, "max_wait": timedelta(-1)},
    ],
    ids=str,
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RateLimit(**options)


ONE_PLACE: dict[str, Any] = {"concurrency": 1, "rate": ONE_IN_TEN_SECONDS}


def test_a_call_that_waits_for_its_token_leaves_its_place_to_others() -> None:
    async def scenario() -> list[str]:
        alpha = Double(**ONE_PLACE)
        async with box_of(alpha) as box:
            rt = await box.open()
            ada, bob = rt.with_options(limit_key="ada"), rt.with_options(limit_key="bob")
            await ada.dispatch("alpha", {"do": "first"})
            (task,) = await begun(box, ada.dispatch("alpha", {"do": "second"}))
            await bob.dispatch("alpha", {"do": "other"})
            await box.clock.advance(10)
            await task
            return alpha.calls

    assert play(scenario) == ["first", "other", "second"]


def test_a_step_that_waits_for_its_token_leaves_its_place_to_others() -> None:
    alpha = Double(**ONE_PLACE)

    @workflow
    async def keyed(ctx: Context, key: str, do: str) -> None:
        await ctx.with_options(limit_key=key).call(alpha.tool, do)

    async def scenario() -> tuple[list[str], list[str]]:
        async with Box(None, TestClock(), workflows=[keyed]) as box:
            rt = await box.open()
            await (await rt.start(keyed, "ada", "first")).result()
            second = await rt.start(keyed, "ada", "second")
            await box.clock.settle()
            await (await rt.start(keyed, "bob", "other")).result()
            await box.clock.advance(10)
            await second.result()
            return alpha.calls, await facts(rt, second.id)

    assert play(scenario) == (
        ["first", "other", "second"],
        ["run-started", "step-started", "attempt-delayed", "attempt-started", "step-completed", "run-completed"],
    )


@pytest.mark.parametrize("in_runs", [False, True])
def test_a_call_whose_token_has_come_goes_before_those_that_asked_later(*, in_runs: bool) -> None:
    alpha = Double(**ONE_PLACE)

    @workflow
    async def keyed(ctx: Context, key: str, do: str) -> None:
        await ctx.with_options(limit_key=key).call(alpha.tool, do)

    async def scenario() -> tuple[list[str], int]:
        async with Box(None, TestClock(), tools=[alpha.tool], workflows=[keyed]) as box:
            rt = await box.open()

            async def call(key: str, do: str) -> None:
                if in_runs:
                    await (await rt.start(keyed, key, do)).result()
                else:
                    await rt.with_options(limit_key=key).dispatch("alpha", {"do": do})

            await call("ada", "first")
            tasks = [*await begun(box, call("ada", "second")), *await begun(box, call("bob", "hold"))]
            tasks += await begun(box, call("eve", "later"))
            await box.clock.advance(10)
            running = len(alpha.calls)
            alpha.release()
            await asyncio.gather(*tasks)
            return alpha.calls, running

    assert play(scenario) == (["first", "hold", "second", "later"], 2)


def test_a_step_that_was_cancelled_while_it_came_back_for_its_place_is_cancelled() -> None:
    alpha = Double(**ONE_PLACE)

    @workflow
    async def keyed(ctx: Context, key: str, do: str) -> None:
        await ctx.with_options(limit_key=key).call(alpha.tool, do)

    async def scenario() -> tuple[list[str], str, list[str]]:
        async with Box(None, TestClock(), workflows=[keyed]) as box:
            rt = await box.open()
            await (await rt.start(keyed, "ada", "first")).result()
            second = await rt.start(keyed, "ada", "second")
            await box.clock.settle()
            held = await rt.start(keyed, "bob", "hold")
            await box.clock.advance(10)
            await second.cancel()
            await box.clock.settle()
            alpha.release()
            await held.result()
            return alpha.calls, (await second.status()).status, await facts(rt, second.id)

    calls, status, told = play(scenario)

    assert (calls, status) == (["first", "hold"], "cancelled")
    assert told[2:] == ["attempt-delayed", "run-cancel-requested", "step-cancelled", "run-cancelled"]


@pytest.mark.parametrize("effect", ["read", "idempotent"])
@pytest.mark.parametrize("concurrency", [None, 1])
def test_a_call_that_waits_for_its_token_when_the_runtime_closes_is_not_made(
    concurrency: int | None, effect: Any
) -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        alpha = Double(concurrency=concurrency, effect=effect, rate=ONE_IN_TEN_SECONDS)
        async with box_of(alpha) as box:
            rt = await box.open()
            await rt.dispatch("alpha")
            (task,) = await begun(box, rt.dispatch("alpha"))
            await box.close()
            with pytest.raises(UsageError, match="closed during this call of alpha"):
                await task
            await box.clock.advance(10)
            return alpha.calls, [event.type for event in await history(await box.open(), "alpha")][-1:]

    assert play(scenario) == (["ok"], ["call-cancelled"])


@pytest.mark.parametrize(
    ("options", "by"), [({"rate": RateLimit(calls=1, per=HOUR)}, "rate"), ({"concurrency": 1, "queue": 0}, "bulkhead")]
)
def test_a_refused_attempt_says_which_guard_it_was(options: dict[str, Any], by: str) -> None:
    alpha = Double(**options)

    @workflow
    async def one(ctx: Context, do: str) -> None:
        await ctx.call(alpha.tool, do)

    async def scenario() -> list[str]:
        async with Box(None, TestClock(), workflows=[one]) as box:
            rt = await box.open()
            first = await rt.start(one, "hold")
            await box.clock.settle()
            second = await rt.start(one, "ok")
            await box.clock.settle()
            refused = await events(rt, second.id, "attempt-refused")
            alpha.release()
            await first.result()
            return [event["by"] for event in refused]

    assert play(scenario) == [by]
