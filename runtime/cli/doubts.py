"""Calls of trajectories of which nobody knows what became of them: which there are, and a person's verdict on one.

A verdict only records: it needs no machine. A running owner of the log is told it, and hands it to whoever waits.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from perdure.actors.slots.commands import SettleExecution
from perdure.actors.slots.errors import SlotTransitionError
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.finding import find_trajectory
from perdure.runtime.cli.folding import streams_of
from perdure.runtime.cli.output import Column, clock_time, iso, print_json, print_line, print_table, short_id
from perdure.runtime.cli.slot_standing import TRAJECTORY_PREFIX, what_runs
from perdure.store.reader import LogReader
from perdure.store.records import StreamId

_LEAST: Final = 4
"""Characters of an id that are enough to mean it."""
_COLUMNS: Final = (
    Column("CALL"), Column("TRAJECTORY"), Column("STATUS", styled=True), Column("SINCE"),
    Column("WHAT", fixed=False), Column("WHY", fixed=False),
)  # fmt: skip
# Of a call the last event that moved it; after a doubt nothing but its end comes.
_DOUBTS: Final = """
SELECT doubt.data->>'$.execution', doubt.data->>'$.reason', doubt.at
FROM log AS doubt
WHERE doubt.type = 'execution-in-doubt' AND doubt.stream = ?1
AND NOT EXISTS (
    SELECT 1 FROM log AS ended WHERE ended.stream = doubt.stream AND ended.version > doubt.version
    AND ended.type IN ('execution-completed', 'execution-settled', 'execution-cancelled')
    AND ended.data->>'$.execution' = doubt.data->>'$.execution')
ORDER BY doubt.position
"""


class DoubtStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a trajectory of which nobody knows what became of it."""

    trajectory: str
    call: str
    what: str
    reason: str
    since: int


def read_doubts(reader: LogReader, only: StreamId | None = None) -> list[DoubtStanding]:
    """Return the calls in doubt, of one trajectory or of all, oldest first."""
    open_ones = streams_of(reader, TRAJECTORY_PREFIX, only_open=True)
    names = [only] if only is not None else [row.stream for row in open_ones]
    found = [doubt for name in names for doubt in _doubts_of(reader, name)]
    return sorted(found, key=lambda doubt: doubt.since)


def _doubts_of(reader: LogReader, stream: StreamId) -> Iterator[DoubtStanding]:
    trajectory = stream[len(TRAJECTORY_PREFIX) :]
    for call, reason, at in list(reader.sql(_DOUBTS, (stream,)).rows):
        what = what_runs(reader, trajectory, call)
        yield DoubtStanding(trajectory=trajectory, call=call, what=what, reason=reason or "", since=at)


def doubt_object(doubt: DoubtStanding) -> dict[str, Any]:
    """Return a call in doubt for programs."""
    fields: dict[str, Any] = msgspec.to_builtins(doubt)
    return {**fields, "status": "in doubt", "since": iso(doubt.since)}


def print_doubts(doubts: Sequence[DoubtStanding], db: Path, now: int) -> None:
    """Print the calls in doubt, and how one is settled."""
    if not doubts:
        return
    rows = [
        (
            short_id(one.call),
            short_id(one.trajectory),
            "in doubt",
            clock_time(one.since, now=now),
            one.what,
            one.reason,
        )
        for one in doubts
    ]
    print_table(_COLUMNS, rows, wraps=True)
    verdict = "--because TEXT --done TEXT | --failed TEXT"
    print_line(f"settle a call with: perdure settle --trajectory ID CALL {verdict} --db {db}", error=True)


class CallVerdict(msgspec.Struct, frozen=True):
    """What a person says of a call."""

    trajectory: str
    call: str
    done: str | None
    failed: str | None
    because: str
    who: str


def settle_call(verdict: CallVerdict, db: Path, *, as_json: bool) -> None:
    """Record a verdict and say so.

    Raises:
        Failure: the log's owner cannot be asked from here, the call is not in doubt, or nothing says why.
    """
    from perdure.runtime.cli.owner import act  # noqa: PLC0415 - it brings the runtime, which `ps` is quicker without

    if not verdict.because.strip():
        raise Failure("say how you know, --because TEXT: whoever reads the log will ask", Exit.USAGE)
    with LogReader.open(db) as reader:
        stream = find_trajectory(reader, verdict.trajectory).stream
        trajectory = stream[len(TRAJECTORY_PREFIX) :]
        mine = [one.call for one in read_doubts(reader, stream)]
    call = _meant(verdict.call, mine, trajectory)
    is_done = verdict.done is not None
    output = verdict.done if verdict.done is not None else verdict.failed or ""
    command = SettleExecution(call, is_done, output, verdict.because)

    try:
        act(db, lambda rt: rt.ask(stream, command, principal=verdict.who), "settle its calls")
    except SlotTransitionError as error:
        raise Failure(str(error), Exit.RUN) from error
    word = "done" if is_done else "failed"
    if as_json:
        print_json({"trajectory": trajectory, "call": call, "verdict": word})
    else:
        print_line(f"{call} of trajectory {trajectory} is settled as {word}, by {verdict.who}: {verdict.because}")


def _meant(wanted: str, calls: Sequence[str], trajectory: str) -> str:
    """Return the call in doubt that a person means: by its id, or the beginning or the end of it."""
    if wanted in calls:
        return wanted
    found = [one for one in calls if len(wanted) >= _LEAST and (one.startswith(wanted) or one.endswith(wanted))]
    if len(found) == 1:
        return found[0]
    known = ", ".join(found or calls) or "none"
    if found:
        raise Failure(f"{wanted!r} fits several calls in doubt: {known}", Exit.USAGE)
    raise Failure(f"call {wanted!r} of trajectory {trajectory} is not in doubt; in doubt are: {known}", Exit.RUN)
