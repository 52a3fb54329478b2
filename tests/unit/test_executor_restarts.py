"""What becomes of calls and slots after a crash: found, run again, or in doubt; never silently run twice."""

import asyncio
from typing import Any

import pytest

from perdure import tool
from perdure.actors.slots.calls import ToolCall
from perdure.runtime.sandbox.backend import ExecutionResult, Unfinished
from tests.support.executing import Bench, on_bench

UID = "t 1 u"
LOST = Unfinished("the process died with its record")
DONE = ExecutionResult(execution_id=UID, success=True, output="done", metadata={"exit_code": 0})

calls_here: list[int] = []


@tool(effect="irreversible")
async def note(n: int) -> None:
    """Note."""
    calls_here.append(n)


async def crash_while_it_runs(bench: Bench, outcome: Any, **options: Any) -> None:
    bench.machine.hold("a")
    bench.submit("t", "hold a", uniq_id="u", **options)
    await bench.advance()
    assert bench.machine.order == ["hold a"]
    if outcome is not None:
        bench.machine.outcomes[UID] = outcome
    await bench.box.crash()
    bench.machine.hold("a").set()
    await bench.box.open()
    await bench.clock.settle()


def begun(bench: Bench) -> list[str]:
    return [one.execution_id for one in bench.machine.executions]


@pytest.mark.row("A1-34")
def test_a_command_that_had_ended_is_found_and_not_run_again() -> None:
    async def scenario(bench: Bench) -> None:
        await crash_while_it_runs(bench, DONE)

        assert (await bench.run("t", "hold a", uniq_id="u")).output == "done"
        assert begun(bench) == [UID]
        assert UID in bench.machine.forgotten

    on_bench(scenario)


@pytest.mark.row("A1-34")
def test_a_command_whose_end_nobody_knows_is_in_doubt_and_not_run_again() -> None:
    async def scenario(bench: Bench) -> None:
        await crash_while_it_runs(bench, LOST)

        result = await bench.run("t", "hold a", uniq_id="u")

        assert (result.success, result.metadata) == (False, {"in_doubt": True})
        assert begun(bench) == [UID]
        await bench.rt.trajectory("t").settle("u", success=True, because="I looked", output="it is there")
        assert (await bench.run("t", uniq_id="u")).output == "it is there"

    on_bench(scenario)


def test_a_doubt_is_still_one_after_another_crash() -> None:
    async def scenario(bench: Bench) -> None:
        await crash_while_it_runs(bench, LOST)
        bench.machine.outcomes.clear()
        await bench.crash()

        assert list((await bench.rt.trajectory("t").view()).in_doubt) == ["u"]
        assert begun(bench) == [UID]

    on_bench(scenario)


def test_an_idempotent_call_whose_end_nobody_knows_runs_again() -> None:
    async def scenario(bench: Bench) -> None:
        await crash_while_it_runs(bench, LOST, effect="idempotent")
        await bench.advance()

        assert begun(bench) == [UID, "t 2 u"]
        assert (await bench.run("t", uniq_id="u")).output == "hold a"
        assert begun(bench) == [UID, "t 2 u"]

    on_bench(scenario)


def test_a_command_that_never_began_runs_after_the_crash() -> None:
    async def scenario(bench: Bench) -> None:
        await crash_while_it_runs(bench, None)
        await bench.advance()

        assert begun(bench) == [UID, "t 2 u"]
        assert (await bench.rt.trajectory("t").view()).in_flight == ()

    on_bench(scenario)


def test_calls_run_again_before_new_ones_and_not_before_every_slot_is_known() -> None:
    async def scenario(bench: Bench) -> None:
        for name in ("a", "b"):
            bench.submit(name, f"hold {name}", uniq_id="u", effect="idempotent")
        await bench.advance()
        outcome = bench.machine.outcome

        async def slow(slot: str, execution_id: str) -> Any:
            await bench.clock.advance(1)
            return await outcome(slot, execution_id)

        bench.machine.outcome = slow  # type: ignore[method-assign]
        bench.machine.outcomes.update({"a 1 u": LOST, "b 1 u": LOST})
        await bench.box.crash()
        for name in ("a", "b"):
            bench.machine.hold(name).set()
        bench.machine.batches.clear()
        await bench.box.open()
        await bench.run("a", "new")

        assert sorted(begun(bench)[:2]) == ["a 2 u", "b 2 u"]
        assert "lost" not in str(await bench.rt.trajectory("a").view())
        assert bench.states() == {"slot-0": "acquired", "slot-1": "acquired"}

    on_bench(scenario)


