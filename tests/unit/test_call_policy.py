"""What is decided of a call before it is sent: its limit, its policy, its name. Through the executor."""

import math
from typing import Any

import pytest

from perdure.actors.slots.calls import ToolCall
from perdure.actors.slots.policy import Policy, Sent, limit, sent_as
from tests.support.executing import Bench, on_bench

STRICT = {"allow_network": False, "require_sandbox": True, "require_stateful_sandbox": True}


def sent(name: str, arguments: dict[str, Any], **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return what the machine hears of a call."""
    heard: list[tuple[str, dict[str, Any]]] = []

    async def scenario(bench: Bench) -> None:
        call = bench.call("t", ToolCall(name, arguments))
        await bench.advance()
        await call
        heard.extend((one.tool, one.arguments) for one in bench.machine.executions)

    on_bench(scenario, **options)
    return heard


@pytest.mark.row("A1-06")
@pytest.mark.parametrize(("asked", "seconds"), [(0, 1.0), (0.2, 1.0), (-5, 1.0), (700, 600.0)])
def test_a_limit_is_kept_within_bounds(asked: float, seconds: float) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t", timeout_s=asked)

        assert [one.timeout_seconds for one in bench.machine.executions] == [seconds]

    on_bench(scenario)


@pytest.mark.row("A1-07")
def test_a_limit_among_the_arguments_counts_and_is_taken_out() -> None:
    async def scenario(bench: Bench) -> None:
        call = bench.call("t", ToolCall("bash", {"command": "true", "timeout": 7000}))
        await bench.advance()
        await call

        (execution,) = bench.machine.executions
        assert execution.timeout_seconds == 600.0
        assert "timeout" not in execution.arguments

    on_bench(scenario)


@pytest.mark.row("A1-08")
@pytest.mark.parametrize("strange", [True, "9", math.nan, math.inf, None, [3]])
def test_a_limit_that_is_no_number_is_as_if_absent(strange: object) -> None:
    async def scenario(bench: Bench) -> None:
        call = bench.call("t", ToolCall("bash", {"command": "true", "timeout": strange}))
        await bench.advance()

        assert (await call).success
        assert [one.timeout_seconds for one in bench.machine.executions] == [30.0]

    on_bench(scenario)


def test_what_the_caller_says_goes_before_what_the_model_says() -> None:
    assert limit(5, {"timeout": 100}) == 5.0
    assert limit(None, {"timeout": 100}) == 100.0
    assert limit(None, {}) is None


@pytest.mark.row("A1-09")
def test_the_policy_is_the_applications_whatever_the_model_says() -> None:
    arguments = {"command": "true", "allow_network": True, "require_sandbox": False}

    heard = sent("bash", arguments, **STRICT)

    assert heard == [("bash", {"command": "true", "allow_network": False, "require_sandbox": True})]


@pytest.mark.row("A1-10")
def test_the_aliases_are_sent_under_their_own_names() -> None:
    assert sent("terminal", {"command": "true", "background": False}, **STRICT) == [
        ("bash", {"command": "true", "allow_network": False, "require_sandbox": True})
    ]
    assert sent("terminal_stateful", {"command": "true", "require_stateful_sandbox": False}, **STRICT) == [
        ("bash_stateful", {"command": "true", "allow_network": False, "require_stateful_sandbox": True})
    ]


@pytest.mark.row("A1-11")
def test_a_terminal_in_the_background_fails_and_counts_once() -> None:
    async def scenario(bench: Bench) -> None:
        call = bench.call("t", ToolCall("terminal", {"command": "true", "background": True}))
        await bench.advance()

        assert (await call).error == "terminal background execution is not supported in sandbox"
        assert not (await call).success
        assert (bench.executor.total_requests, bench.executor.total_errors) == (1, 1)
        assert bench.machine.batches == []

    on_bench(scenario)


def test_a_terminal_keeps_its_own_limit_and_gets_the_policy() -> None:
    asked = {"action": "start", "timeout": 5, "require_stateful_sandbox": False}

    assert sent_as("tmux", asked, Policy(require_stateful_sandbox=True)) == Sent(
        "tmux", {"action": "start", "timeout": 5, "allow_network": True, "require_stateful_sandbox": True}
    )
