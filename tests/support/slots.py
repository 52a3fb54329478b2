"""A backend without a machine: what a command does is its text, and the test says when it goes on."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from perdure.actors.slots.errors import ResetFailedError, StaleLeaseError
from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished


class FakeBackend:
    """Notes what it is asked; `hold` waits for `release_held`, everything else is echoed."""

    address = "fake"
    default_timeout_seconds = 30.0
    max_slots: int | None = None

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.ran: list[str] = []
        self.leases: dict[str, int] = {}
        self.outcomes: dict[tuple[str, str], ExecutionResult | Unfinished] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.fails_to_reset = False
        self.breaks = False

    def slot_name(self, number: int) -> str:
        return f"slot_{number}"

    async def start(self) -> None:
        self.told.append(("start",))

    async def stop(self) -> None:
        self.told.append(("stop",))

    def _check(self, slot: str, lease: int) -> None:
        if lease < self.leases.get(slot, 0):
            raise StaleLeaseError(slot=slot, lease=lease, current=self.leases[slot])
        self.leases[slot] = lease

    async def _move(self, what: str, slot: str, lease: int) -> None:
        self._check(slot, lease)
        self.told.append((what, slot, lease))

    async def acquire(self, slot: str, lease: int) -> None:
        await self._move("acquire", slot, lease)

    async def release(self, slot: str, lease: int) -> None:
        await self._move("release", slot, lease)

    async def reset(self, slot: str, lease: int) -> None:
        if self.fails_to_reset:
            raise ResetFailedError(slot=slot, reason="a file is left")
        await self._move("reset", slot, lease)
        self.outcomes = {key: value for key, value in self.outcomes.items() if key[0] != slot}

    async def recover(self, slot: str, lease: int) -> None:
        await self._move("recover", slot, lease)

    async def remove(self, slot: str) -> None:
        self.told.append(("remove", slot))

    async def execute_batch(self, executions: Sequence[Execution]) -> AsyncIterator[ExecutionResult]:
        for execution in executions:
            if self.breaks:
                raise RuntimeError("kaput")
            yield await self._one(execution)

    async def _one(self, execution: Execution) -> ExecutionResult:
        key, command = (execution.slot, execution.execution_id), str(execution.arguments.get("command", ""))
        known = self.outcomes.get(key)
        if isinstance(known, ExecutionResult):
            return known
        self._check(execution.slot, execution.lease)
        self.ran.append(execution.execution_id)
        self.outcomes[key] = Unfinished("it was begun")
        if command.startswith("hold"):
            await self.held.setdefault(execution.execution_id, asyncio.Event()).wait()
        metadata = {"exit_code": 0, "sandboxed": True, "network_isolated": False}
        result = ExecutionResult(
            execution_id=execution.execution_id, success=True, output=f"did {command}", metadata=metadata
        )
        self.outcomes[key] = result
        return result

    def release_held(self, execution_id: str) -> None:
        self.held.setdefault(execution_id, asyncio.Event()).set()

    async def cancel(self, slot: str, execution_id: str) -> None:
        self.told.append(("cancel", slot, execution_id))
        self.release_held(execution_id)

    async def outcome(self, slot: str, execution_id: str) -> ExecutionResult | Unfinished | None:
        return self.outcomes.get((slot, execution_id))

    async def forget(self, slot: str, execution_ids: Iterable[str]) -> None:
        for execution_id in execution_ids:
            self.outcomes.pop((slot, execution_id), None)
            self.told.append(("forget", slot, execution_id))

    async def read_artifact(self, slot: str, path: str, **options: Any) -> dict[str, Any]:
        if path.startswith(("/", "..")):
            return {"http_status": 403, "success": False, "error": "Access denied: path outside workspace"}
        return {"http_status": 200, "success": True, "content": path, "options": options}

    async def list_artifacts(self, slot: str, path: str = ".", **options: Any) -> dict[str, Any]:
        return {"http_status": 200, "success": True, "entries": [], "truncated": False}

    async def archive_artifacts(self, slot: str, path: str = ".", **options: Any) -> dict[str, Any]:
        return {"http_status": 413, "success": False, "error": "Archive too large: 9 bytes (max 1)", "bytes": 9}

    async def health(self, slot: str) -> str | None:
        return "missing: tmp" if slot == "slot_1" else None
