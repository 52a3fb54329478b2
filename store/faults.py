"""What an error of SQLite means to whoever uses the log; the one place that translates them.

The texts say what to do, because they end up on an operator's screen.
"""

import sqlite3
from pathlib import Path
from typing import Final

from perdure.store.errors import CorruptLogError, LogUnavailableError, LogWriteError, NotALogError, StoreError

FOREIGN_WRITER: Final = "foreign writer"
_PRIMARY: Final = 0xFF
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk (or a quota) is full; free some space and reopen the log",
    sqlite3.SQLITE_IOERR: "the disk reported an I/O error; check the device, then reopen the log",
    sqlite3.SQLITE_READONLY: "the file or its folder may not be written; check owner, permissions and mount",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; run `perdure verify`, restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database, or its first page is damaged",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that its folder exists and may be written",
    sqlite3.SQLITE_BUSY: "another connection kept it locked for 5 s; find it with `fuser` and stop it",
    sqlite3.SQLITE_LOCKED: "another connection of this process kept it locked",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_PERM: "the file may not be accessed; check owner and permissions",
    sqlite3.SQLITE_AUTH: "the statement may do more than read; only SELECT is allowed here",
}


def write_error(error: sqlite3.Error) -> LogWriteError:
    """Return what a failed write means: the log takes no more."""
    if FOREIGN_WRITER in str(error):
        return LogWriteError(
            detail="a foreign writer changed the file: another connection wrote or checkpointed beside its owner, "
            "which SQLite allows and this log does not; find it with `fuser`, then run `perdure verify`"
        )
    return LogWriteError(detail=describe(error))


def read_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return what a failed read means; the log itself goes on."""
    match _primary(error):
        case sqlite3.SQLITE_CORRUPT:
            return CorruptLogError(path=str(path), position=None, detail=describe(error))
        case sqlite3.SQLITE_NOTADB:
            return NotALogError(path=str(path), detail=describe(error))
        case _:
            return LogUnavailableError(path=str(path), detail=describe(error))


def _primary(error: sqlite3.Error) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def is_callers(error: sqlite3.Error) -> bool:
    """Return whether *error* is about the statement and not about the file."""
    return isinstance(error, sqlite3.ProgrammingError) or _primary(error) in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_AUTH}


def describe(error: sqlite3.Error) -> str:
    """Return what happened and what to do about it, in one sentence."""
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    advice = _ADVICE.get(_primary(error) or -1)
    return f"{error} ({name})" if advice is None else f"{advice} [{error}, {name}]"
