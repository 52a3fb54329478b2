"""Runs that wait for their turn: places, partitions, priorities, rates, and all of it after a crash."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    Query,
    Queue,
    RateLimit,
    RunCancelledError,
    RunFailedError,
    Runtime,
    Settings,
    UsageError,
    workflow,
)
from perdure.runtime.cli import main
from tests.support.runs import DAY, HOUR, Box, box_with, facts, on_both_logs, play, storage


@workflow
async def job(ctx: Context, name: str) -> str:
    return await ctx.signal("go", of=str) + name


@workflow
async def nap(ctx: Context, name: str) -> str:
    await ctx.sleep(HOUR)
    return name


@workflow
async def quick(ctx: Context, name: str) -> str:
    await ctx.sleep(1)
    return name


def many(*queues: Queue, workflow: Any = quick, on: Any = None) -> Box:
    return box_with(workflow, job, on=on, queues=queues)


async def start(rt: Runtime, name: str, *, of: Any = quick, **options: Any) -> Any:
    return await rt.with_options(id=name, queue="mail", **options).start(of, name)


async def order(rt: Runtime) -> list[str]:
    """The runs whose turn came, in that order."""
    resumed = [event for event in await rt.read(Query(limit=1_000)) if event.type == "run-resumed"]
    return [event.stream.partition("/")[2] for event in resumed]


@on_both_logs
def test_no_more_runs_of_a_queue_work_at_a_time_than_it_has_places(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with many(Queue("mail", concurrency=2), on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            for name in "abcd":
                await start(rt, name)

            await box.clock.advance(0)
            assert [(await rt.run(name).status()).status for name in "abcd"] == ["running"] * 2 + ["queued"] * 2
            figures = (await rt.statistics()).queues["mail"]
            assert (figures.waiting, figures.working) == (2, 2)

            await box.clock.advance(1.5)
            assert [(await rt.run(name).status()).status for name in "abcd"] == ["completed"] * 2 + ["running"] * 2
            await box.clock.advance(1.5)
            assert await rt.run("d").result() == "d"

    play(scenario)


def test_larger_priorities_come_first_and_equal_ones_in_the_order_of_starting() -> None:
    async def scenario() -> list[str]:
        async with many(Queue("mail", concurrency=1)) as box:
            rt = await box.open()
            for name, priority in zip("abcde", (0, 0, 5, -1, 5), strict=True):
                await start(rt, name, priority=priority)
            for _ in range(6):
                await box.clock.advance(1.5)
            return await order(rt)

    assert play(scenario) == ["a", "c", "e", "b", "d"]


def test_a_partition_that_is_full_holds_up_nobody_else() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        async with many(Queue("mail", concurrency=3, partition_concurrency=1)) as box:
            rt = await box.open()
            for name, partition in zip("abcdef", ("x", "x", "x", "y", None, None), strict=True):
                await start(rt, name, partition=partition)
            await box.clock.advance(0)
            first = await order(rt)
            for _ in range(6):
                await box.clock.advance(1.5)
            return first, await order(rt)

    first, all_of_them = play(scenario)

    assert first == ["a", "d", "e"]
    assert all_of_them[3] == "b"
    assert sorted(all_of_them) == list("abcdef")


@on_both_logs
def test_after_a_crash_those_that_waited_wait_in_the_same_order_and_those_at_work_go_on(
    kind: str, tmp_path: Path
) -> None:
    async def scenario() -> list[str]:
        async with many(Queue("mail", concurrency=1), on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            for name, priority in zip("abcd", (0, 0, 1, 0), strict=True):
                await start(rt, name, priority=priority)
            await box.clock.advance(0)
            rt = await box.crash_and_reopen()
            await box.clock.advance(0)
            statuses: list[str] = [(await rt.run(name).status()).status for name in "abcd"]
            for _ in range(5):
                await box.clock.advance(1.5)
            assert await rt.run("d").result() == "d"
            assert await order(rt) == ["a", "a", "c", "b", "d"]
            return statuses

    assert play(scenario) == ["running", "queued", "queued", "queued"]


@on_both_logs
def test_the_rate_of_a_queue_survives_a_crash(kind: str, tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        limit = RateLimit(calls=1, per=timedelta(seconds=10))
        async with many(Queue("mail", rate=limit), on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            for name in "abc":
                await start(rt, name)
            await box.clock.advance(4)
            counts = [len(await order(rt))]
            rt = await box.crash_and_reopen()
            for seconds in (5, 1, 9, 1):
                await box.clock.advance(seconds)
                counts.append(len(set(await order(rt))))
            return counts

    assert play(scenario) == [1, 1, 2, 2, 3]


def test_a_run_that_leaves_memory_leaves_its_place_and_goes_on_at_once_when_its_time_comes() -> None:
    async def scenario() -> None:
        async with many(Queue("mail", concurrency=1), workflow=nap) as box:
            rt = await box.open()
            await start(rt, "a", of=nap)
            await start(rt, "b", of=job)
            await box.clock.advance(0)
            assert (await rt.run("a").status()).status == "waiting"
            assert (await rt.run("b").status()).status == "waiting"
            await start(rt, "c", of=nap)
            await box.clock.advance(HOUR.total_seconds())
            assert await rt.run("a").result() == "a"

    play(scenario)


@on_both_logs
def test_a_run_that_waits_for_its_turn_can_be_cancelled_and_its_deadline_holds(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with many(Queue("mail", concurrency=1), workflow=quick, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await start(rt, "a")
            for name in "bc":
                await start(rt, name, deadline=timedelta(milliseconds=500) if name == "c" else None)

            assert await rt.run("b").cancel("not needed")
            with pytest.raises(RunCancelledError, match="not needed"):
                await rt.run("b").result()
            await box.clock.advance(0.5)
            with pytest.raises(RunFailedError, match="deadline"):
                await rt.run("c").result()
            await box.clock.advance(1.5)
            assert await rt.run("a").result() == "a"
            assert await facts(rt, "b") == ["run-started", "run-cancel-requested", "run-cancelled"]

    play(scenario)


def test_a_paused_run_is_passed_over_and_waits_again_when_it_is_let_go_on() -> None:
    async def scenario() -> list[str]:
        async with many(Queue("mail", concurrency=1)) as box:
            rt = await box.open()
            for name in "abc":
                await start(rt, name)
            await rt.run("b").pause("look at it first")
            for _ in range(3):
                await box.clock.advance(1.5)
            assert await rt.run("c").result() == "c"
            assert (await rt.run("b").status()).status == "paused"
            await rt.run("b").resume()
            await box.clock.advance(1.5)
            assert await rt.run("b").result() == "b"
            return await order(rt)

    assert play(scenario) == ["a", "c", "b"]


def test_runs_of_a_queue_that_is_not_configured_wait_for_it() -> None:
    async def scenario() -> None:
        async with many(Queue("mail", concurrency=1)) as box:
            rt = await box.open()
            for name in "ab":
                await start(rt, name)
            await box.clock.advance(0)
            rt = await box.crash_and_reopen(queues=())
            await box.clock.advance(DAY.total_seconds())
            assert await rt.run("a").result() == "a"
            assert (await rt.run("b").status()).waits_on == "queue:mail"
            rt = await box.crash_and_reopen(queues=[Queue("mail")])
            await box.clock.advance(1.5)
            assert await rt.run("b").result() == "b"

    play(scenario)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": "post"}, "there is no queue 'post', there are mail"),
        ({"priority": 1}, "say queue=…, too"),
        ({"queue": "mail", "priority": 1.5}, "priority is a whole number"),
        ({"queue": "mail", "partition": "\n"}, "a partition is 1 to 128 printable characters"),
    ],
)
def test_a_place_that_there_is_not_is_refused_before_anything_is_written(options: dict[str, Any], error: str) -> None:
    async def scenario() -> None:
        async with many(Queue("mail")) as box:
            rt = await box.open()
            with pytest.raises(UsageError, match=error):
                rt.with_options(id="a", **options)

    play(scenario)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Queue("a b"),
        lambda: Queue("mail", concurrency=0),
        lambda: Queue("mail", partition_concurrency=-1),
        lambda: Runtime("x.db", queues=[Queue("mail"), Queue("mail", concurrency=1)]),
        lambda: Runtime("x.db", queues=["mail"]),  # type: ignore[list-item]
    ],
)
def test_a_queue_that_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(UsageError, match="queue"):
        make()


def test_the_command_line_shows_who_waits_and_who_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_DB", str(tmp_path / "test.db"))

    async def scenario() -> None:
        async with many(Queue("mail", concurrency=1), on=tmp_path / "test.db") as box:
            rt = await box.open()
            for name, priority in zip("abc", (0, 0, 1), strict=True):
                await start(rt, name, priority=priority)
            await box.clock.advance(0)

    play(scenario)

    with pytest.raises(SystemExit):
        main(["queues", "--json"])
    shown = json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["ps", "--json"])
    rows = {row["run"]: row["status"] for row in map(json.loads, capsys.readouterr().out.splitlines())}

    assert (shown["queue"], shown["waiting"], shown["begun"], shown["next"]) == ("mail", 2, 1, ["c", "b"])
    assert (rows["b"], rows["c"]) == ("queued", "queued")


def test_a_run_that_waits_is_resumed_by_hand_where_nothing_is_resumed_by_itself() -> None:
    async def scenario() -> list[str]:
        async with many(Queue("mail", concurrency=1)) as box:
            rt = await box.open()
            for name in "abc":
                await start(rt, name)
            rt = await box.close_and_reopen(resume=False)

            await rt.resume("b")
            await box.clock.advance(1.5)

            return [(await rt.run(name).status()).status for name in "abc"]

    assert play(scenario)[1:] == ["completed", "queued"]


def test_who_was_at_work_and_waits_for_memory_after_a_restart_comes_before_who_waits_for_a_turn() -> None:
    at_work: list[int] = []

    @workflow
    async def counted(ctx: Context, name: str) -> str:
        at_work.append(1)
        try:
            await ctx.sleep(1)
        finally:
            at_work.pop()
        most.append(len(at_work) + 1)
        return name

    most: list[int] = []

    async def scenario() -> None:
        async with box_with(counted, quick, queues=[Queue("mail", concurrency=1)]) as box:
            rt = await box.open()
            await rt.with_options(id="0").start(quick, "0")
            for name in "abc":
                await start(rt, name, of=counted)
            await box.clock.advance(0.5)

            rt = await box.crash_and_reopen(settings=Settings(max_active_runs=1))
            for _ in range(6):
                await box.clock.advance(1)

            assert [await rt.run(name).result() for name in "abc"] == ["a", "b", "c"]

    play(scenario)

    assert max(most) == 1
