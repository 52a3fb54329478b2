"""Commands that run application code: run and resume. They own the log while they work.

The invariant: whatever ends a command, the runs are in the log as they were acknowledged, and the last lines say how
to go on with them.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from msgspec import UNSET

from perdure.actors.workflows.children import CHILD
from perdure.actors.workflows.mailbox import ANSWER, SIGNAL
from perdure.actors.workflows.state import RunView
from perdure.actors.workflows.subscriptions import EVENT
from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import RUN_PREFIX, at_place, facts_of
from perdure.runtime.cli.hosting import check_log, host, log_to_stderr
from perdure.runtime.cli.loading import Application, load, read_json
from perdure.runtime.cli.options import db_option, json_option, login
from perdure.runtime.cli.output import aside, count, now_micros, print_json, print_line, print_result
from perdure.runtime.cli.progress import Progress
from perdure.runtime.cli.standing import Standing, read_run, read_runs
from perdure.runtime.cli.starting import Request, come_back, record, requested
from perdure.runtime.cli.steering import unpause
from perdure.runtime.cli.stopping import Stop, say_stopping
from perdure.runtime.cli.summary import print_summary, say_what_is_open
from perdure.runtime.cli.watching import REFRESH_SECONDS, Watcher, watching
from perdure.runtime.options import OptionValues
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamId

_SENT: Final[dict[str | None, tuple[str, str]]] = {
    SIGNAL: ("a signal", "perdure signal {run} NAME"), EVENT: ("an event", "perdure publish TYPE"),
}  # fmt: skip
"""What a run may wait for that anybody can send, and how."""


@click.command(short_help="Start a run and print its result.")
@click.argument("target", metavar="FILE.py:WORKFLOW")
@db_option
@click.option("--input", "given", metavar="JSON|@FILE", help="The arguments by name; @- reads stdin.")
@click.option("--id", "run_id", metavar="ID", help="The run's id: the same id again is the same run.")
@click.option(
    "--wait/--detach", "is_watched", default=True, help="Watch it to its end, or only record that it is to run."
)
@json_option
@click.pass_context
def run(
    ctx: click.Context, *, target: str, db: Path, given: str | None, run_id: str | None, is_watched: bool, as_json: bool
) -> None:
    """Start a run of WORKFLOW in FILE.py and print its result as JSON.

    WORKFLOW may be left out where the file has only one. The log is created when it is not there. The run's id comes
    first, on stderr; progress goes there, too. Ctrl-C stops in good order and says how to go on; twice stops at once.
    """
    request = requested(target, db, given, run_id, as_json=as_json)
    ctx.exit(asyncio.run(_run_watched(request)) if is_watched else record(request))


async def _run_watched(request: Request) -> Exit:
    with Stop() as stop, aside() as stdout:
        async with host(request.db, request.application) as rt:
            after = await _last_position(rt)
            with redirect_stdout(StringIO()) as printed:  # the run's code may be faster than the answer
                handle = await rt.start_run(request.workflow, request.data, OptionValues(id=request.run))
            if request.as_json:
                started = {"run": handle.id, "workflow": request.workflow.name, "status": "started"}
                print_json(started, stdout)
            else:
                print_line(f"run {handle.id}", "bold", error=True)
            sys.stdout.write(printed.getvalue())
            with watching(Progress(handle.id), request.workflow.name) as watcher:
                await _watch(stop, watcher, _follow_run(rt, watcher, handle.id, after))
            view = await rt.run(watcher.progress.run or handle.id).status()
            where = await _place(rt, view)
            is_over = view.is_closed or _needs_somebody(view)
            if not is_over:
                # Not progress.in_flight: what is shown may be a moment behind what has begun.
                waiting = watcher.progress.backing_off + watcher.progress.taking_turns
                say_stopping(max(0, len(view.in_flight) - waiting), rt.settings.drain.total_seconds())
    if not is_over and stop.code is not None:
        print_line(f"run {handle.id} is in the log; go on with: {request.how_to_go_on}", error=True)
        return stop.code
    return _tell(request, view, where)


async def _place(rt: Runtime, view: RunView) -> str:
    """Return in words the line of the application at which a run failed."""
    if view.status != "failed":
        return ""
    query = Query(stream=StreamId(RUN_PREFIX + view.run), types=("run-failed",), limit=1, newest_first=True)
    return "".join(at_place(facts_of(event)) for event in await rt.read(query))


def _needs_somebody(view: RunView) -> bool:
    return view.status == "blocked" or view.waits_on not in (None, CHILD)


async def _follow_run(rt: Runtime, watcher: Watcher, run: str, after: int) -> None:
    """Return when the run has ended, or when only somebody can move it."""
    progress = watcher.progress
    view = await rt.run(run).status()
    while view.continued_as is not None:
        run = progress.run = view.continued_as
        view = await rt.run(run).status()
    if view.is_closed:
        return
    progress.done = view.steps_done
    await _resume_family(rt, run)
    if any(left.id == run and left.waits_on not in (None, CHILD) for left in await rt.waiting()):
        return  # it did not come back: it is parked as poison, or waits for somebody again
    async for event in rt.tail(after):
        if progress.concerns(event):
            watcher.add(event)
            if event.type == "run-continued":
                run = progress.run = facts_of(event).run
            elif run in progress.ended or run in progress.attention:
                return


async def _resume_family(rt: Runtime, run: str) -> None:
    """Bring back a run, or what it goes on as, and the children that it waits for."""
    view = await rt.run(run).status()
    if view.continued_as is not None:
        await _resume_family(rt, view.continued_as)
    elif not view.is_closed:
        await rt.resume(run)
        for child in view.children:
            await _resume_family(rt, child)


def _code(view: RunView) -> Exit:
    if view.waits_on in (ANSWER, SIGNAL, EVENT) or (view.status == "paused" and not view.in_doubt):
        return Exit.WAITS
    return Exit.OK if view.status == "completed" else Exit.RUN


def _tell(request: Request, view: RunView, where: str) -> Exit:
    code = _code(view)
    if request.as_json:
        answer: dict[str, Any] = {"run": view.run, "workflow": view.workflow, "status": view.status}
        if view.status == "completed":
            answer["result"] = msgspec.Raw(view.result.encode())
        else:
            answer |= {"error_type": view.error_type, "error": view.error, "in_doubt": view.in_doubt}
            answer |= {"questions": view.questions} if view.questions else {}
        print_json(answer)
        return code
    match view.status:
        case "completed":
            print_result(view.result)
            return code
        case "failed":
            raise Failure(f"run {view.run} failed: {view.error_type}: {view.error}{where}", code)
        case "cancelled":
            raise Failure(f"run {view.run} was cancelled: {view.error}", code)
        case "blocked":
            raise Failure(f"run {view.run} is blocked ({view.error_type}): {view.error}", code)
        case "paused" if not view.in_doubt:
            said = " --answer JSON" if view.paused_at else ""
            how = f"perdure resume {view.run}{said} --db {request.db}; then {request.how_to_go_on}"
            raise Failure(f"run {view.run} is paused: {view.paused_at or view.paused}: {how}", code)
        case _ if view.questions and not view.in_doubt:
            how = f"perdure answer {view.questions[0]} JSON --db {request.db}; then {request.how_to_go_on}"
            raise Failure(f"run {view.run} waits for {count(len(view.questions), 'answer')}: {how}", code)
        case _ if view.waits_on in _SENT:
            what, command = _SENT[view.waits_on]
            how = f"{command.format(run=view.run)} JSON --db {request.db}; then {request.how_to_go_on}"
            raise Failure(f"run {view.run} waits for {what}: {how}", code)
        case _:
            keys = ", ".join(view.in_doubt)
            how = f"perdure settle {view.run} {keys} --db {request.db} --done JSON | --not-done | --failed TEXT"
            raise Failure(f"run {view.run} waits for a verdict on {keys}: {how}", code)


# resume


@click.command(short_help="Bring back open runs and wait for them, or let a paused run go on.")
@click.argument("what", metavar="FILE.py|RUN")
@db_option
@click.option("--answer", metavar="JSON", help="With RUN, which has paused itself: what it goes on with.")
@click.option("--at", default="", metavar="NAME", help="With RUN: where it has paused itself, of several places.")
@click.option("--who", default=None, metavar="NAME", help="With RUN: who lets it go on.  [default: (the login name)]")
@json_option
@click.pass_context
def resume(
    ctx: click.Context, *, what: str, db: Path, answer: str | None, at: str, who: str | None, as_json: bool
) -> None:
    """Bring back every open run whose code FILE.py has, and wait until none of them can go on by itself.

    Then say what ended, what still waits, and for what. Ctrl-C as in `run`. With the id of a run in place of a file:
    let that run go on, which was paused or has paused itself; its code is run by the log's owner, or by
    `perdure resume FILE.py`.
    """
    file = Path(what)
    if file.suffix != ".py" and not file.is_file():
        said = UNSET if answer is None else read_json(answer, "--answer")
        unpause(what, db, answer=said, at=at, who=who or login(), as_json=as_json)
        return
    given = {"--who NAME": who, "--answer JSON": answer, "--at NAME": at or None}
    for option in (each for each, value in given.items() if value is not None):
        raise Failure(f"{option.partition(' ')[0]} is of runs: perdure resume RUN {option}", Exit.USAGE)
    check_log(db)
    log_to_stderr()
    with aside():
        application = load(file)
    with LogReader.open(db) as reader:
        opened = list(read_runs(reader, only_open=True, now=now_micros()))
    if not opened:
        if not as_json:
            print_line(f"nothing is open in {db}", error=True)
        return
    if not as_json:
        say_what_is_open(opened, application)
    stopped, reasons = asyncio.run(_resume(db, application))
    if stopped is not None:
        print_line(f"what is open is in the log; go on with: {come_back(file, db)}", error=True)
    with LogReader.open(db) as reader:
        after = [_again(reader, one) for one in opened]
    code = print_summary(after, application, db, reasons, as_json=as_json)
    ctx.exit(code if stopped is None else stopped)


def _again(reader: LogReader, before: Standing) -> Standing:
    stream = reader.stream(StreamId(RUN_PREFIX + before.run))
    return before if stream is None else read_run(reader, stream, now=now_micros())


async def _resume(db: Path, application: Application) -> tuple[Exit | None, dict[str, str]]:
    """Return the exit code when a stop was asked for, and why which runs could not be brought back."""
    with Stop() as stop, aside():
        async with host(db, application) as rt:
            after = await _last_position(rt)
            with watching(Progress(), str(application.path)) as watcher:
                await _watch(stop, watcher, _follow_all(rt, watcher, after))
            if stop.code is not None:
                say_stopping(watcher.progress.in_flight, rt.settings.drain.total_seconds())
            reasons = {each.id: each.could_not for each in await rt.waiting() if each.could_not is not None}
    return stop.code, reasons


async def _follow_all(rt: Runtime, watcher: Watcher, after: int) -> None:
    """Return when no run can go on by itself."""
    seen = after

    async def follow() -> None:
        nonlocal seen
        async for event in rt.tail(after):
            watcher.add(event)
            seen = event.position

    following = asyncio.create_task(follow())
    try:
        await rt.resume()
        await rt.until_idle()
    finally:
        following.cancel()
        await asyncio.wait([following])
    while page := await rt.read(Query(after=seen)):  # what the tail had not come to
        for event in page:
            watcher.add(event)
        seen = page[-1].position


# Both


async def _last_position(rt: Runtime) -> int:
    newest = await rt.read(Query(limit=1, newest_first=True))
    return newest[0].position if newest else 0


async def _watch(stop: Stop, watcher: Watcher, following: Coroutine[Any, Any, None]) -> None:
    """Wait until *following* ends or a stop is asked for, and keep the display fresh meanwhile.

    Raises:
        Whatever *following* raises.
    """
    followed = asyncio.create_task(following)
    asked = asyncio.create_task(stop.asked())
    refresh = asyncio.create_task(_refresh(watcher.refresh))
    try:
        await asyncio.wait((followed, asked), return_when=asyncio.FIRST_COMPLETED)
        if followed.done():
            followed.result()
    finally:
        for task in (followed, asked, refresh):
            task.cancel()
        await asyncio.wait((followed, asked, refresh))


async def _refresh(show: Callable[[], None]) -> None:
    while True:
        show()
        await asyncio.sleep(REFRESH_SECONDS)
