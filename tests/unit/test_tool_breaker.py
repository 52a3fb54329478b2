"""The circuit breaker of a tool, through the runtime: when calls are refused, and when they are let through again."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import perdure.runtime.clock
from perdure import BreakerPolicy, CircuitOpenError, Context, tool, workflow
from perdure.actors.tools.breaker import AGENT_POLICY, Admission, CircuitHalfOpened, CircuitOpened, ProbeAdmitted
from perdure.actors.tools.events import CallRefused
from perdure.actors.tools.tool import Admit, Guard, ToolBehavior
from perdure.runtime.clock import SystemClock
from perdure.testing import MemoryDisk, given
from tests.support.runs import on_both_logs, play, storage
from tests.support.tools import MICROSECOND, Double, begun, box_of, dispatch, fail, figures, kinds, state

REFUSED = {"error", "circuit_breaker", "tool_name", "retry_after_s"}


def is_refused(told: dict[str, Any]) -> bool:
    return "circuit_breaker" in told


@pytest.mark.row("A0-07")
def test_the_defaults_of_a_tool() -> None:
    @tool
    async def alpha() -> str:
        return ""

    assert (alpha.breaker.failure_threshold, alpha.breaker.reset_timeout.total_seconds()) == (3, 300)
    assert alpha.breaker == BreakerPolicy()


@pytest.mark.row("A0-08")
def test_three_failures_in_a_row_open_the_circuit_and_the_fourth_call_does_not_reach_the_handler() -> None:
    async def scenario() -> tuple[list[str], dict[str, Any], int]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            states: list[str] = []
            for _ in range(3):
                await dispatch(rt, "alpha", "fail")
                states.append(await state(rt))
            return states, await dispatch(rt, "alpha"), len(alpha.calls)

    states, told, calls = play(scenario)

    assert states == ["closed", "closed", "open"]
    assert is_refused(told)
    assert calls == 3


@pytest.mark.row("A0-09")
def test_a_refusal_says_what_a_model_can_use_and_calls_nobody() -> None:
    async def scenario() -> tuple[dict[str, Any], dict[str, Any], int]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await fail(rt)
            first = await dispatch(rt, "alpha")
            await box.clock.advance(100)
            return first, await dispatch(rt, "alpha"), len(alpha.calls)

    first, later, calls = play(scenario)

    assert set(first) == REFUSED
    assert (first["circuit_breaker"], first["tool_name"]) == (True, "alpha")
    assert "alpha is temporarily unavailable: its circuit breaker is OPEN" in first["error"]
    assert "3 of 3 calls failed, last RuntimeError" in first["error"]
    assert "Retry in a few minutes, or use another tool." in first["error"]
    assert (first["retry_after_s"], later["retry_after_s"]) == (300.0, 200.0)
    assert calls == 3


@pytest.mark.row("A0-10")
def test_a_success_starts_the_count_of_failures_again() -> None:
    async def scenario() -> tuple[str, int, int]:
        async with box_of(Double()) as box:
            rt = await box.open()
            for do in ("fail", "fail", "ok", "fail", "fail"):
                await dispatch(rt, "alpha", do)
            after = await figures(rt)
            return after.state, after.failures, after.successes

    assert play(scenario) == ("closed", 2, 1)


@pytest.mark.row("A0-11")
def test_the_circuit_is_open_at_its_time_and_half_open_a_moment_later() -> None:
    async def scenario() -> list[Any]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await fail(rt)
            seen: list[Any] = []
            await box.clock.advance(300)
            seen += [await state(rt), is_refused(await dispatch(rt, "alpha")), len(alpha.calls)]
            await box.clock.advance(MICROSECOND)
            seen += [await state(rt), is_refused(await dispatch(rt, "alpha")), len(alpha.calls)]
            return seen

    assert play(scenario) == ["open", True, 3, "half_open", False, 4]


@pytest.mark.row("A0-12")
def test_a_probe_that_succeeds_closes_the_circuit() -> None:
    async def scenario() -> tuple[str, int, list[str]]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.advance(301)
            await dispatch(rt, "alpha")
            after = await figures(rt)
            return after.state, after.failures, (await kinds(rt))[-5:]

    transitions = ["circuit-half-opened", "probe-admitted", "call-started", "call-succeeded", "circuit-closed"]
    assert play(scenario) == ("closed", 0, transitions)


@pytest.mark.row("A0-13")
def test_a_probe_that_fails_opens_the_circuit_for_the_whole_time_again() -> None:
    async def scenario() -> list[Any]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.advance(350)
            await dispatch(rt, "alpha", "fail")
            seen: list[Any] = [await state(rt), (await figures(rt)).retry_after_seconds]
            await box.clock.advance(300)
            seen += [await state(rt), is_refused(await dispatch(rt, "alpha"))]
            await box.clock.advance(MICROSECOND)
            return [*seen, await state(rt), len(alpha.calls)]

    assert play(scenario) == ["open", 300.0, "open", True, "half_open", 4]


@pytest.mark.row("A0-14")
@on_both_logs
def test_of_ten_concurrent_calls_of_a_half_open_tool_one_reaches_the_handler(kind: str, tmp_path: Any) -> None:
    async def scenario() -> tuple[list[str], list[bool]]:
        alpha = Double()
        async with box_of(alpha, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.advance(301)
            tasks = await begun(box, *(dispatch(rt, "alpha", "hold") for _ in range(10)))
            alpha.release()
            return alpha.calls[3:], [is_refused(told) for told in await asyncio.gather(*tasks)]

    calls, refused = play(scenario)

    assert calls == ["hold"]
    assert sorted(refused) == [False] + 9 * [True]


@pytest.mark.row("A0-15")
def test_a_call_from_before_the_circuit_opened_does_not_close_it_by_succeeding() -> None:
    async def scenario() -> tuple[str, int, int, int]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            (slow,) = await begun(box, dispatch(rt, "alpha", "hold"))
            await fail(rt)
            alpha.release("ok")
            await slow
            after = await figures(rt)
            return after.state, after.failures, after.successes, after.calls

    assert play(scenario) == ("open", 3, 1, 4)


@pytest.mark.row("A0-16")
def test_a_call_from_before_the_circuit_opened_does_not_keep_it_open_by_failing() -> None:
    async def scenario() -> tuple[float, float, str, int]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            (slow,) = await begun(box, dispatch(rt, "alpha", "hold"))
            await fail(rt)
            await box.clock.advance(200)
            before = await figures(rt)
            alpha.release("fail")
            await slow
            after = await figures(rt)
            await box.clock.advance(timedelta(seconds=100) + MICROSECOND)
            assert after.opened_at == before.opened_at
            return before.retry_after_seconds, after.retry_after_seconds, await state(rt), after.calls

    assert play(scenario) == (100.0, 100.0, "half_open", 4)


@pytest.mark.row("A0-15", "A0-16")
@pytest.mark.parametrize("do", ["ok", "fail"])
def test_a_call_from_before_moves_a_half_open_circuit_neither_way(do: str) -> None:
    async def scenario() -> tuple[str, str]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            (slow,) = await begun(box, dispatch(rt, "alpha", "hold"))
            await fail(rt)
            await box.clock.advance(301)
            (probe,) = await begun(box, dispatch(rt, "alpha", "hold"))
            alpha.release(do)
            await slow
            between = await state(rt)
            alpha.release("ok")
            await probe
            return between, await state(rt)

    assert play(scenario) == ("half_open", "closed")


@pytest.mark.row("A0-22")
def test_a_circuit_of_one_conversation_leaves_the_others_alone() -> None:
    async def scenario() -> tuple[bool, bool, bool, dict[str, str]]:
        alpha = Double(scope="conversation")
        async with box_of(alpha) as box:
            rt = await box.open()
            ada, bob = rt.with_options(conversation="ada"), rt.with_options(conversation="bob")
            for _ in range(3):
                await ada.dispatch("alpha", {"do": "fail"})
            refused = ["circuit_breaker" in await who.dispatch("alpha", {"do": "ok"}) for who in (ada, bob, rt)]
            return (*refused, {name: one.state for name, one in (await rt.statistics()).tools.items()})  # type: ignore[return-value]

    states = {"alpha": "closed", "alpha@ada": "open", "alpha@bob": "closed"}
    assert play(scenario) == (True, False, False, states)


@pytest.mark.row("A0-22")
def test_a_global_circuit_is_everybodys() -> None:
    async def scenario() -> bool:
        async with box_of(Double()) as box:
            rt = await box.open()
            for _ in range(3):
                await rt.with_options(conversation="ada").dispatch("alpha", {"do": "fail"})
            return "circuit_breaker" in await rt.with_options(conversation="bob").dispatch("alpha", {"do": "ok"})

    assert play(scenario)


def test_the_actor_of_a_conversation_stays_in_memory_as_long_as_a_call_is_made() -> None:
    async def scenario() -> tuple[int, int]:
        alpha = Double(scope="conversation")
        async with box_of(alpha) as box:
            rt = await box.open()
            ada = rt.with_options(conversation="ada")
            (slow,) = await begun(box, ada.dispatch("alpha", {"do": "hold"}))
            await box.clock.advance(3600)
            await ada.dispatch("alpha", {"do": "ok"})
            alpha.release()
            await slow
            await ada.dispatch("alpha", {"do": "ok"})
            return (await figures(rt, "alpha@ada")).calls, (await figures(rt, "alpha@ada")).successes

    assert play(scenario) == (3, 3)


def test_the_actor_of_a_runs_own_circuit_stays_in_memory_as_long_as_a_step_is_made() -> None:
    alpha = Double(scope="conversation")

    @workflow
    async def wf(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "hold"))

    async def scenario() -> tuple[str, int]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            run = await rt.with_options(id="r1").start(wf)
            await box.clock.advance(3600)
            await rt.with_options(conversation="r1").dispatch("alpha", {"do": "ok"})
            alpha.release()
            return await run.result(), (await figures(rt, "alpha@r1")).calls

    assert play(scenario) == ('{"did": "ok"}', 2)


@pytest.mark.row("A0-23")
@on_both_logs
@pytest.mark.parametrize("how", ["crash_and_reopen", "close_and_reopen"])
def test_a_restart_keeps_state_counters_and_opening_time(kind: str, how: str, tmp_path: Any) -> None:
    async def scenario() -> tuple[Any, Any, list[Any]]:
        alpha = Double()
        async with box_of(alpha, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await dispatch(rt, "alpha")
            await fail(rt)
            await dispatch(rt, "alpha")
            before = await figures(rt)
            rt = await getattr(box, how)()
            after = await figures(rt)
            seen: list[Any] = []
            for wait in (timedelta(seconds=300), MICROSECOND):
                await box.clock.advance(wait)
                seen += [await state(rt), is_refused(await dispatch(rt, "alpha")), len(alpha.calls)]
            return before, after, seen

    before, after, seen = play(scenario)

    assert (before.state, before.failures, before.successes, before.calls, before.rejected) == ("open", 3, 1, 4, 1)
    assert after == before
    assert seen == ["open", True, 4, "half_open", False, 5]


@pytest.mark.row("A0-23")
def test_a_probe_that_died_with_its_process_does_not_keep_its_place() -> None:
    async def scenario() -> tuple[str, str, int]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.advance(301)
            (probe,) = await begun(box, dispatch(rt, "alpha", "hold"))
            await box.crash()
            await asyncio.wait([probe])
            assert isinstance(probe.exception(), Exception)
            rt = await box.open()
            between = await state(rt)
            await dispatch(rt, "alpha")
            return between, await state(rt), (await figures(rt)).lost

    assert play(scenario) == ("half_open", "closed", 1)


@pytest.mark.row("A0-24")
def test_setting_the_clock_back_does_not_prolong_the_outage() -> None:
    async def scenario() -> list[str]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.jump_wall(-3600)
            await box.clock.advance(300)
            states = [await state(rt)]
            await box.clock.advance(MICROSECOND)
            return [*states, await state(rt)]

    assert play(scenario) == ["open", "half_open"]


@pytest.mark.row("A0-24")
def test_setting_the_clock_forward_does_not_shorten_the_outage() -> None:
    async def scenario() -> list[str]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await fail(rt)
            await box.clock.jump_wall(3600)
            states = [await state(rt)]
            await box.clock.advance(timedelta(seconds=300) + MICROSECOND)
            return [*states, await state(rt)]

    assert play(scenario) == ["open", "half_open"]


@pytest.mark.row("A0-24")
def test_the_real_clock_counts_on_when_the_systems_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = {"wall": 10_000_000_000_000, "monotonic": 5_000_000_000_000}
    fake = SimpleNamespace(time_ns=lambda: hands["wall"], monotonic_ns=lambda: hands["monotonic"])
    monkeypatch.setattr(perdure.runtime.clock, "time", fake)
    clock = SystemClock()
    before = clock.moment()

    hands["wall"] -= 3600 * 10**9
    hands["monotonic"] += 300 * 10**9
    after = clock.moment()

    assert after.steady - before.steady == 300_000_000
    assert after.now - before.now == 300_000_000


@pytest.mark.row("A0-25")
def test_the_figures_of_a_success_a_failure_and_a_refusal_are_exact() -> None:
    async def scenario() -> Any:
        alpha = Double(failure_threshold=1)
        async with box_of(alpha) as box:
            rt = await box.open()
            for seconds, do in ((0.2, "ok"), (0.4, "fail")):
                (call,) = await begun(box, dispatch(rt, "alpha", "hold"))
                await box.clock.advance(seconds)
                alpha.release(do)
                await call
            await dispatch(rt, "alpha")
            return await figures(rt)

    after = play(scenario)

    assert (after.state, after.failures, after.successes, after.calls, after.avg_time) == ("open", 1, 1, 2, 0.3)
    assert (after.rejected, after.cancelled, after.lost) == (1, 0, 0)
    assert (after.p50, after.p95, after.last_error) == (0.2, 0.4, "RuntimeError: boom")


@pytest.mark.row("A0-26")
def test_the_figures_tell_the_time_that_has_passed_though_nobody_called() -> None:
    async def scenario() -> list[tuple[str, float, bool]]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await fail(rt)
            seen: list[tuple[str, float, bool]] = []
            for seconds in (0, 299, 2):
                await box.clock.advance(seconds)
                one = await figures(rt)
                seen.append((one.state, one.retry_after_seconds, one.opened_at is not None))
            return seen

    assert play(scenario) == [("open", 300.0, True), ("open", 1.0, True), ("half_open", 0.0, True)]


# Agents


@pytest.mark.row("A2-37")
def test_five_failing_calls_of_an_agent_open_its_circuit_and_the_next_one_is_told_so() -> None:
    async def scenario() -> tuple[list[str], str, int]:
        agent = Double("agent", breaker=AGENT_POLICY)
        async with box_of(agent) as box:
            rt = await box.open()
            states: list[str] = []
            for _ in range(5):
                await dispatch(rt, "agent", "fail")
                states.append(await state(rt, "agent"))
            with pytest.raises(CircuitOpenError) as refused:
                await rt.call(agent.tool)
            return states, str(refused.value), len(agent.calls)

    states, text, calls = play(scenario)

    assert states == 4 * ["closed"] + ["open"]
    assert text.startswith("Circuit breaker open for agent")
    assert calls == 5


@pytest.mark.row("A2-38")
def test_the_defaults_of_an_agent() -> None:
    assert (AGENT_POLICY.failure_threshold, AGENT_POLICY.reset_timeout.total_seconds()) == (5, 60)
    assert AGENT_POLICY.successes_to_close == 3


@pytest.mark.row("A2-39")
def test_an_outage_of_a_day_and_ten_seconds_is_over() -> None:
    async def scenario() -> tuple[str, bool, int]:
        agent = Double("agent", breaker=AGENT_POLICY)
        async with box_of(agent) as box:
            rt = await box.open()
            await fail(rt, 5, "agent")
            await box.clock.advance(timedelta(days=1, seconds=10))
            before = await state(rt, "agent")
            return before, is_refused(await dispatch(rt, "agent")), len(agent.calls)

    assert play(scenario) == ("half_open", False, 6)


@pytest.mark.row("A2-40")
def test_failures_with_successes_between_them_do_not_add_up() -> None:
    async def scenario() -> str:
        agent = Double("agent", failure_threshold=3)
        async with box_of(agent) as box:
            rt = await box.open()
            for do in ("fail", "ok", "fail", "ok", "fail"):
                await dispatch(rt, "agent", do)
            return await state(rt, "agent")

    assert play(scenario) == "closed"


@pytest.mark.row("A2-41")
def test_three_successes_close_a_half_open_circuit_of_an_agent() -> None:
    async def scenario() -> list[str]:
        async with box_of(Double("agent", breaker=AGENT_POLICY)) as box:
            rt = await box.open()
            await fail(rt, 5, "agent")
            await box.clock.advance(61)
            states: list[str] = []
            for _ in range(3):
                await dispatch(rt, "agent")
                states.append(await state(rt, "agent"))
            return states

    assert play(scenario) == ["half_open", "half_open", "closed"]


@pytest.mark.row("A2-41")
def test_any_failure_opens_a_half_open_circuit_and_the_successes_count_from_the_start() -> None:
    async def scenario() -> list[str]:
        async with box_of(Double("agent", breaker=AGENT_POLICY)) as box:
            rt = await box.open()
            await fail(rt, 5, "agent")
            states: list[str] = []
            for dos in (("ok", "ok", "fail"), ("ok", "ok", "ok")):
                await box.clock.advance(61)
                for do in dos:
                    await dispatch(rt, "agent", do)
                    states.append(await state(rt, "agent"))
            return states

    assert play(scenario) == ["half_open", "half_open", "open", "half_open", "half_open", "closed"]


@pytest.mark.row("A2-41")
def test_no_more_probes_are_in_flight_than_allowed_or_needed() -> None:
    async def scenario() -> list[int]:
        policy = BreakerPolicy(probes=2, successes_to_close=3)
        agent = Double("agent", breaker=policy)
        async with box_of(agent) as box:
            rt = await box.open()
            await fail(rt, 3, "agent")
            await box.clock.advance(301)
            held: list[int] = []
            tasks = await begun(box, *(dispatch(rt, "agent", "hold") for _ in range(5)))
            held.append(agent.held)
            for _ in range(2):
                agent.release()
                await box.clock.settle()
            tasks += await begun(box, *(dispatch(rt, "agent", "hold") for _ in range(5)))
            held.append(agent.held)
            agent.release()
            await asyncio.gather(*tasks)
            return [*held, await state(rt, "agent") == "closed"]

    assert play(scenario) == [2, 1, True]


@pytest.mark.row("A2-42")
def test_a_tool_that_nobody_configured_has_the_defaults() -> None:
    @tool
    async def agent() -> str:
        raise RuntimeError

    async def scenario() -> tuple[list[str], float]:
        disk = MemoryDisk()
        async with box_of(on=disk) as box:  # not even registered before it is called
            rt = await box.open()
            states: list[str] = []
            for _ in range(3):
                with pytest.raises(Exception, match="agent failed: RuntimeError"):
                    await rt.call(agent)
                states.append(await state(rt, "agent"))
            return states, (await figures(rt, "agent")).retry_after_seconds

    assert play(scenario) == (["closed", "closed", "open"], 300.0)


@pytest.mark.row("A2-43")
def test_the_first_tool_with_all_that_is_required_is_selected() -> None:
    async def scenario() -> tuple[Any, Any]:
        a, b = Double("a", capabilities=["p", "q"]), Double("b", capabilities=["p", "q", "r"])
        async with box_of(b, a) as other, box_of(a, b) as box:
            rt = await box.open()
            chosen = await rt.select(["p", "q"])
            reversed_rt = await other.open()
            assert await reversed_rt.select(["p", "q"]) is b.tool  # first registered, not first by name
            return None if chosen is None else chosen.name, await rt.select(["zz"])

    assert play(scenario) == ("a", None)


@pytest.mark.row("A2-44")
def test_a_partial_match_is_selected_only_on_request() -> None:
    async def scenario() -> tuple[Any, Any, Any]:
        a, b = Double("a", capabilities=["p", "q"]), Double("b", capabilities=["p", "q", "r"])
        async with box_of(a, b) as box:
            rt = await box.open()
            partial = await rt.select(["r", "zz"], partial=True)
            nothing = await rt.select(["zz"], partial=True)
            return await rt.select(["r", "zz"]), None if partial is None else partial.name, nothing

    assert play(scenario) == (None, "b", None)


@pytest.mark.row("A2-45")
def test_an_open_circuit_is_avoided_while_there_is_an_alternative() -> None:
    async def scenario() -> list[str]:
        a, b = Double("a", capabilities=["p"]), Double("b", capabilities=["p"])
        async with box_of(a, b) as box:
            rt = await box.open()
            chosen = [await rt.select(["p"])]
            for name in ("a", "b"):
                await fail(rt, 3, name)
                chosen.append(await rt.select(["p"]))
            await box.clock.advance(301)
            await dispatch(rt, "b")
            chosen.append(await rt.select(["p"]))
            return [one.name for one in chosen if one is not None]

    assert play(scenario) == ["a", "b", "a", "a"]


@pytest.mark.row("A2-45")
def test_a_tool_that_is_not_available_is_avoided_too() -> None:
    async def scenario() -> str:
        a, b = Double("a", capabilities=["p"], check=lambda: False), Double("b", capabilities=["p"])
        async with box_of(a, b) as box:
            chosen = await (await box.open()).select(["p"])
            return "" if chosen is None else chosen.name

    assert play(scenario) == "b"


def test_a_probe_that_asks_again_has_the_place_that_it_had() -> None:
    behavior = ToolBehavior({"test": Guard(BreakerPolicy(failure_threshold=1, reset_timeout=timedelta(seconds=10)))})
    opened = given(behavior, [CircuitOpened(1, 0, "a test")])
    admitted = Admission(is_admitted=True, generation=2)

    probing = opened.when(Admit("a", 1)).then(
        [CircuitHalfOpened(2, 1767225600_000000), ProbeAdmitted("a", 1)], reply=admitted
    )
    again = probing.when(Admit("a", 1)).then([ProbeAdmitted("a", 1)], reply=admitted)

    assert again.state.breaker.probes == (("a", 1),)
    again.when(Admit("b", 1)).then([CallRefused("test", "b", "a probe is in flight", 0)])
