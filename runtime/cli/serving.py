"""The command that serves an application: serve. It runs what starts by itself, and answers over HTTP.

Invariants: the server listens before the log is opened and until it is closed, so that who asks is always told whether
it is ready; whatever ends it, what was acknowledged is in the log; no token is on the command line or in the output.
"""

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click
import msgspec
import structlog
from rich.live import Live

from perdure.runtime.app import Runtime
from perdure.runtime.cli.board import Board
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.hosting import log_to_stderr
from perdure.runtime.cli.json_lines import log_as_json
from perdure.runtime.cli.loading import Application, load
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import aside, console, is_terminal, now_micros, print_json
from perdure.runtime.cli.servers import read_token_file
from perdure.runtime.cli.stopping import Stop
from perdure.runtime.serving.access import is_loopback
from perdure.runtime.serving.extra import serve_extra
from perdure.store.errors import UsageError
from perdure.store.location import to_write
from perdure.store.records import Query

if TYPE_CHECKING:
    import socket

    from perdure.runtime.web.api.application import HttpApi
    from perdure.runtime.web.api.roles import Tokens

REFRESH_SECONDS: Final = 0.5

_log = structlog.get_logger("perdure.serve")


class Served(msgspec.Struct, frozen=True, eq=False):
    """What is to be served, and how it is told of."""

    application: Application
    rt: Runtime
    api: "HttpApi"
    url: str
    stop: Stop
    stdout: TextIO
    as_json: bool
    is_open: asyncio.Event

    @property
    def has_screen(self) -> bool:
        """Whether somebody looks on."""
        return not self.as_json and is_terminal(sys.stderr)


@click.command(short_help="Serve an application: entry points, schedules, webhooks and the HTTP API.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@db_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Who is let in: lines ROLE:TOKEN or ROLE:NAME:TOKEN; PERDURE_TOKENS holds the same.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A name that requests may be for beside this machine's own, as behind a proxy; may be repeated.",
)
@json_option
def serve(
    *, file: Path, db: Path, host: str, port: int, token_file: Path | None, names: tuple[str, ...], as_json: bool
) -> Exit:  # fmt: skip
    """Open the log with the code of FILE.py and serve it until SIGTERM or Ctrl-C, which ends it in good order.

    Open runs go on; entry points, schedules and subscriptions work; the HTTP API and the webhooks of FILE.py are on one
    port. Without tokens only this machine is served, and everybody on it may operate. On a terminal a screen shows what
    goes on; elsewhere, and with --json, logs are JSON on stderr. A second signal ends the process at once.
    """
    with serve_extra("perdure serve"):
        importlib.import_module("perdure.runtime.serving.listening")  # what is missing is said before all else
        from perdure.runtime.web.api.roles import Tokens  # noqa: PLC0415 - needs it, too

    in_environment = Tokens.from_environment()  # taken away before any code of the file runs
    tokens = in_environment
    if token_file is not None:
        tokens = Tokens.of(read_token_file(token_file).splitlines())
        if not tokens.known:
            raise Failure(f"{token_file} has no token: a line is ROLE:TOKEN or ROLE:NAME:TOKEN", Exit.USAGE)
    _check_reach(host, tokens)
    is_watched = not as_json and is_terminal(sys.stderr)
    (log_to_stderr if is_watched else log_as_json)()
    with aside():
        application = load(file)
    return asyncio.run(_serve(application, db, (host, port), tokens, names, as_json=as_json))


def _check_reach(host: str, tokens: "Tokens") -> None:
    if not tokens.known and not is_loopback(host):
        raise Failure(f"{host} can be reached from other machines: give it tokens, --token-file FILE", Exit.USAGE)


async def _serve(
    application: Application, db: Path, at: tuple[str, int], tokens: "Tokens", names: tuple[str, ...], *, as_json: bool
) -> Exit:
    from perdure.runtime.serving.listening import bind, serving  # noqa: PLC0415 - an extra, asked for already
    from perdure.runtime.web.api.application import LOOPBACK  # noqa: PLC0415 - the same

    is_local = is_loopback(at[0])
    hosts = {*LOOPBACK, at[0], *names} if is_local or names else None
    with Stop() as stop, aside() as stdout:
        rt = application.served(db)
        if not is_local and (unsigned := [route.path for route in rt.webhooks.routes if route.secret is None]):
            text = f"{at[0]} can be reached from other machines, and webhook {unsigned[0]} is not signed"
            raise UsageError(f"{text}: give it a secret, or listen on 127.0.0.1")
        to_write(rt.path)  # what can be no log is said before anybody is let in
        if missing := missing_in(application, rt):
            _log.warning(missing)
        api = rt.http_api(tokens, hosts=hosts, webhooks=rt.settings.webhook_port is None)
        api.logs_requests = True
        bound: socket.socket = bind(*at)
        async with serving(api, bound) as url:
            served = Served(application, rt, api, url, stop, stdout, as_json, asyncio.Event())
            return await _run(served)


def missing_in(application: Application, rt: Runtime) -> str | None:
    """Return what to say of a file with nothing to serve; None where there is something."""
    if rt.workflows or rt.tools or rt.webhooks.routes:
        return None
    how = "@workflow, @tool, EntryPoint(…) as values of its variables, or def runtime(db) -> Runtime"
    return f"{application.path} has nothing to serve: no workflow, no tool, no webhook. Write {how}"


async def _run(served: Served) -> Exit:
    rt, api = served.rt, served.api
    board = Board(f"perdure serve {served.application.path}  {served.url}  {rt.path}", now_micros())
    _log.info("opening", file=str(served.application.path), log=str(rt.path), url=served.url, pid=os.getpid())
    stopping = asyncio.create_task(served.stop.asked())
    failing = asyncio.create_task(api.until_failed())
    try:
        async with _screen(served, board):
            async with rt:
                served.is_open.set()
                _say_ready(served)
                await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
                if not failing.done():
                    _log.info("draining", seconds=rt.settings.drain.total_seconds())
            if failing.done():
                raise Failure(
                    "the log takes no more writes: what was acknowledged is safe; see the lines above", Exit.FAILED
                )
    finally:
        for task in (stopping, failing):
            task.cancel()
        await asyncio.wait((stopping, failing))
    _log.info("closed")
    return Exit.OK


def _say_ready(served: Served) -> None:
    _log.info("ready", url=served.url)
    if served.has_screen:
        return
    if served.as_json:
        print_json({"server": "serve", "url": served.url, "pid": os.getpid()}, served.stdout)
    else:
        click.echo(f"serve listens on {served.url}", file=served.stdout)


@asynccontextmanager
async def _screen(served: Served, board: Board) -> AsyncGenerator[None]:
    """Show what goes on while the block runs, if somebody looks on."""
    if not served.has_screen:
        yield
        return
    with Live(console=console(sys.stderr), auto_refresh=False, transient=True) as live:
        tasks: tuple[asyncio.Task[Any], ...] = (
            asyncio.create_task(_follow(served, board)),
            asyncio.create_task(_refresh(served, board, live)),
        )
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _follow(served: Served, board: Board) -> None:
    await served.is_open.wait()
    newest = await served.rt.read(Query(limit=1, newest_first=True))
    async for event in served.rt.tail(newest[0].position if newest else 0):
        board.add(event)


async def _refresh(served: Served, board: Board, live: Live) -> None:
    while True:
        if served.rt.is_running:
            await board.read(served.rt, served.api, now_micros())
        live.update(board.draw(now_micros(), served.api.state), refresh=True)
        await asyncio.sleep(REFRESH_SECONDS)
