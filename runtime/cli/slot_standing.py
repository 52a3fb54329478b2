"""How slots stand, read from the log alone, beside a running owner or without one.

It asks no machine. A command of a process that died is not `executing`, whatever the last event says: nobody can write
into a log that he died, so that needs an owner.
"""

from typing import Any, Final

import msgspec

from perdure.actors.slots.slot import SlotBehavior, SlotState
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.folding import Fold, newest, streams_of
from perdure.runtime.cli.output import shorten
from perdure.runtime.cli.standing import read_owner
from perdure.store.reader import LogReader
from perdure.store.records import StreamId, StreamSummary

SLOT_PREFIX: Final = "slot/"
TRAJECTORY_PREFIX: Final = "trajectory/"
INTERRUPTED: Final = "interrupted"
"""What a slot is shown as whose command's process died."""

_SHOWN: Final = 10
_TURNS: Final = {
    "executing": ("slot-execution-started",),
    "acquired": ("slot-acquired",),
    "releasing": ("slot-release-begun",),
    "error": ("slot-quarantined",),
    "retired": ("slot-retired",),
    "available": ("slot-created", "slot-released", "slot-reset"),
}
"""The events that brought a slot to where it is."""

_FIGURES: Final = """
SELECT sum(type = 'slot-execution-started'), max(iif(type = 'slot-created', data->>'$.machine', NULL))
FROM log WHERE stream = ?1 AND type IN ('slot-execution-started', 'slot-created')
"""
_CALL: Final = """
SELECT data->>'$.tool', data->'$.arguments' FROM log
WHERE stream = ?1 AND type = 'execution-requested' AND data->>'$.execution' = ?2 ORDER BY version DESC LIMIT 1
"""


class SlotStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How one slot stands."""

    slot: str
    number: int
    state: str
    trajectory: str | None
    since: int
    lease: int
    expires_at: int | None
    call: str | None
    """The `uniq_id` of what runs in it."""
    runs: str
    """The same in words."""
    executions: int
    keeps_files_of: str | None
    error: str
    machine: str
    last_at: int


def read_slots(reader: LogReader, *, only_open: bool) -> list[SlotStanding]:
    """Return the slots by number."""
    fold, is_owned = Fold(reader, SlotBehavior()), read_owner(reader).is_there
    rows = streams_of(reader, SLOT_PREFIX, only_open=only_open)
    found = [_standing(reader, fold.state(row.stream), row, is_owned=is_owned) for row in rows]
    return sorted(found, key=lambda one: (one.number, one.slot))


def read_slot(reader: LogReader, slot: str) -> SlotStanding:
    """Return one slot.

    Raises:
        Failure: the log has none of that name; names those that there are.
    """
    row = reader.stream(StreamId(SLOT_PREFIX + slot))
    if row is not None:
        state = Fold(reader, SlotBehavior()).state(row.stream)
        return _standing(reader, state, row, is_owned=read_owner(reader).is_there)
    names = [row.stream[len(SLOT_PREFIX) :] for row in streams_of(reader, SLOT_PREFIX, only_open=True)]
    more = ", …" if len(names) > _SHOWN else ""
    raise Failure(f"this log has no slot {slot!r}; it has: {', '.join(names[:_SHOWN]) or 'none'}{more}", Exit.USAGE)


def _standing(reader: LogReader, state: SlotState, row: StreamSummary, *, is_owned: bool) -> SlotStanding:
    ((executions, machine),) = list(reader.sql(_FIGURES, (row.stream,)).rows)
    turn = newest(reader, row.stream, _TURNS.get(state.standing, ("slot-created",)))
    call = state.execution
    return SlotStanding(
        slot=state.slot,
        number=state.number,
        state=INTERRUPTED if state.standing == "executing" and not is_owned else state.standing,
        trajectory=state.trajectory,
        since=row.last_at if turn is None else turn.at,
        lease=state.lease,
        expires_at=state.expires_at,
        call=call,
        runs="" if call is None or state.trajectory is None else what_runs(reader, state.trajectory, call),
        executions=executions or 0,
        keeps_files_of=state.keeps_files_of,
        error=state.error,
        machine=machine or "",
        last_at=row.last_at,
    )


def what_runs(reader: LogReader, trajectory: str, call: str) -> str:
    """Return in words what a call is: its tool, and the command or the path."""
    rows = list(reader.sql(_CALL, (TRAJECTORY_PREFIX + trajectory, call)).rows)
    if not rows:
        return call
    ((tool, arguments),) = rows
    said = _object(arguments)
    text = next((str(said[name]) for name in ("command", "path", "action") if said.get(name)), "")
    return shorten(f"{tool}: {text}" if text else str(tool), 200)


def _object(arguments: str | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}  # it is too large for its row, or no object
