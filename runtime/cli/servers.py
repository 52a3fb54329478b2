"""Commands that serve others over HTTP: tool-server, executor-server, sandbox-server.

The invariant: a token is read from the environment or from a file, never from the command line, where every user of
the machine could see it; it is gone from the environment before any other code runs.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.tools.registry import Registry
from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.hosting import log_to_stderr
from perdure.runtime.cli.loading import load
from perdure.runtime.cli.options import LogFile, db_option, json_option
from perdure.runtime.cli.output import aside, print_json
from perdure.runtime.cli.stopping import Stop
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.local import Bubblewrap, PlainProcess
from perdure.runtime.sandbox.remote import RemoteBackend
from perdure.runtime.serving.access import Access, first_token
from perdure.runtime.serving.extra import serve_extra

if TYPE_CHECKING:
    from starlette.types import ASGIApp

F = TypeVar("F", bound=Callable[..., Any])

Opened = AbstractAsyncContextManager["ASGIApp"]

_MAX_TOKEN_BYTES: Final = 100_000


class Listening(msgspec.Struct, frozen=True):
    """Where a server listens, and whom it lets in."""

    what: str
    host: str
    port: int
    access: Access
    as_json: bool


def _listening_options(port: int) -> Callable[[F], F]:
    """Add `--host`, `--port`, `--token-file` and `--json`."""

    def add(function: F) -> F:
        host = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
        number = click.option(
            "--port", default=port, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free."
        )
        token = click.option(
            "--token-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with the bearer token."
        )
        return host(number(token(json_option(function))))

    return add


@click.command("tool-server", short_help="Serve the tools of a file to executors elsewhere.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", show_envvar=True, metavar="FILE", help="The log.")
@_listening_options(9002)
@click.option(
    "--max-concurrency", type=click.IntRange(min=1), metavar="N",
    help="Calls at the same time; TOOL_SERVER_MAX_CONCURRENCY, or 16.",
)  # fmt: skip
def tool_server(
    *, file: Path, db: Path | None, host: str, port: int, token_file: Path | None, as_json: bool,
    max_concurrency: int | None,
) -> None:  # fmt: skip
    """Serve the tools in FILE.py over HTTP until SIGTERM or Ctrl-C.

    With --db the calls go through a runtime on that log: circuits and limits apply, and every call is recorded. The
    token is the value of TOOL_SERVER_TOKEN, or in a file; without one, only this machine is served.
    """
    token = _token("TOOL_SERVER_TOKEN", token_file)
    with serve_extra("perdure tool-server"):
        from perdure.runtime.serving import tool_server as serving  # noqa: PLC0415 - an extra

    settings = serving.ToolServerConfig.from_environment()
    access = Access.by_token(token).bound_to(host)
    settings = msgspec.structs.replace(
        settings, access=access, max_concurrency=max_concurrency or settings.max_concurrency
    )
    tools = _tools_of(file)
    if not tools:
        raise Failure(f"{file} has no tool: decorate a function with @tool", Exit.USAGE)

    @asynccontextmanager
    async def opened() -> "AsyncGenerator[ASGIApp]":
        if db is None:
            yield serving.tool_server(Registry(tools), config=settings)
            return
        async with Runtime(db, tools=tools, resume=False) as rt:
            yield serving.tool_server(runtime=rt, config=settings)

    asyncio.run(_serve(opened(), Listening("tool-server", host, port, access, as_json)))


@click.command("executor-server", short_help="Serve slots and tools to trajectories elsewhere.")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE.py]")
@db_option
@_listening_options(9001)
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the slots are.")
@click.option("--sandbox-url", metavar="URL", help="The sandbox server that has the slots, in place of --data-dir.")
@click.option("--allow-unsandboxed", is_flag=True, help="Run commands as plain processes, isolated by nothing.")
def executor_server(  # noqa: PLR0913 - its options
    *, file: Path | None, db: Path, host: str, port: int, token_file: Path | None, as_json: bool,
    data_dir: Path | None, sandbox_url: str | None, allow_unsandboxed: bool,
) -> None:  # fmt: skip
    """Serve the calls of trajectories over HTTP until SIGTERM or Ctrl-C; everything that they do is in the log.

    Tools in FILE.py are there, too; those that are external are called on TOOL_EXECUTOR_TOOL_SERVER_URL. The token is
    the value of TOOL_EXECUTOR_TOKEN, or in a file. The other settings are variables with that prefix.
    """
    token = _token("TOOL_EXECUTOR_TOKEN", token_file)
    with serve_extra("perdure executor-server"):
        from perdure.runtime.serving import executor_server as serving  # noqa: PLC0415 - an extra

    said = serving.ExecutorServerConfig.from_environment()
    os.environ.pop("TOOL_EXECUTOR_TOOL_SERVER_TOKEN", None)
    access = Access.by_token(token).bound_to(host)
    tools = [] if file is None else _tools_of(file)
    config = ExecutorConfig(
        max_slots=said.slots,
        acquire_timeout_seconds=said.acquire_timeout_s,
        batch_window_ms=said.batch_window_ms,
        max_batch_size=said.max_batch_size,
        allow_network=said.allow_network,
        tool_server_url=said.tool_server_url,
        tool_server_token=said.tool_server_token,
    )
    if sandbox_url is None:
        backend = _local(data_dir, said.slots, is_unsandboxed=allow_unsandboxed)
    elif data_dir is None and not allow_unsandboxed:
        backend = RemoteBackend(sandbox_url, token=_token("SANDBOX_SERVER_TOKEN", None))
    else:
        raise Failure("--sandbox-url has the slots: leave out --data-dir and --allow-unsandboxed", Exit.USAGE)

    @asynccontextmanager
    async def opened() -> "AsyncGenerator[ASGIApp]":
        async with Runtime(db, tools=tools, resume=False, sandbox=backend, executor=config) as rt:
            await rt.executor.resume()  # runs wait for their code, calls do not
            yield serving.executor_server(rt.executor, access=access)

    asyncio.run(_serve(opened(), Listening("executor-server", host, port, access, as_json)))


@click.command("sandbox-server", short_help="Serve slots to executors elsewhere.")
@_listening_options(8080)
@click.option("--slots", default=10, show_default=True, type=click.IntRange(min=1), metavar="N", help="How many.")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where they are.")
@click.option("--allow-unsandboxed", is_flag=True, help="Run commands as plain processes, isolated by nothing.")
def sandbox_server(
    *, host: str, port: int, token_file: Path | None, as_json: bool, slots: int, data_dir: Path | None,
    allow_unsandboxed: bool,
) -> None:  # fmt: skip
    """Serve slots over HTTP until SIGTERM or Ctrl-C; what runs then is ended, files and terminals stay.

    The token is the value of SANDBOX_SERVER_TOKEN, or in a file; without one, only this machine is served.
    """
    token = _token("SANDBOX_SERVER_TOKEN", token_file)
    with serve_extra("perdure sandbox-server"):
        from perdure.runtime.serving import sandbox_server as serving  # noqa: PLC0415 - an extra

    access = Access.by_token(token).bound_to(host)
    backend = _local(data_dir, slots, is_unsandboxed=allow_unsandboxed)
    has_bwrap = not allow_unsandboxed and shutil.which("bwrap") is not None
    log_to_stderr()

    @asynccontextmanager
    async def opened() -> "AsyncGenerator[ASGIApp]":
        await backend.start()  # here and not only in the application: what is missing is then one line
        yield serving.sandbox_server(backend, slots=slots, access=access, bwrap_available=has_bwrap)

    asyncio.run(_serve(opened(), Listening("sandbox-server", host, port, access, as_json)))


async def _serve(opened: Opened, at: Listening) -> None:
    """Serve what is *opened* until a stop is asked for."""
    from perdure.runtime.serving.listening import bind, serving  # noqa: PLC0415 - an extra, asked for already

    with Stop() as stop, aside() as stdout:
        bound = bind(at.host, at.port)
        try:
            async with opened as app, serving(app, bound) as url:
                if at.as_json:
                    print_json({"server": at.what, "url": url, "pid": os.getpid()}, stdout)
                else:
                    click.echo(f"{at.what} listens on {url}", file=stdout)
                await stop.asked()
        finally:
            bound.close()


def _token(variable: str, file: Path | None) -> str | None:
    """Return the token in a file, or in the environment, from which it is taken away.

    Raises:
        Failure: the file cannot be read, or has no token.
    """
    said = os.environ.pop(variable, None)
    if file is None:
        return first_token([said])
    token = first_token([read_token_file(file)])
    if token is None:
        raise Failure(f"{file} has no token", Exit.USAGE)
    return token


def read_token_file(file: Path) -> str:
    """Return the text of a file with tokens. No log is open yet.

    Raises:
        Failure: it cannot be read.
    """
    try:
        if file.stat().st_size > _MAX_TOKEN_BYTES:
            raise Failure(f"{file} is not a file with a token: it is too large", Exit.USAGE)
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", Exit.USAGE) from None


def _tools_of(file: Path) -> list[Tool[..., Any]]:
    log_to_stderr()
    with aside():
        return load(file).tools


def _local(data_dir: Path | None, slots: int, *, is_unsandboxed: bool) -> Backend:
    if data_dir is None:
        raise Failure("say where the slots are: --data-dir FOLDER", Exit.USAGE)
    if is_unsandboxed:
        return PlainProcess(data_dir, allow_unsandboxed=True, max_slots=slots)
    return Bubblewrap(data_dir, max_slots=slots)
