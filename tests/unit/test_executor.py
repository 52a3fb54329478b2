"""The executor's calls: batches, order, what one part that fails does to the others. On a machine held in hand."""

import asyncio
from typing import Any, cast

import pytest

from perdure import ExecutorConfig, ToolContext, ToolExecutor, ToolResult, UsageError, slot_of, tool
from perdure.actors.slots.calls import ToolCall
from perdure.actors.tools.registry import Registry
from perdure.runtime.sandbox.backend import ExecutionResult
from tests.support.executing import WINDOW, Bench, on_bench
from tests.support.machine import Machine


@tool(external=True)
async def web(q: str) -> str:
    """Search."""
    raise AssertionError(q)


@tool
async def double(n: int) -> int:
    """Double."""
    return 2 * n


@tool
async def broken() -> str:
    """Break."""
    raise ValueError("no such luck")


@pytest.mark.row("A1-01")
def test_the_defaults_are_those_of_the_table() -> None:
    config = ExecutorConfig()

    assert (config.batch_window_ms, config.max_batch_size, config.allow_network) == (20, 200, True)
    assert (config.require_sandbox, config.require_stateful_sandbox) == (False, False)
    assert (config.tool_server_url, config.tool_server_token) == (None, None)


@pytest.mark.row("A1-02")
def test_a_call_before_the_start_is_refused() -> None:
    executor = ToolExecutor(Machine(), Registry(()))

    with pytest.raises(RuntimeError) as refusal:
        asyncio.run(executor.execute("t", ToolCall("bash", {"command": "true"})))

    assert str(refusal.value) == "ToolExecutor not started (call start() first)"


@pytest.mark.row("A1-03")
def test_calls_of_one_window_are_one_batch() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit(f"t{n % 3}", f"c{n}") for n in range(6)]

        await bench.advance()

        assert all([(await call).success for call in calls])
        assert [len(batch) for batch in bench.machine.batches] == [6]
        assert len(bench.machine.acquired) == 3

    on_bench(scenario)


@pytest.mark.row("A1-04")
def test_a_full_batch_does_not_wait_for_its_window() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("a"), bench.submit("b")]

        await bench.advance(0.099)

        assert all(call.done() for call in calls)

    on_bench(scenario, max_batch_size=2, batch_window_ms=1000)


def test_a_batch_is_never_larger_than_said() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("a", f"c{n}") for n in range(7)]

        await bench.advance()

        assert [len(batch) for batch in bench.machine.batches] == [3, 3, 1]
        assert bench.machine.order == [f"c{n}" for n in range(7)]
        assert all([(await call).success for call in calls])

    on_bench(scenario, max_batch_size=3)


@pytest.mark.row("A1-05")
def test_a_trajectory_keeps_its_slot() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        await bench.advance(5)
        await bench.run("t")

        assert [one.slot for one in bench.machine.executions] == ["slot-0", "slot-0"]
        assert bench.machine.acquired == [("slot-0", 1)]

    on_bench(scenario)


@pytest.mark.row("A1-12")
def test_an_unknown_tool_fails_and_takes_no_slot() -> None:
    async def scenario(bench: Bench) -> None:
        result = await bench.call("t", ToolCall("nope", {}, uniq_id="u1"))

        assert result == ToolResult(success=False, error="Unknown tool: nope", uniq_id="u1")
        assert bench.states() == {}

    on_bench(scenario)


@pytest.mark.row("A1-13")
def test_an_external_tool_without_a_server_is_not_available() -> None:
    async def scenario(bench: Bench) -> None:
        result = await bench.call("t", ToolCall("web", {"q": "x"}))

        assert result.error == "External tool not available (ToolServer not configured): web"
        assert not result.success

    on_bench(scenario, tools=[web])


def test_a_tool_of_this_process_is_called_in_its_turn() -> None:
    async def scenario(bench: Bench) -> None:
        first = bench.submit("t", "first")
        call = bench.call("t", ToolCall("double", {"n": 21}, uniq_id="d"))
        bad = bench.call("t", ToolCall("broken", {}))

        await bench.advance()

        assert (await first).success
        assert await call == ToolResult(success=True, output="42", uniq_id="d")
        assert (await bad).error == "ValueError: no such luck"

    on_bench(scenario, tools=[double, broken])


def test_an_external_call_is_told_the_slot_once_there_is_one() -> None:
    async def scenario(bench: Bench) -> None:
        seen: list[tuple[str, str | None, dict[str, Any]]] = []

        async def serve(call: ToolCall, trajectory: str, seconds: float, slot: str | None) -> ToolResult:
            seen.append((trajectory, slot, call.arguments))
            return ToolResult(success=True, output="found")

        await bench.serve(serve)
        before = bench.call("t", ToolCall("web", {"q": "x", "timeout": 5}, uniq_id="w1"))
        await bench.advance()
        await bench.run("t")
        after = bench.call("t", ToolCall("web", {"q": "y"}, uniq_id="w2"))
        await bench.advance()

        assert [(await before).uniq_id, (await after).uniq_id] == ["w1", "w2"]
        assert seen == [("t", None, {"q": "x"}), ("t", "slot-0", {"q": "y"})]

    on_bench(scenario, tools=[web])


