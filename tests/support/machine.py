"""A machine for slots that a test holds in its hand: it runs nothing, remembers everything, and obeys.

Not a fake for applications: it has no files. The invariant: executions of one slot are answered in the order they came.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished


class Machine:
    """A `Backend`; what a command does is written in its text: `hold NAME`, `lose`, `fail TEXT`, anything else."""

    address = "machine:test"
    default_timeout_seconds = 30.0

    def __init__(self, *, max_slots: int | None = None) -> None:
        self.max_slots = max_slots
        self.batches: list[list[Execution]] = []
        self.acquired: list[tuple[str, int]] = []
        self.released: list[str] = []
        self.resets: list[str] = []
        self.removed: list[str] = []
        self.recovered: list[str] = []
        self.cancelled: list[str] = []
        self.forgotten: list[str] = []
        self.order: list[str] = []
        """Commands as they ran."""
        self.held: dict[str, asyncio.Event] = {}
        self.outcomes: dict[str, ExecutionResult | Unfinished] = {}
        self.artifact: dict[str, Any] | Exception = {"success": True}
        self.ill: set[str] = set()
        self.refuses_acquire: set[str] = set()
        self.refuses_reset: set[str] = set()
        self.batch_error: Exception | None = None
        self.is_started = False
        self._running: dict[str, asyncio.Event] = {}

    @property
    def executions(self) -> list[Execution]:
        return [execution for batch in self.batches for execution in batch]

    def slot_name(self, number: int) -> str:
        return f"slot-{number}"

    async def start(self) -> None:
        self.is_started = True

    async def stop(self) -> None:
        self.is_started = False

    async def acquire(self, slot: str, lease: int) -> None:
        if slot in self.refuses_acquire:
            raise OSError("no space left on device")
        self.acquired.append((slot, lease))

    async def release(self, slot: str, lease: int) -> None:
        self.released.append(slot)

    async def reset(self, slot: str, lease: int) -> None:
        self.resets.append(slot)
        if slot in self.refuses_reset:
            raise OSError("busy")

    async def recover(self, slot: str, lease: int) -> None:
        self.recovered.append(slot)

    async def remove(self, slot: str) -> None:
        self.removed.append(slot)

    def hold(self, name: str) -> asyncio.Event:
        """Make commands `hold NAME` wait until the event is set."""
        return self.held.setdefault(name, asyncio.Event())

    async def execute_batch(self, executions: Sequence[Execution]) -> AsyncIterator[ExecutionResult]:
        self.batches.append(list(executions))
        if self.batch_error is not None:
            raise self.batch_error
        lanes: dict[str, list[Execution]] = {}
        for execution in executions:
            lanes.setdefault(execution.slot, []).append(execution)
        results: asyncio.Queue[ExecutionResult | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._serve(lane, results)) for lane in lanes.values()]
        try:
            ended = 0
            while ended < len(tasks):
                result = await results.get()
                if result is None:
                    ended += 1
                else:
                    yield result
        finally:
            for task in tasks:
                task.cancel()

    async def _serve(self, lane: list[Execution], results: "asyncio.Queue[ExecutionResult | None]") -> None:
        for execution in lane:
            result = await self._perform(execution)
            if result is not None:
                await results.put(result)
        await results.put(None)

    async def _perform(self, execution: Execution) -> ExecutionResult | None:
        command, uid = str(execution.arguments.get("command", "")), execution.execution_id
        verb, _, rest = command.partition(" ")
        if verb == "lose":
            return None
        self.order.append(command)
        if verb == "hold":
            self._running[uid] = self.hold(rest)
            await self.hold(rest).wait()
            if uid in self.cancelled:
                return ExecutionResult(execution_id=uid, success=False, metadata={"cancelled": True})
        success = verb != "fail"
        error = "" if success else rest
        return ExecutionResult(
            execution_id=uid, success=success, output=command, error=error, metadata={"exit_code": 0 if success else 1}
        )

    async def cancel(self, slot: str, execution_id: str) -> None:
        self.cancelled.append(execution_id)
        if execution_id in self._running:
            self._running[execution_id].set()

    async def outcome(self, slot: str, execution_id: str) -> ExecutionResult | Unfinished | None:
        return self.outcomes.get(execution_id)

    async def forget(self, slot: str, execution_ids: Iterable[str]) -> None:
        self.forgotten.extend(execution_ids)

    def _files(self) -> dict[str, Any]:
        if isinstance(self.artifact, Exception):
            raise self.artifact
        return self.artifact

    async def read_artifact(
        self,
        slot: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> dict[str, Any]:
        return self._files()

    async def list_artifacts(
        self, slot: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> dict[str, Any]:
        return self._files()

    async def archive_artifacts(
        self,
        slot: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> dict[str, Any]:
        return self._files()

    async def health(self, slot: str) -> str | None:
        return "unreachable" if slot in self.ill else None
