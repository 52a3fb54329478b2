"""Commands as steps of runs: after a crash a step is found done, runs now, or is in doubt, as its command was."""

from perdure import CommandResult, Context, bash, workflow
from perdure.runtime.sandbox.backend import ExecutionResult, Unfinished
from tests.support.executing import Bench, on_bench


@workflow
async def one_command(ctx: Context) -> int:
    result: CommandResult = await ctx.call(bash, command="hold a")
    return result.exit_code


async def crash_in_the_step(bench: Bench) -> str:
    """Let a run begin a command, and crash; return what the machine knows the command by."""
    bench.machine.hold("a")
    await bench.rt.with_options(id="r").start(one_command)
    await bench.advance()
    (execution,) = bench.machine.executions
    await bench.box.crash()
    bench.machine.hold("a").set()
    return execution.execution_id


async def settled(bench: Bench) -> None:
    await bench.box.open()
    for _ in range(4):
        await bench.advance()


def test_a_step_runs_its_command_in_the_slot_of_its_run() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a").set()
        run = await bench.rt.with_options(id="r").start(one_command)
        await bench.advance()
        await bench.advance()

        assert await run.result() == 0
        assert (await bench.types("trajectory/r"))[-1] == "trajectory-slot-left"
        assert bench.states() == {"slot-0": "available"}

    on_bench(scenario, workflows=[one_command])


def test_a_command_that_ended_before_the_crash_is_not_run_again() -> None:
    async def scenario(bench: Bench) -> None:
        uid = await crash_in_the_step(bench)
        bench.machine.outcomes[uid] = ExecutionResult(execution_id=uid, success=False, metadata={"exit_code": 3})
        await settled(bench)

        assert await bench.rt.run("r", one_command).result() == 3
        assert len(bench.machine.executions) == 1

    on_bench(scenario, workflows=[one_command])


def test_a_command_that_had_not_begun_runs_after_the_crash_once() -> None:
    async def scenario(bench: Bench) -> None:
        await crash_in_the_step(bench)
        await settled(bench)

        assert await bench.rt.run("r", one_command).result() == 0
        assert len(bench.machine.executions) == 2

    on_bench(scenario, workflows=[one_command])


def test_a_command_whose_end_nobody_knows_leaves_its_step_in_doubt_for_a_person() -> None:
    async def scenario(bench: Bench) -> None:
        uid = await crash_in_the_step(bench)
        bench.machine.outcomes[uid] = Unfinished("the process died with its record")
        await settled(bench)

        view = await bench.rt.run("r", one_command).status()
        assert len(bench.machine.executions) == 1
        assert list((await bench.rt.trajectory("r").view()).in_doubt)
        waiting = await bench.rt._log.open_streams("")
        assert {row.stream: row.waits_on for row in waiting if row.stream in ("run/r", "trajectory/r")} == {
            "run/r": "attention", "trajectory/r": "attention"
        }  # fmt: skip
        assert view.status == "waiting"

        await bench.rt.trajectory("r").settle(uid.rpartition(" ")[2], success=True, because="I looked", who="ada")
        await bench.rt.run("r", one_command).settle_done("bash#1", CommandResult(7, "as I saw it"))
        await bench.advance()
        assert await bench.rt.run("r", one_command).result() == 7
        assert len(bench.machine.executions) == 1

    on_bench(scenario, workflows=[one_command])
