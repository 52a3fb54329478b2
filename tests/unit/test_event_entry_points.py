"""Entry points that events start: one run for each event that fits, with the event as its input, and no circles."""

import asyncio
import json
from datetime import datetime
from typing import Any

import msgspec
import pytest
import structlog

from perdure import Context, Query, Runtime, Settings, UsageError, workflow
from perdure.actors.triggers.kinds import Api, OnEvent
from perdure.actors.triggers.topic import Publish, topic_of
from perdure.runtime.entries.entry_points import EntryPoint
from tests.support.runs import Box, box_with, data, play


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> Any:
    return event


@workflow
async def work(ctx: Context, number: int = 0) -> int:
    return number


@workflow
async def picky(ctx: Context, event: str) -> str:
    return event


async def runs_of(rt: Runtime, entry: str) -> list[str]:
    rows = await rt.read(Query(stream_prefix=f"entry-point/{entry}", types=("entry-triggered",)))
    return [data(row)["run"] for row in rows]


async def results_of(rt: Runtime, entry: str) -> list[Any]:
    return [json.loads((await rt.ended(run)).result) for run in await runs_of(rt, entry)]


class Lingering:
    """Something beside the runs that takes its time to close, as a server does whose clients do."""

    def __init__(self, gate: asyncio.Event) -> None:
        self._gate = gate

    async def open(self) -> None: ...

    async def close(self) -> None:
        await self._gate.wait()

    async def abandon(self) -> None: ...

    def log_failed(self) -> None: ...


def box_of(*entries: EntryPoint, **options: Any) -> Box:
    return box_with(note, work, picky, entry_points=entries, **options)


@pytest.mark.row("A3-20")
def test_each_event_that_fits_starts_one_run_with_the_event_as_its_input() -> None:
    async def scenario() -> None:
        box = box_of(EntryPoint("watch", note, OnEvent("custom", stream="s")))
        rt = await box.open()

        await rt.publish("custom", {"n": 1}, source="s", correlation="c-1")
        await rt.publish("custom", {"n": 2}, source="other")
        await rt.publish("other", {"n": 3}, source="s")
        await rt.publish("custom", {"n": 4}, source="s")
        await box.clock.settle()

        first, second = await results_of(rt, "watch")
        assert datetime.fromisoformat(first.pop("timestamp")) == box.clock.now
        assert first == {
            "type": "custom",
            "stream_id": "s",
            "node_id": None,
            "execution_id": None,
            "data": {"n": 1},
            "correlation_id": "c-1",
            "graph_id": None,
        }
        assert second["data"] == {"n": 4}
        [one, _] = await rt.read(Query(stream_prefix="entry-point/watch", types=("entry-triggered",)))
        [cause] = [row for row in await rt.read(Query(types=("event-published",))) if '"n":1' in (row.data or "")]
        assert data(one)["cause"] == cause.position
        assert (data(one)["kind"], data(one)["correlation"], data(one)["depth"]) == ("event", "c-1", 1)
        await box.close()

    play(scenario)


@pytest.mark.row("A3-20")
def test_the_runtimes_own_events_start_runs_by_document_003s_names() -> None:
    async def scenario() -> None:
        entries = (EntryPoint("api", work, Api()), EntryPoint("watch", note, OnEvent(("execution_completed",))))
        box = box_of(*entries)
        rt = await box.open()

        run = await rt.trigger("api", {"number": 7})
        await box.clock.settle()

        [event] = await results_of(rt, "watch")
        event.pop("timestamp")
        assert event == {
            "type": "execution_completed",
            "stream_id": "api",
            "node_id": None,
            "execution_id": run,
            "data": {"output": 7},
            "correlation_id": run,
            "graph_id": "work",
        }
        await box.close()

    play(scenario)


@pytest.mark.row("A3-21")
def test_an_entry_point_of_no_types_is_named_in_a_warning_and_started_by_nothing() -> None:
    async def scenario() -> None:
        box = box_of(EntryPoint("deaf", note, OnEvent()))
        with structlog.testing.capture_logs() as logs:
            rt = await box.open()

        await rt.publish("custom", 1)
        await box.clock.settle()

        assert [(one["log_level"], one["entry_point"]) for one in logs] == [("warning", "deaf")]
        assert rt.events.list() == ()
        assert rt.is_running
        assert await runs_of(rt, "deaf") == []
        await box.close()

    play(scenario)


@pytest.mark.row("A3-22")
def test_an_entry_point_is_not_started_by_its_own_runs() -> None:
    async def scenario() -> None:
        box = box_of(EntryPoint("loop", note, OnEvent("execution_completed")), EntryPoint("api", work, Api()))
        rt = await box.open()

        await rt.trigger("api")
        await rt.trigger("api")
        await box.clock.settle()

        assert len(await runs_of(rt, "loop")) == 2
        await box.close()

    play(scenario)


@workflow
async def says_it_again(ctx: Context, event: dict[str, Any]) -> None:
    await ctx.publish("custom", event["data"])


