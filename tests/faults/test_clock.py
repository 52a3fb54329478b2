"""The system's clock is set back, between two lives and in the middle of one: nothing waits longer, no time falls."""

import asyncio
import time
from pathlib import Path

import pytest

from perdure import CircuitOpenError, Context, Query, Runtime, ToolFailedError, tool, workflow
from perdure.store.audit import verify
from perdure.store.records import Recorded

HOUR = 3_600_000_000_000


class Wall:
    """The system's clock, with hands to move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 0
        self._real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: self._real() + self.offset)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


@tool(failure_threshold=1, reset_timeout=0.05)
async def down() -> str:
    raise ConnectionError("down")


@workflow
async def nap(ctx: Context) -> int:
    before = ctx.now()
    await ctx.sleep(0.02)
    return round((ctx.now() - before).total_seconds())


def runtime(path: Path) -> Runtime:
    return Runtime(path / "log.db", tools=[down], workflows=[nap])


async def all_of(opened: Runtime) -> list[Recorded]:
    return await opened.read(Query(limit=10_000))


@pytest.mark.faults
@pytest.mark.row("A0-24")
def test_a_clock_set_back_prolongs_neither_a_sleep_nor_an_open_circuit(tmp_path: Path, wall: Wall) -> None:
    async def scenario() -> tuple[int, bool]:
        async with runtime(tmp_path) as opened:
            run = await opened.start(nap)
            with pytest.raises(ToolFailedError):
                await opened.call(down)
            wall.offset = -HOUR
            slept = await run.result()
            return slept, await is_let_through(opened)

    assert asyncio.run(scenario()) == (0, True)
    assert verify(tmp_path / "log.db").findings == ()


async def is_let_through(opened: Runtime) -> bool:
    """Return True once the circuit lets a probe through."""
    while True:
        try:
            await opened.call(down)
        except CircuitOpenError:
            await asyncio.sleep(0.01)
        except ToolFailedError:
            return True


@pytest.mark.faults
@pytest.mark.parametrize("hours", [[-1], [+1, -2], [-1, +2, -3]])
def test_whichever_way_the_clock_is_set_between_lives_the_times_in_the_log_never_fall(
    hours: list[int], tmp_path: Path, wall: Wall
) -> None:
    async def life() -> list[Recorded]:
        async with runtime(tmp_path) as opened:
            await (await opened.start(nap)).result()
            return await all_of(opened)

    events = asyncio.run(life())
    for change in hours:
        wall.offset += change * HOUR
        events = asyncio.run(life())

    times = [event.at for event in events]
    assert times == sorted(times)
    assert len([event for event in events if event.type == "run-completed"]) == len(hours) + 1
    assert verify(tmp_path / "log.db").findings == ()


@pytest.mark.faults
def test_a_clock_set_forward_by_mistake_and_back_again_lets_sleeps_end(tmp_path: Path, wall: Wall) -> None:
    async def scenario() -> int:
        async with runtime(tmp_path) as opened:
            first = await opened.start(nap)
            wall.offset = +HOUR
            second = await opened.start(nap)
            wall.offset = 0
            await first.result()
            return await second.result()

    assert asyncio.run(scenario()) == 0
    assert verify(tmp_path / "log.db").findings == ()
