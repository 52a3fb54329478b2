"""Subscriptions and entry points that events start, killed after every single unit of the log.

A chain of three workflows by events, a subscription beside it that fails now and then, and one that is moved on by
hand. Whatever the crash falls between, each event is handled at least once and in order, and starts one run.
"""

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, LogEvent, Query, Recorded, Retry, Runtime, Settings, workflow
from perdure.actors.triggers.kinds import OnEvent
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.testing import TestClock
from tests.support.runs import Box, disk_until, play

ORDERS = 3


@workflow
async def order(ctx: Context, number: int) -> int:
    await ctx.publish("ordered", {"number": number})
    return number


@workflow
async def pay(ctx: Context, event: dict[str, Any]) -> int:
    await ctx.sleep(5)
    await ctx.publish("paid", event["data"])
    return int(event["data"]["number"])


@workflow
async def ship(ctx: Context, event: dict[str, Any]) -> int:
    await ctx.publish("shipped", event["data"])
    return int(event["data"]["number"])


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> int:
    return int(event["data"]["output"])


ENTRIES = [
    EntryPoint("order", order),
    EntryPoint("pay", pay, OnEvent("ordered")),
    EntryPoint("ship", ship, OnEvent(("paid", "execution_completed"), where={"if": "number", "ge": 0})),
    EntryPoint("watch", note, OnEvent("run-completed", stream="order")),
]
RETRY = Retry(attempts=5, backoff=timedelta(seconds=1), jitter=False)


class Ledger:
    """What a handler wrote, in every life."""

    def __init__(self) -> None:
        self.lives: list[list[tuple[int, int]]] = []
        self.failed: Counter[int] = Counter()

    async def __call__(self, event: LogEvent) -> None:
        number = event.data["number"]
        if number == 1 and self.failed[event.position] < 2:
            self.failed[event.position] += 1
            raise ValueError("not yet")
        self.lives[-1].append((event.position, number))


def box_on(disk: Any, clock: TestClock, chosen: Settings) -> Box:
    return Box(disk, clock, workflows=[order, pay, ship, note], entry_points=ENTRIES, settings=chosen)


async def go_on(box: Box, ledger: Ledger) -> Runtime:
    rt = await box.open()
    ledger.lives.append([])
    rt.subscribe(ledger, ("ordered", "paid", "shipped"), name="ledger", after="start", retry=RETRY)
    return rt


async def finish(box: Box, rt: Runtime) -> None:
    for number in range(ORDERS):
        await rt.trigger("order", {"number": number}, id=f"o-{number}")
    for _ in range(12):
        await box.clock.advance(5)


async def outcome(rt: Runtime) -> dict[str, Any]:
    """What must be the same wherever the crash fell."""
    rows = await rt.read(Query(types=("run-started", "event-published"), limit=10_000))
    runs: Counter[str] = Counter()
    events: Counter[str] = Counter()
    for row in rows:
        fact = json.loads(row.data or "{}")
        if row.type == "event-published":
            events[f"{row.stream} {fact['data']['number']}"] += 1
        else:
            runs[f"{fact['entrance']['entry']} {_number(fact['input'])}"] += 1
    return {"runs": runs, "events": events, "letters": await rt.events.dead_letters()}


def _number(given: dict[str, Any]) -> Any:
    told = given if "number" in given else given["event"]["data"]
    return told["number"] if "number" in told else told["output"]


async def played(disk: Any, clock: TestClock, chosen: Settings) -> tuple[Box, Ledger, list[int]]:
    """Play it all on *disk*; return also the positions at which a unit ended."""
    box, ledger, borders = box_on(disk, clock, chosen), Ledger(), list[int]()
    rt = await go_on(box, ledger)
    append = rt._log.append

    def noted(*args: Any, **kwargs: Any) -> Any:
        ticket = append(*args, **kwargs)
        borders.append(rt._log.position)
        return ticket

    rt._log.append = noted  # type: ignore[method-assign]
    await finish(box, rt)
    return box, ledger, borders


def check_ledger(ledger: Ledger, events: list[tuple[int, int]]) -> None:
    for life in ledger.lives:
        assert life == sorted(set(life))  # in order, and nothing twice in a life
    handled = [entry for life in ledger.lives for entry in life]
    assert sorted(set(handled)) == events


def cursor_of(log: list[Recorded], position: int) -> int:
    """Return the cursor of the ledger that was on the disk when *position* was the last event on it."""
    notes = [row for row in log[:position] if row.stream == "subscription/ledger" and row.type == "events-handled"]
    return int(json.loads(notes[-1].data or "{}")["until"]) if notes else 0


async def told(rt: Runtime) -> list[tuple[int, int]]:
    rows = await rt.read(Query(types=("event-published",), limit=10_000))
    return [(row.position, json.loads(row.data or "{}")["data"]["number"]) for row in rows]


@pytest.mark.parametrize("chosen", [Settings(), Settings(park_after=timedelta(seconds=1))], ids=["awake", "asleep"])
def test_a_crash_after_any_unit_loses_no_event_and_starts_no_run_twice(chosen: Settings) -> None:
    async def scenario() -> None:
        whole, ledger, borders = await played(None, TestClock(), chosen)
        expected = await outcome(whole.runtime)
        log = await whole.runtime.read(Query(limit=10_000))
        check_ledger(ledger, await told(whole.runtime))
        await whole.close()
        assert expected["runs"] == Counter(f"{entry.id} {number}" for entry in ENTRIES for number in range(ORDERS))
        assert expected["letters"] == {}
        assert len(borders) > 40
        for position in [border for border in borders if border <= len(log)]:
            clock = TestClock()
            await clock.advance((log[position - 1].at - log[0].at) / 1_000_000)
            again = Ledger()
            box = box_on(disk_until(whole.storage, position), clock, chosen)
            rt = await go_on(box, again)
            await finish(box, rt)
            found, events = await outcome(rt), await told(rt)
            await box.close()
            assert found == expected, f"after a crash at {position}"
            [life] = again.lives
            assert life == [event for event in events if event[0] > cursor_of(log, position)], f"at {position}"

    play(scenario)


def test_two_lives_that_crash_handle_everything_between_them() -> None:
    async def scenario() -> None:
        box, ledger, _ = await played(None, TestClock(), Settings())
        for step in range(20):
            await box.crash()
            rt = await go_on(box, ledger)
            await rt.publish("ordered", {"number": 10 + step})
            await box.clock.advance(step % 3 / 2)
        await box.clock.advance(60)

        check_ledger(ledger, await told(box.runtime))
        starts = await box.runtime.read(Query(types=("entry-triggered",), limit=10_000))
        causes = Counter((row.stream, json.loads(row.data or "{}").get("cause")) for row in starts)
        del causes["entry-point/order", None]
        assert max(causes.values()) == 1
        assert sum(stream == "entry-point/pay" for stream, _ in causes) == ORDERS + 20
        await box.close()

    play(scenario)
