"""Retries of steps: how often, how far apart, of which errors, and what a circuit that refuses makes of them."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import (
    Context,
    Query,
    Retry,
    RunBlockedError,
    StepFailedError,
    Tool,
    ToolContext,
    UsageError,
    Workflow,
    tool,
    workflow,
)
from perdure.actors.tools.retry import LONGEST_RETRY_AFTER, next_due
from perdure.actors.tools.waits import asked_wait, seconds_of
from tests.support.runs import box_with, events, facts, on_both_logs, play, storage
from tests.support.tools import Double, begun, box_of, dispatch, facts_of, fail, figures

SECOND = 1_000_000
NOW = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * SECOND
STEADY = Retry(attempts=4, backoff=timedelta(seconds=1), jitter=False)


def failing(error: Callable[[], BaseException], times: int = 99, **options: Any) -> tuple[Tool[..., Any], list[int]]:
    """A tool that raises *times* times, and the attempts that it saw."""
    attempts: list[int] = []

    @tool(name="flaky", failure_threshold=1000, **options)
    async def flaky(context: ToolContext) -> str:
        attempts.append(context.attempt)
        if len(attempts) <= times:
            raise error()
        return "ok"

    return flaky, attempts


def calling(flaky: Tool[..., Any], **options: Any) -> Workflow[..., Any]:
    @workflow
    async def wf(ctx: Context) -> str:
        try:
            return str(await ctx.with_options(**options).call(flaky))
        except StepFailedError as error:
            return error.error_type

    return wf


def ends(flaky: Tool[..., Any], *, seconds: float = 0, **options: Any) -> str:
    """What a run that calls *flaky* has come to after so long."""

    async def scenario() -> str:
        wf = calling(flaky, **options)
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(seconds)
            return str(await run.result())

    return play(scenario)


# How often and how far apart


def test_attempts_are_made_at_the_backoffs_times_until_one_succeeds() -> None:
    flaky, attempts = failing(ConnectionError, times=3, retry=STEADY)

    async def scenario() -> tuple[list[int], str]:
        wf = calling(flaky)
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            seen: list[int] = []
            for wait in (0, 0.999, 0.001, 1.999, 0.001, 3.999, 0.001):
                await box.clock.advance(wait)
                seen.append(len(attempts))
            return seen, await run.result()

    assert play(scenario) == ([1, 1, 2, 2, 3, 3, 4], "ok")
    assert attempts == [1, 2, 3, 4]


def test_the_last_attempts_error_is_the_steps() -> None:
    flaky, attempts = failing(ConnectionError, retry=STEADY)

    assert ends(flaky, seconds=7) == "ConnectionError"
    assert attempts == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["crash_and_reopen", "close_and_reopen"])
@on_both_logs
def test_a_backoff_that_a_restart_interrupts_goes_on_where_it_was(kind: str, how: str, tmp_path: Path) -> None:
    flaky, attempts = failing(
        ConnectionError, times=1, retry=Retry(attempts=2, backoff=timedelta(seconds=40), jitter=False)
    )

    async def scenario() -> tuple[list[int], str]:
        wf = calling(flaky)
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(20)
            rt = await getattr(box, how)()
            seen: list[int] = []
            for wait in (0, 19.999, 0.001):
                await box.clock.advance(wait)
                seen.append(len(attempts))
            return seen, await rt.run(run.id, wf).result()

    assert play(scenario) == ([1, 1, 2], "ok")


def test_a_long_backoff_is_waited_out_of_memory() -> None:
    flaky, _ = failing(
        ConnectionError,
        times=1,
        retry=Retry(attempts=2, backoff=timedelta(days=1), cap=timedelta(days=1), jitter=False),
    )

    async def scenario() -> tuple[int, str]:
        wf = calling(flaky)
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await box.clock.advance(3600)
            sleeping = (await rt.statistics()).runs_in_memory
            await box.clock.advance(timedelta(days=1))
            return sleeping, await run.result()

    assert play(scenario) == (0, "ok")


@given(
    attempt=st.integers(1, 2000),
    chance=st.floats(0, 1, exclude_max=True),
    backoff=st.timedeltas(timedelta(0), timedelta(days=2)),
    factor=st.floats(1, 10),
)
def test_a_wait_is_a_random_part_of_the_backoff_and_never_over_the_cap(
    attempt: int, chance: float, backoff: timedelta, factor: float
) -> None:
    policy = Retry(attempts=5000, backoff=backoff, factor=factor, cap=timedelta(hours=1))
    plain = Retry(attempts=5000, backoff=backoff, factor=factor, cap=timedelta(hours=1), jitter=False)

    due = next_due(policy, attempt=attempt, first_at=0, now=NOW, chance=chance)
    longest = next_due(plain, attempt=attempt, first_at=0, now=NOW, chance=chance)

    assert due is not None
    assert longest is not None
    assert NOW <= due <= longest <= NOW + 3600 * SECOND
    assert abs((due - NOW) - (longest - NOW) * chance) <= 1


def test_full_jitter_spreads_over_the_whole_backoff() -> None:
    draw, policy = random.Random(1), Retry(attempts=9, backoff=timedelta(seconds=8))

    dues = [next_due(policy, attempt=1, first_at=0, now=0, chance=draw.random()) or 0 for _ in range(1000)]

    assert min(dues) < SECOND
    assert max(dues) > 7 * SECOND
    assert 3.5 < sum(dues) / 1000 / SECOND < 4.5


def test_no_attempt_starts_after_the_total_time() -> None:
    flaky, attempts = failing(
        ConnectionError,
        retry=Retry(attempts=99, backoff=timedelta(seconds=4), factor=1, jitter=False, total=timedelta(seconds=10)),
    )

    assert ends(flaky, seconds=60) == "ConnectionError"
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"backoff": timedelta(-1)}, {"cap": timedelta(-1)}, {"factor": 0.5}]
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Retry(**options)


# Of which errors

QUICK: dict[str, Any] = {"attempts": 3, "backoff": timedelta(0)}


def refuses_all(error: BaseException) -> bool:
    return False


def raises(error: BaseException) -> bool:
    raise ValueError(error)


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (Retry(**QUICK), 3),
        (Retry(**QUICK, retry_on=(ConnectionError,)), 3),
        (Retry(**QUICK, retry_on=("OSError",)), 3),
        (Retry(**QUICK, retry_on=(TimeoutError, "ValueError")), 1),
        (Retry(**QUICK, never_on=(ConnectionResetError,)), 1),
        (Retry(**QUICK, never_on=("ConnectionError",)), 1),
        (Retry(**QUICK, retry_on=(OSError,), never_on=(ConnectionError,)), 1),
        (Retry(**QUICK, when=lambda error: isinstance(error, ConnectionResetError)), 3),
        (Retry(**QUICK, when=refuses_all), 1),
        (Retry(**QUICK, when=raises), 1),
        (Retry(**QUICK, never_on=(OSError,), when=lambda error: True), 1),
    ],
)  # fmt: skip
def test_the_policy_says_which_errors_are_tried_again(policy: Retry, attempts: int) -> None:
    flaky, seen = failing(ConnectionResetError)

    assert ends(flaky, retry=policy) == "ConnectionResetError"
    assert len(seen) == attempts


def test_arguments_that_no_longer_fit_and_results_that_never_will_are_not_tried_again() -> None:
    seen: list[int] = []

    @tool
    async def odd() -> int:
        seen.append(1)
        return "no number"  # type: ignore[return-value]

    assert ends(odd, retry=Retry(**QUICK)) == "InvalidResult"
    assert seen == [1]


def test_an_answer_that_reports_an_error_is_a_failed_attempt() -> None:
    answers = [{"error": "busy"}, {"error": "busy"}, {"ok": 1}]

    @tool(retry=Retry(**QUICK))
    async def odd() -> dict[str, Any]:
        return answers.pop(0)  # type: ignore[return-value]

    assert ends(odd) == "{'ok': 1}"
    assert answers == []


# Retry-After


class Asking(Exception):  # noqa: N818
    """An error as client libraries make them."""

    def __init__(self, **facts: Any) -> None:
        super().__init__("busy")
        self.__dict__.update(facts)


def urllib_headers(value: str) -> Message:
    message = Message()
    message["retry-after"] = value
    return message


class Hostile(Exception):  # noqa: N818
    @property
    def response(self) -> object:
        raise RuntimeError("the request was never sent")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Asking(retry_after=7), 7.0),
        (Asking(retry_after_seconds=2.5), 2.5),
        (Asking(retry_after=timedelta(minutes=1)), 60.0),
        (Asking(retry_after="30"), 30.0),
        (Asking(response=SimpleNamespace(headers={"Retry-After": "12"})), 12.0),
        (Asking(response=SimpleNamespace(headers={"retry-after": " 12 "})), 12.0),
        (Asking(headers={"Retry-After": "12"}), 12.0),
        (Asking(headers=urllib_headers("12")), 12.0),
        (Asking(response=SimpleNamespace(headers={"Retry-After": "Thu, 01 Jan 2026 00:00:20 GMT"})), 20.0),
        (Asking(response=SimpleNamespace(headers={"Retry-After": "Wed, 31 Dec 2025 23:59:00 GMT"})), 0.0),
        (Asking(response=SimpleNamespace(headers={"Retry-After": "soon"})), None),
        (Asking(response=SimpleNamespace(headers={"Other": "1"})), None),
        (Asking(response=SimpleNamespace(headers=None)), None),
        (Asking(response={"headers": {}}), None),
        (Asking(retry_after=-1), None),
        (Asking(retry_after=float("nan")), None),
        (Asking(retry_after=float("inf")), None),
        (Asking(retry_after=True), None),
        (Asking(retry_after=["7"]), None),
        (Asking(), None),
        (Hostile(), None),
    ],
)  # fmt: skip
def test_what_an_error_asks_for_is_found_where_client_libraries_put_it(error: Exception, seconds: float | None) -> None:
    assert asked_wait(error, NOW) == seconds


@given(st.integers(NOW, NOW + 10**14))
def test_a_date_is_read_as_the_seconds_until_then(moment: int) -> None:
    date = datetime.fromtimestamp(moment // SECOND, UTC)

    assert seconds_of(format_datetime(date, usegmt=True), NOW) == (moment // SECOND * SECOND - NOW) / SECOND


@given(st.text())
def test_no_text_makes_the_reading_of_it_fail(text: str) -> None:
    assert seconds_of(text, NOW) is None or isinstance(seconds_of(text, NOW), float)


def test_an_attempt_is_not_made_before_the_answer_allows_it() -> None:
    flaky, attempts = failing(lambda: Asking(retry_after=30), times=1, retry=Retry(**QUICK))

    async def scenario() -> list[int]:
        wf = calling(flaky)
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.start(wf)
            seen: list[int] = []
            for wait in (0, 29.999, 0.001):
                await box.clock.advance(wait)
                seen.append(len(attempts))
            return seen

    assert play(scenario) == [1, 1, 2]


def test_a_wait_that_would_take_days_is_cut_to_an_hour() -> None:
    due = next_due(Retry(**QUICK), attempt=1, first_at=0, now=0, chance=0, retry_after=1e9)

    assert due == LONGEST_RETRY_AFTER // timedelta(microseconds=1)


# Fallbacks


def test_a_fallback_is_called_once_after_the_last_attempt() -> None:
    flaky, attempts = failing(ConnectionError, retry=Retry(**QUICK), fallback=(spare := Double("spare")).tool)

    assert ends(flaky) == '{"did": "ok"}'
    assert (len(attempts), spare.calls) == (3, ["ok"])


def test_a_fallback_of_the_call_goes_before_that_of_the_tool() -> None:
    flaky, _ = failing(ConnectionError, fallback=(of_tool := Double("a")).tool)
    of_call = Double("b")

    assert ends(flaky, fallback=of_call.tool) == '{"did": "ok"}'
    assert (of_tool.calls, of_call.calls) == ([], ["ok"])


def test_where_another_tool_stands_by_nobody_waits_for_an_open_circuit() -> None:
    spare = Double("spare", failure_threshold=1000)
    alpha = Double(fallback=spare.tool, retry=Retry(attempts=5))

    @workflow
    async def wf(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "this"))

    async def scenario() -> tuple[str, list[str], list[str]]:
        async with box_of(alpha, spare, workflows=[wf]) as box:
            rt = await box.open()
            for _ in range(3):
                await dispatch(rt, "alpha", "fail")
            spare.calls.clear()
            result = await (await rt.start(wf)).result()
            return result, alpha.calls[3:], spare.calls

    assert play(scenario) == ('{"did": "this"}', [], ["this"])


def test_a_direct_call_falls_back_too_and_a_fallback_that_does_not_fit_is_the_callers_mistake() -> None:
    @tool
    async def other(what: int) -> str:
        return str(what)

    spare = Double("spare", fallback=other)
    alpha = Double(fallback=spare.tool)
    beta = Double("beta", fallback=other)

    async def scenario() -> tuple[str, str, int]:
        async with box_of(alpha, beta, spare, other) as box:
            rt = await box.open()
            told = await rt.dispatch("alpha", {"do": "fail"})
            misfit = await rt.dispatch("beta", {"do": "fail"})
            return told, misfit, (await figures(rt, "other")).calls

    told, misfit, calls = play(scenario)

    assert (
        told == '{"error":"Tool execution failed: RuntimeError: boom"}'
    )  # the fallback failed; it has none that counts
    assert misfit.startswith('{"error":"Invalid arguments for other: ')
    assert calls == 0


# When the circuit refuses


def refused_run(**options: Any) -> tuple[Double, Workflow[..., Any]]:
    alpha = Double(reset_timeout=20)

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            return str(await ctx.with_options(retry=Retry(**options)).call(alpha.tool, "this"))
        except StepFailedError as error:
            return error.error_type

    return alpha, wf


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ({}, "CircuitOpenError"),
        ({"attempts": 2}, '{"did": "this"}'),
        ({"on_refusal": "wait"}, '{"did": "this"}'),
        ({"attempts": 2, "on_refusal": "fail"}, "CircuitOpenError"),
        ({"attempts": 2, "total": timedelta(seconds=5)}, "CircuitOpenError"),
    ],
)
def test_the_policy_says_whether_a_refused_attempt_waits_for_the_circuit(options: dict[str, Any], result: str) -> None:
    alpha, wf = refused_run(**options)

    async def scenario() -> str:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await fail(rt)
            run = await rt.start(wf)
            await box.clock.advance(21)
            return str(await run.result())

    assert play(scenario) == result


def test_a_refused_attempt_is_no_attempt_and_no_failure_of_the_tool() -> None:
    alpha, wf = refused_run(attempts=2)

    async def scenario() -> tuple[list[int], list[int], int, int]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await fail(rt)
            run = await rt.start(wf)
            await box.clock.advance(10)
            rt = await box.crash_and_reopen()
            await box.clock.advance(11)
            await rt.run(run.id).result()
            refused = [e["attempt"] for e in await events(rt, run.id, "attempt-refused")]
            after = await figures(rt)
            completed = [e["attempt"] for e in await events(rt, run.id, "step-completed")]
            return refused, completed, after.calls, after.rejected

    assert play(scenario) == ([1], [1], 4, 1)


def test_a_step_that_waits_for_the_circuit_goes_on_as_soon_as_it_closes() -> None:
    alpha, wf = refused_run(attempts=2)

    async def scenario() -> tuple[list[str], list[str]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await fail(rt)
            run = await rt.start(wf)
            await box.clock.advance(1)
            waiting = (await facts(rt, run.id))[-1:]
            await rt.force_circuit("alpha", "closed", because="it was the cable")
            await box.clock.settle()
            return waiting, (await facts(rt, run.id))[-3:]

    assert play(scenario) == (["attempt-refused"], ["attempt-started", "step-completed", "run-completed"])


def test_those_who_wait_behind_a_probe_go_on_when_it_closes_the_circuit() -> None:
    alpha = Double(reset_timeout=20)

    @workflow
    async def wf(ctx: Context) -> int:
        return len(await ctx.with_options(retry=Retry(attempts=2)).map(alpha.tool, ["hold"] * 4))

    async def scenario() -> list[int]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await fail(rt)
            await rt.start(wf)
            await box.clock.advance(20.000001)
            held = [alpha.held]
            alpha.release()
            await box.clock.settle()
            return [*held, alpha.held]

    assert play(scenario) == [1, 3]


@pytest.mark.parametrize("where", ["in runs", "outside of runs"])
def test_a_late_outcome_that_moves_nothing_wakes_nobody(where: str) -> None:
    alpha, wf = refused_run(attempts=2)

    @workflow
    async def late(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "hold"))

    async def scenario() -> int:
        async with box_of(alpha, workflows=[wf, late]) as box:
            rt = await box.open()
            if where == "in runs":
                calls = [(await rt.start(late)).result() for _ in range(5)]
            else:
                calls = [rt.call(alpha.tool, "hold") for _ in range(5)]
            tasks = await begun(box, *calls)
            await fail(rt)
            await rt.start(wf)
            await box.clock.settle()
            for _ in tasks:
                alpha.release("fail")
                await box.clock.settle()
            await asyncio.gather(*tasks, return_exceptions=True)
            return len(await facts_of(rt, "call-refused"))

    assert play(scenario) == 1


def test_a_step_behind_a_circuit_that_an_operator_holds_open_writes_once_a_minute() -> None:
    alpha, wf = refused_run(attempts=2)

    async def scenario() -> tuple[int, str]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            await rt.force_circuit("alpha", "open", because="the cable")
            run = await rt.start(wf)
            await box.clock.advance(601)
            refused = len(await facts_of(rt, "call-refused"))
            await rt.force_circuit("alpha", "auto", because="a new cable")
            await box.clock.settle()
            return refused, await run.result()

    assert play(scenario) == (11, '{"did": "this"}')


def test_a_refusal_names_what_opened_the_circuit_even_when_that_is_on_its_way_to_the_disk() -> None:
    alpha = Double(failure_threshold=1)

    @workflow
    async def wf(ctx: Context) -> str:
        last = ""
        for _ in range(2):
            try:
                await ctx.call(alpha.tool, "fail")
            except StepFailedError as error:
                last = error.error
        return last

    async def scenario() -> tuple[str, list[int]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            text = await (await rt.start(wf)).result()
            return text, [e.position for e in await rt.read(Query(types=("circuit-opened",)))]

    text, positions = play(scenario)

    assert f"open since position {positions[0]}: 1 of 1 calls failed, last RuntimeError" in text


def test_a_probe_of_a_run_that_is_blocked_meanwhile_gives_its_place_back() -> None:
    alpha, other = Double(failure_threshold=1, reset_timeout=10), Double("other")

    @workflow
    async def wf(ctx: Context) -> None:
        async def impatient() -> None:
            async with asyncio.timeout(0.01):  # a replay could not repeat it: the run is blocked
                await ctx.call(other.tool, "hold")

        await ctx.gather(ctx.call(alpha.tool, "hold"), impatient())

    async def scenario() -> tuple[list[str], str, str]:
        async with box_of(alpha, other, workflows=[wf]) as box:
            rt = await box.open()
            await dispatch(rt, "alpha", "fail")
            await box.clock.advance(11)
            with pytest.raises(RunBlockedError):
                await (await rt.start(wf)).result()
            between = (await figures(rt)).state
            await dispatch(rt, "alpha")
            return alpha.calls, between, (await figures(rt)).state

    assert play(scenario) == (["fail", "hold", "ok"], "half_open", "closed")
