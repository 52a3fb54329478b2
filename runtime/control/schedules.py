"""The schedules of a runtime that another process owns: what `Runtime.schedules` gives there, asked for from here.

Invariant: what is returned was durable before the owner answered.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from perdure.runtime.control.entry_words import ListSchedules
from perdure.runtime.control.messages import SteerSchedule
from perdure.runtime.control.request import Request
from perdure.runtime.entries.schedules import ScheduleView
from perdure.store.errors import UsageError


class OwnersSchedules:
    """The schedules of the owner. What a method does is said at the method of `Schedules` of the same name."""

    def __init__(self, request: Callable[[Request], Awaitable[Any]]) -> None:
        self._request = request

    async def list(self) -> list[ScheduleView]:
        """Return every schedule, by entry point."""
        found: list[ScheduleView] = await self._request(ListSchedules())
        return found

    async def get(self, entry: str) -> ScheduleView:
        """Return how the schedule of an entry point stands.

        Raises:
            UsageError: it has none.
        """
        for view in await self.list():
            if view.entry == entry:
                return view
        raise UsageError(f"entry point {entry!r} has no schedule: EntryPoint(…, trigger=Schedule(…))")

    async def next(self, entry: str) -> datetime | None:
        """Return when the schedule starts its next run."""
        return (await self.get(entry)).next_at

    async def pause(self, entry: str, because: str = "", *, who: str | None = None) -> bool:
        """Stop a schedule."""
        changed: bool = await self._request(SteerSchedule(entry, "pause", because, who))
        return changed

    async def resume(self, entry: str, *, who: str | None = None) -> bool:
        """Let a schedule go on."""
        changed: bool = await self._request(SteerSchedule(entry, "resume", who=who))
        return changed

    async def fire_now(self, entry: str, *, who: str | None = None) -> str:
        """Have a run started now; return its id. Asked again after a lost connection, it is another run."""
        run: str = await self._request(SteerSchedule(entry, "fire", who=who))
        return run
