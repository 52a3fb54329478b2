"""The checkpoints of a run: every place at which it had finished a step, and from which another run can begin.

Not here: how a run begins there (`steering.py`). Nothing is written for them: they are places in the log. Invariant: an
id is that of one event, `RUN#VERSION`, so no two are the same, and each is there as long as its run is.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.actors.kernel.clock import moment_of
from perdure.actors.workflows.errors import UnknownCheckpointError, UnknownRunError
from perdure.store.records import Query, Recorded, StreamId

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach

PAUSE_REACHED: Final = "pause-reached"

ENDS: Final = frozenset({
    "step-completed", "step-failed", "step-skipped", "path-taken", "value-recorded", "timer-fired", "signal-taken",
    "signal-expired", "question-answered", "question-expired", "call-approved", "call-rejected", PAUSE_REACHED,
    "pause-resumed", "child-ended", "child-refused", "event-sent", "event-taken", "event-expired", "branches-failed",
    "race-won", "timeout-passed", "pivot-passed", "state-read", "state-written", "state-conflicted", "state-refused",
    "goal-told",
})  # fmt: skip
"""The events that finish something of a run's code, and the one with which it paused itself."""

_TYPES: Final = ("run-started", *sorted(ENDS))


class Checkpoint(msgspec.Struct, frozen=True):
    """A place at which a run had just finished something."""

    id: str
    """`RUN#VERSION`; a fork has those of the run that it comes from too."""
    run: str
    version: int
    """How many events the run had by then."""
    step: str
    """The key of the step that was finished."""
    type: str
    """The event that finished it."""
    at: datetime
    """UTC."""


class _Facts(msgspec.Struct, frozen=True):
    """Of the events of a run, what is read."""

    step: str = ""
    left: int | str = 0
    forked_from: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Facts).decode


def checkpoint_of(event: Recorded) -> Checkpoint | None:
    """Return the checkpoint that an event of a run is, if it is one."""
    if event.type not in ENDS:
        return None
    facts = _decode(event.data or "{}")
    if isinstance(facts.left, int) and facts.left:
        return None  # more people are wanted
    run = event.stream.partition("/")[2]
    return Checkpoint(f"{run}#{event.version}", run, event.version, facts.step, event.type, moment_of(event.at))


async def read_checkpoints(reach: "Reach", run: str) -> list[Checkpoint]:
    """Return the checkpoints of a run, oldest first, those of the runs that it was forked from before its own.

    Raises:
        UnknownRunError: there is no such run.
    """
    found: list[Checkpoint] = []
    source: str | None = run
    until: int | None = None
    while source is not None:
        events = await _read(reach, source, until)
        if not events:
            raise UnknownRunError(run=source)
        found[:0] = [one for event in events if (one := checkpoint_of(event)) is not None]
        origin = _decode(events[0].data or "{}").forked_from
        source, until = (None, None) if origin is None else (origin["run"], origin["version"])
    return found


async def find_checkpoint(reach: "Reach", run: str, id: str) -> Checkpoint:
    """Return a checkpoint of a run by its id; `RUN#1` is its start, where nothing was finished yet.

    Raises:
        UnknownCheckpointError: it has none of that id.
        UnknownRunError: there is no such run.
    """
    every = await read_checkpoints(reach, run)
    if id == f"{run}#1":
        begun = (await _read(reach, run, 1))[0]
        return Checkpoint(id, run, 1, "", begun.type, moment_of(begun.at))
    for one in every:
        if one.id == id:
            return one
    latest = f"; its latest is {every[-1].id}" if every else ""
    raise UnknownCheckpointError(run=run, checkpoint=id, known=f"{len(every)}{latest}")


async def _read(reach: "Reach", run: str, until: int | None) -> list[Recorded]:
    query = Query(stream=StreamId(f"run/{run}"), types=_TYPES)
    found: list[Recorded] = []
    while page := await reach.read(query):
        found += [event for event in page if until is None or event.version <= until]
        query = msgspec.structs.replace(query, after=page[-1].position)
    return found
