"""The bus of one process: who is told, in which order, and what becomes of errors."""

import asyncio
import functools
from typing import Any

import pytest

from perdure import BusEvent, EventBus, Subscription, UsageError
from perdure.actors.triggers.bus import DEEPEST

heard: list[Any] = []


@pytest.fixture(autouse=True)
def silence() -> None:
    heard.clear()


def listener(name: str) -> Any:
    return lambda event: heard.append((name, event.data))


@pytest.mark.row("A2-46")
def test_sync_handlers_come_first_in_their_order_then_the_async_ones_together() -> None:
    async def scenario() -> None:
        bus = EventBus()
        met = asyncio.Event()

        async def waits(event: BusEvent) -> None:
            heard.append("waits")
            await met.wait()
            heard.append("met")

        async def meets(event: BusEvent) -> None:
            heard.append("meets")
            met.set()

        bus.on("paid", waits)
        bus.on("paid", listener("first"))
        bus.on("paid", meets)
        bus.on("paid", listener("second"))

        emission = await bus.emit("paid", 3)

        assert heard == [("first", 3), ("second", 3), "waits", "meets", "met"]
        assert (emission.handled, emission.failures) == (4, ())

    asyncio.run(scenario())


@pytest.mark.row("A2-46")
def test_an_error_of_a_handler_is_reported_and_stops_no_other() -> None:
    def breaks(event: BusEvent) -> None:
        raise ValueError("sync")

    async def breaks_later(event: BusEvent) -> None:
        raise OSError("async")

    async def scenario() -> None:
        bus = EventBus()
        for handler in (breaks, breaks_later, listener("last")):
            bus.on("paid", handler)

        emission = await bus.emit("paid")

        assert heard == [("last", None)]
        assert [(one.handler, str(one.error)) for one in emission.failures] == [
            (breaks, "sync"),
            (breaks_later, "async"),
        ]

    asyncio.run(scenario())


@pytest.mark.row("A2-47")
def test_a_partial_a_callable_object_and_a_lambda_over_a_coroutine_function_are_awaited() -> None:
    async def note(name: str, event: BusEvent) -> None:
        await asyncio.sleep(0)
        heard.append((name, event.data))

    class Noting:
        async def __call__(self, event: BusEvent) -> None:
            await note("object", event)

        async def method(self, event: BusEvent) -> None:
            await note("method", event)

    async def scenario() -> None:
        bus = EventBus()
        bus.on("paid", functools.partial(note, "partial"))
        bus.on("paid", Noting())
        bus.on("paid", Noting().method)
        bus.on("paid", lambda event: note("lambda", event))

        await bus.emit("paid", 1)

        assert sorted(heard) == [("lambda", 1), ("method", 1), ("object", 1), ("partial", 1)]

    asyncio.run(scenario())


@pytest.mark.row("A2-48")
def test_a_handler_that_was_taken_off_is_called_no_more() -> None:
    async def scenario() -> None:
        bus = EventBus()
        by_name, by_subscription = listener("by name"), listener("by subscription")
        bus.on("paid", by_name)
        subscription = bus.on("paid", by_subscription)
        await bus.emit("paid", 1)

        assert bus.off("paid", by_name) == 1
        assert subscription.unsubscribe()
        await bus.emit("paid", 2)

        assert heard == [("by name", 1), ("by subscription", 1)]
        assert bus.off("paid", by_name) == 0
        assert not subscription.unsubscribe()

    asyncio.run(scenario())


@pytest.mark.row("A2-48")
def test_a_method_is_taken_off_by_looking_it_up_again() -> None:
    class Listening:
        def hear(self, event: BusEvent) -> None:
            heard.append(event.data)

    async def scenario() -> None:
        bus, listening = EventBus(), Listening()
        bus.on("paid", listening.hear)

        bus.off("paid", listening.hear)
        await bus.emit("paid")

        assert heard == []

    asyncio.run(scenario())


def test_a_handler_that_another_takes_off_is_not_called_for_the_same_event() -> None:
    async def scenario() -> None:
        bus = EventBus()
        late: list[Subscription] = []
        bus.on("paid", lambda _: late[0].unsubscribe())
        late.append(bus.on("paid", listener("late")))

        emission = await bus.emit("paid")

        assert heard == []
        assert emission.handled == 1

    asyncio.run(scenario())


def test_a_star_in_a_name_stands_for_any_characters() -> None:
    async def scenario() -> None:
        bus = EventBus()
        for pattern in ("*", "order.*", "*.paid", "order.paid", "order", "o[a-z]*"):
            bus.on(pattern, listener(pattern))

        await bus.emit("order.paid")

        assert [name for name, _ in heard] == ["*", "order.*", "*.paid", "order.paid"]

    asyncio.run(scenario())


def test_the_newest_events_are_remembered_with_their_times() -> None:
    async def scenario() -> None:
        times = iter(range(10, 100, 10))
        bus = EventBus(history=2, clock=lambda: next(times))
        for number, name in enumerate(("a", "b", "a")):
            await bus.emit(name, number)

        assert bus.history() == [BusEvent("b", 1, 20), BusEvent("a", 2, 30)]
        assert bus.history("a") == [BusEvent("a", 2, 30)]

    asyncio.run(scenario())


def test_handlers_that_emit_from_within_one_another_are_stopped_and_reported() -> None:
    async def scenario() -> None:
        bus = EventBus()
        depths: list[int] = []

        async def again(event: BusEvent) -> None:
            depths.append(event.data)
            emission = await bus.emit("paid", event.data + 1)
            heard.extend(str(one.error) for one in emission.failures)

        bus.on("paid", again)
        await bus.emit("paid", 1)

        assert depths == list(range(1, DEEPEST + 1))
        assert len(heard) == 1
        assert "from within one another" in heard[0]

    asyncio.run(scenario())


def test_a_cancelled_emit_cancels_the_async_handlers() -> None:
    async def scenario() -> None:
        bus = EventBus()
        begun = asyncio.Event()

        async def waits(event: BusEvent) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                heard.append("cleaned up")

        bus.on("paid", waits)
        emitting = asyncio.ensure_future(bus.emit("paid"))
        await begun.wait()
        emitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await emitting
        await asyncio.sleep(0)

        assert heard == ["cleaned up"]

    asyncio.run(scenario())


def test_what_cannot_be_called_is_no_handler() -> None:
    bus: Any = EventBus()

    with pytest.raises(UsageError, match="handler is a function, not 'print'"):
        bus.on("paid", "print")
    with pytest.raises(UsageError, match="say which"):
        bus.on("", print)
