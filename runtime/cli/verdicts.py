"""Commands with which a person moves a run: settle and cancel, and what those share that tell a run something.

They need no application code. Where the log has a running owner it is asked; where nobody owns it, both only record,
and a run's code takes notice when it is resumed.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import click

from perdure.actors.workflows.errors import QuestionNotOpenError, RunClosedError, SignalRefusedError
from perdure.actors.workflows.state import NotInDoubtError
from perdure.runtime.cli.doubts import CallVerdict, settle_call
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import RUN_PREFIX
from perdure.runtime.cli.finding import find_run
from perdure.runtime.cli.loading import read_json
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import print_json, print_line
from perdure.runtime.cli.owner import Acted, act
from perdure.runtime.handle import RunHandle
from perdure.store.reader import LogReader

T = TypeVar("T")

_SETTLE: Final = "settle its steps"


@click.command(short_help="Say what became of a step, or of a call in a slot, that is in doubt.")
@click.argument("what", metavar="RUN STEP | UNIQ_ID", nargs=-1, required=True)
@db_option
@click.option("--trajectory", metavar="ID", help="Of a call in a slot, by its UNIQ_ID.")
@click.option(
    "--done",
    is_flag=False,
    flag_value="",
    metavar="[JSON]",
    help="It happened, and this was its result, null when left out; of a call: its output, as text.",
)
@click.option("--not-done", "is_not_done", is_flag=True, help="It did not happen: it is made again. For steps only.")
@click.option("--failed", metavar="TEXT", help="It failed: the workflow, or whoever asks for the call, is told so.")
@click.option("--because", metavar="TEXT", help="Of a call: how you know; it stands in the log.")
@who_option
@json_option
def settle(  # noqa: PLR0913 - its options
    *, what: tuple[str, ...], db: Path, trajectory: str | None, done: str | None, is_not_done: bool,
    failed: str | None, because: str | None, who: str, as_json: bool,
) -> None:  # fmt: skip
    """Say what became of STEP of RUN, or of the call UNIQ_ID of a trajectory, which is in doubt.

    `perdure ps --attention` lists what is in doubt. A call is settled with --trajectory ID and --because TEXT; it is
    not made again by itself, so one that did not happen is --failed, and its caller asks again with another id.
    """
    if (done is not None) + is_not_done + (failed is not None) != 1:
        raise Failure("say one of --done JSON, --not-done and --failed TEXT", Exit.USAGE)
    if trajectory is not None:
        if len(what) != 1:
            raise Failure("with --trajectory ID, name one call: its UNIQ_ID", Exit.USAGE)
        if is_not_done:
            text = "a call of a trajectory is not made again by itself: say --failed TEXT, and call with another id"
            raise Failure(text, Exit.USAGE)
        verdict = CallVerdict(trajectory, what[0], done, failed, because or "", who)
        settle_call(verdict, db, as_json=as_json)
        return
    if because is not None:
        raise Failure("--because is of calls: with --trajectory ID", Exit.USAGE)
    if len(what) != 2:  # noqa: PLR2004 - RUN STEP
        raise Failure("name a RUN and a STEP, or --trajectory ID and a UNIQ_ID", Exit.USAGE)
    run, step = what
    _settle_step(run, step, db, done=done, failed=failed, who=who, as_json=as_json)


def _settle_step(
    run: str, step: str, db: Path, *, done: str | None, failed: str | None, who: str, as_json: bool
) -> None:
    if done is not None:
        result, verdict = read_json(done or "null", "--done"), "done"
        acted = tell_run(db, run, lambda handle: handle.settle_done(step, result, who=who), _SETTLE)
    elif failed is not None:
        verdict = "failed"
        acted = tell_run(db, run, lambda handle: handle.settle_failed(step, failed, who=who), _SETTLE)
    else:
        verdict = "not-done"
        because = "the command line"
        acted = tell_run(db, run, lambda handle: handle.settle_not_done(step, because=because, who=who), _SETTLE)
    if as_json:
        print_json({"run": run, "step": step, "verdict": verdict})
    else:
        print_line(f"{step} of {run} is settled as {verdict}{acted.then('go on', db)}")


@click.command(short_help="Ask for a run to be cancelled.")
@click.argument("run")
@db_option
@click.option("--reason", default="cancelled on the command line", show_default=True, metavar="TEXT")
@who_option
@json_option
def cancel(*, run: str, db: Path, reason: str, who: str, as_json: bool) -> None:
    """Ask for RUN to be cancelled.

    The request is recorded; the run's own code takes itself down, `finally` blocks and all: at once where a runtime
    owns the log, otherwise when it is resumed.
    """
    acted = tell_run(db, run, lambda handle: handle.cancel(reason, who=who), "cancel its runs")
    if not acted.answer:
        raise Failure(f"run {run} has ended: there is nothing to cancel", Exit.RUN)
    if as_json:
        print_json({"run": run, "cancel_requested": True})
    else:
        print_line(f"run {run} is to be cancelled{acted.then('its code takes itself down', db)}")


def record_in(db: Path, run: str, ask: Callable[[RunHandle[object]], Awaitable[object]], what: str) -> object:
    """Return what the run answers; see `tell_run`."""
    return tell_run(db, run, ask, what).answer


def tell_run(db: Path, run: str, ask: Callable[[RunHandle[object]], Awaitable[T]], what: str) -> Acted[T]:
    """Return what the run answers, told through the log's owner where there is one.

    Raises:
        Failure: another process owns the log and cannot be asked, or the run cannot be told that.
        UnknownRunError, LogNotFoundError, NotALogError: there is nothing to ask.
    """
    with LogReader.open(db) as reader:
        name = find_run(reader, run).stream[len(RUN_PREFIX) :]

    try:
        return act(db, lambda rt: ask(rt.run(name)), what)
    except (NotInDoubtError, RunClosedError, QuestionNotOpenError, SignalRefusedError) as error:
        raise Failure(str(error), Exit.RUN) from error
