"""Runs that wait for events, killed after every single event of the log: nothing is lost, nothing comes twice.

A publisher and two kinds of listeners in one log: the crash falls between a publication and its delivery, between the
finding of a sleeper and its waking, between the taking and what follows.
"""

import itertools
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from perdure import Context, On, Query, Recorded, Runtime, Settings, StepFailedError, workflow
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, disk_until, play

KEEP = Settings(park_after=timedelta(days=999), idle_after=timedelta(days=999))
LARGE = {"if": "number", "ge": 5}


@workflow
async def publishes(ctx: Context, numbers: list[int], nap: float) -> int:
    for number in numbers:
        await ctx.publish("counted", {"number": number})
        if nap:
            await ctx.sleep(nap)
    await ctx.publish("done")
    return len(numbers)


@workflow
async def collects(ctx: Context, only_large: bool) -> list[int]:
    found: list[int] = []
    where = LARGE if only_large else {}
    while True:
        event = await ctx.any_event([On("counted", where=where), "done"])
        if event.type == "done":
            return found
        found.append(event.data["number"])


@workflow
async def splits(ctx: Context, count: int) -> list[list[int]]:
    """Two readers beside one another, one of which gives up now and then."""

    async def read(reader: str) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            try:
                event = await ctx.event("counted", reader=reader, timeout=timedelta(seconds=100))
                found.append(event.data["number"])
            except StepFailedError:
                await ctx.sleep(1)
        return found

    return list(await ctx.gather(read("a"), read("b")))


WORKFLOWS = [publishes, collects, splits]


async def finish(box: Box, rt: Runtime) -> dict[str, Any]:
    """Let time pass until all runs have ended; return their results."""
    views: dict[str, Any] = {}
    for _ in range(60):
        await box.clock.settle()
        views = {id: await rt.run(id).status() for id in ("p", "all", "large", "split")}
        if all(view.is_closed for view in views.values()):
            assert {view.status for view in views.values()} == {"completed"}, views
            return {id: json.loads(view.result) for id, view in views.items()}
        await box.clock.advance(70)
    raise AssertionError(views)


async def begin(rt: Runtime, numbers: list[int], nap: float) -> None:
    await rt.with_options(id="all").start(collects, False)
    await rt.with_options(id="large").start(collects, True)
    await rt.with_options(id="split").start(splits, len(numbers))
    await rt.with_options(id="p").start(publishes, numbers, nap)


def check(log: list[Recorded]) -> None:
    """Check that each wait had one end, and that no place in the events was used twice."""
    facts = [(row.stream, row.type, json.loads(row.data or "{}")) for row in log]
    begun = [(stream, fact["step"]) for stream, type, fact in facts if type == "event-awaited"]
    ends = {"event-taken", "event-expired", "event-wait-withdrawn"}
    ended = [(stream, fact["step"]) for stream, type, fact in facts if type in ends]
    assert Counter(begun) == Counter(ended)
    readers = {(stream, fact["step"]): fact["digest"] for stream, type, fact in facts if type == "event-awaited"}
    taken: dict[tuple[str, str], list[int]] = {}
    for stream, type, fact in facts:
        if type == "event-taken":
            taken.setdefault((stream, readers[stream, fact["step"]]), []).append(fact["position"])
    assert all(places == sorted(set(places)) for places in taken.values())
    ids = Counter((stream, fact["id"]) for stream, type, fact in facts if type == "event-published")
    assert max(ids.values()) == 1


async def whole_log(rt: Runtime) -> list[Recorded]:
    return await rt.read(Query(limit=100_000))


async def play_and_crash(numbers: list[int], nap: float, chosen: Settings) -> int:
    whole = Box(None, TestClock(), workflows=WORKFLOWS, settings=chosen)
    rt = await whole.open()
    await begin(rt, numbers, nap)
    expected = await finish(whole, rt)
    log = await whole_log(rt)
    await whole.close()
    check(log)
    assert expected == {
        "p": len(numbers),
        "all": numbers,
        "large": [number for number in numbers if number >= 5],
        "split": [numbers, numbers],
    }
    assert isinstance(whole.storage, MemoryDisk)
    started = next(row.position for row in log if row.stream == "run/p")
    borders = _borders(log, started)
    for position in borders:
        clock = TestClock()
        await clock.advance((log[position - 1].at - log[0].at) / 1_000_000)
        box = Box(disk_until(whole.storage, position), clock, workflows=WORKFLOWS, settings=chosen)
        rt = await box.open()
        again = await finish(box, rt)
        check(await whole_log(rt))
        await box.close()
        assert again == expected, f"after a crash at {position}"
    return len(borders)


def _borders(log: list[Recorded], started: int) -> list[int]:
    """Return the positions at which a unit ended: nothing of a unit is on the disk, or all of it."""
    inside = {
        row.position
        for row, after in itertools.pairwise(log)
        if (row.type, after.type)
        in {
            ("event-sent", "event-published"), ("run-parked", "event-found"), ("run-parked", "listing-changed"),
            ("listing-changed", "listing-changed"),
        }
    }  # fmt: skip
    return [row.position for row in log if row.position >= started and row.position not in inside]


@pytest.mark.parametrize("nap", [0, 1, 70])
@pytest.mark.parametrize("chosen", [Settings(), KEEP], ids=["asleep", "awake"])
def test_a_crash_at_any_event_border_loses_no_event_and_gives_none_twice(nap: float, chosen: Settings) -> None:
    async def scenario() -> None:
        assert await play_and_crash([1, 7, 2, 8], nap, chosen) > 20

    play(scenario)


@hypothesis_settings(max_examples=3, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    nap=st.sampled_from([0, 1, 70]),
    chosen=st.sampled_from([Settings(), KEEP]),
)
def test_whatever_is_published_survives_crashes(numbers: list[int], nap: float, chosen: Settings) -> None:
    async def scenario() -> None:
        await play_and_crash(numbers, nap, chosen)

    play(scenario)
