"""Connections to SQLite on threads of their own; the only module that knows aiosqlite.

One writer, which alone writes and checkpoints, and one reader. Every method is one call to the thread. The invariant:
the database, its -wal and its -shm are opened by SQLite only; POSIX locks fall with any close of the file in a process.
"""

import asyncio
import logging
import os
import sys
import weakref
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import aiosqlite

from perdure.store.flights import Flights

BUSY_SECONDS: Final = 5.0
CHECKPOINT_BYTES: Final = 4 * 2**20
"""A checkpoint of so much takes some 10 ms; the file keeps this size, because growing it costs an extra sync."""
_JOIN_SECONDS: Final = 5.0

Synchronous = Literal["full", "normal"]
Row = tuple[Any, ...]
_T = TypeVar("_T")

_SETTINGS: Final = f"""
PRAGMA mmap_size = 0;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -65536;
PRAGMA foreign_keys = OFF;
PRAGMA wal_autocheckpoint = 0;
PRAGMA journal_size_limit = {CHECKPOINT_BYTES};
"""


class Connection:
    """An SQLite connection on its own thread; statements run in the order of the calls, cancelled ones too."""

    def __init__(self, inner: aiosqlite.Connection) -> None:
        self._inner = inner
        self.flights = Flights()
        """The calls that the thread works on."""
        # Unclosed at the interpreter's exit: the thread is a daemon, so nothing hangs, and this ends it in good order.
        self._finalizer = weakref.finalize(self, _stop, inner, os.getpid())

    @classmethod
    async def open(cls, path: Path, mode: Literal["rwc", "ro"]) -> "Connection":
        """Open *path*; nothing is read or written yet.

        Raises:
            sqlite3.Error: SQLite refused.
        """
        _silence()
        inner = aiosqlite.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        # Its thread would keep the interpreter alive when nobody closes the log. As a daemon it dies with the process,
        # in the middle of a statement at worst, which SQLite survives as it survives a kill.
        thread = inner._thread  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - there is no other way (0.22)
        thread.daemon = True
        try:
            return cls(await inner)
        except BaseException:
            # aiosqlite has told the thread to stop and does not wait; it must not outlive the loop it reports to.
            thread.join(_JOIN_SECONDS)
            raise

    async def rows(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[Row]:
        """Run one statement and return all its rows."""
        return list(await self._ended(self._inner.execute_fetchall(sql, parameters)))  # type: ignore[arg-type]

    async def value(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Any:
        """Run one statement and return the first column of its first row."""
        return (await self.rows(sql, parameters))[0][0]

    async def script(self, sql: str) -> None:
        """Run several statements; the first error ends it."""
        await self._ended(self._inner.executescript(sql))

    async def roll_back(self) -> None:
        """End a transaction that a failed script left open."""
        await self._inner.rollback()

    async def _ended(self, call: Awaitable[_T]) -> _T:
        self.flights.took_off()
        try:
            return await call
        except asyncio.CancelledError:
            # The statement runs on. Wait for its end, behind it in the thread's queue: a loop that is about to close
            # must not be closed under the thread, which would die in it.
            await self._inner.execute_fetchall("SELECT 1")
            raise
        finally:
            self.flights.landed()

    async def close(self) -> None:
        """Run what was queued, then close. Idempotent."""
        if self._finalizer.detach() is not None:
            await self._inner.close()

    def abandon(self) -> None:
        """Close without waiting, as soon as the statement that runs has ended."""
        if self._finalizer.detach() is not None:
            _stop(self._inner, os.getpid())


async def make_writer(connection: Connection, synchronous: Synchronous) -> str:
    """Give *connection* the settings of the writer and return the journal mode, which must be `wal`.

    `full` waits for the disk at every commit. `normal` does not: after a power failure (not after a crash of the
    process) commits that were acknowledged may be missing, the log is whole all the same.
    """
    await connection.script(_SETTINGS)
    mode: str = await connection.value("PRAGMA journal_mode = WAL")
    await connection.script(f"PRAGMA synchronous = {synchronous}")
    if sys.platform == "darwin":
        # There, fsync does not flush the drive's cache.
        await connection.script("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON")
    return mode


async def make_reader(connection: Connection) -> None:
    """Give *connection* the settings of a reader."""
    await connection.script("PRAGMA query_only = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;")


async def checkpoint(connection: Connection) -> bool:
    """Copy the WAL into the database as far as readers allow, waiting for none; return whether all of it was."""
    [(busy, frames, done)] = await connection.rows("PRAGMA wal_checkpoint(PASSIVE)")
    return not busy and frames == done


async def truncate_wal(connection: Connection) -> None:
    """Copy the WAL into the database and empty it, unless a reader is in the way: it is not waited for."""
    await connection.script(
        f"PRAGMA busy_timeout = 0; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)};"
    )


def _stop(inner: aiosqlite.Connection, pid: int) -> None:
    if os.getpid() == pid:  # in a forked child the thread does not exist
        thread = inner._thread  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        inner.stop()  # pyright: ignore[reportUnknownMemberType]
        thread.join(_JOIN_SECONDS)


def _silence() -> None:
    # At DEBUG it writes whole batches into the application's log. An explicit choice of level is respected.
    logger = logging.getLogger("aiosqlite")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
