"""The entry points of a runtime that another process owns. What a method does is said at that of `EntryPoints`.

Invariant: what is returned was durable before the owner answered.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Unpack

import msgspec

from perdure.actors.triggers.kinds import Trigger
from perdure.runtime.control import entry_words
from perdure.runtime.control.facets import Facet, asked
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.registry import EntryPoints
from perdure.runtime.entries.results import ExecutionResult, TriggerOptions


class OwnersEntryPoints(Facet):
    """The owner's entry points; beside what is said at `EntryPoints`, all raise as `Connection`."""

    async def list(self) -> tuple[EntryPoint, ...]:
        """Return all of them, each with the name of its workflow."""
        found: tuple[dict[str, Any], ...] = await self._asking.request(entry_words.ListEntryPoints())
        return tuple(EntryPoint(**{**one, "trigger": msgspec.convert(one["trigger"], Trigger)}) for one in found)

    async def get(self, id: str) -> EntryPoint | None:
        """Return an entry point, or None."""
        return next((one for one in await self.list() if one.id == id), None)

    trigger = asked(EntryPoints.trigger, entry_words.TriggerEntryPoint)
    wait = asked(EntryPoints.wait, entry_words.WaitExecution)

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

    cancel = asked(EntryPoints.cancel, entry_words.CancelExecution)
    result = asked(EntryPoints.result, entry_words.ExecutionResultOf)
    statistics = asked(EntryPoints.statistics, entry_words.EntryStatistics)
