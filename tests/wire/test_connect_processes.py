"""An owner and other programs in processes of their own: kills, many clients, the command line through the owner."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from perdure import Connection, ConnectionLostError, NotOwnedError, Query, RunHandle, RunView, connect
from perdure.runtime.control.address import connect as connect_socket
from perdure.runtime.control.address import socket_path
from perdure.runtime.control.messages import decode_hello
from tests.support.cli import command
from tests.support.runs import play

APPLICATION = """
import asyncio
import os
import sys
import threading

from perdure import Context, PlainProcess, Runtime, tool, workflow


@tool(effect="irreversible")
async def pay(amount: int) -> str:
    if amount < 0:
        os.kill(os.getpid(), 9)
    return f"paid {amount}"


@workflow
async def buy(ctx: Context, amount: int) -> str:
    word = await ctx.signal("go", of=str)
    sure = await ctx.ask("sure?", of=bool)
    return f"{word} {sure} {await ctx.call(pay, amount)}"


@workflow
async def add(ctx: Context, a: int) -> int:
    return a + 1


async def main() -> None:
    async with Runtime(sys.argv[1], tools=[pay], workflows=[buy, add]):
        if len(sys.argv) > 2:
            child = os.fork()
            if child == 0:
                threading.Event().wait()
            print(child, flush=True)
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(APPLICATION, encoding="utf-8")
    return tmp_path


@contextmanager
def owner(folder: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run the application until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "flows.py", "a.db", *arguments],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.said = line.strip()  # type: ignore[attr-defined]
        if line != "open\n":
            assert process.stdout.readline() == "open\n"
        yield process
        if process.poll() is None:
            process.communicate("")


def test_two_processes_share_a_runtime(folder: Path) -> None:
    async def scenario() -> tuple[int, str]:
        async with connect(folder / "a.db") as rt:
            plain: RunHandle[int] = await rt.start("add", 41)
            run = await rt.with_options(id="b").start("buy", amount=5)
            await run.signal("go", "bought")
            async for _ in rt.tail(query=Query(types=("question-asked",))):
                break
            (question,) = await rt.questions()
            await run.answer(question.id, value=True)
            return await plain.result(), await run.result()

    with owner(folder):
        assert play(scenario) == (42, "bought True paid 5")


def test_kill_9_of_the_owner_is_a_lost_connection_for_each_of_a_hundred_clients_and_asking_again_is_safe(
    folder: Path,
) -> None:
    async def scenario(process: "subprocess.Popen[str]") -> list[RunView]:
        clients = [connect(folder / "a.db") for _ in range(100)]
        await asyncio.gather(*(client.__aenter__() for client in clients))
        runs = await asyncio.gather(*(start(client, n) for n, client in enumerate(clients)))
        waits = [asyncio.create_task(run.result()) for run in runs]
        await asyncio.gather(*(run.status() for run in runs))  # all are waiting at the owner
        process.send_signal(signal.SIGKILL)
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(one) for one in ended} == {ConnectionLostError}
        with pytest.raises(NotOwnedError):
            await runs[0].status()
        with owner(folder):
            again = await asyncio.gather(*(start(client, n) for n, client in enumerate(clients)))
            views = await asyncio.gather(*(run.status() for run in again))
            started = await clients[0].read(Query(types=("run-started",)))
            await asyncio.gather(*(client.close() for client in clients))
        assert len(started) == 100
        return views

    with owner(folder) as process:
        views = play(lambda: scenario(process))

    assert {view.status for view in views} <= {"running", "waiting"}
    assert len({view.run for view in views}) == 100


async def start(client: Connection, number: int) -> RunHandle[str]:
    return await client.with_options(id=f"b{number}").start("buy", number)


def test_an_owner_that_dies_in_a_request_leaves_its_outcome_open_and_the_log_knows_it(folder: Path) -> None:
    async def scenario() -> None:
        async with connect(folder / "a.db") as rt:
            with pytest.raises(ConnectionLostError, match="it may have done what was asked"):
                await rt.dispatch("pay", {"amount": -1})

    async def look() -> list[str]:
        async with connect(folder / "a.db") as rt:
            return [event.type for event in await rt.read(Query(stream_prefix="tool/"))]

    with owner(folder):
        play(scenario)
    with owner(folder):
        assert play(look) == ["call-started", "call-lost"]


