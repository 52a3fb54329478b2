"""What the killed processes do: tools of every effect class, and workflows over them. No test, and no check.

Every execution of a tool is one line in the file `executions`, appended with one write: the page cache outlives a
killed process, so the file knows what happened whatever the log says.
"""

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from perdure import Context, Done, NotDone, Retry, StepFailedError, Tool, ToolContext, Workflow, tool, workflow

BROKEN_THRESHOLD = 2
BROKEN_RESET_SECONDS = 0.08
FLAKY_FAILURES = 2


class Execution(msgspec.Struct, frozen=True):
    """One line: a tool has had its effect."""

    tool: str
    key: str
    attempt: int
    pid: int
    run: str | None


class Effects:
    """The file in which effects are counted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, context: ToolContext) -> str:
        line = Execution(context.tool, context.idempotency_key, context.attempt, os.getpid(), context.run_id)
        append_line(self.path, msgspec.json.encode(line))
        return context.idempotency_key

    def all(self) -> list[Execution]:
        return [msgspec.json.decode(line, type=Execution) for line in lines(self.path)]

    def happened(self, key: str) -> bool:
        return any(line.key == key for line in self.all())


def append_line(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line + b"\n")
    finally:
        os.close(descriptor)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


class Workload:
    """Tools and workflows that write to *effects*."""

    def __init__(self, effects: Effects) -> None:
        self.effects = effects
        self.tools = _tools(effects)
        self.workflows = _workflows(self.tools)


def _tools(effects: Effects) -> dict[str, Tool[..., Any]]:
    @tool(effect="read")
    async def lookup(item: str, context: ToolContext) -> str:
        await asyncio.sleep(0.001)
        effects.add(context)
        return item.upper()

    @tool
    def put(item: str, context: ToolContext) -> str:
        time.sleep(0.001)
        return effects.add(context)

    @tool(failure_threshold=1000, retry=Retry(attempts=4, backoff=timedelta(milliseconds=5), jitter=False))
    async def flaky(item: str, context: ToolContext) -> int:
        effects.add(context)
        if context.attempt <= FLAKY_FAILURES:
            raise ConnectionError(f"attempt {context.attempt}")
        return context.attempt

    @tool(failure_threshold=BROKEN_THRESHOLD, reset_timeout=BROKEN_RESET_SECONDS)
    async def broken(item: str, context: ToolContext) -> str:
        effects.add(context)
        if sum(line.tool == "broken" for line in effects.all()) % 6 < 4:
            raise ConnectionError("down")
        return "up"

    async def was_charged(key: str) -> Done | NotDone:
        return Done(key) if effects.happened(key) else NotDone()

    @tool(effect="irreversible", reconcile=was_charged)
    async def charge(item: str, context: ToolContext) -> str:
        await asyncio.sleep(0.001)
        key = effects.add(context)
        await asyncio.sleep(0.001)
        return key

    @tool(effect="irreversible")
    def launch(item: str, context: ToolContext) -> str:
        time.sleep(0.001)
        key = effects.add(context)
        time.sleep(0.001)
        return key

    return {made.name: made for made in (lookup, put, flaky, broken, charge, launch)}


def _workflows(tools: dict[str, Tool[..., Any]]) -> dict[str, Workflow[..., Any]]:  # noqa: C901 - four functions
    lookup, put, flaky = tools["lookup"], tools["put"], tools["flaky"]
    broken, charge, launch = tools["broken"], tools["charge"], tools["launch"]

    @workflow
    async def order(ctx: Context, item: str) -> list[Any]:
        """Every effect class, branches, retries, a sleep."""
        found = await ctx.call(lookup, item)
        puts = await ctx.map(put, [f"{item}-{n}" for n in range(4)], concurrency=2)
        attempts = await ctx.call(flaky, item)
        paid, _ = await ctx.gather(ctx.call(charge, item), ctx.sleep(0.005))
        return [found, puts, attempts, paid]

    @workflow
    async def fragile(ctx: Context, item: str) -> list[str]:
        """A tool that fails, behind its breaker."""
        ends: list[str] = []
        for _ in range(4):
            try:
                ends.append(await ctx.call(broken, item))
            except StepFailedError as error:
                ends.append(error.error_type)
            await ctx.sleep(0.002)
        return ends

    @workflow
    async def partial(ctx: Context, item: str) -> list[Any]:
        """A branch that fails, which the code survives: the others are cancelled at any point."""

        async def branch(number: int) -> str:
            await ctx.call(lookup, f"{item}-{number}")
            if number != 2:  # 2 is quick: its place goes to 4, which is at work when 3 fails
                await ctx.call(put, f"{item}-{number}")
            if number == 3:
                raise ValueError(number)
            return item

        drawn = (ctx.random(), str(ctx.uuid()), ctx.now().isoformat())
        try:
            await ctx.map(branch, range(6), concurrency=2)
        except ValueError as error:
            caught = str(error)
        else:
            caught = ""
        return [caught, await ctx.call(put, item), *drawn]

    @workflow
    async def strike(ctx: Context, item: str) -> str:
        """An irreversible effect that nobody can look up: a crash during it needs a person."""
        key = await ctx.call(launch, item)
        await ctx.sleep(0.002)
        return str(key)

    return {made.name: made for made in (order, fragile, partial, strike)}


def expected_result(name: str, run: str, item: str, result: Any) -> bool:
    """Return whether *result* is what a run of the workflow *name* must end with."""
    match name:
        case "order":
            puts = [f"{run}:map#1.{n}/put#1" for n in range(4)]
            return bool(result == [item.upper(), puts, FLAKY_FAILURES + 1, f"{run}:gather#1.0/charge#1"])
        case "fragile":
            return len(result) == 4 and set(result) <= {"up", "ConnectionError", "CircuitOpenError"}
        case "partial":
            return bool(result[:2] == ["3", f"{run}:put#1"] and len(result) == 5)
        case _:
            return bool(result == f"{run}:launch#1")