def test_an_external_call_that_is_never_answered_ends_by_the_default_limit() -> None:
    async def scenario(bench: Bench) -> None:
        async def serve(call: ToolCall, trajectory: str, seconds: float, slot: str | None) -> ToolResult:
            await asyncio.Event().wait()
            raise AssertionError

        await bench.serve(serve)
        call = bench.call("t", ToolCall("web", {"q": "x"}))
        await bench.advance(WINDOW + 29)
        assert not call.done()
        await bench.advance(1)

        assert (await call).error == "External tool failed: no answer within 30 s"

    on_bench(scenario, tools=[web])


@pytest.mark.row("A1-18")
def test_a_slow_external_call_holds_no_sandbox_call_up() -> None:
    async def scenario(bench: Bench) -> None:
        async def serve(call: ToolCall, trajectory: str, seconds: float, slot: str | None) -> ToolResult:
            await answered.wait()
            return ToolResult(success=True)

        answered = asyncio.Event()
        await bench.serve(serve)
        slow = bench.call("a", ToolCall("web", {"q": "x"}))
        quick = bench.submit("b")
        await bench.advance()

        assert (quick.done(), slow.done()) == (True, False)
        answered.set()
        assert (await slow).success

    on_bench(scenario, tools=[web])


@pytest.mark.row("A1-19")
def test_a_running_batch_holds_no_other_trajectory_up() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.machine.hold("a")
        slow = bench.submit("a", "hold a")
        await bench.advance()

        assert (await bench.run("b")).success
        assert not slow.done()
        held.set()
        assert (await slow).success

    on_bench(scenario)


@pytest.mark.row("A1-20")
def test_calls_with_other_limits_run_side_by_side() -> None:
    async def scenario(bench: Bench) -> None:
        one, two = bench.machine.hold("one"), bench.machine.hold("two")
        calls = [bench.submit("a", "hold one", timeout_s=600), bench.submit("b", "hold two", timeout_s=5)]
        await bench.advance()

        assert sorted(bench.machine.order) == ["hold one", "hold two"]
        assert [one.timeout_seconds for one in bench.machine.executions] == [600, 5]
        one.set()
        two.set()
        assert all([(await call).success for call in calls])

    on_bench(scenario)


@pytest.mark.row("A1-21")
def test_calls_of_one_trajectory_run_in_the_order_in_which_they_were_made() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("a", f"c{n}", timeout_s=limit) for n, limit in enumerate((30, 5, 30))]
        await bench.advance()

        assert bench.machine.order == ["c0", "c1", "c2"]
        assert all([(await call).success for call in calls])

    on_bench(scenario)


@pytest.mark.row("A1-22")
def test_a_slot_that_cannot_be_made_ready_fails_its_trajectory_alone() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.refuses_acquire.add("slot-1")
        good, bad = bench.submit("good"), bench.submit("bad")
        await bench.advance()

        assert (await good).success
        assert (await bad).error == "Failed to acquire slot: no space left on device"
        assert bench.states() == {"slot-0": "acquired", "slot-1": "error"}
        assert (await bench.run("bad")).success

    on_bench(scenario)


def test_a_slot_that_is_not_made_ready_holds_the_others_up_for_a_moment_only() -> None:
    async def scenario(bench: Bench) -> None:
        stuck = asyncio.Event()
        acquire = bench.machine.acquire

        async def slow(slot: str, lease: int) -> None:
            if slot == "slot-1":
                await stuck.wait()
            await acquire(slot, lease)

        bench.machine.acquire = slow  # type: ignore[method-assign]
        good, late = bench.submit("good"), bench.submit("late")
        await bench.advance(2 * WINDOW)

        assert (good.done(), late.done()) == (True, False)
        stuck.set()
        assert (await late).success

    on_bench(scenario)


@pytest.mark.row("A1-23")
def test_a_call_whose_result_is_missing_fails_and_nobody_waits() -> None:
    async def scenario(bench: Bench) -> None:
        lost, kept = bench.submit("a", "lose"), bench.submit("b")
        await bench.advance()

        assert (await kept).success
        assert await lost == ToolResult(
            success=False,
            error="Missing result in batch response",
            metadata={"outcome": "not begun"},
            uniq_id=(await lost).uniq_id,
        )
        assert (await bench.run("a")).success

    on_bench(scenario)


@pytest.mark.row("A1-24")
def test_a_call_that_breaks_the_dispatch_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        admission = bench.executor._traffic.admission  # type: ignore[union-attr]

        class Strange:
            def get(self, name: str) -> None:
                raise ZeroDivisionError("what a schema")

        with monkeypatch.context() as patched:
            patched.setattr(admission, "_tools", Strange())
            assert (await bench.run("a")).error == "Tool execution error: what a schema"

        def explode(*_: object) -> None:
            raise ZeroDivisionError("no view")

        with monkeypatch.context() as patched:
            patched.setattr(bench.executor.pool, "try_take", explode)
            assert (await bench.run("a")).error == "Failed to acquire slot: no view"

        with monkeypatch.context() as patched:
            patched.setattr("perdure.runtime.sandbox.batch.as_result", explode)
            assert (await bench.run("a")).error == "Batch execution failed: no view"

        assert (await bench.run("a")).success

    on_bench(scenario)


