"""What can be known of a log without opening it for writing: for `perdure doctor`."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from perdure.store import lock
from perdure.store.errors import StoreError
from perdure.store.queries import queries
from perdure.store.reader import connect
from perdure.store.sizes import size_of
from perdure.store.sqlite import NEEDED_SQLITE

WAL_RESET_FIXED: Final = (3, 51, 3)
WAL_RESET_BACKPORTS: Final = ((3, 44, 6), (3, 50, 7))
WAL_RESET_FROM: Final = (3, 7, 0)


class DoctorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts, no judgement; sizes in bytes, times in microseconds since 1970 UTC."""

    path: str
    exists: bool
    sqlite_version: str
    is_sqlite_supported: bool
    has_wal_reset_bug: bool
    """Two connections that write or checkpoint at once can damage a file; Perdure keeps to one, others must as well."""
    is_owned: bool
    owner: str | None
    is_lock_stale: bool
    """The last owner ended without closing the log; the next one needs no help."""
    database_bytes: int
    wal_bytes: int
    free_bytes: int
    """Left on the disk for the log, for a user who is not root."""
    events: int = 0
    last_at: int | None = None
    streams: int = 0
    open_streams: int = 0
    sleeping_streams: int = 0
    blob_bytes: int = 0
    problem: str | None = None
    """Why the file could not be read."""


def doctor_facts(path: str | Path) -> DoctorFacts:
    """Return what is known of the log at *path*; never raises for what is wrong with it."""
    resolved = Path(os.path.realpath(path))
    state = lock.look(resolved)
    facts = DoctorFacts(
        path=str(resolved),
        exists=resolved.is_file(),
        sqlite_version=sqlite3.sqlite_version,
        is_sqlite_supported=sqlite3.sqlite_version_info >= NEEDED_SQLITE,
        has_wal_reset_bug=has_wal_reset_bug(sqlite3.sqlite_version_info),
        is_owned=state.is_held,
        owner=None if state.owner is None else str(state.owner),
        is_lock_stale=state.owner is not None and not state.is_held,
        database_bytes=size_of(resolved),
        wal_bytes=size_of(resolved.with_name(resolved.name + "-wal")),
        free_bytes=_free(resolved.parent),
    )
    try:
        with closing(connect(resolved)) as connection:
            events, last_at, streams, opened, sleeping, blobs = connection.execute(queries()["counts"]).fetchone()
    except (StoreError, sqlite3.Error) as error:
        return msgspec.structs.replace(facts, problem=str(error))
    return msgspec.structs.replace(
        facts,
        events=events,
        last_at=last_at,
        streams=streams,
        open_streams=opened,
        sleeping_streams=sleeping,
        blob_bytes=blobs,
    )


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0  # there is no such folder, which is told as the problem that it is


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Return whether SQLite *version* has the WAL-reset bug (3.7.0 to 3.51.2, see sqlite.org/wal.html)."""
    is_repaired = any(version[:2] == fixed[:2] and version >= fixed for fixed in WAL_RESET_BACKPORTS)
    return WAL_RESET_FROM <= version < WAL_RESET_FIXED and not is_repaired
