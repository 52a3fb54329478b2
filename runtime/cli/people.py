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
from perdure.runtime.cli.output import (
    Column,
    clock_time,
    count,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
    shorten,
)
from perdure.runtime.cli.verdicts import tell_run
from perdure.runtime.questions import OpenQuestion, Questions
from perdure.store.errors import UsageError
from perdure.store.reader import LogReader
from perdure.store.records import stream_id

_WIDTH: Final = 60
_WHAT: Final = "take answers for its runs"
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
    approvals = " (a call: --approve, --edit JSON or --reject TEXT)" if any(one.tool for one in found) else ""
    print_line(f"answer one with: perdure answer QUESTION JSON{approvals} --db {db}", error=True)


def _arguments(edit: str) -> dict[str, Any]:
    try:
        return msgspec.convert(read_json(edit, "--edit"), dict[str, Any])
    except msgspec.ValidationError as error:
        raise Failure("--edit takes the arguments as a JSON object", Exit.USAGE) from error


@click.command(short_help="Answer a question of a run, or approve or reject a call.")
@click.argument("question")
@click.argument("value", metavar="[JSON]", required=False)
@db_option
@click.option("--approve", is_flag=True, help="Approve the call that is asked for.")
@click.option("--edit", metavar="JSON", help="Approve it with these arguments, an object, in place of those asked for.")
@click.option("--digest", default="", metavar="DIGEST", help="Which arguments are meant, where somebody changed them.")
@click.option("--reject", metavar="TEXT", help="Reject the call, and say why.")
@who_option
@json_option
def answer(  # noqa: PLR0913 - its options
    *, question: str, value: str | None, db: Path, approve: bool, edit: str | None, digest: str, reject: str | None,
    who: str, as_json: bool,
) -> None:  # fmt: skip
    """Answer QUESTION, as `perdure questions` lists it, with a JSON value, or with --approve, --edit or --reject.

    What the question does not take is refused, and it stays open. It is recorded who answered, and what an approver
    changed; the run goes on with it at once where a runtime owns the log, otherwise when it is resumed.
    """
    said = [value is not None, approve or edit is not None, reject is not None]
    if sum(said) != 1:
        raise Failure("say one of: a JSON value, --approve, --edit JSON, --reject TEXT", Exit.USAGE)
    run = _run_that_asks(db, question)
    if reject is not None:
        done, told = "rejected", tell_run(db, run, lambda h: h.reject(question, reject, who=who), _WHAT)
    elif value is None:
        arguments = None if edit is None else _arguments(edit)
        done = "approved"
        told = tell_run(db, run, lambda h: h.approve(question, who=who, arguments=arguments, digest=digest), _WHAT)
    else:
        given = read_json(value, "JSON")
        done, told = "answered", tell_run(db, run, lambda h: h.answer(question, given, who=who), _WHAT)
    if as_json:
        print_json({"question": question, "run": run, "said": done, "who": who})
        return
    with LogReader.open(db) as reader:
        left = _open_question(reader, run, question)
    if left is None:
        print_line(f"{question} is {done} by {who}{told.then('its run goes on', db)}")
    else:
        print_line(f"{question} is {done} by {who}; {_wanted(left)}")


def _run_that_asks(db: Path, question: str) -> str:
    """Return the run of an open question.

    Raises:
        Failure: the question is not open. UnknownRunError: there is no such run.
    """
    parts = question.split(":")
    runs = [":".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]  # either may have a colon in it
    with LogReader.open(db) as reader:
        for run in runs:
            if _open_question(reader, run, question) is not None:
                return run
        run = find_run(reader, runs[0] if runs else question).stream[len(RUN_PREFIX) :]
    raise Failure(str(QuestionNotOpenError(run=run, question=question)), Exit.RUN)


def _open_question(reader: LogReader, run: str, question: str) -> OpenQuestion | None:
    try:
        found = Questions(stream_id(RUN_PREFIX + run))
    except UsageError:
        return None
    while page := reader.read(found.next_page):
        found.add(page)
    return next((one for one in found.open(now_micros()) if one.id == question), None)


def _wanted(one: OpenQuestion) -> str:
    heard = f" ({', '.join(one.by)} said so)" if one.by else ""
    return f"{count(one.several - len(one.by), 'more person', 'more people')} wanted{heard}"


def _read(reader: LogReader, now: int) -> list[OpenQuestion]:
    found = Questions()
    while page := reader.read(found.next_page):
        found.add(page)
    return found.open(now)


def _row(one: OpenQuestion, now: int) -> tuple[str, ...]:
    until = "" if one.until is None else clock_time(one.until, now=now)
    takes = one.schema if one.choices is None else one.choices
    if one.tool:
        call = f"{one.text}\n{one.tool} {msgspec.json.encode(one.arguments).decode()}"
        wanted = f"\n{_wanted(one)}" if one.several > 1 else ""
        changed = f"\n--digest {one.digest}" if one.is_edited else ""
        answered = f"--approve, --edit, --reject{changed}{wanted}"
        return one.id, clock_time(one.asked_at, now=now), until, ", ".join(one.to), call, answered
    kind = takes.get("type") if isinstance(takes, dict) and takes.keys() == {"type"} else None
    shown = kind if isinstance(kind, str) else shorten(msgspec.json.encode(takes).decode(), _WIDTH)
    if one.several > 1:
        shown += f"\n{_wanted(one)}"
    return one.id, clock_time(one.asked_at, now=now), until, ", ".join(one.to), one.text, shown


def _object(one: OpenQuestion) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(one)
    until = None if one.until is None else iso(one.until)
    return {**fields, "asked_at": iso(one.asked_at), "until": until}
