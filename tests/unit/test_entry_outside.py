"""Entry points from outside: another process's connection, the command line, a program without an event loop."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    BlockingRuntime,
    Connection,
    Context,
    EntryPoint,
    OnEvent,
    RunConflictError,
    Runtime,
    Schedule,
    UnknownEntryPointError,
    UnknownRunError,
    connect,
    workflow,
)
from perdure.runtime.cli.exits import Exit
from tests.support.cli import Ended, Here
from tests.support.runs import play


@workflow
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"


@workflow
async def hold(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> str:
    return str(event["type"])


POINTS = [
    EntryPoint("greetings", greet, "api"),
    EntryPoint("held", hold, max_concurrent=1, description="one at a time"),
]


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(tmp_path, capsys)


@asynccontextmanager
async def connected(folder: Path) -> AsyncGenerator[Connection]:
    async with Runtime(folder / "a.db", entry_points=POINTS), connect(folder / "a.db") as rt:
        yield rt


def test_a_run_is_triggered_waited_for_and_asked_for_from_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            found = await rt.trigger_and_wait("greetings", {"name": "ada"}, id="r", correlation_id="c", who="till 3")

            assert found is not None
            assert (found.run, found.output, found.correlation) == ("r", "hello ada", "c")
            assert await rt.get_execution_result("greetings", "r") == found
            assert found.ended_at is not None
            assert found.ended_at.utcoffset() is not None
            assert (await rt.run("r").history())[0].principal == "till 3"
            assert await rt.trigger("greetings", {"name": "ada"}, id="r") == "r"
            statistics = await rt.entry_points.statistics()
            assert statistics["greetings"]["total_executions"] == 1
            assert (await rt.get_stats())["streams"] == statistics

    play(scenario)


def test_a_run_is_cancelled_and_a_wait_is_over_in_its_time_from_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            assert await rt.trigger_and_wait("held", timeout=0, id="first") is None
            assert await rt.trigger_and_wait("held", timeout=0.01, id="second") is None

            assert await rt.cancel_execution("held", "second") is True

            found = await rt.entry_points.wait("held", "second")
            assert found is not None
            assert found.status == "cancelled"
            assert await rt.cancel_execution("held", "second") is False
            assert await rt.get_execution_result("held", "first") is None
            await rt.run("first").signal("go", "on")
            ended = await rt.entry_points.wait("held", "first")
            assert ended is not None
            assert ended.output == "on"

    play(scenario)


def test_what_the_owner_refuses_is_the_same_error_in_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            with pytest.raises(UnknownEntryPointError, match="'nothing' not found; registered are greetings, held"):
                await rt.trigger("nothing")
            await rt.trigger("greetings", {"name": "ada"}, id="r")
            with pytest.raises(RunConflictError):
                await rt.trigger("greetings", {"name": "bob"}, id="r")
            with pytest.raises(UnknownRunError):
                await rt.entry_points.wait("held", "r")
            with pytest.raises(UnknownRunError):  # as at the runtime itself
                await rt.entry_points.wait("held", "a b")

    play(scenario)


def test_a_program_without_an_event_loop_triggers_and_waits(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "a.db", entry_points=POINTS) as rt:
        found = rt.trigger_and_wait("greetings", {"name": "ada"}, id="r")
        run = rt.trigger("held")

        assert found is not None
        assert found.output == "hello ada"
        assert rt.get_execution_result("greetings", "r") == found
        assert rt.cancel_execution("held", run) is True


def triggered(here: Here, *arguments: str) -> Ended:
    return here("trigger", *arguments, "--db", here.db)


def test_the_command_has_the_owner_start_a_run_and_prints_its_id(here: Here) -> None:
    with BlockingRuntime(here.db, entry_points=POINTS) as rt:
        first = triggered(here, "greetings", '{"name": "ada"}', "--id", "r", "--correlation", "c", "--who", "ada")
        again = triggered(here, "greetings", '{"name": "ada"}', "--id", "r", "--json")
        other = triggered(here, "greetings", '{"name": "bob"}', "--id", "r")
        assert rt.run("r").result() == "hello ada"

    assert (first.code, first.out) == (0, "r\n")
    assert json.loads(again.out) == {"run": "r", "entry": "greetings"}
    assert (other.code, other.out) == (2, "")
    assert "other input" in other.err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nothing"], "'nothing' not found"),
        (["greetings", "[1]"], "JSON is an object"),
        (["greetings", "{"], "JSON"),
        (["greetings"], "name"),
        (["greetings", '{"name": "a"}', "--priority", "9999999"], "priority"),
    ],
)
def test_what_cannot_be_triggered_is_told_in_one_line(here: Here, arguments: list[str], fault: str) -> None:
    with BlockingRuntime(here.db, entry_points=POINTS):
        ended = triggered(here, *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert fault in ended.err
    assert ended.err.count("\n") == 1


def test_without_an_owner_nothing_is_triggered_and_the_command_says_what_to_do(here: Here) -> None:
    with BlockingRuntime(here.db, entry_points=POINTS):
        pass

    ended = triggered(here, "greetings", '{"name": "ada"}')

    assert (ended.code, ended.out) == (2, "")
    assert "perdure serve FILE.py" in ended.err


def test_the_entry_points_and_what_they_started_are_listed_without_their_code(here: Here) -> None:
    hourly = EntryPoint("hourly", note, Schedule(cron="0 * * * *"), "Every hour", priority=2, isolation="isolated")
    with BlockingRuntime(
        here.db, entry_points=[*POINTS, hourly, EntryPoint("paid", note, OnEvent("order.paid"))]
    ) as rt:
        rt.trigger_and_wait("greetings", {"name": "ada"}, id="r")
        rt.cancel_execution("held", rt.trigger("held"))
        rt.trigger("held")

    table = here("entries", "--db", here.db)
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in here("entries", "--db", here.db, "--json").out.splitlines()
    ]

    assert table.code == 0
    assert [line.split()[0] for line in table.out.splitlines()] == ["ENTRY", "greetings", "held", "hourly", "paid"]
    assert "on order.paid" in table.out
    assert lines[0] == {
        "entry": "greetings", "name": "greetings", "workflow": "greet", "trigger": "api", "when": "by the application",
        "isolation": "shared", "max_concurrent": 10, "priority": 0, "node": None, "description": "", "runs": 1,
        "open": 0, "completed": 1, "failed": 0, "cancelled": 0, "refused": 0, "last_run": "r",
    }  # fmt: skip
    assert (lines[1]["runs"], lines[1]["open"], lines[1]["cancelled"]) == (2, 1, 1)
    assert (lines[2]["name"], lines[2]["when"], lines[2]["isolation"]) == ("Every hour", "at 0 * * * * UTC", "isolated")


def test_a_log_without_entry_points_says_so(here: Here) -> None:
    with BlockingRuntime(here.db):
        pass

    ended = here("entries", "--db", here.db)

    assert (ended.code, ended.out) == (0, "")
    assert "there is no entry point" in ended.err


def test_runs_that_wait_for_their_turn_at_an_entry_point_come_to_it_with_resume(here: Here) -> None:
    source = """
from perdure import EntryPoint


@workflow
async def hold(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


held = EntryPoint("held", hold, max_concurrent=1)
"""
    here.file.write_text(here.file.read_text(encoding="utf-8") + source, encoding="utf-8")
    with BlockingRuntime(here.db, entry_points=POINTS) as rt:
        for name in ("a", "b"):
            rt.trigger("held", id=name)
        assert rt.run("b").status().status == "queued"
    here("signal", "a", "go", '"on"', "--db", here.db)

    ended = here("resume", here.file, "--db", here.db)

    assert ended.code == Exit.WAITS
    with BlockingRuntime(here.db, entry_points=POINTS) as rt:
        assert rt.run("a").result() == "on"
        assert rt.run("b").status().status in ("running", "waiting")
