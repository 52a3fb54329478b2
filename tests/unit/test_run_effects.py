"""What a crash means for a step whose intent is in the log and whose outcome is not: it depends on the effect class."""

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest

from perdure import (
    Context,
    Done,
    NotDone,
    NotInDoubtError,
    StepFailedError,
    Tool,
    ToolContext,
    UnencodableError,
    tool,
    workflow,
)
from tests.support.runs import HOUR, Box, box_with, events, facts, on_both_logs, play, storage

calls: list[str] = []
answers: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()
    answers.clear()


async def act(key: str) -> str:
    """Hang in the first life, return in the next."""
    calls.append(key)
    if len(calls) == 1:
        await asyncio.get_running_loop().create_future()
    return "done"


async def reconcile(key: str) -> Any:
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    if answer == "hang":
        await asyncio.get_running_loop().create_future()
    return answer


def made(effect: Literal["read", "idempotent", "irreversible"], *, reconciles: bool = False) -> Tool[Any, Any]:
    async def pay(context: ToolContext) -> str:
        return await act(context.idempotency_key)

    return tool(effect=effect, reconcile=reconcile if reconciles else None)(pay)


def paying(pay: Tool[Any, Any]) -> Any:
    @workflow(name="wf")
    async def wf(ctx: Context) -> str:
        try:
            return str(await ctx.call(pay))
        except StepFailedError as error:
            return f"failed: {error.error}"

    return wf


async def crash_in_flight(box: Box, wf: Any) -> Any:
    """Start the run, crash while the tool is at work, open again."""
    rt = await box.open()
    await rt.with_options(id="r").start(wf)
    await box.clock.settle()
    assert calls == ["r:pay#1"]
    rt = await box.crash_and_reopen()
    await box.clock.settle()
    return rt


@on_both_logs
@pytest.mark.parametrize("effect", ["read", "idempotent"])
def test_a_step_that_may_runs_again_with_the_same_key(
    effect: Literal["read", "idempotent"], kind: str, tmp_path: Path
) -> None:
    wf = paying(made(effect))

    async def scenario() -> Any:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await crash_in_flight(box, wf)
            assert await facts(rt, "r") == [
                "run-started", "step-started", "run-resumed", "attempt-started", "step-completed", "run-completed",
            ]  # fmt: skip
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert calls == ["r:pay#1", "r:pay#1"]


@pytest.mark.parametrize("effect", ["idempotent", "irreversible"])
def test_an_intent_that_never_reached_the_disk_was_never_carried_out(
    effect: Literal["idempotent", "irreversible"],
) -> None:
    """The other half of durable before dispatch: what is not in the log can be run without a doubt."""
    calls.append("not the first life")
    wf = paying(made(effect))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await asyncio.sleep(0)  # the code has begun, its first step is on its way to the disk
            await box.crash()
            assert calls == ["not the first life"]
            rt = await box.open()
            await box.clock.settle()
            del run
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert calls[1:] == ["r:pay#1"]


@on_both_logs
def test_an_irreversible_step_without_reconcile_waits_for_a_person(kind: str, tmp_path: Path) -> None:
    wf = paying(made("irreversible"))

    async def scenario() -> Any:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await crash_in_flight(box, wf)
            for _ in range(4):  # however often the process dies, it is not run and not taken for poison
                view = await rt.run("r").status()
                assert (view.status, view.in_doubt, view.waits_on) == ("waiting", ("pay#1",), "attention")
                rt = await box.crash_and_reopen()
                await box.clock.advance(HOUR)
            await rt.run("r").settle_done("pay#1", "it happened")
            return await rt.run("r").result()

    assert play(scenario) == "it happened"
    assert calls == ["r:pay#1"]


def test_a_person_may_say_that_it_did_not_happen() -> None:
    wf = paying(made("irreversible"))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            await rt.run("r").settle_not_done("pay#1")
            return await rt.run("r").result()

    assert play(scenario) == "done"
    assert calls == ["r:pay#1", "r:pay#1"]


def test_a_person_may_say_that_it_failed() -> None:
    wf = paying(made("irreversible"))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            await rt.run("r").settle_failed("pay#1", "the bank refused")
            return await rt.run("r").result()

    assert play(scenario) == "failed: the bank refused"
    assert calls == ["r:pay#1"]


def test_a_verdict_survives_a_crash_before_the_run_acted_on_it() -> None:
    wf = paying(made("irreversible"))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            await rt.run("r").settle_done("pay#1", "it happened")
            rt = await box.crash_and_reopen()
            return await rt.run("r").result()

    assert play(scenario) == "it happened"


