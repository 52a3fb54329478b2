"""The commands about schedules: when each is next and what it last did; pause and resume one, or have it fire now.

The list reads the log alone. Invariant: what is said of a schedule is recorded by exactly one process: the log's owner
where one runs, otherwise this one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.triggers.kinds import Schedule, in_words
from perdure.actors.triggers.schedule import ScheduleBehavior, ScheduleState
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.folding import Fold
from perdure.runtime.cli.options import LogFile, db_option, json_option, who_option
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
from perdure.runtime.cli.owner import act, ask_owner
from perdure.runtime.cli.standing import read_owner
from perdure.store.reader import LogReader
from perdure.store.records import StreamId
from perdure.store.wording import printable

_PREFIX: Final = "schedule/"
_NAMES: Final = "SELECT name FROM streams WHERE kind = 'schedule' ORDER BY name"
_COLUMNS: Final = (
    Column("SCHEDULE"), Column("STATE", styled=True), Column("WHEN", fixed=False), Column("NEXT"),
    Column("IN", right=True), Column("FIRED", right=True), Column("SKIPPED", right=True),
    Column("LAST RUN", fixed=False),
)  # fmt: skip


@click.group(invoke_without_command=True, short_help="Show the schedules; pause, resume or fire one.")
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", show_envvar=True, metavar="FILE", help="The log.")
@json_option
@click.pass_context
def schedules(ctx: click.Context, *, db: Path | None, as_json: bool) -> None:
    """Show each schedule: when it is due, when it fires next, how often it did, and its last run."""
    if ctx.invoked_subcommand is not None:
        if db is not None:  # said before the subcommand, it is as good as behind it
            ctx.default_map = {name: {"db": str(db)} for name in schedules.commands}
        return
    if db is None:
        raise Failure("say which log: --db FILE, or PERDURE_DB", Exit.USAGE)
    with LogReader.open(db) as reader:
        found = list(_read(reader))
        is_owned = read_owner(reader).is_there
    if as_json:
        for state in found:
            print_json(_object(state))
    elif found:
        now = now_micros()
        print_table(_COLUMNS, [_row(state, now) for state in found])
        if not is_owned:
            print_line("no runtime owns the log: nothing fires before one is there", error=True)
    else:
        print_line(f"there is no schedule in {db}", error=True)


@schedules.command("pause", short_help="Stop one, until it is resumed.")
@click.argument("entry")
@db_option
@click.option("--because", default="paused on the command line", show_default=True, metavar="TEXT", help="Why.")
@who_option
@json_option
def pause_schedule(*, entry: str, db: Path, because: str, who: str, as_json: bool) -> None:
    """Have the schedule of the entry point ENTRY start no runs, until it is resumed, also over restarts.

    What comes due meanwhile is passed over and not made up for.
    """
    _check(db, entry)
    acted = act(db, lambda rt: rt.schedules.pause(entry, because, who=who), "pause its schedules")
    if as_json:
        print_json({"schedule": entry, "paused": True, "changed": acted.answer})
    elif acted.answer:
        print_line(printable(f"the schedule of {entry} is paused by {who}: {because}"))
        print_line(f"let it go on with: perdure schedules resume {entry} --db {db}", error=True)
    else:
        print_line(f"the schedule of {entry} was paused before: nothing is recorded")


@schedules.command("resume", short_help="Let one go on.")
@click.argument("entry")
@db_option
@who_option
@json_option
def resume_schedule(*, entry: str, db: Path, who: str, as_json: bool) -> None:
    """Let the paused schedule of the entry point ENTRY go on, from its next time after now."""
    _check(db, entry)
    acted = act(db, lambda rt: rt.schedules.resume(entry, who=who), "resume its schedules")
    state = _check(db, entry)
    if as_json:
        print_json({"schedule": entry, "paused": False, "changed": acted.answer, "next": _next(state)})
    elif acted.answer:
        after = "it is never due again" if state.next is None else f"next at {clock_time(state.next.at)}"
        print_line(f"the schedule of {entry} goes on: {after}")
    else:
        print_line(f"the schedule of {entry} is not paused: nothing is recorded")


@schedules.command("fire", short_help="Have one start a run now.")
@click.argument("entry")
@db_option
@who_option
@json_option
def fire_schedule(*, entry: str, db: Path, who: str, as_json: bool) -> None:
    """Have the entry point ENTRY start a run as its schedule would, now; its next time stays as it is.

    It is done by the runtime that owns the log, which has the entry point's code; a paused schedule fires too.
    """
    _check(db, entry)
    acted = ask_owner(db, lambda rt: rt.schedules.fire_now(entry, who=who), "fire its schedules")
    if acted is None:
        raise Failure(f"no runtime owns {db}: nobody there could start the run of {entry}", Exit.USAGE)
    if as_json:
        print_json({"schedule": entry, "run": acted.answer})
    else:
        print_line(acted.answer)


def _read(reader: LogReader) -> Iterator[ScheduleState]:
    fold = Fold(reader, ScheduleBehavior())
    for (name,) in reader.sql(_NAMES).rows:
        state = fold.state(StreamId(str(name)))
        if state.definition is not None:
            yield state


def _check(db: Path, entry: str) -> ScheduleState:
    """Return a schedule that the log knows.

    Raises:
        Failure: it knows none of that name; names those that there are.
    """
    with LogReader.open(db) as reader:
        found = {state.entry: state for state in _read(reader)}
    if entry not in found:
        there_are = ", ".join(found) or "none"
        raise Failure(f"{db} knows no schedule {entry!r}; there are: {there_are}", Exit.USAGE)
    return found[entry]


def _next(state: ScheduleState) -> str | None:
    return None if state.is_paused or state.next is None else iso(state.next.at)


def _object(state: ScheduleState) -> dict[str, Any]:
    assert state.definition is not None  # noqa: S101 - otherwise it is not read
    return {
        "schedule": state.entry,
        "definition": msgspec.to_builtins(state.definition),
        "paused": state.is_paused,
        "because": state.because,
        "next_due": None if state.is_paused or state.next is None else iso(state.next.due),
        "next": _next(state),
        "fired": state.fired,
        "skipped": state.skipped,
        "last_due": iso(state.last_due),
        "last_run": state.last_run,
    }


def _row(state: ScheduleState, now: int) -> tuple[str, ...]:
    definition: Schedule | None = state.definition
    when = "" if definition is None else in_words(definition)
    if state.is_paused or state.next is None:
        at, left = "", ""
    else:
        at = clock_time(state.next.at, now=now)
        left = duration(state.next.at - now) if state.next.at > now else "due"
    standing = "paused" if state.is_paused else "waiting" if state.next is not None else "over"
    return (state.entry, standing, when, at, left, str(state.fired), str(state.skipped), state.last_run or "")
