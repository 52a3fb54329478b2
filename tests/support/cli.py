"""What the tests of the command line share: an application to run, and two ways to call the command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from perdure.runtime.cli import main

APPLICATION = """
import asyncio
import os
from datetime import timedelta
from pathlib import Path

from perdure import Context, Retry, tool, workflow

HERE = Path(__file__).parent


@tool(effect="read")
async def search(query: str) -> list[str]:
    print("application prints", query)
    return [query]


@tool
def square(n: int) -> int:
    return n * n


@tool(effect="read", retry=Retry(attempts=2, backoff=timedelta(0)))
async def broken(n: int) -> int:
    raise ConnectionError(f"no route to {n}")


@tool(effect="irreversible")
async def pay(amount: int) -> str:
    (HERE / "paying").touch()
    if os.environ.get("DIE"):
        os.kill(os.getpid(), 9)
    while os.environ.get("HANG") and not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return f"receipt {amount}"


@workflow
async def total(ctx: Context, items: int = 3) -> dict[str, int]:
    await ctx.call(search, "numbers")
    return {"total": sum(await ctx.map(square, range(items)))}


@workflow
async def buy(ctx: Context, amount: int) -> str:
    await ctx.call(search, "price")
    return await ctx.call(pay, amount)


@workflow
async def fails(ctx: Context) -> int:
    return await ctx.call(broken, 7)


@workflow
async def shipment(ctx: Context) -> int:
    return (await ctx.event("order.paid")).data["amount"]


@workflow
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "rested"
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Here:
    """Calls the command in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.file = folder / "flows.py"
        self.db = folder / "agents.db"
        self._capsys = capsys
        self.file.write_text(APPLICATION, encoding="utf-8")

    def __call__(self, *arguments: str | Path) -> Ended:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        code = exited.value.code
        return Ended(code if isinstance(code, int) else 0, out, err)

    def run(self, workflow: str, *arguments: str, id: str = "r1") -> Ended:
        return self("run", f"{self.file}:{workflow}", "--db", self.db, "--id", id, *arguments)


class Process:
    """The command in a process of its own."""

    def __init__(self, folder: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "perdure", *(str(argument) for argument in arguments)]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def line(self) -> str:
        """Return the next line on stdout."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def error_line(self) -> str:
        """Return the next line on stderr."""
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def close_output(self) -> None:
        """Read no more of stdout."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.stdout = None

    def end(self) -> Ended:
        """Wait for the end."""
        out, err = self._process.communicate(timeout=120)
        return Ended(self._process.returncode, out or "", err)


def command(folder: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> Ended:
    """Return how the command ended in a process of its own."""
    with Process(folder, *arguments, env=env) as process:
        return process.end()


def wait_for(path: Path) -> None:
    """Return once *path* is there."""
    while not path.exists():
        time.sleep(0.01)
