"""The rules of a tool's actor: its circuit breaker and its figures, given / when / then."""

from datetime import timedelta
from typing import Any

import pytest

from perdure.actors.tools.breaker import (
    Admission,
    BreakerPolicy,
    Circuit,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    ProbeAdmitted,
)
from perdure.actors.tools.tool import (
    Admit,
    CallCancelled,
    CallFailed,
    CallLost,
    CallRefused,
    CallStarted,
    CallSucceeded,
    GetToolStatistics,
    GiveUpLost,
    RecordCancel,
    RecordFailure,
    RecordSuccess,
    ToolBehavior,
    ToolState,
)
from perdure.actors.workflows.run import GetRun
from perdure.store.errors import InternalError, UsageError
from perdure.testing import Given, given

NOW = 1767225600_000000
TIMEOUT = timedelta(seconds=300)
microsecond = timedelta(microseconds=1)


def a_tool(**policy: Any) -> Given[ToolState]:
    return given(ToolBehavior({"search": BreakerPolicy(**policy)}), stream="tool/search")


def failed(call: str, generation: int = 0) -> CallFailed:
    return CallFailed("search", call, generation, 10, "OSError", "down")


def failing(tool: Given[ToolState], call: str, generation: int = 0) -> Given[ToolState]:
    before = tool.state.breaker.generation
    decided = tool.when(RecordFailure(call, generation, 10, "OSError", "down"))
    assert decided._decision is not None
    after = tool.evolved(decided._decision.events)
    assert after.state.breaker.generation - before in (0, 1)
    return after


def an_open_tool() -> Given[ToolState]:
    tool = a_tool()
    for call in ("a", "b", "c"):
        tool = failing(tool, call)
    assert tool.state.breaker.circuit is Circuit.OPEN
    return tool


@pytest.mark.row("A0-07")
def test_defaults_of_the_breaker() -> None:
    policy = BreakerPolicy()

    assert policy.failure_threshold == 3
    assert policy.reset_timeout == TIMEOUT


def test_a_closed_circuit_admits_and_writes_nothing() -> None:
    a_tool().when(Admit("a", 1)).then([], reply=Admission(is_admitted=True, generation=0))


def test_a_call_outside_of_a_run_is_recorded_before_it_is_made() -> None:
    a_tool().when(Admit("a", 1, "irreversible")).then([CallStarted("a", "irreversible", 1)])


@pytest.mark.row("A0-10")
def test_a_success_in_between_sets_the_count_back() -> None:
    tool = failing(failing(a_tool(), "a"), "b")
    tool = tool.when(RecordSuccess("c", 0, 5)).then([CallSucceeded("search", "c", 0, 5)])
    tool = failing(failing(tool, "d"), "e")

    figures = tool.when(GetToolStatistics())._decision.reply  # type: ignore[union-attr]

    assert (figures.state, figures.failures, figures.successes) == ("closed", 2, 1)


def test_the_third_failure_in_a_row_opens_the_circuit() -> None:
    tool = failing(failing(a_tool(), "a"), "b")

    tool.when(RecordFailure("c", 0, 10, "OSError", "down")).then(
        [
            failed("c"),
            CircuitOpened(1, NOW, "3 failures in a row, last OSError"),
        ]
    )


@pytest.mark.row("A0-11")
def test_an_open_circuit_refuses_up_to_and_at_its_reset_timeout() -> None:
    refusal = Admission(is_admitted=False, generation=1, retry_after=1, reason="3 failures in a row, last OSError")

    an_open_tool().after(TIMEOUT).when(Admit("d", 1)).then(
        [CallRefused("search", "d", "3 failures in a row, last OSError", 1)], reply=refusal
    )
    an_open_tool().after(TIMEOUT + microsecond).when(Admit("d", 1)).then(
        [CircuitHalfOpened(2, NOW + 300_000001), ProbeAdmitted("d", 1)], reply=Admission(is_admitted=True, generation=2)
    )


def half_open() -> Given[ToolState]:
    return (
        an_open_tool()
        .after(TIMEOUT + microsecond)
        .when(Admit("probe", 1))
        .then([CircuitHalfOpened(2, NOW + 300_000001), ProbeAdmitted("probe", 1)])
    )


@pytest.mark.row("A0-12")
def test_a_probe_that_succeeds_closes_the_circuit() -> None:
    tool = half_open().when(RecordSuccess("probe", 2, 5)).then([
        CallSucceeded("search", "probe", 2, 5), CircuitClosed(3, NOW + 300_000001),
    ])  # fmt: skip

    assert (tool.state.breaker.circuit, tool.state.breaker.failures) == (Circuit.CLOSED, 0)


