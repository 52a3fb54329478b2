"""Commands with which an operator steers a run: pause, retry and fork; resume RUN, the end of a pause, is shared.

They need no application code. Where a runtime owns the log it does at once what is asked; otherwise it is recorded, and
the run's code takes notice when it is resumed.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from perdure.actors.kernel.spans import span_of
from perdure.actors.workflows.errors import ControlRefusedError, UnknownStepError
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.loading import read_input
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import print_json, print_line
from perdure.runtime.cli.owner import Acted
from perdure.runtime.cli.verdicts import tell_run
from perdure.runtime.handle import RunHandle

T = TypeVar("T")


@click.command(short_help="Stop a run where it is, until it is resumed.")
@click.argument("run")
@db_option
@click.option("--because", default="paused on the command line", show_default=True, metavar="TEXT", help="Why.")
@who_option
@json_option
def pause(*, run: str, db: Path, because: str, who: str, as_json: bool) -> None:
    """Have RUN stop where it is: steps in flight end, no other one starts and nothing wakes it but its deadline.

    What comes meanwhile, signals and answers, is kept. `perdure resume RUN` lets it go on.
    """
    acted = _steer(db, run, lambda handle: handle.pause(because, who=who), "pause its runs")
    if as_json:
        print_json({"run": run, "paused": True, "changed": acted.answer})
    elif acted.answer:
        print_line(f"run {run} is paused by {who}: {because}")
        print_line(f"let it go on with: perdure resume {run} --db {db}", error=True)
    else:
        print_line(f"run {run} was paused before: nothing is recorded")


def unpause(run: str, db: Path, *, who: str, as_json: bool) -> None:
    """Let a paused run go on, and say so; see `resume`.

    Raises:
        Failure: it has ended, or another process owns the log and cannot be asked.
    """
    acted = _steer(db, run, lambda handle: handle.resume(who=who), "resume its runs")
    if as_json:
        print_json({"run": run, "paused": False, "changed": acted.answer})
    elif acted.answer:
        print_line(f"run {run} is paused no more{acted.then('it goes on', db)}")
    else:
        print_line(f"run {run} is not paused: nothing is recorded{acted.then('it goes on', db)}")


@click.command(short_help="Try a failed or blocked run again.")
@click.argument("run")
@db_option
@who_option
@json_option
def retry(*, run: str, db: Path, who: str, as_json: bool) -> None:
    """Have RUN, which failed or is blocked, tried again: what it has finished holds, the failed step is made anew.

    A run that has gone on since its failure, with compensations for example, is refused: fork it.
    """
    acted = _steer(db, run, lambda handle: handle.retry(who=who), "retry its runs")
    if as_json:
        print_json({"run": run, "step": acted.answer})
        return
    where = "" if acted.answer is None else f" from {acted.answer}"
    print_line(f"run {run} is to be tried again{where}{acted.then('it goes on', db)}")


@click.command(short_help="Start a run that begins where another one was before a step.")
@click.argument("run")
@click.argument("step")
@db_option
@click.option("--input", "given", metavar="JSON|@FILE", help="Arguments that are other than RUN's; @- reads stdin.")
@click.option("--id", "fork_id", metavar="ID", help="The new run's id.")
@click.option(
    "--deadline",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long the new run may take.",
)
@who_option
@json_option
def fork(  # noqa: PLR0913 - its options
    *, run: str, step: str, db: Path, given: str | None, fork_id: str | None, seconds: float | None, who: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Start another run that takes over what RUN had finished before STEP, and makes STEP and what follows anew.

    `perdure show RUN` lists the steps; with branches, a step is named with its path, such as `map#1.4/price#1`.
    """
    changed = read_input(given, db)
    deadline = None if seconds is None else span_of(seconds, "--deadline")

    async def begin(handle: RunHandle[Any]) -> str:
        return (await handle.fork(step, changed=changed, id=fork_id, deadline=deadline, who=who)).id

    acted = _steer(db, run, begin, "fork its runs")
    if as_json:
        print_json({"run": acted.answer, "forked_from": run, "step": step})
        return
    print_line(acted.answer)
    print_line(f"forked from {run}, before {step}{acted.then('its code runs', db)}", error=True)


def _steer(db: Path, run: str, ask: Callable[[RunHandle[Any]], Awaitable[T]], what: str) -> Acted[T]:
    try:
        return tell_run(db, run, ask, what)
    except (ControlRefusedError, UnknownStepError) as error:
        raise Failure(str(error), Exit.RUN if isinstance(error, ControlRefusedError) else Exit.USAGE) from error
