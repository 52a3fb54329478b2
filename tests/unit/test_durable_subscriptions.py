"""Subscriptions with a name: what the next life of the program goes on with, after a close and after a crash."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import LogEvent, LogWriteError, Query, Retry, Runtime, UsageError
from perdure.runtime.entries import deliveries
from perdure.runtime.entries.log_events import LogEvents
from perdure.testing import MemoryDisk
from tests.support.runs import Box, box_with, on_both_logs, play, storage

PATIENT = Retry(attempts=3, backoff=timedelta(seconds=100), cap=timedelta(hours=1), jitter=False)


class Books:
    """A handler that outlives the runtimes, as what it writes to would."""

    def __init__(self) -> None:
        self.data: list[Any] = []
        self.failing = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, event: LogEvent) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            self.failing -= 1
            raise ValueError("no")
        self.data.append(event.data)


async def handled(box: Box, books: Books, *data: Any, **options: Any) -> Runtime:
    """Open a box, subscribe as "books" and have these data, published one after the other, given to the handler."""
    rt = await box.open()
    rt.subscribe(books, "paid", name="books", **options)
    for each in data:
        await rt.publish("paid", each)
    await box.clock.settle()
    return rt


async def facts(rt: Runtime, *types: str) -> list[dict[str, Any]]:
    rows = await rt.read(Query(stream_prefix="subscription/", types=types or None))
    return [json.loads(row.data or "{}") for row in rows]


@on_both_logs
def test_after_a_close_a_subscription_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        box, books = box_with(on=storage(kind, tmp_path)), Books()
        rt = await handled(box, books, 1)
        rt = await box.close_and_reopen()
        await rt.publish("paid", 2)  # while nobody has subscribed
        rt = await box.close_and_reopen()
        await rt.publish("paid", 3)

        await rt.subscribe(books, "paid", name="books").opened()
        await rt.publish("paid", 4)
        await box.clock.settle()

        assert books.data == [1, 2, 3, 4]
        await box.close()

    play(scenario)


@on_both_logs
def test_after_a_crash_events_come_again_from_the_cursor_on(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        box, books = box_with(on=storage(kind, tmp_path)), Books()
        await handled(box, books, *range(150))  # the cursor was written after 100 of them
        await box.crash()
        again = Books()

        rt = await box.open()
        rt.subscribe(again, "paid", name="books", after="now")
        await box.clock.settle()

        assert books.data == list(range(150))
        assert again.data == list(range(100, 150))
        await box.close()

    play(scenario)


def test_the_cursor_is_written_after_a_second_at_the_latest() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        rt = await handled(box, books, 1)
        before = await facts(rt, "events-handled")
        await box.clock.advance(1)
        after = await facts(rt, "events-handled")
        await rt.publish("paid", 2)
        await box.clock.settle()
        await box.crash()

        rt = await handled(box, books)

        assert (len(before), len(after)) == (0, 1)
        assert books.data == [1, 2, 2]
        await box.close()

    play(scenario)


def test_a_retry_that_is_due_in_the_next_life_is_made_then_and_counted_on() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        books.failing = 3
        rt = await handled(box, books, 1, 2, retry=PATIENT)
        await box.crash()

        rt = await box.open()
        rt.subscribe(books, "paid", name="books", retry=PATIENT)
        await box.clock.advance(99)
        early = books.failing
        await box.clock.advance(1)
        due = books.failing
        await box.clock.advance(200)

        assert (early, due) == (2, 1)
        assert books.data == [2]
        [letter] = (await rt.events.dead_letters("books"))["books"]
        assert letter.attempts == 3
        await box.close()

    play(scenario)


def test_a_retry_is_counted_on_also_by_who_subscribes_before_the_runtime_opens() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        books.failing = 2
        rt = await handled(box, books, 1, retry=PATIENT)
        await box.crash()
        disk = box.storage
        assert isinstance(disk, MemoryDisk)

        rt = Runtime("memory", log=disk.open, clock=box.clock)
        rt.subscribe(books, "paid", name="books", retry=PATIENT)
        async with rt:
            await box.clock.advance(99)
            early = books.failing
            await box.clock.advance(1)
            [again] = (await facts(rt, "delivery-failed"))[1:]
            await box.clock.advance(200)

        assert (early, again["attempt"]) == (1, 2)
        assert books.data == [1]

    play(scenario)


def test_what_happens_while_a_runtime_opens_is_missed_by_no_subscription() -> None:
    async def scenario() -> None:
        disk, books, anything = MemoryDisk(), Books(), Books()
        box = box_with(on=disk)
        rt = await box.open()
        for number in range(5):
            await rt.publish("paid", number)
        await box.close()
        rt = Runtime("memory", log=disk.open, clock=box.clock)
        rt.subscribe(books, "paid", name="books", after="start")
        rt.subscribe(anything, "paid", name="now")
        opening = asyncio.create_task(rt.open())
        while not rt.is_running:  # noqa: ASYNC110 - a few turns
            await asyncio.sleep(0)
        published: list[int] = []
        while not opening.done():
            published.append(10 + len(published))
            await rt.publish("paid", published[-1])
        await opening
        await box.clock.settle()

        assert published
        assert books.data == [*range(5), *published]
        assert anything.data == published[-len(anything.data) :]
        await rt.close()

    play(scenario)


def test_a_dead_letter_that_is_asked_for_while_nobody_subscribes_is_delivered_later() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        books.failing = 1
        rt = await handled(box, books, 1, retry=Retry())
        rt = await box.close_and_reopen()
        [letter] = (await rt.events.dead_letters())["books"]
        first = await rt.events.redrive("books", letter.position)
        second = await rt.events.redrive("books", letter.position)
        rt = await box.crash_and_reopen()

        await rt.subscribe(books, "paid", name="books").opened()
        await box.clock.settle()

        assert (first, second) == (True, False)
        assert books.data == [1]
        assert await rt.events.dead_letters() == {}
        await box.close()

    play(scenario)


def test_subscribing_to_something_else_under_the_name_goes_on_from_its_cursor() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        rt = await handled(box, books, 1)
        rt = await box.close_and_reopen()
        await rt.publish("shipped", 2)

        rt.subscribe(books, ("paid", "shipped"), name="books")
        await box.clock.settle()

        assert books.data == [1, 2]
        wanted = [one["wanted"]["tags"] for one in await facts(rt, "subscription-set")]
        assert wanted == [["paid"], ["paid", "shipped"]]
        await box.close()

    play(scenario)


def test_a_name_that_is_forgotten_begins_anew() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        rt = await handled(box, books, 1)

        was_there = await rt.events.forget("books")
        is_there = await rt.events.forget("books")
        await rt.publish("paid", 2)
        rt.subscribe(books, "paid", name="books")
        await rt.publish("paid", 3)
        await box.clock.settle()

        assert (was_there, is_there) == (True, False)
        assert books.data == [1, 3]
        await box.close()

    play(scenario)


def test_a_close_lets_the_handler_end_the_event_that_it_is_at() -> None:
    async def scenario() -> None:
        box, books = box_with(), Books()
        books.gate = asyncio.Event()
        await handled(box, books, 1, 2)

        closing = asyncio.create_task(box.close())
        await asyncio.sleep(0)
        books.gate.set()
        await closing
        books.gate = None
        await handled(box, books)

        assert books.data == [1, 2]
        await box.close()

    play(scenario)


def test_what_a_handler_cannot_do_because_the_runtime_closes_comes_again_and_is_no_dead_letter() -> None:
    async def scenario() -> None:
        box, gate, sent = box_with(), asyncio.Event(), list[Any]()

        async def forward(event: LogEvent) -> None:
            await gate.wait()
            await rt.publish("sent", event.data)
            sent.append(event.data)

        rt = await box.open()
        rt.subscribe(forward, "paid", name="books", retry=Retry())
        await rt.publish("paid", 1)
        await rt.publish("paid", 2)
        await box.clock.settle()

        closing = asyncio.create_task(box.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
        rt = await box.open()
        rt.subscribe(forward, "paid", name="books", retry=Retry())
        await box.clock.settle()

        assert sent == [1, 2]
        assert await facts(rt, "delivery-failed", "event-dead-lettered") == []
        await box.close()

    play(scenario)


def test_a_log_of_another_runtime_that_failed_is_an_error_of_the_handler_and_ends_nothing() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        other = Runtime("other", log=disk.open)
        await other.open()
        disk.fail_next(OSError("disk full"))
        with pytest.raises(LogWriteError):
            await other.publish("paid", 0)

        async def forward(event: LogEvent) -> None:
            await other.publish("paid", event.data)

        box = box_with()
        rt = await box.open()
        rt.subscribe(forward, "paid", name="books", retry=Retry())
        await rt.publish("paid", 1)
        await rt.publish("paid", 2)
        await box.clock.settle()

        letters = (await rt.events.dead_letters())["books"]
        assert [letter.error_type for letter in letters] == ["LogWriteError", "LogWriteError"]
        await box.close()
        with pytest.raises(LogWriteError):
            await other.close()

    play(scenario)


def test_a_handler_may_forget_its_own_name_and_is_told_that_it_cannot_wait_for_its_successor() -> None:
    async def scenario() -> None:
        box, later = box_with(), Books()
        rt = await box.open()
        refused: list[str] = []

        async def once(event: LogEvent) -> None:
            assert await rt.events.forget("books")
            try:
                await rt.subscribe(later, "paid", name="books", after=event.position).opened()
            except UsageError as error:
                refused.append(str(error))

        rt.subscribe(once, "paid", name="books")
        await rt.publish("paid", 1)
        await box.clock.settle()
        await rt.publish("paid", 2)
        await box.clock.settle()

        assert len(refused) == 1
        assert later.data == [2]
        await box.close()

    play(scenario)


def test_a_handler_may_close_the_runtime() -> None:
    async def scenario() -> None:
        before, box, ends = asyncio.all_tasks(), box_with(), asyncio.Event()
        rt = await box.open()

        async def stop(event: LogEvent) -> None:
            del event
            await rt.close()
            ends.set()

        rt.subscribe(stop, "stop", name="stops")
        await rt.publish("stop")
        await ends.wait()
        await asyncio.sleep(0)

        assert not rt.is_running
        assert asyncio.all_tasks() == before
        await box.close()

    play(scenario)


def test_a_cursor_far_behind_is_written_though_nothing_was_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "FAR", 10)

    async def scenario() -> None:
        box, books = box_with(), Books()
        rt = await box.open()
        await rt.subscribe(books, "shipped", name="books").opened()
        for number in range(20):
            await rt.publish("paid", number)
        before = await facts(rt, "events-handled")

        await box.clock.advance(60)

        [cursor] = await facts(rt, "events-handled")
        assert before == []
        assert cursor["until"] >= 20
        await box.close()

    play(scenario)


def test_a_subscription_of_which_nothing_was_published_lately_reads_nothing_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        box, books, others = box_with(), Books(), Books()
        rt = await box.open()
        for number in range(50):
            rt.subscribe(books, f"quiet{number}", name=f"quiet{number}")
        rt.subscribe(others, "paid", name="busy")
        await box.clock.settle()
        await box.crash()
        rt = await box.open()
        await rt.publish("paid", 1)
        await box.close()
        reads: list[tuple[str, ...]] = []
        read = LogEvents.read

        async def counted(self: Any, tags: Any, query: Any) -> Any:
            reads.append(tuple(tags))
            return await read(self, tags, query)

        monkeypatch.setattr(LogEvents, "read", counted)
        rt = Runtime("memory", log=box.storage.open, clock=box.clock)  # type: ignore[union-attr]
        for number in range(50):
            rt.subscribe(books, f"quiet{number}", name=f"quiet{number}")
        rt.subscribe(others, "paid", name="busy")
        async with rt:
            await box.clock.settle()
            await rt.publish("quiet7", 7)
            await box.clock.settle()

        assert reads == [("paid",)]
        assert (others.data, books.data) == ([1], [7])

    play(scenario)


def test_when_the_log_fails_a_subscription_stops_and_goes_on_in_the_next_life() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        box, books = box_with(on=disk), Books()
        rt = await box.open()
        await rt.subscribe(books, "paid", name="books").opened()
        await rt.publish("paid", 1)
        await box.clock.settle()

        disk.fail_next(OSError("disk full"))
        with pytest.raises(LogWriteError):
            await rt.publish("paid", 2)
        await box.clock.settle()
        with pytest.raises(LogWriteError):
            await box.close()
        rt = await handled(box, books, 3)

        assert books.data == [1, 1, 3]  # the first one again: its cursor was not on the disk
        await box.close()

    play(scenario)
