"""What a schedule does about a due time: has its entry point start a run, waits, or passes the time over.

Not here: when it is done (`attending.py`), and which times are made up for (`actors/triggers/misfires.py`). Invariant:
what is done about a due time is one unit of the log, so a crash leaves the time due, or done with.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.actors.kernel.errors import ActorError
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.triggers.errors import NotDueError
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.misfires import Plan
from perdure.actors.triggers.schedule import (
    HELD,
    FireByHand,
    FiringHeld,
    FiringsSkipped,
    GetSchedule,
    NoteCancelled,
    PassDue,
    PassHeld,
    Passing,
    ScheduleFired,
    ScheduleFiredByHand,
    ScheduleState,
    schedule_of,
)
from perdure.actors.triggers.timetable import said
from perdure.actors.workflows.commands import GetRun
from perdure.actors.workflows.errors import UnknownRunError
from perdure.actors.workflows.state import RunView
from perdure.store.errors import BacklogFullError, LogClosedError, LogWriteError, PerdureError
from perdure.store.records import stream_id

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

_PASSING = (NotDueError, LogWriteError, LogClosedError, BacklogFullError, ActorError)
"""What says nothing about the run that was to be started."""

_log = logger("perdure.schedules")


class Firing:
    """Acts for the schedule of one entry point; one call at a time."""

    def __init__(self, runtime: "Runtime", entry: str) -> None:
        self._runtime, self._entry = runtime, entry

    async def state(self) -> ScheduleState:
        """Return how the schedule stands."""
        found: ScheduleState = await self._ask(GetSchedule())
        return found

    async def pass_due(self, state: ScheduleState, definition: Schedule, planned: Plan) -> None:
        """Do what is planned about the times that have passed.

        Raises:
            NotDueError: somebody else did, or paused it.
            PerdureError: it cannot be done now.
        """
        facts: tuple[Passing, ...] = () if planned.skipped is None else (planned.skipped,)
        if planned.due is None:
            await self._note(state, *facts)
            return
        beside = await self.open_runs(state)
        if beside and definition.overlap == "queue" and len(state.held) < HELD:
            held = FiringHeld(planned.due, beside[-1], planned.next, planned.missed, planned.since)
            await self._note(state, *facts, held)
        elif beside and definition.overlap != "cancel_previous":
            await self._note(state, *facts, _skipped(planned, "overlap", f"{', '.join(beside)}: not over"))
        else:
            await self._fire_due(state, planned, facts, beside)

    async def _fire_due(
        self, state: ScheduleState, planned: Plan, facts: tuple[Passing, ...], beside: tuple[str, ...]
    ) -> None:
        assert planned.due is not None  # noqa: S101 - there is something to fire
        due = planned.due

        def noted(run: str) -> Command:
            fired = ScheduleFired(due, run, planned.next, planned.missed, planned.since, beside, cancels=bool(beside))
            return _passed(state, *facts, fired)

        try:
            await self._start("scheduled", due, planned.missed, said(due), noted)
        except _PASSING:
            raise
        except PerdureError as error:
            self._warn(due, error)
            await self._note(state, *facts, _skipped(planned, "refused", str(error)))

    async def fire_held(self, state: ScheduleState) -> None:
        """Start the run of the oldest due time that has waited for an earlier run.

        Raises:
            As `pass_due`.
        """
        one = state.held[0]

        def noted(run: str) -> Command:
            return PassHeld(one.due, ScheduleFired(one.due, run, state.next, one.missed, one.since, was_held=True))

        try:
            await self._start("scheduled", one.due, one.missed, said(one.due), noted)
        except _PASSING:
            raise
        except PerdureError as error:
            self._warn(one.due, error)
            first = one.due if one.since is None else one.since
            fact = FiringsSkipped(first, one.due, one.missed + 1, "refused", state.next, str(error), was_held=True)
            await self._ask(PassHeld(one.due, fact))

    async def fire_now(self, state: ScheduleState, definition: Schedule, now: int, who: str | None) -> str:
        """Have a run started between the times, whatever goes on; return its id.

        Raises:
            PerdureError: it cannot be started.
        """
        number, beside = state.by_hand + 1, await self.open_runs(state)
        cancels = bool(beside) and definition.overlap == "cancel_previous"

        def noted(run: str) -> Command:
            return FireByHand(ScheduleFiredByHand(number, run, beside, cancels))

        return await self._start("by_hand", now, 0, f"by-hand-{number}", noted, who)

    async def open_runs(self, state: ScheduleState) -> tuple[str, ...]:
        """Return the earlier runs that are not over."""
        return tuple([run for run in state.runs if await self._is_open(run)])

    async def cancel(self, state: ScheduleState) -> None:
        """Tell the runs to end that a later one was started for."""
        for run in state.cancelling:
            await self._runtime.run(run).cancel(f"the schedule of {self._entry} started a later run")
        await self._ask(NoteCancelled())

    async def _is_open(self, run: str) -> bool:
        try:
            while True:
                view: RunView = await self._runtime.ask(stream_id(f"run/{run}"), GetRun())
                if view.continued_as is None:
                    return not view.is_closed
                run = view.continued_as
        except UnknownRunError:
            return False  # it was taken out of the log

    async def _start(
        self, reason: str, due: int, missed: int, key: str, noted: Callable[[str], Command], who: str | None = None
    ) -> str:
        """Start a run and note it in the schedule, in one unit."""
        data = {"event": {"source": "timer", "reason": reason, "due": said(due), "missed": missed}}
        beside = (schedule_of(self._entry), noted)
        return await self._runtime.entry_points.fire(
            self._entry, data, kind="schedule", key=key, who=who, beside=beside
        )

    async def _note(self, state: ScheduleState, *facts: Passing) -> None:
        await self._ask(_passed(state, *facts))

    async def _ask(self, command: Command) -> Any:
        return await self._runtime.ask(schedule_of(self._entry), command)

    def _warn(self, due: int, error: PerdureError) -> None:
        _log.warning("a schedule's run was not started", entry=self._entry, due=said(due), reason=str(error))


def _passed(state: ScheduleState, *facts: Passing) -> PassDue:
    assert state.next is not None  # noqa: S101 - something is due
    return PassDue(state.next.due, facts)


def _skipped(planned: Plan, why: Any, detail: str) -> FiringsSkipped:
    assert planned.due is not None  # noqa: S101 - it was to be fired
    first = planned.due if planned.since is None else planned.since
    return FiringsSkipped(first, planned.due, planned.missed + 1, why, planned.next, detail)