@pytest.mark.parametrize("answer", [Done("found"), NotDone()])
def test_a_reconcile_decides(answer: Any) -> None:
    answers.append(answer)
    wf = paying(made("irreversible", reconciles=True))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            assert "step-in-doubt" not in await facts(rt, "r")
            return await rt.run("r").result()

    result = play(scenario)

    if isinstance(answer, Done):
        assert (result, calls) == ("found", ["r:pay#1"])
    else:
        assert (result, calls) == ("done", ["r:pay#1", "r:pay#1"])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OSError("bank offline"), "reconcile failed: OSError: bank offline"),
        (True, "reconcile returned bool"),
        (None, "reconcile returned NoneType"),
        (Done(object()), "reconcile failed"),
        (Done(5), "reconcile failed"),  # the tool returns text
    ],
    ids=["raises", "says yes", "says nothing", "cannot be recorded", "of another type"],
)
def test_a_reconcile_that_cannot_say_leaves_it_to_a_person(answer: Any, reason: str) -> None:
    answers.extend([answer, Done("later")])
    wf = paying(made("irreversible", reconciles=True))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            [doubt] = await events(rt, "r", "step-in-doubt")
            assert reason in doubt["reason"]
            assert (await rt.run("r").status()).in_doubt == ("pay#1",)
            rt = await box.crash_and_reopen()  # the next life asks again
            await box.clock.settle()
            await rt.resume()
            await rt.run("r").settle_done("pay#1", "by hand") if (await rt.run("r").status()).in_doubt else None
            return await rt.run("r").result()

    assert play(scenario) in ("later", "by hand")
    assert calls == ["r:pay#1"]


def test_a_reconcile_that_does_not_come_back_leaves_it_to_a_person() -> None:
    answers.append("hang")
    wf = paying(made("irreversible", reconciles=True))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            assert (await rt.run("r").status()).in_doubt == ()
            await box.clock.advance(60)
            [doubt] = await events(rt, "r", "step-in-doubt")
            assert "TimeoutError" in doubt["reason"]
            await rt.run("r").settle_done("pay#1", "by hand")
            return await rt.run("r").result()

    assert play(scenario) == "by hand"


def test_a_person_who_is_faster_than_the_reconcile_is_believed() -> None:
    """A step that timed out is in doubt at once, and the tool is asked: both may answer."""
    gate: list[asyncio.Event] = []

    async def slowly(key: str) -> NotDone:
        gate.append(asyncio.Event())
        await gate[0].wait()
        return NotDone()

    @tool(effect="irreversible", timeout=10, reconcile=slowly)
    async def pay(context: ToolContext) -> str:
        return await act(context.idempotency_key)

    wf = paying(pay)

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(10)
            await run.settle_done("pay#1", "it happened")
            gate[0].set()
            await box.clock.settle()
            recorded = await facts(rt, "r")
            assert recorded.count("step-completed") == 1
            assert "step-not-done" not in recorded
            return await run.result()

    assert play(scenario) == "it happened"
    assert calls == ["r:pay#1"]


def test_an_irreversible_step_that_timed_out_is_in_doubt() -> None:
    @tool(effect="irreversible", timeout=10)
    async def pay(context: ToolContext) -> str:
        return await act(context.idempotency_key)

    wf = paying(pay)

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(10)
            view = await run.status()
            assert (view.status, view.in_doubt) == ("waiting", ("pay#1",))
            await run.settle_not_done("pay#1")
            await box.clock.settle()
            return await run.result()

    assert play(scenario) == "done"
    assert calls == ["r:pay#1", "r:pay#1"]


def test_a_time_out_that_is_reconciled_as_not_done_is_a_failed_attempt() -> None:
    """Otherwise a tool that always times out would be called for ever, whatever its policy says."""
    answers.extend([NotDone()] * 5)

    @tool(effect="irreversible", timeout=10, reconcile=reconcile)
    async def pay() -> str:
        calls.append("paid")
        await asyncio.get_running_loop().create_future()
        return ""

    wf = paying(pay)

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await box.clock.advance(HOUR)
            figures = (await rt.statistics()).tools["pay"]
            assert (figures.calls, figures.failures) == (1, 1)
            return await run.result()

    assert play(scenario) == "failed: no result within 10 s"
    assert calls == ["paid"]


def test_only_a_step_in_doubt_can_be_settled() -> None:
    wf = paying(made("irreversible"))

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            with pytest.raises(NotInDoubtError, match="pay#1"):
                await rt.run("r").settle_done("pay#2", "x")
            await rt.run("r").settle_done("pay#1", "it happened")
            with pytest.raises(NotInDoubtError, match="none"):
                await rt.run("r").settle_done("pay#1", "again")
            await rt.run("r").result()

    play(scenario)


def test_a_result_of_another_type_than_the_tools_is_refused_when_it_is_given() -> None:
    wf = paying(made("irreversible"))

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await crash_in_flight(box, wf)
            with pytest.raises(UnencodableError, match="pay#1"):
                await rt.run("r").settle_done("pay#1", {"not": "text"})
            await rt.run("r").settle_done("pay#1", "text")
            return await rt.run("r").result()

    assert play(scenario) == "text"


def test_two_steps_in_doubt_are_settled_one_by_one() -> None:
    @tool(effect="irreversible")
    async def pay(number: int) -> str:
        calls.append(str(number))
        await asyncio.get_running_loop().create_future()
        return ""

    @workflow
    async def wf(ctx: Context) -> list[str]:
        return await ctx.map(pay, [1, 2])

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            assert (await rt.run("r").status()).in_doubt == ("map#1.0/pay#1", "map#1.1/pay#1")
            await rt.run("r").settle_done("map#1.1/pay#1", "two")
            await box.clock.settle()
            assert (await rt.run("r").status()).in_doubt == ("map#1.0/pay#1",)
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            await rt.run("r").settle_done("map#1.0/pay#1", "one")
            return await rt.run("r").result()

    assert play(scenario) == ["one", "two"]
    assert calls == ["1", "2"]
