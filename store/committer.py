"""Where the journal of an SQLite log writes to: one statement per batch, and checkpoints between batches.

The invariant: this connection alone writes and checkpoints. Another one that did is noticed inside the next commit,
which then changes nothing.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from perdure.store.batch import Batch
from perdure.store.connection import CHECKPOINT_BYTES, Connection, checkpoint, truncate_wal
from perdure.store.errors import LogWriteError
from perdure.store.faults import write_error
from perdure.store.queries import queries
from perdure.store.sizes import size_of
from perdure.store.statement import encode

IDLE_SECONDS: Final = 2.0
"""After so long without a commit the WAL is emptied, so that a copy of a quiet log is one file."""


class SqliteCommitter:
    """Commits batches through the writer's connection."""

    def __init__(self, connection: Connection, path: Path, data_version: int) -> None:
        self.checkpoints = 0
        self.on_idle_error: Callable[[LogWriteError], None] | None = None
        self._connection = connection
        self._wal = path.with_name(path.name + "-wal")
        self._path = path
        self._data_version = data_version
        self._commit = queries()["commit"]
        self._threshold = CHECKPOINT_BYTES
        self._is_due = False
        self._idle: asyncio.TimerHandle | None = None
        self._is_cancelled = False
        self._emptying: asyncio.Task[None] | None = None

    async def commit(self, batch: Batch) -> None:
        """See `Committer.commit`; one call to SQLite, and one more when a checkpoint is due."""
        if self._idle is not None:
            self._idle.cancel()
        try:
            if self._is_due:
                await self._checkpoint()
            await self._connection.rows(self._commit, encode(batch, self._data_version))
        except sqlite3.Error as error:
            raise write_error(error) from error
        self._is_due = self.wal_bytes > self._threshold
        if not self._is_cancelled:  # a commit that was under way when the log was abandoned ends later
            self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._start_emptying)

    async def empty_wal(self) -> None:
        """Copy the WAL into the database and empty it.

        Raises:
            LogWriteError: the disk failed.
        """
        try:
            await truncate_wal(self._connection)
        except sqlite3.Error as error:
            raise write_error(error) from error
        self.checkpoints += 1
        self._is_due, self._threshold = False, CHECKPOINT_BYTES

    async def stop(self) -> None:
        """Stop the timer, and wait for what it may have started."""
        self.cancel()
        if self._emptying is not None:
            await asyncio.wait([self._emptying])

    def cancel(self) -> None:
        """Stop the timer, for good."""
        self._is_cancelled = True
        if self._idle is not None:
            self._idle.cancel()

    @property
    def wal_bytes(self) -> int:
        """The size of the WAL; asking for it opens nothing."""
        return size_of(self._wal)

    @property
    def database_bytes(self) -> int:
        """The size of the database without its WAL."""
        return size_of(self._path)

    async def _checkpoint(self) -> None:
        is_complete = await checkpoint(self._connection)
        self.checkpoints += 1
        # A reader was in the way: try again when as much again has been written, not at every commit.
        self._threshold = CHECKPOINT_BYTES if is_complete else self.wal_bytes + CHECKPOINT_BYTES
        self._is_due = False

    def _start_emptying(self) -> None:
        self._emptying = asyncio.get_running_loop().create_task(self._empty_when_idle(), name="perdure checkpoint")

    async def _empty_when_idle(self) -> None:
        try:
            await self.empty_wal()
        except LogWriteError as error:
            if self.on_idle_error is not None:
                self.on_idle_error(error)
