"""Commands with which people and other programs speak to a run that waits: signal, questions and answer.

They need no application code. A running owner of the log is told, and its run goes on at once; where there is none,
what is sent is stored, and the run goes on with it when it is resumed.
"""

from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.workflows.errors import QuestionNotOpenError
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import RUN_PREFIX
from perdure.runtime.cli.finding import find_run
from perdure.runtime.cli.loading import read_json
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import Column, clock_time, iso, now_micros, print_json, print_line, print_table, shorten
from perdure.runtime.cli.verdicts import tell_run
from perdure.runtime.questions import OpenQuestion, Questions
from perdure.store.reader import LogReader

_WIDTH: Final = 60
_COLUMNS: Final = (
    Column("QUESTION"), Column("SINCE"), Column("UNTIL"), Column("OF"), Column("TEXT", fixed=False),
    Column("ANSWER", fixed=False),
)  # fmt: skip


@click.command(short_help="Send a signal to a run.")
@click.argument("run")
@click.argument("name")
@click.argument("value", metavar="[JSON]", default="null")
@db_option
@click.option("--id", "signal_id", metavar="ID", help="The signal's own id: sent again with it, it is the same one.")
@who_option
@json_option
def signal(*, run: str, name: str, value: str, db: Path, signal_id: str | None, who: str, as_json: bool) -> None:
    """Send RUN the signal NAME with a value.

    The signal is stored; the run's code takes it when it waits for it: at once where a runtime owns the log, otherwise
    the next time that it is resumed.
    """
    sent = read_json(value, "JSON")
    acted = tell_run(db, run, lambda handle: handle.signal(name, sent, id=signal_id, who=who), "send its runs signals")
    if as_json:
        print_json({"run": run, "signal": name, "is_new": acted.answer})
    elif acted.answer:
        print_line(f"{name} is sent to {run}{acted.then('it goes on', db)}")
    else:
        print_line(f"{run} has the signal {signal_id} already; nothing was sent")


@click.command(short_help="List the questions that runs ask people.")
@db_option
@json_option
def questions(*, db: Path, as_json: bool) -> None:
    """List the open questions of all runs, oldest first, and what answers each of them takes."""
    now = now_micros()
    with LogReader.open(db) as reader:
        found = _read(reader, now)
    if as_json:
        for one in found:
            print_json(_object(one))
        return
    if not found:
        print_line(f"nobody asks anything in {db}", error=True)
        return
    print_table(_COLUMNS, [_row(one, now) for one in found], wraps=True)
    print_line(f"answer one with: perdure answer QUESTION JSON --db {db}", error=True)


@click.command(short_help="Answer a question of a run.")
@click.argument("question")
@click.argument("value", metavar="JSON")
@db_option
@who_option
@json_option
def answer(*, question: str, value: str, db: Path, who: str, as_json: bool) -> None:
    """Answer QUESTION, as `perdure questions` lists it, with a JSON value.

    A value that the question does not take is refused, and the question stays open. Of an answer it is recorded who
    gave it; the run goes on with it at once where a runtime owns the log, otherwise when it is resumed.
    """
    given = read_json(value, "JSON")
    with LogReader.open(db) as reader:
        run = next((one.run for one in _read(reader, now_micros()) if one.id == question), None)
        if run is None:
            asked = question.rpartition(":")[0]
            run = find_run(reader, asked).stream[len(RUN_PREFIX) :]
            raise Failure(str(QuestionNotOpenError(run=run, question=question)), Exit.RUN)
    acted = tell_run(db, run, lambda handle: handle.answer(question, given, who=who), "take answers for its runs")
    if as_json:
        print_json({"question": question, "run": run, "answer": given})
    else:
        print_line(f"{question} is answered by {who}{acted.then('its run goes on', db)}")


def _read(reader: LogReader, now: int) -> list[OpenQuestion]:
    found = Questions()
    while page := reader.read(found.next_page):
        found.add(page)
    return found.open(now)


def _row(one: OpenQuestion, now: int) -> tuple[str, ...]:
    until = "" if one.until is None else clock_time(one.until, now=now)
    takes = one.schema if one.choices is None else one.choices
    kind = takes.get("type") if isinstance(takes, dict) and takes.keys() == {"type"} else None
    shown = kind if isinstance(kind, str) else shorten(msgspec.json.encode(takes).decode(), _WIDTH)
    return one.id, clock_time(one.asked_at, now=now), until, ", ".join(one.to), one.text, shown


def _object(one: OpenQuestion) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(one)
    until = None if one.until is None else iso(one.until)
    return {**fields, "asked_at": iso(one.asked_at), "until": until}
