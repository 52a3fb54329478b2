"""The machine of a log's slots, and a runtime on both that does only what it is told.

While it is open it owns the log, and brings slots to a known state as any start of the application does: what is left
of commands of a former life is ended, and calls get their outcome or are in doubt. Invariant: it runs no call again and
no code of any run, makes no slots and deletes none.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.hosting import log_to_stderr
from perdure.runtime.cli.slot_standing import SLOT_PREFIX, summaries
from perdure.runtime.sandbox import opening
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.settings import Settings
from perdure.store.errors import StoreLockedError
from perdure.store.reader import LogReader

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

TOKEN: Final = "SANDBOX_SERVER_TOKEN"  # noqa: S105 - the name of a variable
_NEVER_SECONDS: Final = 10 * 365 * 86_400.0
_MACHINE: Final = "SELECT data->>'$.machine' FROM log WHERE stream = ?1 AND type = 'slot-created'"


def machine_options(function: F) -> F:
    """Add `--machine` and `--allow-unsandboxed`."""
    machine = click.option(
        "--machine", metavar="ADDRESS",
        help=f"Where the slots are, if not where the log says: bubblewrap:/path, process:/path, or a URL ({TOKEN}).",
    )  # fmt: skip
    allowed = click.option("--allow-unsandboxed", is_flag=True, help="Also where slots are plain processes.")
    return machine(allowed(function))


def backend_of(reader: LogReader, machine: str | None, *, allow_unsandboxed: bool) -> Backend:
    """Return the machine that the slots of a log are on; nothing is started.

    Raises:
        Failure: the log does not say it, or there are several, or it may not be used.
        SandboxUnavailableError: it is not here.
    """
    address = machine or _address(_machines(reader), reader.path)
    if opening.kind_of(address) == opening.PROCESS and not allow_unsandboxed:
        text = f"the slots are plain processes ({address}), which nothing isolates: say --allow-unsandboxed"
        raise Failure(text, Exit.USAGE)
    try:
        return opening.open_backend(address, allow_unsandboxed=allow_unsandboxed, token=os.environ.get(TOKEN))
    except SandboxUnavailableError as error:
        raise Failure(f"{error}: run this where it is, or say --machine ADDRESS", Exit.FAILED) from error


def _machines(reader: LogReader) -> set[str]:
    open_slots = summaries(reader, SLOT_PREFIX, only_open=True)
    return {machine or "" for row in open_slots for (machine,) in list(reader.sql(_MACHINE, (row.stream,)).rows)}


def _address(found: set[str], path: Path) -> str:
    machines = sorted(found)
    match machines:
        case []:
            raise Failure(f"{path} has no slots", Exit.USAGE)
        case [""]:
            raise Failure("the log does not say where its slots are: --machine bubblewrap:/path", Exit.USAGE)
        case [one]:
            return one
        case _:
            several = ", ".join(one or "(not told)" for one in machines)
            raise Failure(f"the slots of this log were on several machines, say --machine: {several}", Exit.USAGE)


def on_slots(
    db: Path, backend: Backend, work: Callable[[Runtime], Awaitable[T]], *, else_ask: str, allow_network: bool = False
) -> T:
    """Return what *work* returns, done as the owner of the log.

    Raises:
        Failure: another process owns the log, and how to ask it; or the machine cannot be used.
    """
    log_to_stderr()

    async def perform() -> T:
        async with _operator(db, backend, allow_network=allow_network) as rt:
            return await work(rt)

    try:
        return asyncio.run(perform())
    except StoreLockedError as error:
        text = f"{error.path} is owned by {error.owner}, which alone may use its slots: ask it in its application"
        raise Failure(f"{text}, {else_ask}, or stop it", Exit.OWNED) from error
    except SandboxUnavailableError as error:
        how = "" if opening.kind_of(backend.address) == opening.BUBBLEWRAP else ". Start it, or say --machine ADDRESS"
        raise Failure(f"{error}{how}", Exit.FAILED) from error


@asynccontextmanager
async def _operator(db: Path, backend: Backend, *, allow_network: bool) -> AsyncGenerator[Runtime]:
    config = ExecutorConfig(
        allow_network=allow_network, idle_seconds=_NEVER_SECONDS, health_seconds=_NEVER_SECONDS, batch_window_ms=0
    )
    settings = Settings(max_active_runs=0, socket=False)
    async with Runtime(db, resume=False, settings=settings, sandbox=backend, executor=config) as rt:
        yield rt