@pytest.mark.row("A0-13")
def test_a_probe_that_fails_opens_it_again_and_starts_the_time_anew() -> None:
    later = half_open().after(timedelta(seconds=7))
    tool = later.when(RecordFailure("probe", 2, 10, "OSError", "down")).then([
        failed("probe", 2), CircuitOpened(3, NOW + 307_000001, "the probe failed, OSError"),
    ])  # fmt: skip

    assert tool.state.breaker.opened_at == NOW + 307_000001


def test_while_a_probe_is_in_flight_others_are_refused() -> None:
    half_open().when(Admit("other", 1)).then([CallRefused("search", "other", "a probe is in flight", 0)])


def test_a_probe_of_a_life_that_is_over_holds_no_place() -> None:
    half_open().when(Admit("other", 2)).then([ProbeAdmitted("other", 2)])


def test_a_probe_that_was_given_up_frees_its_place() -> None:
    tool = half_open().when(RecordCancel("probe", 2, 0)).then([CallCancelled("search", "probe", 2, 0)])

    tool.when(Admit("other", 1)).then([ProbeAdmitted("other", 1)])


@pytest.mark.row("A0-15")
def test_a_slow_success_from_before_the_opening_moves_nothing() -> None:
    tool = an_open_tool().when(RecordSuccess("slow", 0, 5)).then([CallSucceeded("search", "slow", 0, 5)])

    assert tool.state.breaker == an_open_tool().state.breaker
    assert tool.state.successes == 1


@pytest.mark.row("A0-16")
def test_a_slow_failure_from_before_the_opening_prolongs_nothing() -> None:
    tool = an_open_tool().after(timedelta(seconds=100))
    tool = tool.when(RecordFailure("slow", 0, 10, "OSError", "down")).then([failed("slow")])

    assert tool.state.breaker == an_open_tool().state.breaker
    assert tool.state.failed == 4


def test_several_probes_may_be_asked_for() -> None:
    policy = BreakerPolicy(1, TIMEOUT, probes=2, successes_to_close=3)
    tool = given(ToolBehavior({"search": policy}), stream="tool/search")
    tool = failing(tool, "a").after(TIMEOUT + microsecond)
    for probe in ("p1", "p2"):
        tool = tool.evolved(tool.when(Admit(probe, 1))._decision.events)  # type: ignore[union-attr]

    tool.when(Admit("p3", 1)).then([CallRefused("search", "p3", "a probe is in flight", 0)])
    tool = tool.when(RecordSuccess("p1", 2, 1)).then([CallSucceeded("search", "p1", 2, 1)])
    tool = tool.when(RecordSuccess("p2", 2, 1)).then([CallSucceeded("search", "p2", 2, 1)])
    tool = tool.when(Admit("p3", 1)).then([ProbeAdmitted("p3", 1)])
    tool.when(Admit("p4", 1)).then([CallRefused("search", "p4", "a probe is in flight", 0)])
    tool.when(RecordSuccess("p3", 2, 1)).then(
        [CallSucceeded("search", "p3", 2, 1), CircuitClosed(3, tool._moment.steady)]
    )


def test_calls_of_former_lives_are_given_up_once() -> None:
    started = [CallStarted("a", "idempotent", 1), CallStarted("b", "irreversible", 1), CallStarted("c", "read", 2)]
    tool = given(ToolBehavior({}), started, stream="tool/search")

    assert tool.index.is_open
    tool = tool.when(GiveUpLost(2)).then([CallLost("a", "idempotent"), CallLost("b", "irreversible")], reply=2)
    tool.when(GiveUpLost(2)).then([], reply=0)


def test_a_tool_is_open_work_while_a_call_outside_of_a_run_is_made() -> None:
    tool = a_tool().when(Admit("a", 1, "read")).then([CallStarted("a", "read", 1)])

    assert tool.index.is_open
    assert not tool.when(RecordSuccess("a", 0, 5)).then([CallSucceeded("search", "a", 0, 5)]).index.is_open


def test_the_figures_of_a_tool_that_was_never_called() -> None:
    figures = a_tool().when(GetToolStatistics())._decision.reply  # type: ignore[union-attr]

    assert (figures.state, figures.calls, figures.avg_time) == ("closed", 0, 0)


@pytest.mark.parametrize(
    "policy", [{"failure_threshold": 0}, {"probes": 0}, {"successes_to_close": 0}, {"reset_timeout": timedelta(-1)}]
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BreakerPolicy(**policy)


def test_a_command_of_somebody_else_is_our_bug() -> None:
    a_tool().when(GetRun()).then_refused(InternalError)
