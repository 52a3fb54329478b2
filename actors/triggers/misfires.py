"""What becomes of the due times of a schedule that have passed: fired, made up for, passed over. Pure.

Not here: whether an earlier run is still open (`runtime/entries/attending.py`). Invariant: every due time that has
passed is in what is skipped or in what is fired, and the newest one in time is fired.
"""

from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.triggers.kinds import Schedule
from perdure.actors.triggers.schedule import FiringsSkipped, ScheduleState, Turn, turn_of
from perdure.actors.triggers.timetable import Timetable, delay_of, passed

IN_TIME: Final = 60 * SECOND
"""The newest due time is not missed while it is this little late: a restart at the wrong moment costs no run."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be done about the due times that have passed."""

    skipped: FiringsSkipped | None
    """Those that are passed over; what is fired comes after them."""
    due: int | None
    """What is fired."""
    next: Turn | None
    """What comes after that."""
    missed: int = 0
    """Earlier ones that the same run is for."""
    since: int | None = None

    @property
    def first(self) -> int | None:
        """The first due time that is fired, or made up for by what is."""
        return self.due if self.since is None else self.since


def plan(state: ScheduleState, definition: Schedule, table: Timetable, now: int) -> Plan | None:
    """Return what is to be done *now*; None: nothing has passed, or the schedule is paused."""
    if state.next is None or state.is_paused or state.next.at > now:
        return None
    entry, first, given = state.entry, state.next.due, state.next.at - state.next.due

    def delay(due: int) -> int:
        # The one that is recorded has passed, whatever its jitter would be: that of `run_immediately` has none.
        return given if due == first else delay_of(entry, due, definition.jitter)

    def turn(due: int | None) -> Turn | None:
        return turn_of(entry, due, definition)

    limit = definition.misfire_limit if definition.misfire == "all" else 1
    found = passed(table, first, now, limit + 1, delay)
    *missed, newest = found.newest or (first,)
    match definition.misfire:
        case "one":
            return Plan(None, newest, turn(found.next), found.count - 1, first if missed else None)
        case "skip" if now - newest - delay(newest) <= IN_TIME:
            return Plan(_missed(first, missed, found.count - 1, turn(newest)), newest, turn(found.next))
        case "skip":
            return Plan(_missed(first, [newest], found.count, turn(found.next)), None, turn(found.next))
        case "all":
            times = [*missed, newest, found.next]
            skipped = times[: -limit - 1] if found.count > limit else []
            due, following = times[len(skipped)], times[len(skipped) + 1]
            return Plan(_missed(first, skipped, found.count - limit, turn(due)), due, turn(following))
        case _:
            assert_never(definition.misfire)


def _missed(first: int, missed: Sequence[int | None], count: int, then: Turn | None) -> FiringsSkipped | None:
    """Return that the times from *first* to the last of *missed* are passed over, if there are any."""
    last = missed[-1] if missed else None
    return None if last is None else FiringsSkipped(first, last, count, "missed", then)
