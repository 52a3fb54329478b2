"""Exit codes: what a script may conclude from how a command ended. Public and documented in docs/cli.md."""

from enum import IntEnum
from typing import Final

import click

from perdure.actors.slots.errors import ResetFailedError, SlotTransitionError, StaleLeaseError
from perdure.actors.workflows.errors import RunError, UnknownRunError, UnknownWorkflowError
from perdure.runtime.control.errors import OwnerUnreachableError
from perdure.store.errors import (
    LogNotFoundError,
    NotALogError,
    PayloadTooLargeError,
    PerdureError,
    StoreLockedError,
    UnencodableError,
    UsageError,
)


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    """The log is damaged or cannot be used, or something went wrong that has no code of its own."""
    USAGE = 2
    """What the command line asks for is not there or does not fit; nothing was done."""
    OWNED = 3
    """Another process owns the log."""
    RUN = 4
    """A run or a command failed, a run was cancelled or is blocked, or something needs a person."""
    WAITS = 5
    """Nothing failed, and open runs wait: for a time, or for code that the file does not have."""
    INTERRUPTED = 130
    """Ctrl-C: what was going on is in the log."""
    UNREAD = 141
    """The reader of stdout has left, as `head` does."""
    TERMINATED = 143
    """SIGTERM: the same."""


EXPLAINED: Final = {
    Exit.OK: "done",
    Exit.FAILED: "the log, or the machine of its slots, is damaged or cannot be used, or an unexpected error",
    Exit.USAGE: "usage: what was asked for is not there or does not fit",
    Exit.OWNED: "another process owns the log",
    Exit.RUN: "a run or a command in a slot failed, was cancelled, is blocked or needs a person",
    Exit.WAITS: "nothing failed, but open runs still wait",
    Exit.INTERRUPTED: "left with Ctrl-C (143: with SIGTERM); what was going on is in the log",
    Exit.UNREAD: "nobody reads stdout any more, as behind `| head`",
}
"""One line each, for `perdure --help`."""

_ASKED_WRONGLY = (
    UsageError, LogNotFoundError, NotALogError, UnknownRunError, UnknownWorkflowError, UnencodableError,
    PayloadTooLargeError,
)  # fmt: skip


class Failure(click.ClickException):
    """An end of a command that is no bug: one line for people, a code for scripts."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: PerdureError) -> Exit:
    """Return the exit code of a command that ended with *error*."""
    match error:
        case StoreLockedError() | OwnerUnreachableError():
            return Exit.OWNED
        case _ if isinstance(error, _ASKED_WRONGLY):
            return Exit.USAGE
        case RunError() | SlotTransitionError() | StaleLeaseError() | ResetFailedError():
            return Exit.RUN
        case _:
            return Exit.FAILED
