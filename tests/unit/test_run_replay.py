"""What a workflow sees when it is replayed is what it saw live."""

import enum
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from perdure import Context, RunFailedError, StepFailedError, tool, workflow
from tests.support.runs import DAY, box_with, facts, on_both_logs, play, storage


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Hit(msgspec.Struct, frozen=True):
    name: str
    score: float
    tags: tuple[str, ...] = ()


class Nested(msgspec.Struct, frozen=True):
    hits: list[Hit]
    by_name: dict[str, Hit]
    maybe: Hit | None = None


class Pair(NamedTuple):
    left: int
    right: str


@dataclass(frozen=True)
class Point:
    x: int
    y: Decimal


VALUES: list[tuple[Any, Any]] = [
    (int, 2**63 - 1),
    (int, -(2**63)),
    (float, 0.1),
    (float, 1e300),
    (float, -0.0),
    (str, "ünïcödé \u2028 \x00 \U0001f600"),
    (str, ""),
    (bool, True),
    (bytes, b"\x00\xff binary"),
    (type(None), None),
    (Any, {"a": [1, 2.5, None, "x"], "b": {"c": []}}),
    (list[int], list(range(100))),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {3, 1, 2}),
    (frozenset[int], frozenset({2, 1})),  # texts would be ordered, and the test named, by each process in its own way
    (dict[str, int], {"z": 1, "a": 2}),
    (dict[int, str], {1: "one", 2: "two"}),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - a naive one has to come back naive
    (date, date(2026, 2, 28)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=3, microseconds=1)),
    (Decimal, Decimal("1.10")),
    (uuid.UUID, uuid.UUID("12345678-1234-5678-1234-567812345678")),
    (Colour, Colour.BLUE),
    (Hit, Hit("a", 0.5, ("x", "y"))),
    (Nested, Nested([Hit("a", 1.0)], {"b": Hit("b", 2.0)}, None)),
    (Pair, Pair(1, "r")),
    (Point, Point(1, Decimal("2.50"))),
    (list[Point] | None, [Point(1, Decimal(2))]),
]


def returning(kind: Any, value: Any) -> Callable[[], Awaitable[Any]]:
    async def give() -> Any:
        return value

    give.__annotations__["return"] = kind
    return give


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[f"{number} {kind}" for number, (kind, _) in enumerate(VALUES)])
def test_a_replayed_result_is_the_live_one(kind: Any, value: Any) -> None:
    seen: list[Any] = []
    give = returning(kind, value)

    @workflow(name="wf")
    async def wf(ctx: Context) -> int:
        seen.append(await ctx.step(give))
        await ctx.sleep(DAY)
        return len(seen)

    async def scenario() -> None:
        box = box_with(wf)
        async with box:
            clock = box.clock
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await clock.settle()
            rt = await box.crash_and_reopen()
            await clock.advance(DAY)
            run = rt.run("r", wf)
            assert await run.result() == 2

    play(scenario)

    live, replayed = seen
    assert replayed == live == value
    assert type(replayed) is type(live) is type(value)
    assert repr(replayed) == repr(live)


@on_both_logs
def test_a_replayed_failure_is_the_live_one(kind: str, tmp_path: Path) -> None:
    seen: list[Exception] = []

    async def break_down() -> int:
        raise LookupError("no such thing \ud800")

    @workflow
    async def wf(ctx: Context) -> None:
        try:
            await ctx.step(break_down)
        except StepFailedError as error:
            seen.append(error)
        await ctx.sleep(DAY)

    async def scenario() -> None:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            await rt.run("r").result()

    play(scenario)

    live, replayed = seen
    assert vars(live) == vars(replayed)
    assert str(live) == str(replayed)
    assert isinstance(live.__cause__, LookupError)
    assert replayed.__cause__ is None


