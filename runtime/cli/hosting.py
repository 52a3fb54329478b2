"""The runtime inside the command line: one that runs an application's code, and one that only records.

The invariant: neither creates a log by accident; only `run` may begin one.
"""

import sys
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from perdure.actors.workflows.queue import Queue
from perdure.runtime.app import Runtime
from perdure.runtime.cli.loading import Application
from perdure.runtime.settings import Settings
from perdure.store.reader import LogReader
from perdure.store.wording import printable

_QUIET: Final = frozenset({"perdure.recovery"})
"""Loggers whose warnings the commands say better themselves."""


class _StderrLogger:
    """Writes lines to whatever stderr is at that moment: a live display may stand in for it."""

    def __init__(self, name: str = "", *_: Any) -> None:
        self._is_quiet = name in _QUIET

    def msg(self, message: str) -> None:
        """Write one line."""
        if not self._is_quiet:
            sys.stderr.write(f"{message}\n")

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


def _printable(_: object, __: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make what came from outside harmless to a terminal."""
    for name, value in said.items():
        if isinstance(value, str):
            said[name] = "\n".join(map(printable, value.split("\n")))
    return said


def log_to_stderr() -> None:
    """Send structlog's lines to stderr, since stdout is for results; an application's own configuration goes first."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
                structlog.processors.format_exc_info,  # the renderer's own way shows the variables of every frame
                _printable,
                structlog.dev.ConsoleRenderer(
                    colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
                ),
            ],
            logger_factory=_StderrLogger,
        )


def check_log(db: Path) -> None:
    """See to it that there is a log at *db*.

    Raises:
        LogNotFoundError, NotALogError, SchemaTooNewError, CorruptLogError, LogUnavailableError: there is none to use.
    """
    LogReader.open(db).close()


@asynccontextmanager
async def host(db: Path, application: Application) -> AsyncGenerator[Runtime]:
    """Open the log with an application's code; nothing is resumed before it is asked for."""
    async with Runtime(db, resume=False, **_with_entry_queues(application)) as rt:
        yield rt


def unopened(db: Path, application: Application) -> Runtime:
    """Return a runtime with an application's code that nobody has opened."""
    return Runtime(db, **_with_entry_queues(application))


def _with_entry_queues(application: Application) -> dict[str, Any]:
    """Return what a runtime is to have that goes on with runs of entry points, and lets nothing trigger new ones."""
    queues = [Queue(each.queue, each.max_concurrent) for each in application.entry_points]
    return application.parts | {"queues": [*application.queues, *queues]}


@asynccontextmanager
async def recorder(db: Path, application: Application | None = None) -> AsyncGenerator[Runtime]:
    """Open the log to record what is asked for; no code of any run is run, now or while it is open."""
    parts = {} if application is None else application.parts
    settings = Settings(max_active_runs=0, socket=False)  # gone again before anybody could ask it
    async with Runtime(db, resume=False, settings=settings, **parts) as rt:
        yield rt
