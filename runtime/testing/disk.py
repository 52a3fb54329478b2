"""MemoryDisk: an event log in memory that stays when a runtime is closed or crashes, as a file would.

It is the verified fake of the store, under the contract tests of the SQLite log. The invariant: one owner at a time.
"""

import asyncio
from collections.abc import Callable

from perdure.store.errors import LogWriteError, StoreLockedError
from perdure.store.memory import MemoryEventLog, MemoryStorage
from perdure.store.protocols import EventLog


class MemoryDisk:
    """Keeps what was committed: `Runtime("unused", log=disk.open)`, again and again."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._log: _OwnedLog | None = None

    async def open(self, on_failure: Callable[[LogWriteError], None]) -> EventLog:
        """Open a log on what is kept; `Runtime` calls this.

        Raises:
            StoreLockedError: another runtime has it open.
        """
        if self._log is not None and self._log.is_owned:
            raise StoreLockedError(path="a MemoryDisk", owner="another runtime of this process", pid=None)
        await asyncio.sleep(0)  # a commit that was under way in a crash has reached the disk, or never will
        self._log = _OwnedLog(self._storage, on_failure=on_failure)
        return self._log

    def fail_next(self, error: BaseException) -> None:
        """Let the next commit fail with *error*: the log then takes no more writes until it is opened again."""
        self._storage.failures.append(error)


class _OwnedLog(MemoryEventLog):
    """A log that knows whether somebody has it open."""

    is_owned = True

    async def close(self) -> None:
        """See `EventLog.close`."""
        try:
            await super().close()
        finally:
            self.is_owned = False

    def abandon(self) -> None:
        """See `EventLog.abandon`."""
        super().abandon()
        self.is_owned = False