def test_an_entry_point_may_be_called_as_a_source_is_and_is_not_started_by_what_its_runs_publish() -> None:
    async def scenario() -> None:
        async with box_with(says_it_again, entry_points=[EntryPoint("s", says_it_again, OnEvent("custom"))]) as box:
            rt = await box.open()

            await rt.publish("custom", 1, source="s")
            await box.clock.settle()

            assert len(await runs_of(rt, "s")) == 1
            assert [(event.data, event.depth) for event in await rt.events.history("custom")] == [(1, 1), (1, 0)]

    play(scenario)


@pytest.mark.row("A3-22")
def test_entry_points_that_start_one_another_are_stopped_by_how_many_runs_led_to_it() -> None:
    async def scenario() -> None:
        ping = EntryPoint("ping", note, OnEvent("run-completed", stream="pong"))
        pong = EntryPoint("pong", note, OnEvent("run-completed", stream="ping"))
        box = box_of(ping, pong, settings=Settings(max_trigger_depth=5))
        rt = await box.open()

        await rt.trigger("ping", {"event": {}})
        await box.clock.settle()

        assert (len(await runs_of(rt, "ping")), len(await runs_of(rt, "pong"))) == (3, 3)
        [refused] = await rt.read(Query(types=("trigger-refused",)))
        assert (refused.stream, data(refused)["depth"]) == ("entry-point/ping", 6)
        assert await rt.events.dead_letters() == {}
        await box.close()

    play(scenario)


@pytest.mark.row("A3-22")
def test_entry_points_that_any_event_starts_come_to_an_end() -> None:
    async def scenario() -> None:
        one, other = EntryPoint("one", note, OnEvent("*")), EntryPoint("other", note, OnEvent("*"))
        box = box_of(one, other, settings=Settings(max_trigger_depth=1))
        rt = await box.open()

        await rt.publish("custom", 1)
        await box.clock.settle()
        position = rt.events.position
        await box.clock.advance(0.5)

        assert rt.events.position == position  # and not one event more
        assert len(await runs_of(rt, "one")) >= 1
        refused = await rt.read(Query(types=("trigger-refused",)))
        assert {data(row)["depth"] for row in refused} == {2}
        assert await rt.events.dead_letters() == {}
        await box.close()

    play(scenario)


def test_a_run_that_cannot_take_an_event_makes_it_a_dead_letter_at_once() -> None:
    async def scenario() -> None:
        box = box_of(EntryPoint("picky", picky, OnEvent("custom")))
        rt = await box.open()

        await rt.publish("custom", 1)
        await box.clock.settle()

        [letter] = (await rt.events.dead_letters("entry:picky"))["entry:picky"]
        assert (letter.error_type, letter.attempts) == ("InvalidArgumentsError", 1)
        await box.close()

    play(scenario)


def test_what_is_published_while_the_runtime_is_down_starts_its_run_later() -> None:
    async def scenario() -> None:
        entry = EntryPoint("watch", note, OnEvent("custom"))
        box = box_of(entry)
        rt = await box.open()
        await rt.publish("custom", 1)
        await box.clock.settle()
        rt = await box.close_and_reopen(entry_points=())
        await rt.publish("custom", 2)
        rt = await box.crash_and_reopen(entry_points=(entry,))

        await rt.publish("custom", 3)
        await box.clock.settle()

        assert [event["data"] for event in await results_of(rt, "watch")] == [1, 2, 3]
        await box.close()

    play(scenario)


def test_an_entry_point_that_asks_for_an_impossible_type_keeps_the_runtime_closed() -> None:
    async def scenario() -> None:
        box = box_of(EntryPoint("odd", note, OnEvent("no such type")))

        with pytest.raises(UsageError, match="the type of an event"):
            await box.open()

        rt = await box.open(entry_points=(EntryPoint("even", note, OnEvent("custom")),))
        assert [one.name for one in rt.events.list()] == ["entry:even"]
        assert len(asyncio.all_tasks()) < 10
        await box.close()

    play(scenario)


def test_an_event_that_comes_while_the_runtime_closes_starts_its_run_in_the_next_life() -> None:
    async def scenario() -> None:
        box, gate = box_of(EntryPoint("watch", note, OnEvent("custom"))), asyncio.Event()
        rt = await box.open()
        rt._machinery._attached.append(Lingering(gate))
        closing = asyncio.create_task(box.close())
        await asyncio.sleep(0)

        await rt._system.ref(topic_of("custom")).ask(Publish(msgspec.Raw(b"1"), "n1"))  # as a run does that goes on
        await box.clock.advance(60)  # longer than all attempts
        gate.set()
        await closing
        rt = await box.open()
        await box.clock.settle()

        assert [event["data"] for event in await results_of(rt, "watch")] == [1]
        assert await rt.events.dead_letters() == {}
        await box.close()

    play(scenario)


def test_opening_again_leaves_one_subscription_an_entry_point() -> None:
    async def scenario() -> None:
        box = box_of(EntryPoint("watch", note, OnEvent("custom")))
        rt = await box.open()

        await rt.close()
        await rt.open()
        await rt.publish("custom", 1)
        await box.clock.settle()

        assert [one.id for one in rt.events.list()] == ["entry:watch"]
        assert len(await runs_of(rt, "watch")) == 1
        await box.close()

    play(scenario)