def test_times_random_numbers_and_ids_are_drawn_once() -> None:
    drawn: list[Any] = []

    @workflow
    async def wf(ctx: Context) -> None:
        drawn.append((ctx.now(), ctx.random(), ctx.uuid(), ctx.now(), ctx.random(), ctx.uuid()))
        await ctx.sleep(DAY)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            await rt.run("r").result()

    play(scenario)

    live, replayed = drawn
    assert live == replayed
    assert live[0].tzinfo is UTC
    assert len({live[1], live[4]}) == len({live[2], live[5]}) == 2


@on_both_logs
def test_a_finished_step_never_runs_again(kind: str, tmp_path: Path) -> None:
    calls: list[str] = []

    @tool
    async def fetch(name: str) -> str:
        calls.append(name)
        return name.upper()

    @tool
    def crunch(name: str) -> int:
        calls.append(name)
        return len(name)

    @workflow
    async def wf(ctx: Context) -> list[Any]:
        first = await ctx.call(fetch, "one")
        second = await ctx.map(crunch, ["two", "three"])
        await ctx.sleep(DAY)
        third = await ctx.gather(ctx.call(fetch, "four"), ctx.call(crunch, "five"))
        await ctx.sleep(DAY)
        return [first, second, third]

    async def scenario() -> Any:
        async with box_with(wf, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            for _ in range(2):
                rt = await box.crash_and_reopen()
                await box.clock.advance(DAY)
            return await rt.run("r").result()

    result = play(scenario)

    assert result == ["ONE", [3, 5], ["FOUR", 4]]
    assert sorted(calls) == ["five", "four", "one", "three", "two"]


def test_the_result_of_a_run_is_read_back_from_the_log() -> None:
    @workflow
    async def wf(ctx: Context) -> Nested:
        return Nested([Hit("a", 1.0)], {})

    async def scenario() -> tuple[Any, Any]:
        async with box_with(wf) as box:
            rt = await box.open()
            live = await (await rt.with_options(id="r").start(wf)).result()
            rt = await box.crash_and_reopen()
            return live, await rt.run("r", wf).result()

    live, replayed = play(scenario)

    assert live == replayed == Nested([Hit("a", 1.0)], {})


def test_a_result_of_another_type_than_declared_fails_the_run() -> None:
    @workflow
    async def wf(ctx: Context) -> int:
        return "not a number"  # type: ignore[return-value] # on purpose

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            with pytest.raises(RunFailedError, match="int"):
                await run.result()

    play(scenario)


def test_a_function_that_promises_nothing_may_return_nothing() -> None:
    seen: list[Any] = []

    async def silent():  # type: ignore[no-untyped-def] # noqa: ANN202 - that is what is tested
        pass

    @workflow
    async def wf(ctx: Context) -> None:
        seen.append(await ctx.step(silent))
        await ctx.sleep(DAY)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            await rt.run("r").result()

    play(scenario)

    assert seen == [None, None]


def test_a_log_line_is_said_once() -> None:
    said: list[str] = []

    class Listener:
        def bind(self, **_: Any) -> "Listener":
            return self

        def info(self, event: str, **_: Any) -> None:
            said.append(event)

    async def nothing() -> int:
        return 1

    @workflow
    async def wf(ctx: Context) -> None:
        logger = ctx.logger
        logger._logger = Listener()
        logger.info("begins")
        await ctx.step(nothing)
        logger.info("goes on")

        async def part(number: int) -> None:
            await ctx.step(nothing)
            logger.info("part 1" if number == 1 else "part 2")
            await ctx.sleep(DAY)

        await ctx.map(part, [1, 2])
        logger.info("ends")

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            await rt.run("r").result()

    play(scenario)

    assert said == ["begins", "goes on", "part 1", "part 2", "ends"]


def test_a_replay_of_everything_writes_nothing_but_its_resume() -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        ctx.now()
        await ctx.sleep(DAY)
        await ctx.sleep(DAY)

    async def scenario() -> list[str]:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return await facts(rt, "r")

    recorded = play(scenario)

    before, after = recorded[:4], recorded[4:]
    assert before == ["run-started", "value-recorded", "timer-set", "run-parked"]
    assert after == ["run-resumed", "timer-fired", "timer-set", "run-parked"]
