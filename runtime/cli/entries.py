"""The commands about entry points: trigger has the log's owner start a run by one, entries lists them.

The list reads the log alone. Invariant: the run is durable in the log when its id is printed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import click
import msgspec

from perdure.actors.triggers.entry_point import EntryPointBehavior, EntryPointState
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.folding import Fold
from perdure.runtime.cli.hosting import check_log
from perdure.runtime.cli.loading import read_json
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import Column, print_json, print_line, print_table
from perdure.runtime.cli.owner import ask_owner
from perdure.store.reader import LogReader
from perdure.store.records import StreamId
from perdure.store.wording import printable

_PREFIX: Final = "entry-point/"
_NAMES: Final = "SELECT name FROM streams WHERE kind = 'entry-point' ORDER BY name"
_COLUMNS: Final = (
    Column("ENTRY"), Column("WORKFLOW"), Column("STARTS", fixed=False), Column("AT ONCE", right=True),
    Column("RUNS", right=True), Column("OPEN", right=True), Column("DONE", right=True), Column("FAILED", right=True),
    Column("CANCELLED", right=True),
)  # fmt: skip


@click.command(short_help="Start a run by an entry point.")
@click.argument("entry")
@click.argument("data", metavar="[JSON]", default="{}")
@db_option
@click.option("--id", "run_id", metavar="ID", help="The run's id: the same id again is the same run.")
@click.option("--correlation", metavar="ID", help="What the run is tied to; its own id when left out.")
@click.option("--conversation", metavar="ID", help="The conversation that the run belongs to.")
@click.option("--priority", type=int, help="Among runs that wait; the entry point's own when left out.")
@who_option
@json_option
def trigger(  # noqa: PLR0913 - one parameter an option
    *,
    entry: str,
    data: str,
    db: Path,
    run_id: str | None,
    correlation: str | None,
    conversation: str | None,
    priority: int | None,
    who: str,
    as_json: bool,
) -> None:
    """Have the runtime that owns the log start a run by its entry point ENTRY, and print the run's id.

    JSON is the input of the workflow: its arguments by name, or of a definition the data. The entry points are in the
    application's code, so a runtime that has them must have the log open, such as that of `perdure serve`.
    """
    given: Any = read_json(data, "JSON")
    if not isinstance(given, dict):
        raise Failure("JSON is an object: the arguments of the workflow by name", Exit.USAGE)
    check_log(db)
    found = cast("dict[str, Any]", given)
    acted = ask_owner(
        db,
        lambda rt: rt.entry_points.trigger(
            entry, found, correlation_id=correlation, id=run_id, conversation=conversation, priority=priority, who=who
        ),
        "start its runs",
    )
    if acted is None:
        raise Failure(
            "no runtime owns the log, and its entry points are in its code: perdure serve FILE.py", Exit.USAGE
        )
    if as_json:
        print_json({"run": acted.answer, "entry": entry})
    else:
        print_line(acted.answer)


@click.command(short_help="List the entry points.")
@db_option
@json_option
def entries(*, db: Path, as_json: bool) -> None:
    """List the entry points, as they were declared last, and what they have started.

    OPEN are the runs that have not ended, those that wait for their turn included (`perdure queues`).
    """
    with LogReader.open(db) as reader:
        found = list(_read(reader))
    if as_json:
        for name, state in found:
            print_json(_object(name, state))
    elif found:
        print_table(_COLUMNS, [_row(name, state) for name, state in found])
    else:
        print_line(f"there is no entry point in {db}", error=True)


def _read(reader: LogReader) -> Iterator[tuple[str, EntryPointState]]:
    fold = Fold(reader, EntryPointBehavior())
    for (stream,) in list(reader.sql(_NAMES).rows):
        yield str(stream).removeprefix(_PREFIX), fold.state(StreamId(str(stream)))


def _object(name: str, state: EntryPointState) -> dict[str, Any]:
    declared: dict[str, Any] = {} if state.declared is None else msgspec.to_builtins(state.declared)
    declared.pop("type", None)
    return {
        "entry": name,
        **declared,
        "runs": state.triggered,
        "open": state.open,
        "completed": state.completed,
        "failed": state.failed,
        "cancelled": state.cancelled,
        "refused": state.refused,
        "last_run": state.last_run,
    }


def _row(name: str, state: EntryPointState) -> tuple[str, ...]:
    declared = state.declared
    how = ("", "", "") if declared is None else (declared.workflow, declared.when, str(declared.max_concurrent))
    counts = (state.triggered, state.open, state.completed, state.failed, state.cancelled)
    return (name, *(printable(word) for word in how), *(str(count) for count in counts))
