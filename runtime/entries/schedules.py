"""The schedules of a runtime: what is scheduled, when it is next, and an operator's word on it (`rt.schedules`).

Not here: what is done when one is due (`attending.py`). Invariant: the next time of every schedule is in the log before
anybody waits for it.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from perdure.actors.kernel.clock import moment_of
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.schedule import (
    PauseSchedule,
    ResumeSchedule,
    ScheduleState,
    SetSchedule,
    schedule_of,
    turn_of,
)
from perdure.actors.triggers.timetable import timetable
from perdure.runtime.entries.attending import Attendant
from perdure.runtime.naming import check_principal
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery

PAGE = 500
"""Schedules that are asked for together."""


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """How a schedule stands."""

    entry: str
    definition: Schedule
    next_due: datetime | None
    """What it is due at next; None: never again, or it is paused."""
    next_at: datetime | None
    """When it acts on that: later by its delay, where it has a jitter."""
    is_paused: bool
    because: str
    """Why it is paused."""
    is_registered: bool
    """Whether this runtime has the entry point; otherwise nobody attends to it here."""
    last_due: datetime | None
    last_run: str | None
    fired: int
    skipped: int


@checked_but("__init__")
class Schedules:
    """The schedules of a runtime; those of the entry points with `Schedule(…)`."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery") -> None:
        self._runtime, self._machinery = runtime, machinery
        self._attendants: dict[str, Attendant] = {}
        self._registered: dict[str, Schedule] = {}

    # What an application asks

    async def list(self) -> list[ScheduleView]:
        """Return every schedule that the log knows and that is not over, and those of this runtime, by entry point."""
        names = dict.fromkeys(self._registered)
        async for name in self._recorded():
            names[name] = None
        return [view for name in sorted(names) if (view := await self._view(name)) is not None]

    async def get(self, entry: str) -> ScheduleView:
        """Return how the schedule of an entry point stands.

        Raises:
            UsageError: it has none.
        """
        return await self._known(entry)

    async def next(self, entry: str) -> datetime | None:
        """Return when the schedule starts its next run; None: it is paused, or will start none.

        Raises:
            UsageError: the entry point has no schedule.
        """
        return (await self._known(entry)).next_at

    async def pause(self, entry: str, because: str = "", *, who: str | None = None) -> bool:
        """Stop a schedule, also over restarts; return False when it was stopped before. Durable on return.

        Times that come due while it is paused are passed over and not made up for.

        Raises:
            UsageError: the entry point has no schedule.
        """
        check_principal(who)
        await self._known(entry)
        attendant = self._attendant(entry)
        async with attendant.lock:
            changed: bool = await self._runtime.ask(schedule_of(entry), PauseSchedule(because), principal=who)
            await self._go_on(attendant, entry)
        return changed

    async def resume(self, entry: str, *, who: str | None = None) -> bool:
        """Let a schedule go on, from its next time after now; return False when it was not paused. Durable on return.

        Raises:
            UsageError: the entry point has no schedule.
        """
        check_principal(who)
        await self._known(entry)
        attendant = self._attendant(entry)
        async with attendant.lock:
            state = await attendant.firing.state()
            assert state.definition is not None  # noqa: S101 - it is known
            due = next(attendant.table(state).walk(self._now), None)
            command = ResumeSchedule(turn_of(entry, due, state.definition))
            changed: bool = await self._runtime.ask(schedule_of(entry), command, principal=who)
            await self._go_on(attendant, entry)
        return changed

    async def fire_now(self, entry: str, *, who: str | None = None) -> str:
        """Have the entry point start a run as its schedule would; return the run's id. Durable on return.

        It changes nothing about the next time, and is done for a paused schedule too, and beside an earlier run under
        `overlap="skip"`; `cancel_previous` cancels that.

        Raises:
            UsageError: the entry point has no schedule, or is not registered in this runtime.
            As `Runtime.trigger`.
        """
        check_principal(who)
        await self._known(entry)
        if entry not in self._registered:
            raise UsageError(
                f"entry point {entry} is not registered here: Runtime(…, entry_points=[…]) has it start runs"
            )
        attendant = self._attendant(entry)
        async with attendant.lock:
            return await attendant.fire_now(who)

    # What the runtime asks

    async def open(self) -> None:
        """Record what schedules there are and when they are next; act on what is due, if runs are resumed."""
        points = self._runtime.entry_points.list()
        self._registered = {one.id: one.wired for one in points if isinstance(one.wired, Schedule)}
        await asyncio.gather(*(self._set(entry, one) for entry, one in self._registered.items()))
        if self._machinery.parts.resume:
            for entry in self._registered:
                self._attendant(entry).begin()

    async def close(self) -> None:
        """Act on nothing any more."""
        going_on = [task for one in self._attendants.values() for task in one.stop()]
        self._attendants.clear()
        if going_on:
            await asyncio.wait(going_on)

    async def abandon(self) -> None:
        """End at once."""
        await self.close()

    def log_failed(self) -> None:
        """Wait for nothing any more."""
        for one in self._attendants.values():
            one.stop()

    # Inside

    @property
    def _now(self) -> int:
        return self._machinery.parts.clock.moment().now

    def _attendant(self, entry: str) -> Attendant:
        if entry not in self._attendants:
            self._attendants[entry] = Attendant(self._runtime, self._machinery, entry)
        return self._attendants[entry]

    async def _set(self, entry: str, schedule: Schedule) -> None:
        now = self._now
        due = next(timetable(schedule, now).walk(now), None)
        await self._runtime.ask(schedule_of(entry), SetSchedule(schedule, now, turn_of(entry, due, schedule)))

    async def _go_on(self, attendant: Attendant, entry: str) -> None:
        if entry in self._registered and self._machinery.parts.resume:
            await attendant.catch_up()

    async def _recorded(self) -> AsyncIterator[str]:
        after = ""
        while page := await self._machinery.log.open_streams("schedule/", after=after, limit=PAGE):
            for row in page:
                yield row.stream.partition("/")[2]
            after = page[-1].stream

    async def _known(self, entry: str) -> ScheduleView:
        view = await self._view(entry)
        if view is None:
            raise UsageError(f"entry point {entry!r} has no schedule: EntryPoint(…, trigger=Schedule(…))")
        return view

    async def _view(self, entry: str) -> ScheduleView | None:
        state = await self._attendant(entry).firing.state()
        return None if state.definition is None else self._viewed(state, state.definition)

    def _viewed(self, state: ScheduleState, definition: Schedule) -> ScheduleView:
        turn = None if state.is_paused else state.next
        return ScheduleView(
            entry=state.entry,
            definition=definition,
            next_due=None if turn is None else moment_of(turn.due),
            next_at=None if turn is None else moment_of(turn.at),
            is_paused=state.is_paused,
            because=state.because,
            is_registered=state.entry in self._registered,
            last_due=None if state.last_due is None else moment_of(state.last_due),
            last_run=state.last_run,
            fired=state.fired,
            skipped=state.skipped,
        )