def test_a_command_in_a_slot_that_was_emptied_since_is_in_doubt() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        bench.submit("t", "hold a", uniq_id="u")
        await bench.advance()
        pool = bench.executor.pool
        pool.upkeep.on_lost = lambda *_: None  # a crash comes before the command is ended
        pool.quarantine("slot-0", "an operator said so")
        await pool.reset("slot-0")
        await bench.crash()

        assert list((await bench.rt.trajectory("t").view()).in_doubt) == ["u"]
        assert begun(bench) == [UID]

    on_bench(scenario)


def test_a_trajectory_keeps_its_slot_over_a_crash() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("a")
        await bench.run("b")
        await bench.crash()
        await bench.run("b")

        assert bench.machine.recovered == ["slot-0", "slot-1"]
        assert [(one.slot, one.lease) for one in bench.machine.executions][-1] == ("slot-1", 1)
        assert bench.machine.resets == []

    on_bench(scenario)


def test_a_slot_whose_processes_cannot_be_ended_is_lost() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")

        async def fail(slot: str, lease: int) -> None:
            raise OSError("it survives")

        bench.machine.recover = fail  # type: ignore[method-assign]
        await bench.crash()

        assert bench.states() == {"slot-0": "error"}
        assert (await bench.rt.trajectory("t").view()).slot is None
        assert (await bench.run("t")).success

    on_bench(scenario)


@pytest.mark.parametrize("reset", [True, False])
def test_a_release_that_a_crash_interrupted_is_finished(reset: bool) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(bench.machine, "reset", _never)
            patched.setattr(bench.machine, "release", _never)
            leaving = asyncio.ensure_future(bench.rt.trajectory("t").release(reset_workspace=reset))
            await bench.clock.settle()
            assert bench.states() == {"slot-0": "releasing"}
            await bench.box.crash()
            await asyncio.gather(leaving, return_exceptions=True)
        await bench.box.open()

        assert bench.states() == {"slot-0": "available"}
        assert bench.machine.resets == (["slot-0"] if reset else [])

    on_bench(scenario)


async def _never(slot: str, lease: int) -> None:
    await asyncio.Event().wait()


def test_calls_that_may_run_again_wait_for_their_callers_without_resume() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        bench.submit("t", "hold a", uniq_id="u", effect="idempotent")
        await bench.advance()
        bench.machine.outcomes[UID] = LOST
        await bench.box.crash()
        bench.machine.hold("a").set()
        await bench.box.open(resume=False)
        await bench.advance(1)
        assert begun(bench) == [UID]

        assert (await bench.run("t", "hold a", uniq_id="u")).success
        assert begun(bench) == [UID, "t 2 u"]

    on_bench(scenario)


def test_an_irreversible_tool_of_the_former_process_is_in_doubt() -> None:
    calls_here.clear()

    async def scenario(bench: Bench) -> None:
        call = bench.call("t", ToolCall("note", {"n": 1}, uniq_id="u"))
        await bench.advance()
        assert (await call).success
        await bench.crash()
        again = bench.call("t", ToolCall("note", {"n": 1}, uniq_id="u"))
        await bench.advance()

        assert (await again).success
        assert calls_here == [1]

    on_bench(scenario, tools=[note])


def test_nothing_is_left_in_flight_when_the_executor_was_closed_before_the_runtime() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        await bench.executor.close()
        await bench.box.close_and_reopen()

        assert bench.machine.recovered == []
        assert bench.states() == {"slot-0": "available"}

    on_bench(scenario)
