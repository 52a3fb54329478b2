"""Commands that look at conversations, and at the places of a run from which another one can begin.

They read the log beside its owner. Invariant: how a conversation stands is told from its runs, each as `ps` has it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.runtime.checkpoints import Checkpoint, checkpoint_of
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import RUN_PREFIX, facts_of
from perdure.runtime.cli.finding import find_run
from perdure.runtime.cli.folding import events_of, streams_of
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    clock_time,
    duration,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
)
from perdure.runtime.cli.standing import Standing, read_run
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamId, stream_id

_PREFIX: Final = "conversation/"
_COLUMNS: Final = (
    Column("CONVERSATION"), Column("STATUS"), Column("RUNS", right=True), Column("ARTIFACTS", right=True),
    Column("UPDATED"), Column("NEWEST RUN", fixed=False),
)  # fmt: skip
_RUNS: Final = (
    Column("RUN"), Column("WORKFLOW"), Column("STATUS"), Column("STEPS", right=True), Column("AGE", right=True),
    Column("WAITS FOR", fixed=False),
)  # fmt: skip
_ARTIFACTS: Final = (Column("ARTIFACT"), Column("BYTES", right=True), Column("TYPE"), Column("SHA256"))
_CHECKPOINTS: Final = (Column("CHECKPOINT"), Column("TIME"), Column("STEP"), Column("AFTER"))
_STATUS: Final = {
    "completed": "completed", "failed": "failed", "cancelled": "cancelled", "paused": "paused",
    "interrupted": "interrupted", "blocked": "interrupted",
}  # fmt: skip


class _Told(msgspec.Struct):
    """What the log has of one conversation."""

    id: str
    runs: list[Standing]
    artifacts: dict[str, dict[str, Any]]
    updated_at: int

    @property
    def status(self) -> str:
        """How it stands: as its newest run, unless another one goes on or stands still."""
        statuses = [_STATUS.get(run.status, "active") for run in self.runs]
        for first in ("active", "interrupted", "paused"):
            if first in statuses:
                return first
        return statuses[-1] if statuses else "active"


@click.command(short_help="Show the conversations, or the runs and artifacts of one.")
@click.argument("conversation", metavar="[ID]", required=False)
@db_option
@json_option
def conversations(*, conversation: str | None, db: Path, as_json: bool) -> None:
    """Show every conversation, or of the one called ID its runs and what is kept with it."""
    with LogReader.open(db) as reader:
        now = now_micros()
        found = [_read(reader, id, now) for id in ([conversation] if conversation else _ids(reader))]
    if conversation is not None and not (found[0].runs or found[0].artifacts):
        raise Failure(f"nothing has happened in a conversation {conversation!r} in {db}", Exit.USAGE)
    if as_json:
        for one in found:
            print_json(_object(one))
    elif conversation is not None:
        _print_one(found[0], now)
    elif found:
        print_table(_COLUMNS, [_row(one, now) for one in found])
    else:
        print_line(f"no run was started in a conversation in {db}", error=True)


@click.command(short_help="List the places of a run from which another one can begin.")
@click.argument("run")
@db_option
@json_option
def checkpoints(*, run: str, db: Path, as_json: bool) -> None:
    """List the checkpoints of RUN, oldest first: where it had just finished something.

    `perdure fork RUN --checkpoint ID` starts a run at one of them.
    """
    with LogReader.open(db) as reader:
        stream = find_run(reader, run).stream
        found = [one for event in events_of(reader, Query(stream=stream)) if (one := checkpoint_of(event)) is not None]
    now = now_micros()
    if as_json:
        for one in found:
            print_json(msgspec.to_builtins(one))
    elif found:
        print_table(_CHECKPOINTS, [_place(one, now) for one in found])
    else:
        print_line(f"run {stream[len(RUN_PREFIX) :]} has finished nothing of its own yet", error=True)


def _place(one: Checkpoint, now: int) -> Sequence[str]:
    return one.id, clock_time(int(one.at.timestamp() * 1_000_000), now=now), one.step, one.type


def _ids(reader: LogReader) -> Iterator[str]:
    return (row.stream[len(_PREFIX) :] for row in streams_of(reader, _PREFIX))


def _read(reader: LogReader, id: str, now: int) -> _Told:
    told = _Told(id, [], {}, 0)
    for event in events_of(reader, Query(stream=stream_id(_PREFIX + id))):
        told.updated_at = max(told.updated_at, event.at)
        match event.type:
            case "conversation-run-started":
                row = reader.stream(StreamId(RUN_PREFIX + facts_of(event).run))
                if row is not None:
                    told.runs.append(read_run(reader, row, now=now))
                    told.updated_at = max(told.updated_at, row.last_at)
            case "artifact-kept":
                facts: dict[str, Any] = msgspec.json.decode(event.data or "{}")
                told.artifacts[facts["name"]] = facts
            case "artifact-dropped":
                told.artifacts.pop(facts_of(event).name, None)
            case _:
                pass
    return told


def _row(one: _Told, now: int) -> Sequence[str]:
    newest = f"{one.runs[-1].run}: {one.runs[-1].workflow}" if one.runs else ""
    updated = clock_time(one.updated_at, now=now)
    return one.id, one.status, str(len(one.runs)), str(len(one.artifacts)), updated, newest


def _print_one(one: _Told, now: int) -> None:
    print_line(f"conversation {one.id} is {one.status}")
    if one.runs:
        print_table(_RUNS, [_run_row(run, now) for run in one.runs])
    if one.artifacts:
        print_table(_ARTIFACTS, [_artifact_row(facts) for facts in one.artifacts.values()])


def _run_row(run: Standing, now: int) -> Sequence[str]:
    age = duration(now - run.started_at)
    return run.run, run.workflow, run.status, str(run.steps_done), age, run.waits_for


def _artifact_row(facts: dict[str, Any]) -> Sequence[str]:
    return facts["name"], str(facts["size"]), facts.get("media_type", "application/json"), facts["sha256"]


def _object(one: _Told) -> dict[str, Any]:
    artifacts = [{key: facts.get(key) for key in ("name", "size", "sha256")} for facts in one.artifacts.values()]
    runs = [{"run": run.run, "workflow": run.workflow, "status": run.status} for run in one.runs]
    return {
        "id": one.id, "status": one.status, "runs": runs, "artifacts": artifacts, "updated_at": iso(one.updated_at),
    }  # fmt: skip
