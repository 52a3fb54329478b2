"""The entry points of a runtime that another process owns. What a method does is said at that of `EntryPoints`.

Invariant: what is returned was durable before the owner answered.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Unpack

import msgspec

from perdure.runtime.control import messages
from perdure.runtime.entries.results import ExecutionResult, TriggerOptions


class OwnersEntryPoints:
    """The owner's entry points; beside what is said at `EntryPoints`, all raise as `Connection`."""

    def __init__(
        self, request: Callable[[messages.Request], Awaitable[Any]], encode: Callable[[object, str], bytes]
    ) -> None:
        self._request = request
        self._encode = encode

    async def trigger(
        self, entry: str, data: Mapping[str, Any] | None = None, **options: Unpack[TriggerOptions]
    ) -> str:
        """Start a run by an entry point and return its id; durable on return.

        Asked again after a lost connection, it would be another run: give it an id.
        """
        given = msgspec.json.decode(self._encode(dict(data or {}), f"the input of {entry}"))
        run: str = await self._request(messages.TriggerEntryPoint(entry, given, **options))
        return run

    async def trigger_and_wait(
        self,
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta | float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> ExecutionResult | None:
        """Start a run and wait for its end; None on timeout, and it goes on."""
        return await self.wait(entry, await self.trigger(entry, data, **options), timeout=timeout)

    async def wait(self, entry: str, run: str, *, timeout: timedelta | float | None = None) -> ExecutionResult | None:
        """Wait for the end of a run; None on timeout."""
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        found: ExecutionResult | None = await self._request(messages.WaitExecution(entry, run, seconds))
        return found

    async def cancel(self, entry: str, run: str, reason: str = "cancelled by the application") -> bool:
        """Ask for a run to be cancelled; False if it is none of the entry point's, or has ended."""
        was_open: bool = await self._request(messages.CancelExecution(entry, run, reason))
        return was_open

    async def result(self, entry: str, run: str) -> ExecutionResult | None:
        """Return how a run ended, if that is known and kept."""
        found: ExecutionResult | None = await self._request(messages.ExecutionResultOf(entry, run))
        return found

    async def statistics(self) -> dict[str, dict[str, Any]]:
        """Return the figures of each entry point by its id."""
        found: dict[str, dict[str, Any]] = await self._request(messages.EntryStatistics())
        return found
