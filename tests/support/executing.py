"""A runtime with slots on a machine that the test holds in its hand, and a clock that it moves."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self

import msgspec

from perdure import ExecutorConfig, Runtime, ToolExecutor, ToolResult
from perdure.actors.slots.calls import ToolCall
from perdure.runtime.sandbox.executor import CallServer
from perdure.store.records import Query, StreamId
from perdure.testing import Crashable, TestClock
from tests.support.machine import Machine

WINDOW = 0.02


class Bench:
    """`async with Bench(max_slots=2) as bench: await bench.run("t1", "echo")`."""

    def __init__(
        self, machine: Machine | None = None, *, tools: Iterable[Any] = (), workflows: Iterable[Any] = (), **config: Any
    ) -> None:
        self.clock = TestClock()
        self.machine = machine or Machine()
        self.box = Crashable(
            clock=self.clock,
            sandbox=self.machine,
            executor=ExecutorConfig(**config),
            tools=list(tools),
            workflows=list(workflows),
        )
        self._calls: list[asyncio.Task[ToolResult]] = []

    async def __aenter__(self) -> Self:
        await self.box.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.box.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    @property
    def rt(self) -> Runtime:
        return self.box.runtime

    @property
    def executor(self) -> ToolExecutor:
        return self.rt.executor

    def submit(
        self, trajectory: str, command: str = "true", *, uniq_id: str | None = None, **options: Any
    ) -> "asyncio.Task[ToolResult]":
        """Begin a shell command; it is sent once the window ends."""
        arguments = {"command": command}
        call = ToolCall("bash", arguments) if uniq_id is None else ToolCall("bash", arguments, "", uniq_id)
        return self.call(trajectory, call, **options)

    def call(self, trajectory: str, call: ToolCall, **options: Any) -> "asyncio.Task[ToolResult]":
        task = asyncio.ensure_future(self.executor.execute(trajectory, call, **options))
        self._calls.append(task)
        return task

    async def run(self, trajectory: str, command: str = "true", **options: Any) -> ToolResult:
        """Run a shell command to its end."""
        task = self.submit(trajectory, command, **options)
        await self.clock.advance(WINDOW)
        return await task

    async def advance(self, seconds: float = WINDOW) -> None:
        await self.clock.advance(seconds)

    async def crash(self) -> None:
        """End the runtime as a crash would, and bring it back on the same machine."""
        await self.box.crash_and_reopen()
        await self.clock.settle()

    async def serve(self, call_server: CallServer) -> None:
        """Put a tool server of the test in the place of none."""
        executor = self.executor
        around = executor._around
        assert around is not None
        await executor.detach()
        executor.attach(msgspec.structs.replace(around, call_server=call_server))
        await executor.start()

    async def types(self, stream: str) -> list[str]:
        """Return the tags of a stream's events."""
        await self.clock.settle()
        return [event.type for event in await self.rt.read(Query(stream=StreamId(stream), limit=10_000))]

    def states(self) -> dict[str, str]:
        return {view.slot: view.state for view in self.executor.pool.views()}


def on_bench(scenario: Callable[[Bench], Awaitable[None]], machine: Machine | None = None, **options: Any) -> None:
    """Play a scenario on a bench; one that hangs is a failure, not a hang."""

    async def play() -> None:
        async with asyncio.timeout(30), Bench(machine, **options) as bench:
            await scenario(bench)

    asyncio.run(play())
