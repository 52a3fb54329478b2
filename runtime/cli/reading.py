"""Commands that look at runs: ps and show. They need no application code and work beside a running owner.

The invariant: a log is opened through the store's reader and in no other way, so nothing here can change it.
"""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.runtime.cli.doubts import doubt_object, print_doubts, read_doubts
from perdure.runtime.cli.drawing import draw_run, timeline_of
from perdure.runtime.cli.finding import find_run
from perdure.runtime.cli.options import Number, db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    age,
    clock_time,
    count,
    is_terminal,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
    short_id,
)
from perdure.runtime.cli.standing import ATTENTION, Standing, read_newest_runs, read_owner, read_run
from perdure.store.reader import LogReader

_LOST: Final = """
SELECT count(*), max(at), substr(stream, 6) FROM log WHERE kind = 'tool' AND type = 'call-lost'
AND data->>'$.effect' = 'irreversible'
"""


@click.command(short_help="List open runs and what they wait for.")
@db_option
@click.option("--attention", is_flag=True, help="Only what needs a person: what is in doubt, blocked runs.")
@click.option("--all", "everything", is_flag=True, help="Runs that have ended, too.")
@click.option("--limit", default=1000, show_default=True, type=Number(min=1), help="List at most so many.")
@json_option
def ps(*, db: Path, attention: bool, everything: bool, limit: int, as_json: bool) -> None:
    """List open runs, the newest first, what each of them waits for, and who owns the log.

    With --attention also the calls in slots of which nobody knows what became of them.
    """
    now = now_micros()
    with LogReader.open(db) as reader:
        runs = read_newest_runs(reader, only_open=not everything, now=now)
        wanted = islice((run for run in runs if not attention or run.status in ATTENTION), limit)
        if as_json:
            for run in wanted:
                print_json(_standing_object(run))
            for doubt in read_doubts(reader) if attention else ():
                print_json(doubt_object(doubt))
            return
        found = list(wanted)
        doubts = read_doubts(reader) if attention else []
        owner = read_owner(reader)
        lost = _lost_calls(reader) if attention else None
    if found or not doubts:
        _print_standings(found, now)
    if found and doubts:
        print_line("")
    print_doubts(doubts, db, now)
    if is_terminal(sys.stdout):
        owned = f"owned by {owner.text}" if owner.is_there else "owned by nobody"
        more = f"; stopped at --limit {limit}" if len(found) == limit else ""
        more += "" if found or everything or attention else " is open, --all lists those that have ended"
        print_line(f"{count(len(found), 'run')}{more}; the log is {owned}", "dim")
    elif len(found) == limit:
        print_line(f"stopped at --limit {limit}: there may be more", error=True)
    if lost is not None:
        print_line(lost, "yellow", error=True)


def _lost_calls(reader: LogReader) -> str | None:
    """Return what to say of irreversible calls outside of runs that a process died in; nobody has to settle them."""
    ((lost, last, tool),) = list(reader.sql(_LOST).rows)
    if not lost:
        return None
    calls = count(lost, "irreversible call")
    when = clock_time(last)
    return f"{calls} outside of runs got lost with the process, last of {tool} ({when}): perdure log --type call-lost"


def _print_standings(runs: Sequence[Standing], now: int) -> None:
    columns = (
        Column("RUN"), Column("WORKFLOW", fixed=False), Column("STATUS", styled=True), Column("STEPS", right=True),
        Column("AGE", right=True), Column("WAITS FOR", fixed=False),
    )  # fmt: skip
    print_table(
        columns,
        [
            (
                short_id(run.run),
                run.workflow,
                run.status,
                str(run.steps_done),
                age(now - run.started_at),
                run.waits_for,
            )
            for run in runs
        ],
    )


def _standing_object(run: Standing) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(run)
    fields |= {"started_at": iso(run.started_at), "last_at": iso(run.last_at), "wake_at": iso(run.wake_at)}
    return fields


@click.command(short_help="Show the timeline of a run.")
@click.argument("run")
@db_option
@click.option("--all", "everything", is_flag=True, help="Every step, branch and note, however many there are.")
@json_option
def show(*, run: str, db: Path, everything: bool, as_json: bool) -> None:
    """Show the timeline of RUN: its steps, their attempts and durations, what it waited for.

    RUN is an id, or the beginning or the end of one.
    """
    now = now_micros()
    with LogReader.open(db) as reader:
        stream = find_run(reader, run)
        timeline = timeline_of(reader, stream)
        draw_run(timeline, read_run(reader, stream, now=now), db=db, now=now, everything=everything, as_json=as_json)
