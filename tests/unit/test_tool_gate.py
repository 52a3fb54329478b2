"""The bulkhead: how many calls of a tool run, how many wait, and who is next."""

import asyncio
import random

import pytest

from perdure import BulkheadFullError, Context, UsageError, workflow
from perdure.actors.tools.limits import Gate
from tests.support.runs import facts, play
from tests.support.tools import Double, begun, box_of, dispatch, facts_of, figures


def test_no_more_calls_run_than_allowed_and_the_others_come_in_the_order_of_asking() -> None:
    async def scenario() -> tuple[list[int], list[str]]:
        alpha = Double(concurrency=2)
        async with box_of(alpha) as box:
            rt = await box.open()
            order: list[str] = []

            async def call(number: int) -> None:
                await dispatch(rt, "alpha", "hold")
                order.append(str(number))

            tasks = await begun(box, *(call(number) for number in range(5)))
            seen: list[int] = []
            for _ in range(5):
                seen.append(alpha.held)
                alpha.release()
                await box.clock.settle()
            await asyncio.gather(*tasks)
            return seen, order

    assert play(scenario) == ([2, 2, 2, 2, 1], ["0", "1", "2", "3", "4"])


def test_a_call_that_finds_the_queue_full_is_refused_and_that_is_visible() -> None:
    async def scenario() -> tuple[dict[str, object], str, int, list[dict[str, object]]]:
        alpha = Double(concurrency=1, queue=1)
        async with box_of(alpha) as box:
            rt = await box.open()
            tasks = await begun(box, dispatch(rt, "alpha", "hold"), dispatch(rt, "alpha", "hold"))
            told = await dispatch(rt, "alpha")
            with pytest.raises(BulkheadFullError) as refused:
                await rt.call(alpha.tool)
            for _ in tasks:
                alpha.release()
                await box.clock.settle()
            await asyncio.gather(*tasks)
            refusals = [{"by": one["by"], "reason": one["reason"]} for one in await facts_of(rt, "call-refused")]
            return told, str(refused.value), (await figures(rt)).rejected, refusals

    told, text, rejected, refusals = play(scenario)

    assert told == {"error": text, "overloaded": True, "tool_name": "alpha"}
    assert text == "alpha: 1 calls run and 1 wait; try again later"
    assert rejected == 2
    assert refusals == 2 * [{"by": "bulkhead", "reason": "1 calls run and 1 wait"}]


def test_a_refusal_by_the_bulkhead_does_not_count_against_the_tool() -> None:
    async def scenario() -> tuple[str, int]:
        alpha = Double(concurrency=1, queue=0, failure_threshold=1)
        async with box_of(alpha) as box:
            rt = await box.open()
            (task,) = await begun(box, dispatch(rt, "alpha", "hold"))
            await dispatch(rt, "alpha")
            alpha.release()
            await task
            after = await figures(rt)
            return after.state, after.failures

    assert play(scenario) == ("closed", 0)


def test_a_call_that_is_cancelled_while_it_waits_takes_no_place() -> None:
    async def scenario() -> tuple[list[str], int]:
        alpha = Double(concurrency=1)
        async with box_of(alpha) as box:
            rt = await box.open()
            first, second, third = await begun(box, *(dispatch(rt, "alpha", "hold") for _ in range(3)))
            second.cancel()
            await box.clock.settle()
            alpha.release()
            await box.clock.settle()
            held = alpha.held
            alpha.release()
            await asyncio.gather(first, third)
            assert second.cancelled()
            return alpha.calls, held

    assert play(scenario) == (["hold", "hold"], 1)


def test_a_waiter_that_is_cancelled_in_the_turn_in_which_a_place_comes_free_is_cancelled_and_nothing_else() -> None:
    async def scenario() -> tuple[bool, int, int]:
        gate = Gate(1, 10)
        await gate.enter()
        waiter = asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        waiter.cancel()
        gate.leave()
        await asyncio.wait([waiter])
        return waiter.cancelled(), gate.running, gate.waiting

    assert play(scenario) == (True, 0, 0)


def test_a_place_given_to_a_waiter_that_is_cancelled_goes_to_the_next() -> None:
    async def scenario() -> tuple[bool, bool, int]:
        gate = Gate(1, 10)
        await gate.enter()
        first, second = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        gate.leave()
        first.cancel()
        await asyncio.wait([first, second])
        return first.cancelled(), second.cancelled(), gate.running

    assert play(scenario) == (True, False, 1)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_is_cancelled_no_place_is_lost_and_none_is_given_twice(seed: int) -> None:
    async def scenario() -> None:
        draw, gate, inside = random.Random(seed), Gate(3, 100), set[int]()

        async def visit(number: int) -> None:
            await gate.enter()
            try:
                inside.add(number)
                assert len(inside) <= 3
                for _ in range(draw.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                inside.discard(number)
                gate.leave()

        tasks = [asyncio.create_task(visit(number)) for number in range(40)]
        while not all(task.done() for task in tasks):
            if draw.random() < 0.4:
                draw.choice(tasks).cancel()
            await asyncio.sleep(0)
        assert [task.exception() for task in tasks if not task.cancelled()] == [None] * sum(
            not t.cancelled() for t in tasks
        )
        assert gate.is_idle

    play(scenario)


def test_the_steps_of_runs_wait_for_a_place_too() -> None:
    alpha = Double(concurrency=2)

    @workflow
    async def many(ctx: Context) -> int:
        return len(await ctx.map(alpha.tool, ["hold"] * 5, concurrency=5))

    async def scenario() -> tuple[list[int], int]:
        async with box_of(alpha, workflows=[many]) as box:
            rt = await box.open()
            run = await rt.start(many)
            seen: list[int] = []
            for _ in range(5):
                await box.clock.settle()
                seen.append(alpha.held)
                alpha.release()
            return seen, await run.result()

    assert play(scenario) == ([2, 2, 2, 2, 1], 5)


def test_a_step_that_finds_the_queue_full_comes_again() -> None:
    alpha = Double(concurrency=1, queue=0)

    @workflow
    async def wf(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "ok"))

    async def scenario() -> tuple[str, list[str]]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            (held,) = await begun(box, dispatch(rt, "alpha", "hold"))
            run = await rt.start(wf)
            await box.clock.advance(5)
            alpha.release()
            await held
            await box.clock.advance(1)
            return await run.result(), (await facts(rt, run.id))[-3:]

    result, recorded = play(scenario)

    assert result == '{"did": "ok"}'
    assert recorded == ["attempt-started", "step-completed", "run-completed"]


def test_a_step_that_waits_for_a_place_when_the_runtime_closes_is_not_begun() -> None:
    alpha = Double(concurrency=1)

    @workflow
    async def wf(ctx: Context) -> str:
        return str(await ctx.call(alpha.tool, "ok"))

    async def scenario() -> tuple[list[str], str]:
        async with box_of(alpha, workflows=[wf]) as box:
            rt = await box.open()
            (held,) = await begun(box, dispatch(rt, "alpha", "hold"))
            run = await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            closing = asyncio.create_task(box.close())
            await box.clock.settle()
            alpha.release()
            await held
            await closing
            calls = list(alpha.calls)
            rt = await box.open()
            return calls, await rt.run(run.id, wf).result()

    assert play(scenario) == (["hold"], '{"did": "ok"}')


@pytest.mark.parametrize(("concurrency", "queue"), [(0, 1), (1, -1)])
def test_a_bulkhead_that_makes_no_sense_is_refused(concurrency: int, queue: int) -> None:
    with pytest.raises(UsageError, match="concurrency of alpha is at least 1"):
        Double(concurrency=concurrency, queue=queue)
