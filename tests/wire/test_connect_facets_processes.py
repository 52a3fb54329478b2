"""The parts of a runtime asked for from another process, one of each kind; and the owner killed between two calls."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure import ConnectionLostError, NotOwnedError, connect
from tests.support.runs import play

APPLICATION = """
import asyncio
import sys

from perdure import Agent, Context, Criterion, EntryPoint, Goal, PlainProcess, Runtime, tool, workflow


@tool(capabilities=("arithmetic",))
async def double(number: int) -> int:
    return 2 * number


@workflow
async def note(ctx: Context, text: str) -> int:
    return await ctx.state.update("turns", lambda count: count + 1, default=0, scope="conversation")


async def main() -> None:
    runtime = Runtime(
        "a.db", tools=[double], workflows=[note], agents=[Agent("greeter", lambda message: message.data["name"])],
        goals=[Goal(id="sent", criteria=(Criterion(id="c", target=1),))], entry_points=[EntryPoint("notes", note)],
        sandbox=PlainProcess("slots", allow_unsandboxed=True),
    )
    async with runtime:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APPLICATION, encoding="utf-8")
    return tmp_path


@contextmanager
def owner(folder: Path) -> Generator["subprocess.Popen[str]"]:
    """Run the application until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        if process.poll() is None:
            process.communicate("")


def test_each_kind_of_facet_is_asked_for_from_another_process(folder: Path) -> None:
    async def scenario() -> None:
        async with connect(folder / "a.db") as rt, connect(folder / "a.db") as other:
            waiting = asyncio.create_task(other.events.wait_for("paid"))
            await asyncio.gather(*(one.state.update("n", lambda n: n + 1, default=0) for one in (rt, other) * 5))
            assert await rt.state.read("n") == 10

            chat = rt.conversation("chat")
            await (await chat.start("note", "hello")).result()
            assert await chat.state.read("turns") == 1
            assert (await other.conversation("chat").status()).count == 1

            made = await rt.goals.record_decision("sent", "send it", criteria=["c"])
            await other.goals.record_outcome(made, True)
            assert (await rt.goals.progress("sent")).successes == 1

            await rt.publish("paid", 7)
            found = await waiting
            assert found is not None
            assert found.data == 7

            assert await rt.select(["arithmetic"]) == "double"
            assert [one.name for one in await rt.agents.discover()] == ["greeter"]
            assert [one.id for one in await rt.entry_points.list()] == ["notes"]
            await rt.sagas.start("greet", 1, {"name": "ada"}, id="s")
            assert (await rt.sagas.execute("s", {"agent": "greeter"})).completed

            work = rt.trajectory("t")
            await work.write_file("x", "hi")
            assert (await other.trajectory("t").run("cat x")).output == "hi"
            await work.release()

    with owner(folder):
        play(scenario)


def test_a_facet_is_told_when_its_owner_is_killed_and_goes_on_with_the_next_one(folder: Path) -> None:
    async def scenario(process: "subprocess.Popen[str]") -> None:
        async with connect(folder / "a.db") as rt:
            state, chat = rt.state, rt.conversation("chat")
            await state.write("kept", 1)
            waiting = asyncio.create_task(rt.events.wait_for("never"))
            await state.read("kept")
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ConnectionLostError):
                await waiting
            process.wait()
            with pytest.raises(NotOwnedError):
                await chat.status()
            with owner(folder):
                assert await state.read("kept") == 1
                assert (await chat.status()).status == "active"

    with owner(folder) as process:
        play(lambda: scenario(process))
