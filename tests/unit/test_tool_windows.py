"""Circuits that open by rates: how many of the last calls failed, how many were slow, and what does not count."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import BreakerPolicy, UsageError, tool
from perdure.actors.tools.events import CallFailed
from perdure.actors.tools.tool import Guard, RecordFailure, ToolBehavior
from perdure.testing import given
from tests.support.runs import play
from tests.support.tools import MICROSECOND, Double, begun, box_of, dispatch, facts_of, figures, state

NEVER = 1_000
"""Failures in a row that no test here reaches."""


def states(policy: BreakerPolicy, *calls: tuple[float, str]) -> list[str]:
    """The state after each of *calls*: how long it takes, and how it ends."""

    async def scenario() -> list[str]:
        alpha = Double(breaker=policy)
        async with box_of(alpha) as box:
            rt = await box.open()
            seen: list[str] = []
            for seconds, do in calls:
                (call,) = await begun(box, dispatch(rt, "alpha", "hold"))
                await box.clock.advance(seconds)
                alpha.release(do)
                await call
                seen.append(await state(rt))
            return seen

    return play(scenario)


def test_a_share_of_failures_among_the_last_calls_opens_the_circuit() -> None:
    policy = BreakerPolicy(NEVER, window_calls=4, minimum_calls=4, failure_rate=0.5)

    calls = [(0.0, do) for do in ("fail", "ok", "ok", "ok", "fail", "ok", "fail")]

    assert states(policy, *calls) == 6 * ["closed"] + ["open"]  # fail of 1 has left the window when 5 and 7 fail


def test_with_few_calls_no_rate_is_judged() -> None:
    policy = BreakerPolicy(NEVER, window_calls=10, minimum_calls=3, failure_rate=0.5)

    assert states(policy, *[(0.0, "fail")] * 3) == ["closed", "closed", "open"]


def test_failures_in_a_row_count_beside_a_rate() -> None:
    policy = BreakerPolicy(2, minimum_calls=100, failure_rate=1.0)

    assert states(policy, (0, "fail"), (0, "fail")) == ["closed", "open"]


def test_a_success_opens_no_circuit_by_the_rate_of_failures() -> None:
    policy = BreakerPolicy(NEVER, window_calls=3, minimum_calls=3, failure_rate=0.5)

    assert states(policy, (0, "fail"), (0, "fail"), (0, "ok"), (0, "ok")) == 4 * ["closed"]


@pytest.mark.parametrize(("pause", "after"), [(10 - 1e-6, "open"), (10, "closed")])
def test_what_ended_too_long_ago_has_left_the_window(pause: float, after: str) -> None:
    policy = BreakerPolicy(NEVER, window_time=timedelta(seconds=10), minimum_calls=2, failure_rate=1.0)

    assert states(policy, (0, "fail"), (pause, "fail")) == ["closed", after]


@pytest.mark.parametrize(("seconds", "after"), [(2, "closed"), (2 + 1e-6, "open")])
def test_a_share_of_slow_calls_opens_the_circuit_and_slow_is_over_the_limit(seconds: float, after: str) -> None:
    policy = BreakerPolicy(NEVER, minimum_calls=2, slow_call=timedelta(seconds=2), slow_call_rate=1.0)

    assert states(policy, (5, "ok"), (seconds, "ok")) == ["closed", after]


def test_the_log_says_which_rate_opened_the_circuit() -> None:
    async def scenario() -> list[str]:
        slow = Double(
            "slow", breaker=BreakerPolicy(minimum_calls=1, slow_call=timedelta(seconds=2), slow_call_rate=1.0)
        )
        bad = Double("bad", breaker=BreakerPolicy(NEVER, minimum_calls=2, failure_rate=0.5))
        async with box_of(slow, bad) as box:
            rt = await box.open()
            (call,) = await begun(box, dispatch(rt, "slow", "hold"))
            await box.clock.advance(3)
            slow.release()
            await call
            for do in ("ok", "fail"):
                await dispatch(rt, "bad", do)
            return [(await facts_of(rt, "circuit-opened", name))[0]["reason"] for name in ("slow", "bad")]

    assert play(scenario) == ["1 of 1 calls took over 2 s", "1 of 2 calls failed, last RuntimeError"]


def test_a_circuit_that_closed_again_is_judged_by_what_came_since() -> None:
    async def scenario() -> list[str]:
        policy = BreakerPolicy(NEVER, timedelta(seconds=10), window_calls=3, minimum_calls=3, failure_rate=0.6)
        async with box_of(Double(breaker=policy)) as box:
            rt = await box.open()
            seen: list[str] = []
            for do in ("fail", "fail", "fail"):
                await dispatch(rt, "alpha", do)
            await box.clock.advance(timedelta(seconds=10) + MICROSECOND)
            for do in ("ok", "fail", "ok", "fail"):
                await dispatch(rt, "alpha", do)
                seen.append(await state(rt))
            return seen

    assert play(scenario) == ["closed", "closed", "closed", "open"]


# What does not count


class NotFoundError(LookupError):
    pass


@pytest.mark.parametrize("excluded", ["NotFoundError", "LookupError"])
def test_an_excluded_error_is_neither_failure_nor_success(excluded: str) -> None:
    @tool(breaker=BreakerPolicy(failure_threshold=2, excluded=(excluded,)))
    async def alpha(do: str) -> str:
        raise NotFoundError(do) if do == "missing" else RuntimeError(do)

    async def scenario() -> tuple[list[int], str, int, list[bool]]:
        async with box_of(alpha) as box:
            rt = await box.open()
            rows: list[int] = []
            for do in ("missing", "fail", "missing", "missing", "fail"):
                await dispatch(rt, "alpha", do)
                rows.append((await figures(rt)).failures)
            after = await figures(rt)
            return rows, after.state, after.calls, [one["counts"] for one in await facts_of(rt, "call-failed")]

    assert play(scenario) == ([0, 1, 1, 1, 2], "open", 5, [False, True, False, False, True])


def test_an_excluded_error_is_in_no_window() -> None:
    policy = BreakerPolicy(NEVER, minimum_calls=2, failure_rate=1.0, excluded=("LookupError",))

    @tool(breaker=policy)
    async def alpha(do: str) -> str:
        raise NotFoundError(do) if do == "missing" else RuntimeError(do)

    async def scenario() -> list[str]:
        async with box_of(alpha) as box:
            rt = await box.open()
            seen: list[str] = []
            for do in ("missing", "missing", "fail", "missing", "fail"):
                await dispatch(rt, "alpha", do)
                seen.append(await state(rt))
            return seen

    assert play(scenario) == 4 * ["closed"] + ["open"]


@pytest.mark.row("A0-21")
def test_arguments_that_did_not_fit_never_count_against_the_tool() -> None:
    actor = given(ToolBehavior({"test": Guard(BreakerPolicy(failure_threshold=1))}))

    after = actor.when(RecordFailure("a", 0, 5, "InvalidArgumentsError", "no", ("UsageError",))).then(
        [CallFailed("test", "a", 0, 5, "InvalidArgumentsError", "no", at=1767225600_000000, counts=False)]
    )

    assert (after.state.breaker.circuit.value, after.state.breaker.failures) == ("closed", 0)


def test_a_probe_that_ends_in_an_excluded_error_makes_room_for_another() -> None:
    @tool(breaker=BreakerPolicy(failure_threshold=1, reset_timeout=timedelta(seconds=10), excluded=("LookupError",)))
    async def alpha(do: str) -> str:
        if do == "ok":
            return "ok"
        raise NotFoundError(do) if do == "missing" else RuntimeError(do)

    async def scenario() -> list[str]:
        async with box_of(alpha) as box:
            rt = await box.open()
            await dispatch(rt, "alpha", "fail")
            await box.clock.advance(11)
            await dispatch(rt, "alpha", "missing")
            between = await state(rt)
            await rt.dispatch("alpha", {"do": "ok"})
            return [between, await state(rt)]

    assert play(scenario) == ["half_open", "closed"]


@pytest.mark.parametrize(
    "options",
    [
        {"failure_threshold": 0},
        {"probes": 0},
        {"successes_to_close": 0},
        {"minimum_calls": 0},
        {"reset_timeout": timedelta(-1)},
        {"window_calls": 0},
        {"window_calls": 101},
        {"failure_rate": 0.0},
        {"failure_rate": 1.1},
        {"slow_call": timedelta(seconds=1)},
        {"slow_call_rate": 0.5},
        {"window_calls": 5, "failure_rate": 0.5},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BreakerPolicy(**options)