@pytest.mark.row("A1-25")
def test_a_batch_that_fails_fails_every_call_in_it_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.batch_error = RuntimeError("kaput")
        calls = [bench.submit("a"), bench.submit("b")]
        await bench.advance()

        assert [(await call).error for call in calls] == ["Batch execution failed: kaput"] * 2
        assert (bench.executor.total_requests, bench.executor.total_errors) == (2, 2)
        bench.machine.batch_error = None
        assert (await bench.run("a")).success

    on_bench(scenario)


def test_a_result_that_the_machine_has_is_found_when_the_batch_lost_it() -> None:
    async def scenario(bench: Bench) -> None:
        found = ExecutionResult(execution_id="a 1 u", success=True, output="done")
        bench.machine.outcomes["a 1 u"] = found

        assert (await bench.run("a", "lose", uniq_id="u")).output == "done"

    on_bench(scenario)


@pytest.mark.row("A1-33")
def test_the_same_id_is_executed_once_and_answered_twice() -> None:
    async def scenario(bench: Bench) -> None:
        both = [bench.submit("t", "one", uniq_id="u"), bench.submit("t", "one", uniq_id="u")]
        await bench.advance()
        later = await bench.run("t", "one", uniq_id="u")
        await bench.crash()
        much_later = await bench.run("t", "one", uniq_id="u")

        assert [await both[0], await both[1], later, much_later] == [later] * 4
        assert bench.machine.order == ["one"]

    on_bench(scenario)


def test_ids_and_trajectories_that_read_alike_are_not_mixed_up() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("a:b", "one", uniq_id="c"), bench.submit("a", "two", uniq_id="b:c")]
        await bench.advance()

        assert [(await call).output for call in calls] == ["one", "two"]

    on_bench(scenario)


@pytest.mark.parametrize("uniq_id", ["", "x" * 1001, "a\0b", "\ud800"])
def test_an_id_that_cannot_be_written_fails_its_call_alone(uniq_id: str) -> None:
    async def scenario(bench: Bench) -> None:
        bad, good = bench.submit("a", uniq_id=uniq_id), bench.submit("b")
        await bench.advance()

        assert (await bad).error.startswith("a uniq_id has ")
        assert (await good).success

    on_bench(scenario)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (ToolCall("bash", {}, uniq_id=cast("Any", 5)), "a uniq_id is a text, not 5"),
        (ToolCall("bash", cast("Any", "ls")), "arguments are an object with the parameters by name, not str"),
        (ToolCall("double", cast("Any", [1])), "arguments are an object with the parameters by name, not list"),
    ],
)
def test_a_call_of_the_wrong_types_fails_alone_and_says_why(call: ToolCall, error: str) -> None:
    async def scenario(bench: Bench) -> None:
        bad, good = bench.call("a", call), bench.submit("b")
        await bench.advance()

        assert (await bad).error == error
        assert (await good).success

    on_bench(scenario, tools=[double])


def test_an_effect_class_that_there_is_not_is_refused_before_anything_is_written() -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.executor.statistics().slots

        with pytest.raises(
            UsageError, match="effect is one of 'read', 'idempotent', 'irreversible' or None, not 'safe'"
        ):
            await bench.executor.execute("t", ToolCall("bash", {"command": "true"}), effect=cast("Any", "safe"))

        assert bench.executor.statistics().slots == before
        assert (await bench.rt.trajectory("t").view()).calls == 0

    on_bench(scenario)


def test_a_tool_that_would_wait_for_its_own_turn_is_told_so_at_once() -> None:
    @tool
    async def inner(call: ToolContext) -> str:
        return (await slot_of(call).run("true")).output

    async def scenario(bench: Bench) -> None:
        stuck = bench.call("t", ToolCall("inner", {}))
        after = bench.submit("t")
        await bench.advance()

        assert "inner is a call of trajectory t itself" in (await stuck).error
        assert (await after).success

    on_bench(scenario, tools=[inner])


@pytest.mark.parametrize(
    "said", [{"because": None}, {"because": "seen", "success": "yes"}, {"because": "x", "output": 1}]
)
def test_a_verdict_that_nobody_could_read_again_is_refused(said: dict[str, Any]) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(UsageError, match=r"(because|output) is a text|success is True or False"):
            await bench.rt.trajectory("t").settle("c", **{"success": True, **said})

    on_bench(scenario)


def test_more_calls_than_may_wait_are_refused() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("a", f"c{n}") for n in range(3)]
        await bench.advance()

        assert [(await call).error for call in calls] == ["", "", "2 calls wait already: try again later"]

    on_bench(scenario, max_queued=2)
