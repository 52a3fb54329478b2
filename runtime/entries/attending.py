"""One schedule at work: waits for its due time, or for the run that is in its way, and acts when that has come.

Not here: what it does then (`firing.py`). Invariant: while the runtime is open, a schedule that is not paused waits for
something, and one task at a time acts for it.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.kernel.errors import ActorStoppedError, MailboxFullError
from perdure.actors.kernel.logs import logger
from perdure.actors.triggers.errors import NotDueError
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.misfires import plan
from perdure.actors.triggers.schedule import ScheduleState
from perdure.actors.triggers.timetable import Timetable, timetable
from perdure.runtime.entries.firing import Firing
from perdure.store.errors import BacklogFullError, LogClosedError, LogWriteError, PerdureError, UsageError

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery

LOOK_AGAIN: Final = 5 * SECOND
"""Microseconds until a schedule that could not be attended to is looked at again."""
BLOCKED: Final = 60 * SECOND
"""Until a run that is in the way, and is blocked, is looked at again: only a person can move it."""

_log = logger("perdure.schedules")


class Attendant:
    """Attends to the schedule of one entry point."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery", entry: str) -> None:
        self._runtime, self._machinery, self._entry = runtime, machinery, entry
        self.lock = asyncio.Lock()
        """Held by whoever acts on the schedule, or changes it."""
        self.firing = Firing(runtime, entry)
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._watched: str | None = None
        self._watch: asyncio.Task[None] | None = None
        """Waits for the end of the run that due times are held for."""
        self._is_stopped = False
        self._table: tuple[Schedule, int, Timetable] | None = None

    @property
    def _now(self) -> int:
        return self._machinery.parts.clock.moment().now

    # Waiting

    def begin(self) -> None:
        """Look at once what is due, and from then on whenever something is."""
        self._wait_until(self._now)

    def stop(self) -> list[asyncio.Task[None]]:
        """Act no more; return what still goes on, and is being cancelled."""
        self._is_stopped = True
        self._forget_timer()
        going_on = [task for task in (self._task, self._watch) if task is not None]
        for task in going_on:
            task.cancel()
        return going_on

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_until(self, when: int) -> None:
        self._forget_timer()
        if not self._is_stopped:
            self._timer = self._machinery.parts.clock.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._attend())
        else:
            self._wait_until(self._now + SECOND)

    def _wait_for(self, run: str) -> None:
        if run != self._watched and not self._is_stopped:
            if self._watch is not None:
                self._watch.cancel()
            self._watched = run
            self._watch = asyncio.get_running_loop().create_task(self._until_over(run))

    async def _until_over(self, run: str) -> None:
        try:
            view = await self._runtime.ended(run)
        except PerdureError:
            return  # the runtime ends, or the log
        self._watched = None
        self._wait_until(self._now + (0 if view.is_closed else BLOCKED))

    async def _attend(self) -> None:
        try:
            async with self.lock:
                await self.catch_up()
        except (LogWriteError, LogClosedError, ActorStoppedError):
            return
        except (BacklogFullError, MailboxFullError):
            self._wait_until(self._now + SECOND)
        except PerdureError as error:
            _log.warning("a schedule could not be attended to; it is tried again", entry=self._entry, reason=str(error))
            self._wait_until(self._now + LOOK_AGAIN)
        except Exception as error:  # noqa: BLE001 - a bug must not end a schedule silently, and for ever
            _log.error("a schedule failed; it is tried again", entry=self._entry, exception=account_of(error))
            self._wait_until(self._now + LOOK_AGAIN)

    # Acting

    async def catch_up(self) -> None:
        """Do what is due, and wait for what comes next. The lock is held.

        Raises:
            PerdureError: it cannot be done now.
        """
        while True:
            state = await self.firing.state()
            if state.cancelling:
                await self.firing.cancel(state)
            if state.definition is None:
                return
            try:
                if not await self._step(state, state.definition):
                    break
            except NotDueError:
                continue
        if state.next is not None and not state.is_paused:
            self._wait_until(state.next.at)
        else:
            self._forget_timer()

    async def _step(self, state: ScheduleState, definition: Schedule) -> bool:
        """Do the next thing that is to be done; return whether there was one."""
        if state.held and not state.is_paused:
            in_the_way = await self.firing.open_runs(state)
            if not in_the_way:
                await self.firing.fire_held(state)
                return True
            self._wait_for(in_the_way[-1])
        planned = plan(state, definition, self.table(state), self._now)
        if planned is not None:
            await self.firing.pass_due(state, definition, planned)
        return planned is not None

    def table(self, state: ScheduleState) -> Timetable:
        """Return when the schedule is due, as it is recorded.

        Raises:
            UsageError: nothing is recorded of it.
        """
        definition = state.definition
        if definition is None:
            raise UsageError(f"entry point {self._entry} has no schedule")
        if self._table is None or self._table[:2] != (definition, state.anchor):
            self._table = (definition, state.anchor, timetable(definition, state.anchor))
        return self._table[2]

    async def fire_now(self, who: str | None) -> str:
        """Have a run started between the times; return its id. The lock is held.

        Raises:
            PerdureError: it cannot be started.
        """
        state = await self.firing.state()
        assert state.definition is not None  # noqa: S101 - it is known
        run = await self.firing.fire_now(state, state.definition, self._now, who)
        after = await self.firing.state()
        if after.cancelling:
            await self.firing.cancel(after)
        return run
