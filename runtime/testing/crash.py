"""Crashable: a runtime over a log that outlives it, to be crashed and opened again within one test.

A crash here is an abandonment in one process; what `kill -9` does beyond it is said at `Runtime.abandon`. The
invariant: at most one runtime is open, and none is left behind.
"""

import os
from types import TracebackType
from typing import Any, Self

from perdure.runtime.app import Runtime
from perdure.store.errors import UsageError
from perdure.testing.disk import MemoryDisk


class Crashable:
    """Runtimes one after the other: `async with Crashable(path, workflows=[…]) as box: rt = await box.open()`."""

    def __init__(self, storage: str | os.PathLike[str] | MemoryDisk | None = None, **options: Any) -> None:
        """Describe the runtimes to come; nothing is opened yet.

        Args:
            storage: the log's file, or a `MemoryDisk`; one of its own when left out.
            options: those of `Runtime`.
        """
        self._storage = MemoryDisk() if storage is None else storage
        self._options = options
        self._runtime: Runtime | None = None

    @property
    def storage(self) -> str | os.PathLike[str] | MemoryDisk:
        """What the log is kept on."""
        return self._storage

    @property
    def runtime(self) -> Runtime:
        """The runtime that is open.

        Raises:
            UsageError: none is.
        """
        if self._runtime is None:
            raise UsageError("no runtime is open: open() one first")
        return self._runtime

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, **changes: Any) -> Runtime:
        """Open a runtime; *changes* replace options for this life of it, such as workflows with new code.

        Raises:
            UsageError: one is open: crash or close it first.
            As `Runtime` and `Runtime.__aenter__`.
        """
        if self._runtime is not None:
            raise UsageError("a runtime is open: crash() or close() it first")
        options = {**self._options, **changes}
        if isinstance(self._storage, MemoryDisk):
            runtime = Runtime("memory", log=self._storage.open, **options)
        else:
            runtime = Runtime(self._storage, **options)
        self._runtime = await runtime.__aenter__()
        return self._runtime

    async def crash(self) -> None:
        """End the runtime as `kill -9` would: nothing more is written, what waited for the disk is lost.

        Whoever waits for one of its runs, or for any answer of it, gets a `StoreError`.

        Raises:
            UsageError: none is open.
        """
        runtime, self._runtime = self.runtime, None
        await runtime.abandon()

    async def crash_and_reopen(self, **changes: Any) -> Runtime:
        """Crash, and open again; see `crash` and `open`."""
        await self.crash()
        return await self.open(**changes)

    async def close(self) -> None:
        """Close the runtime in good order, if one is open.

        Raises:
            LogWriteError: the log failed before.
        """
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.close()

    async def close_and_reopen(self, **changes: Any) -> Runtime:
        """Close in good order, and open again; see `close` and `open`."""
        await self.close()
        return await self.open(**changes)
