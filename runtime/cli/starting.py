"""The command that records a run without running it here: start, which is also `run --detach`.

The invariant: the run is durable in the log when its id is printed; who runs it is the log's owner, or who resumes it.
"""

from pathlib import Path
from typing import Any

import click
import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.cli.exits import Exit
from perdure.runtime.cli.facts import RUN_PREFIX
from perdure.runtime.cli.hosting import log_to_stderr
from perdure.runtime.cli.loading import Application, load, read_input, split_target
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import aside, now_micros, print_json, print_line
from perdure.runtime.cli.owner import act
from perdure.runtime.cli.standing import read_run
from perdure.runtime.options import OptionValues
from perdure.runtime.settings import Settings
from perdure.store.reader import LogReader
from perdure.store.records import StreamId


class Request(msgspec.Struct, frozen=True):
    """What `run` and `start` are asked for, checked as far as it can be without the log."""

    db: Path
    application: Application
    workflow: Workflow[..., Any]
    data: bytes
    run: str | None
    as_json: bool

    @property
    def how_to_go_on(self) -> str:
        """The command that brings the run back."""
        return come_back(self.application.path, self.db)


def come_back(file: Path, db: Path) -> str:
    """Return the command that goes on with what is open."""
    return f"perdure resume {file} --db {db}"


def requested(target: str, db: Path, given: str | None, run: str | None, *, as_json: bool) -> Request:
    """Return what the command line asks for; the application's file has been imported.

    Raises:
        Failure, UsageError, InvalidArgumentsError: it is not there, or does not fit.
    """
    path, name = split_target(target)
    arguments = read_input(given, db)
    log_to_stderr()
    with aside():
        application = load(path)
    workflow = application.workflow(name)
    args, by_name = ((arguments,), {}) if workflow.takes_data else ((), arguments)
    data = workflow.encode_input(args, by_name, Redaction(Settings().redacted_keys))
    return Request(db, application, workflow, data, run, as_json)


@click.command(short_help="Record a run, to be run by the log's owner or by resume.")
@click.argument("target", metavar="FILE.py:WORKFLOW")
@db_option
@click.option("--input", "given", metavar="JSON|@FILE", help="The arguments by name; @- reads stdin.")
@click.option("--id", "run_id", metavar="ID", help="The run's id: the same id again is the same run.")
@json_option
def start(*, target: str, db: Path, given: str | None, run_id: str | None, as_json: bool) -> Exit:
    """Record a run of WORKFLOW in FILE.py and print its id; none of its code is run here.

    Where a runtime owns the log, it runs it at once, with the code that it has itself; otherwise `perdure resume` does.
    The log is created when it is not there.
    """
    return record(requested(target, db, given, run_id, as_json=as_json))


def record(request: Request) -> Exit:
    """Have a run recorded, by the log's owner where there is one, and print its id.

    Raises:
        Failure: another process owns the log, and cannot be asked.
        PerdureError: the run was refused, as by `Runtime.start`.
    """
    options = OptionValues(id=request.run)

    async def begin(rt: Any) -> str:
        return str((await rt.start_run(request.workflow, request.data, options)).id)

    acted = act(request.db, begin, "start its runs", application=request.application)
    run = acted.answer
    with LogReader.open(request.db) as reader:
        stream = reader.stream(StreamId(RUN_PREFIX + run))
        assert stream is not None  # noqa: S101 - it was started a moment ago
        standing = read_run(reader, stream, now=now_micros())
    if request.as_json:
        print_json({"run": run, "workflow": request.workflow.name, "status": standing.status})
        return Exit.OK
    print_line(run)
    how = "the log's owner runs it" if acted.by_owner else f"its code runs with: {request.how_to_go_on}"
    print_line(f"{standing.status}: recorded, and {how}", error=True)
    return Exit.OK
