"""A topic with a type: what is published is checked, what is read is an object of it, the same live and replayed."""

import asyncio

import msgspec
import pytest

from perdure import Context, LogEvent, Runtime, StepFailedError, Topic, UsageError, workflow
from perdure.testing import MemoryDisk, TestClock


class Payment(msgspec.Struct):
    order: str
    cents: int


PAID = Topic("order.paid", of=Payment)


@workflow
async def take(ctx: Context) -> list[str]:
    event = await ctx.event(PAID)
    assert isinstance(event.data, Payment)
    told = await ctx.ask("ship it?", of=str)
    return [event.data.order, told]


@workflow
async def pay(ctx: Context, cents: int | str) -> None:
    await ctx.publish(PAID, {"order": "o-1", "cents": cents})


@workflow
async def survive(ctx: Context) -> str:
    try:
        await ctx.event(PAID)
    except StepFailedError as error:
        return f"{error.error_type} of {error.step}"
    return "it fits"


def test_a_run_gets_an_object_live_and_in_a_replay() -> None:
    async def scenario() -> list[str]:
        disk, clock = MemoryDisk(), TestClock()
        async with Runtime("x", log=disk.open, workflows=[take], clock=clock) as rt:
            await rt.with_options(id="r").start(take)
            await rt.publish(PAID, Payment("o-1", 700))
            await clock.advance(0)
            asked = await rt.questions()
        async with Runtime("x", log=disk.open, workflows=[take]) as rt:
            await rt.run("r").answer(asked[0].id, "yes")
            return await rt.run("r", take).result()

    assert asyncio.run(scenario()) == ["o-1", "yes"]


def test_other_data_are_refused_and_recorded_nowhere() -> None:
    async def scenario() -> None:
        async with Runtime("x", log=MemoryDisk().open, workflows=[pay]) as rt:
            with pytest.raises(UsageError, match=r"'order\.paid'.*Payment.*Expected `int`, got `str`"):
                await rt.publish(PAID, {"order": "o-1", "cents": "many"})
            run = await rt.start(pay, "many")
            with pytest.raises(Exception, match="Expected `int`, got `str`"):
                await run.result()
            await (await rt.start(pay, 700)).result()

            assert [event.data for event in await rt.events.history("order.paid")] == [{"order": "o-1", "cents": 700}]

    asyncio.run(scenario())


def test_what_others_publish_under_the_name_is_a_failure_that_the_code_can_catch() -> None:
    async def scenario() -> str:
        async with Runtime("x", log=MemoryDisk().open, workflows=[survive]) as rt:
            run = await rt.start(survive)
            await rt.publish("order.paid", {"order": "o-1", "cents": "many"})
            return await run.result()

    assert asyncio.run(scenario()) == "ValidationError of order.paid"


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_gets_objects_and_what_is_none_becomes_a_dead_letter(is_async: bool) -> None:
    got: list[object] = []

    async def scenario() -> int:
        loop, is_got = asyncio.get_running_loop(), asyncio.Event()

        def book(event: LogEvent) -> None:
            got.append(event.data)
            loop.call_soon_threadsafe(is_got.set)

        async def book_later(event: LogEvent) -> None:
            book(event)

        async with Runtime("x", log=MemoryDisk().open) as rt:
            await rt.subscribe(book_later if is_async else book, PAID).opened()
            await rt.publish("order.paid", {"order": "o-1", "cents": "many"})
            await rt.publish(PAID, Payment("o-2", 700))
            await is_got.wait()
            return sum(len(letters) for letters in (await rt.events.dead_letters()).values())

    assert asyncio.run(scenario()) == 1
    assert got == [Payment("o-2", 700)]


def test_a_topic_is_of_something_that_can_be_read() -> None:
    with pytest.raises(UsageError, match="cannot be read back"):
        Topic("order.paid", of=asyncio.Event)
    with pytest.raises(UsageError, match="1 to 60"):
        Topic("no such name", of=int)
