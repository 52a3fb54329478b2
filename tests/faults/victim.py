"""An application whose disk fails: what it promised before, what it hears at that moment, what it hears afterwards.

Prints one JSON object. The log is opened again by the test, in a process whose disk works.

    python -m tests.faults.victim DATABASE '{"fault": …}'
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Literal

import msgspec

import perdure.store.committer
from perdure import Context, Runtime, Settings, tool, workflow
from perdure.store import sqlite
from perdure.store.connection import Connection, Synchronous, make_writer

BEFORE = 3
ANSWER_SECONDS = 20
"""Who has no answer by then is said to hang: far more than any answer takes, far less than the test's own limit."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, and when."""

    call: Literal["pwrite", "fdatasync", "none"] = "none"
    suffix: str = "-wal"
    number: int = 1
    error: int = 0
    max_pages: int = 0
    """The database may have no more pages than this: SQLite's own way to be full."""
    fill: bool = False
    """Whether to write until the disk is full by itself."""
    checkpoint: bool = False
    """Whether the WAL is emptied whenever the log is idle for a moment, so that the fault can lie there."""


class Account(msgspec.Struct):
    """What the application was told."""

    promised: dict[str, str]
    """Runs whose result was handed out, with the result."""
    started: list[str]
    heard: dict[str, str]
    """Who was waiting when it happened -> what they got."""
    afterwards: dict[str, str]
    cancelled: list[str]
    """Async effects that were running, and were cancelled."""
    closed: str


cancelled: list[str] = []


@tool
async def quick(text: str) -> str:
    return text


@tool
async def endless(text: str) -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.append(text)
        raise
    return text


@workflow
async def short(ctx: Context, text: str) -> str:
    return await ctx.call(quick, text)


@workflow
async def long(ctx: Context, text: str) -> str:
    return await ctx.call(endless, text)


@workflow
async def sleeper(ctx: Context, text: str) -> str:
    await ctx.sleep(3600)
    return text


TOOLS, WORKFLOWS = [quick, endless], [short, long, sleeper]


async def outcome(work: Awaitable[Any]) -> str:
    """Return the name of the error that *work* ends with, `ok`, or `hangs`."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await work
    except TimeoutError:
        return "hangs"
    except Exception as error:  # noqa: BLE001 - the account names whatever it is
        return type(error).__name__
    return "ok"


async def live(database: Path, fault: Fault) -> Account:
    account = Account({}, [], {}, {}, cancelled, "")
    runtime = Runtime(database, tools=TOOLS, workflows=WORKFLOWS, settings=Settings())
    await runtime.__aenter__()
    for number in range(BEFORE):
        run = await runtime.with_options(id=f"before-{number}").start(short, "x" * number)
        account.promised[run.id] = await run.result()
    for name, flow in (("long", long), ("sleeper", sleeper)):
        account.started.append((await runtime.with_options(id=name).start(flow, name)).id)
    waiting = {
        "result of a run": asyncio.create_task(outcome(runtime.run("long").result())),
        "result of a sleeper": asyncio.create_task(outcome(runtime.run("sleeper").result())),
        "direct call": asyncio.create_task(outcome(runtime.call(endless, "direct"))),
        "tail": asyncio.create_task(outcome(follow(runtime))),
    }
    await asyncio.sleep(0.05)  # until all of them wait for something outside of the log
    arm(fault)
    await provoke(runtime, fault, account)
    account.heard |= {name: await task for name, task in waiting.items()}
    account.afterwards = {
        "start": await outcome(runtime.start(short, "late")),
        "call": await outcome(runtime.call(quick, "late")),
        "result": await outcome(runtime.run("long").result()),
        "cancel": await outcome(runtime.run("long").cancel()),
    }
    account.closed = await outcome(runtime.close())
    return account


async def follow(runtime: Runtime) -> None:
    async for _ in runtime.tail():
        pass


async def provoke(runtime: Runtime, fault: Fault, account: Account) -> None:
    """Work until the log has failed."""
    for number in range(10_000):
        size = 20_000 if fault.fill or fault.max_pages else 10
        names = [f"during-{number}-{n}" for n in range(3)]
        texts = [await text_of(runtime, name, size) for name in names]
        account.heard |= {name: text for name, text in zip(names, texts, strict=True) if text != "ok"}
        account.started += [name for name, text in zip(names, texts, strict=True) if text == "ok"]
        if "ok" not in texts:
            return
        if fault.checkpoint:
            await asyncio.sleep(0.02)  # idle for longer than it takes to empty the WAL
    raise AssertionError("the fault never came")


async def text_of(runtime: Runtime, name: str, size: int) -> str:
    return await outcome(runtime.with_options(id=name).start(sleeper, "x" * size))


def arm(fault: Fault) -> None:
    if fault.call != "none":
        shim: Any = ctypes.CDLL(os.environ["LD_PRELOAD"])
        shim.perdure_fail(fault.call.encode(), fault.suffix.encode(), fault.number, fault.error)


def prepare(fault: Fault) -> None:
    if fault.checkpoint:
        perdure.store.committer.IDLE_SECONDS = 0.005  # type: ignore[misc]
    if fault.max_pages:

        async def limited(connection: Connection, synchronous: Synchronous) -> str:
            mode = await make_writer(connection, synchronous)
            await connection.script(f"PRAGMA max_page_count = {fault.max_pages}")
            return mode

        sqlite.make_writer = limited  # type: ignore[attr-defined] # pyright: ignore[reportPrivateImportUsage]


def main() -> None:
    fault = msgspec.json.decode(sys.argv[2], type=Fault)
    prepare(fault)
    account = asyncio.run(live(Path(sys.argv[1]), fault))
    sys.stdout.buffer.write(msgspec.json.encode(account))


if __name__ == "__main__":
    main()
