"""Subscriptions: what a handler is given, in which order, and what becomes of it when it is slow, fails or leaves."""

import asyncio
import contextlib
import threading
from datetime import UTC, timedelta
from typing import Any

import pytest
import structlog

from perdure import (
    Context,
    EntryPoint,
    LogEvent,
    LogWriteError,
    Query,
    Retry,
    Runtime,
    StepFailedError,
    UsageError,
    tool,
    workflow,
)
from perdure.testing import MemoryDisk
from tests.support.runs import box_with, data, play


@tool(effect="read")
async def look(word: str) -> str:
    return word.upper()


@workflow
async def greet(ctx: Context, name: str) -> str:
    found = await ctx.call(look, name)
    await ctx.publish("greeted", {"name": found})
    return found


class Seen:
    """A handler that keeps what it is given, and may wait or fail."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.gate: asyncio.Event | None = None
        self.failing = 0
        """How often it still raises."""

    async def __call__(self, event: LogEvent) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            self.failing -= 1
            raise ValueError(f"cannot do {event.data}")
        self.events.append(event)

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.events]

    @property
    def positions(self) -> list[int]:
        return [event.position for event in self.events]


async def published(rt: Runtime, type: str, *values: Any, **said: Any) -> None:
    for value in values:
        await rt.publish(type, value, **said)


def test_a_subscriber_is_given_what_is_published_from_then_on() -> None:
    async def scenario() -> None:
        box, seen = box_with(), Seen()
        rt = await box.open()
        await rt.publish("paid", "before")
        rt.subscribe(seen, "paid")

        await published(rt, "paid", 1, 2)
        await rt.publish("shipped", 3)
        await box.clock.settle()

        assert seen.data == [1, 2]
        assert [(event.type, event.id) for event in seen.events] == [("paid", "#2"), ("paid", "#3")]
        assert all(event.at.tzinfo is UTC and event.is_published for event in seen.events)
        await box.close()

    play(scenario)


@pytest.mark.row("A3-25")
def test_publishing_waits_for_no_handler() -> None:
    async def scenario() -> None:
        box, slow, other = box_with(), Seen(), Seen()
        slow.gate = asyncio.Event()
        rt = await box.open()
        rt.subscribe(slow, "paid")
        rt.subscribe(other, "paid")

        await published(rt, "paid", 1, 2)  # returns, though nothing ever opens the gate
        await box.clock.settle()
        before = (list(slow.data), list(other.data))
        slow.gate.set()
        await box.clock.settle()

        assert before == ([], [1, 2])
        assert slow.data == [1, 2]
        await box.close()

    play(scenario)


@pytest.mark.row("A3-25")
def test_a_handler_that_blocks_its_thread_holds_up_nobody() -> None:
    async def scenario() -> None:
        box, other = box_with(), Seen()
        is_free, blocked = threading.Event(), list[Any]()

        def blocks(event: LogEvent) -> None:
            is_free.wait(30)
            blocked.append(event.data)

        rt = await box.open()
        rt.subscribe(blocks, "paid")
        rt.subscribe(other, "paid")

        await rt.publish("paid", 1)
        await box.clock.settle(wait_for_threads=False)
        before = (list(blocked), list(other.data))
        is_free.set()
        await box.clock.settle()

        assert before == ([], [1])
        assert blocked == [1]
        await box.close()

    play(scenario)


@pytest.mark.row("A3-26")
def test_handlers_may_publish_from_within_one_another() -> None:
    async def scenario() -> None:
        box, depths = box_with(), list[tuple[int, int]]()
        rt = await box.open()

        async def again(event: LogEvent) -> None:
            depths.append((event.data, event.depth))
            if event.data < 12:
                await rt.publish("deeper", event.data + 1)

        rt.subscribe(again, "deeper")
        await rt.publish("deeper", 0)
        await box.clock.settle()

        assert depths == [(number, number) for number in range(13)]
        await box.close()

    play(scenario)


@pytest.mark.row("A3-27")
def test_events_come_in_the_order_of_the_log_and_again_in_the_same_one() -> None:
    async def scenario() -> None:
        box, live, again, tail = box_with(greet), Seen(), Seen(), Seen()
        rt = await box.open()
        rt.subscribe(live, "*", after="start")
        await asyncio.gather(*(rt.publish("paid", number) for number in range(300)))
        await (await rt.start(greet, "ada")).result()
        await box.clock.settle()
        middle = live.positions[150]

        rt.subscribe(again, "*", after="start")
        rt.subscribe(tail, "*", after=middle)
        await box.clock.settle()

        assert live.positions == sorted(set(live.positions))
        assert len(live.events) >= 300 + 5
        rows = await rt.read(Query(limit=10_000))
        for stream in {row.stream for row in rows}:
            versions = [row.version for row in rows if row.stream == stream]
            assert versions == list(range(1, len(versions) + 1)), stream
        assert again.events == live.events  # whatever came live is the same when it is read back
        assert tail.events == [event for event in live.events if event.position > middle]
        await box.close()

    play(scenario)


@pytest.mark.row("A3-28")
def test_a_handler_that_raises_is_recorded_and_stops_no_other() -> None:
    async def scenario() -> None:
        box, failing, other = box_with(), Seen(), Seen()
        failing.failing = 1
        rt = await box.open()
        id = rt.subscribe_to_events(["paid"], failing)
        rt.subscribe(other, "paid")

        with structlog.testing.capture_logs() as logs:
            await published(rt, "paid", 1, 2)
            await box.clock.settle()

        assert other.data == [1, 2]
        assert failing.data == [2]
        assert [(one["event"], one["subscription"]) for one in logs] == [("a handler failed at an event for good", id)]
        [letter] = (await rt.events.dead_letters())["-"]
        assert (letter.subscription, letter.event, letter.attempts) == (id, "paid", 1)
        assert (letter.error_type, letter.error) == ("ValueError", "cannot do 1")
        await box.close()

    play(scenario)


def test_a_handler_that_fails_is_given_the_event_again_before_the_next_one() -> None:
    async def scenario() -> None:
        box, seen = box_with(), Seen()
        seen.failing = 2
        rt = await box.open()
        retry = Retry(attempts=3, backoff=timedelta(seconds=10), jitter=False)
        rt.subscribe(seen, "paid", name="books", retry=retry)
        await published(rt, "paid", 1, 2)

        await box.clock.settle()
        before = list(seen.data)
        await box.clock.advance(30)

        assert before == []
        assert seen.data == [1, 2]
        failed = [data(row) for row in await rt.read(Query(types=("delivery-failed",)))]
        assert [(one["attempt"], one["error_type"]) for one in failed] == [(1, "ValueError"), (2, "ValueError")]
        assert failed[1]["retry_at"] - failed[0]["retry_at"] == 20_000_000
        assert await rt.events.dead_letters() == {}
        await box.close()

    play(scenario)


def test_an_event_that_is_failed_at_for_good_is_a_dead_letter_and_the_next_ones_go_on() -> None:
    async def scenario() -> None:
        box, seen = box_with(), Seen()
        seen.failing = 2
        rt = await box.open()
        rt.subscribe(seen, "paid", name="books", retry=Retry(attempts=2, backoff=timedelta(0)))

        await published(rt, "paid", 1, 2)
        await box.clock.settle()

        assert seen.data == [2]
        [letter] = (await rt.events.dead_letters("books"))["books"]
        assert (letter.attempts, letter.error, letter.subscription) == (2, "cannot do 1", None)
        await box.close()

    play(scenario)


def test_a_dead_letter_is_delivered_again_on_request() -> None:
    async def scenario() -> None:
        box, seen = box_with(), Seen()
        seen.failing = 2
        rt = await box.open()
        rt.subscribe(seen, "paid", name="books", retry=Retry())
        await published(rt, "paid", 1, 2, 3)
        await box.clock.settle()
        first, second = (await rt.events.dead_letters("books"))["books"]

        is_new = await rt.events.redrive("books", first.position, who="ada")
        await box.clock.settle()
        seen.failing = 1
        await rt.events.redrive("books", second.position)
        await box.clock.settle()

        assert is_new
        assert seen.data == [3, 1]
        [left] = (await rt.events.dead_letters("books"))["books"]
        assert (left.position, left.attempts, left.is_asked_for) == (second.position, 2, False)
        [asked, _] = await rt.read(Query(types=("redrive-requested",)))
        assert asked.principal == "ada"
        await box.close()

    play(scenario)


def test_what_is_no_dead_letter_cannot_be_delivered_again() -> None:
    async def scenario() -> None:
        box, seen = box_with(), Seen()
        seen.failing = 1
        rt = await box.open()
        rt.subscribe(seen, "paid")
        await rt.publish("paid", 1)
        await box.clock.settle()
        [letter] = (await rt.events.dead_letters())["-"]

        with pytest.raises(UsageError, match="no dead letter of the event 999"):
            await rt.events.redrive("books", 999)
        with pytest.raises(UsageError, match="no dead letter"):  # whose handler has no name
            await rt.events.redrive("-", letter.position)
        await box.close()

    play(scenario)


@pytest.mark.row("A3-30")
def test_filters_ask_for_equal_values() -> None:
    async def scenario() -> None:
        box = box_with(greet)
        rt = await box.open()
        wanted: dict[str, dict[str, Any]] = {
            "stream": {"types": "*", "stream": "github"},
            "node": {"types": "*", "node": "publish#1"},
            "run": {"types": "greeted", "run": "r1"},
            "correlation": {"types": "paid", "correlation": "c-1"},
            "where": {"types": "paid", "where": {"if": "amount", "gt": 100}},
            "none": {"types": "paid", "stream": "", "run": ""},
        }
        seen = {name: Seen() for name in wanted}
        for name, said in wanted.items():
            rt.subscribe(seen[name], **said)

        await (await rt.with_options(id="r1").start(greet, "ada")).result()
        await (await rt.with_options(id="r10").start(greet, "bob")).result()
        await rt.publish("paid", {"amount": 100}, source="github")
        await rt.publish("paid", {"amount": 101}, source="github-2", correlation="c-1")
        await box.clock.settle()

        assert seen["stream"].data == [{"amount": 100}]
        assert {event.node for event in seen["node"].events} == {"publish#1"}
        assert [event.type for event in seen["node"].events] == ["event-sent", "greeted"] * 2
        assert seen["run"].data == [{"name": "ADA"}]
        assert seen["correlation"].data == [{"amount": 101}]
        assert seen["where"].data == [{"amount": 101}]
        assert seen["none"].data == [{"amount": 100}, {"amount": 101}]
        await box.close()

    play(scenario)


@pytest.mark.row("A3-30")
def test_a_subscription_is_taken_off_once() -> None:
    async def scenario() -> None:
        box, seen = box_with(), Seen()
        rt = await box.open()
        id = rt.subscribe_to_events(["paid"], seen)
        named = rt.subscribe(seen, "paid", name="books")

        assert rt.unsubscribe_from_events(id) is True
        assert rt.unsubscribe_from_events(id) is False
        assert named.unsubscribe() is True
        assert named.unsubscribe() is False
        assert rt.unsubscribe_from_events("sub_999") is False
        await rt.publish("paid", 1)
        await box.clock.settle()
        assert seen.data == []
        await box.close()

    play(scenario)


def test_a_handler_that_takes_itself_off_is_given_nothing_more() -> None:
    async def scenario() -> None:
        box, given = box_with(), list[Any]()
        rt = await box.open()

        async def once(event: LogEvent) -> None:
            given.append(event.data)
            assert subscription.unsubscribe()

        subscription = rt.subscribe(once, "paid")
        await asyncio.gather(*(rt.publish("paid", number) for number in range(10)))
        await box.clock.settle()

        assert given == [0]
        await box.close()

    play(scenario)


def test_who_is_taken_off_while_it_is_at_an_event_ends_that_one_and_is_given_no_other() -> None:
    async def scenario() -> None:
        box, slow, next_one = box_with(), Seen(), Seen()
        slow.gate = asyncio.Event()
        rt = await box.open()
        first = rt.subscribe(slow, "paid", name="books")
        await published(rt, "paid", 1, 2)
        await box.clock.settle()

        first.unsubscribe()
        rt.subscribe(next_one, "paid", name="books")  # goes on when the one before is done
        await box.clock.settle()
        before = list(next_one.data)
        slow.gate.set()
        await box.clock.settle()

        assert (slow.data, before, next_one.data) == ([1], [], [2])
        await box.close()

    play(scenario)


def test_a_handler_far_behind_reads_the_log_and_misses_nothing() -> None:
    async def scenario() -> None:
        box, slow = box_with(), Seen()
        slow.gate = asyncio.Event()
        rt = await box.open()
        subscription = rt.subscribe(slow, "paid")

        for start in range(0, 1_000, 100):
            await asyncio.gather(*(rt.publish("paid", number) for number in range(start, start + 100)))
        await box.clock.settle()
        standing = subscription.statistics
        slow.gate.set()
        await box.clock.settle()

        assert standing.is_behind
        assert standing.waiting == 256
        assert slow.data == list(range(1_000))
        assert not subscription.statistics.is_behind
        await box.close()

    play(scenario)


def test_an_event_that_is_large_is_whole_live_and_read_back() -> None:
    async def scenario() -> None:
        box, live, back = box_with(), Seen(), Seen()
        rt = await box.open()
        rt.subscribe(live, "paid")
        await rt.publish("paid", {"text": "x" * 100_000})
        await box.clock.settle()

        rt.subscribe(back, "paid", after="start")
        await box.clock.settle()

        assert live.data == [{"text": "x" * 100_000}]
        assert back.events == live.events
        await box.close()

    play(scenario)


@pytest.mark.row("A3-29")
def test_waiting_finds_what_happened_before_it_from_a_known_position() -> None:
    async def scenario() -> None:
        box = box_with(greet)
        rt = await box.open()
        await (await rt.start(greet, "before")).result()
        position = rt.events.position
        run = await rt.start(greet, "ada")
        await run.result()

        found = await rt.events.wait_for("execution_completed", after=position)
        missed = await rt.events.wait_for("execution_completed", timeout=0)

        assert found is not None
        assert (found.run, found.data) == (run.id, {"result": "ADA"})
        assert missed is None
        await box.close()

    play(scenario)


@pytest.mark.row("A3-29")
def test_waiting_gets_what_comes_and_gives_up_in_time() -> None:
    async def scenario() -> None:
        box = box_with()
        rt = await box.open()
        comes = asyncio.create_task(rt.events.wait_for("paid", where={"if": "amount", "gt": 1}, timeout=60))
        fails = asyncio.create_task(rt.events.wait_for("paid", stream="nobody", timeout=timedelta(seconds=60)))
        await box.clock.settle()

        await published(rt, "paid", {"amount": 1}, {"amount": 2}, {"amount": 3})
        found = await comes
        await box.clock.advance(59)
        waits = not fails.done()
        await box.clock.advance(1)

        assert found is not None
        assert found.data == {"amount": 2}
        assert waits
        assert await fails is None
        assert rt.events.statistics()["subscriptions"] == 0
        await box.close()

    play(scenario)


@pytest.mark.row("A3-29")
@pytest.mark.parametrize("timeout", [0, 0.0, timedelta(0)])
def test_a_timeout_of_nothing_looks_back_and_waits_for_nothing(timeout: float | timedelta) -> None:
    async def scenario() -> None:
        box = box_with()
        rt = await box.open()
        nothing = await rt.events.wait_for("paid", after="start", timeout=timeout)
        await rt.publish("paid", 1)

        found = await rt.events.wait_for("paid", after="start", timeout=timeout)

        assert nothing is None
        assert found is not None
        assert found.data == 1
        await box.close()

    play(scenario)


def test_whoever_waits_is_told_when_the_runtime_closes() -> None:
    async def scenario() -> None:
        box = box_with()
        rt = await box.open()
        waits = asyncio.create_task(rt.events.wait_for("paid"))
        await box.clock.settle()

        await box.close()

        with pytest.raises(UsageError, match="closed while somebody waited"):
            await waits

    play(scenario)


def test_whoever_waits_is_told_when_the_log_fails_before_the_runtime_is_closed() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        rt = Runtime("memory", log=disk.open)
        await rt.open()
        waiting = asyncio.create_task(rt.events.wait_for("paid"))
        await asyncio.sleep(0)

        disk.fail_next(OSError("disk full"))
        with pytest.raises(LogWriteError):
            await rt.publish("shipped", 1)

        with pytest.raises(LogWriteError):
            await waiting
        with pytest.raises(LogWriteError):
            await rt.close()

    play(scenario)


@pytest.mark.row("A3-31")
def test_history_is_newest_first_and_at_most_a_hundred() -> None:
    async def scenario() -> None:
        box = box_with(greet)
        rt = await box.open()
        await asyncio.gather(*(rt.publish("paid", number) for number in range(150)))
        await rt.publish("shipped", "x", source="shop")
        run = await rt.start(greet, "ada")
        await run.result()

        paid = await rt.events.history("paid")
        everything = await rt.events.history()
        of_run = await rt.events.history(run=run.id)
        of_shop = await rt.events.history(stream="shop")
        few = await rt.events.history("paid", limit=2)

        assert [event.data for event in paid] == list(range(149, 49, -1))
        assert len(everything) == 100
        assert [event.position for event in everything] == sorted((e.position for e in everything), reverse=True)
        assert [event.type for event in of_run] == [
            "run-completed", "greeted", "event-sent", "call-succeeded", "step-completed", "step-started", "run-started",
        ]  # fmt: skip
        assert [event.data for event in of_shop] == ["x"]
        assert [event.data for event in few] == [149, 148]
        await box.close()

    play(scenario)


@pytest.mark.row("A3-32")
def test_every_event_of_a_step_says_of_which_run_step_and_workflow_it_is() -> None:
    async def scenario() -> None:
        box, live, seen = box_with(greet), Seen(), Seen()
        rt = await box.open()
        rt.subscribe(live, ("tool_call_started", "tool_call_completed"))
        run = await rt.start(greet, "ada")
        await run.result()
        await box.clock.settle()
        rt = await box.close_and_reopen()  # so that nothing of the run is in memory

        rt.subscribe(seen, ("tool_call_started", "tool_call_completed", "greeted"), after="start")
        await box.clock.settle()

        assert live.events == seen.events[:2]
        assert {(event.run, event.workflow) for event in seen.events} == {(run.id, "greet")}
        assert [(event.type, event.node) for event in seen.events] == [
            ("step-started", "look#1"), ("step-completed", "look#1"), ("greeted", "publish#1"),
        ]  # fmt: skip
        started, completed, _ = (event.to_dict() for event in seen.events)
        assert (started["type"], started["data"]["tool_name"]) == ("tool_call_started", "look")
        assert started["data"]["tool_input"] == {"word": "ada"}
        assert completed["data"] == {
            "tool_use_id": "look#1", "tool_name": "look", "result": "ADA", "is_error": False,
        }  # fmt: skip
        assert (completed["execution_id"], completed["node_id"], completed["graph_id"]) == (run.id, "look#1", "greet")
        await box.close()

    play(scenario)


@tool(effect="read", retry=Retry(attempts=2, jitter=False))
async def works_at_last(run: str) -> str:
    if run not in TRIED:
        TRIED.add(run)
        raise ValueError("not yet")
    return run


@tool(effect="read")
async def broken() -> str:
    raise ValueError("never")


TRIED: set[str] = set()


@workflow
async def does_everything(ctx: Context) -> None:
    await ctx.call(works_at_last, ctx.run_id)
    with contextlib.suppress(StepFailedError):
        await ctx.call(broken)
    await ctx.sleep(1)
    await ctx.state.write("k", 1, "stream")
    await ctx.publish("news", 1)
    await ctx.gather(ctx.call(look, "b"), ctx.call(look, "c"))
    await ctx.run(greet, "child")
    await ctx.ask("go?", of=str)


NODES = {
    "step-started": {"works_at_last#1", "broken#1", "gather#1.0/look#1", "gather#1.1/look#1"},
    "attempt-failed": {"works_at_last#1"},
    "step-completed": {"works_at_last#1", "gather#1.0/look#1", "gather#1.1/look#1"},
    "step-failed": {"broken#1"},
    "call-failed": {"works_at_last#1", "broken#1"},
    "call-succeeded": {"works_at_last#1", "gather#1.0/look#1", "gather#1.1/look#1"},
    "timer-set": {"sleep#1"},
    "timer-fired": {"sleep#1"},
    "state-written": {"state.write#1"},
    "state-changed": {"state.write#1"},
    "event-sent": {"publish#1"},
    "news": {"publish#1"},
    "branches-opened": {"gather#1"},
    "child-started": {"greet#1"},
    "child-ended": {"greet#1"},
    "question-asked": {"ask#1"},
    "question-answered": {"ask#1"},
}


@pytest.mark.row("A3-32")
def test_whatever_happens_in_a_step_says_of_which_entry_point_run_step_and_workflow_it_is() -> None:
    async def scenario() -> None:
        TRIED.clear()
        box = box_with(does_everything, greet, entry_points=[EntryPoint("ways-in", does_everything)])
        live, back = Seen(), Seen()
        rt = await box.open()
        rt.subscribe(live, tuple(NODES))
        runs = [await rt.trigger("ways-in", {}) for _ in range(2)]  # at the same time, and told apart
        for _ in range(5):
            await box.clock.advance(1)
        for run in runs:
            await rt.inject_input(run, "yes")
            await rt.run(run).result()
        await box.clock.settle()
        rt = await box.close_and_reopen()  # so that nothing of the runs is in memory
        rt.subscribe(back, tuple(NODES), after="start")
        await box.clock.settle()

        assert back.events == live.events
        for type, nodes in NODES.items():
            for run in runs:
                told = [event.to_dict() for event in back.events if (event.type, event.run) == (type, run)]
                assert {one["node_id"] for one in told} == nodes, type
                assert {(one["stream_id"], one["graph_id"]) for one in told} == {("ways-in", "does_everything")}, type
        of_child = [event.to_dict() for event in back.events if str(event.run).startswith(f"{runs[0]}/")]
        assert {(one["stream_id"], one["graph_id"]) for one in of_child} == {("ways-in", "greet")}
        assert {one["node_id"] for one in of_child} == {"look#1", "publish#1"}
        await box.close()

    play(scenario)


def test_subscribing_before_the_runtime_opens_begins_with_it() -> None:
    async def scenario() -> None:
        disk, seen = MemoryDisk(), Seen()
        rt = Runtime("unused", log=disk.open)
        subscription = rt.subscribe(seen, "paid", name="books")

        async with rt:
            await subscription.opened()
            await rt.publish("paid", 1)
            found = await rt.events.wait_for("paid", after="start")

        assert found is not None
        assert [row.data for row in seen.events] == [1]

    play(scenario)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"types": ()}, "say which events"),
        ({"types": "paid", "name": ""}, "a subscription's name"),
        ({"types": "paid", "name": "two words"}, "a subscription's name"),
        ({"types": "paid", "name": 7}, "name is a text or None, not 7"),
        ({"types": 7}, "types is a text, a Topic or a list, not 7"),
        ({"types": "paid", "retry": 3}, "retry is a Retry or None, not 3"),
        ({"types": "paid", "name": "sub_1"}, "a subscription's name"),
        ({"types": "paid", "after": -1}, "after is"),
        ({"types": "paid", "after": "later"}, "after is"),
        ({"types": "paid", "where": {"if": "x", "like": 1}}, "have faults"),
        ({"types": "paid", "where": ["x"]}, "where is a dict or None"),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused_at_once(said: dict[str, Any], complaint: str) -> None:
    rt = Runtime("unused")

    with pytest.raises(UsageError, match=complaint):
        rt.subscribe(print, **said)

    assert rt.events.list() == ()


def test_a_name_is_for_one_subscription_of_a_runtime() -> None:
    rt = Runtime("unused")
    rt.subscribe(print, "paid", name="books")

    with pytest.raises(UsageError, match="'books' in this runtime already"):
        rt.subscribe(print, "shipped", name="books")


def test_a_runtime_without_subscriptions_reads_and_keeps_nothing() -> None:
    async def scenario() -> None:
        box = box_with(greet)
        rt = await box.open()

        await (await rt.start(greet, "ada")).result()
        await rt.publish("paid", 1)

        assert rt._system.observer is None
        assert await rt.read(Query(stream_prefix="subscription/")) == []
        assert box.clock.pending == tuple(one for one in box.clock.pending if "look_round" not in one.callback)
        await box.close()

    play(scenario)