def test_a_forked_child_of_the_owner_does_not_keep_a_dead_owner_alive(folder: Path) -> None:
    async def scenario(process: "subprocess.Popen[str]") -> None:
        async with connect(folder / "a.db") as rt:
            run: RunHandle[str] = await rt.start("buy", 1)
            waiting = asyncio.create_task(run.result())
            await run.status()
            process.send_signal(signal.SIGKILL)
            with pytest.raises(ConnectionLostError):
                await waiting
            with pytest.raises(NotOwnedError):
                await run.status()

    with owner(folder, "fork") as process:
        child = int(process.said)  # type: ignore[attr-defined]
        try:
            play(lambda: scenario(process))
        finally:
            os.kill(child, signal.SIGKILL)


def test_commands_go_through_a_running_owner_and_its_runs_go_on_at_once(folder: Path) -> None:
    async def scenario() -> str:
        async with connect(folder / "a.db") as rt:
            run: RunHandle[str] = await rt.with_options(id="b1").start("buy", 5)
            sent = await asyncio.to_thread(command, folder, "signal", "b1", "go", '"ok"', "--db", "a.db")
            async for _ in rt.tail(query=Query(types=("question-asked",))):
                break
            listed = await asyncio.to_thread(command, folder, "questions", "--db", "a.db", "--json")
            question = json.loads(listed.out)["id"]
            answered = await asyncio.to_thread(command, folder, "answer", question, "true", "--db", "a.db")
            assert (sent.code, sent.out) == (0, "go is sent to b1\n")
            assert answered.code == 0
            assert "resume" not in answered.out
            return await run.result()

    with owner(folder):
        assert play(scenario) == "ok True paid 5"


def test_an_operators_words_go_through_a_running_owner(folder: Path) -> None:
    with owner(folder):
        opened = command(folder, "breakers", "open", "pay", "--because", "x", "--never-called", "--db", "a.db")
        unknown = command(folder, "cancel", "nothing", "--db", "a.db")

        async def scenario() -> tuple[str, str]:
            async with connect(folder / "a.db") as rt:
                await rt.with_options(id="b1").start("buy", 5)
                cancelled = await asyncio.to_thread(command, folder, "cancel", "b1", "--db", "a.db")
                view = await rt.ended("b1")
                return cancelled.out, f"{view.status} {(await rt.statistics()).tools['pay'].forced}"

        said, state = play(scenario)

    assert (opened.code, unknown.code) == (0, 2)
    assert said == "run b1 is to be cancelled\n"
    assert state == "cancelled open"


def test_a_stale_socket_and_no_owner_is_told_as_that_and_commands_go_on_without(folder: Path) -> None:
    async def fails() -> None:
        await connect(folder / "a.db").__aenter__()

    with owner(folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert socket_path(folder / "a.db").is_socket()
    with pytest.raises(NotOwnedError):
        asyncio.run(fails())
    assert command(folder, "breakers", "open", "pay", "--because", "x", "--never-called", "--db", "a.db").code == 0
    assert not socket_path(folder / "a.db").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_let_in_by_neither_the_files_mode_nor_the_owner(mode: int) -> None:
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "flows.py").write_text(APPLICATION, encoding="utf-8")
        with owner(folder):
            socket_path(folder / "a.db").chmod(mode)
            told = as_nobody(folder / "a.db")

    assert told == ("PermissionError" if mode == 0o600 else "it is another user's")


def as_nobody(database: Path) -> str:
    """Return what another user hears of the owner, in a child that never returns here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            with connect_socket(database) as connected:
                connected.settimeout(20)
                (length,) = struct.unpack(">I", connected.recv(4))
                os.write(writing, decode_hello(connected.recv(length)).refused.encode())
        except OSError as error:
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    told = os.read(reading, 1000).decode()
    os.close(reading)
    return told
