"""What the tests of the store share: short ways to make units, and both logs behind one way to open them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from perdure.store.batch import Bounds
from perdure.store.errors import LogWriteError
from perdure.store.memory import MemoryEventLog, MemoryStorage
from perdure.store.records import Append, Blob, Index, NewEvent, Recorded, Snapshot, StreamId, Unit, stream_id
from perdure.store.sqlite import SqliteEventLog

AnyLog = SqliteEventLog | MemoryEventLog
ADA, BOB, EVE = (stream_id(f"run/{name}") for name in ("ada", "bob", "eve"))
SCHEMA = "v1"
T = TypeVar("T")


def run(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(scenario())


def event(kind: str = "step-completed", data: bytes = b"{}", blobs: bytes | None = None) -> NewEvent:
    return NewEvent(type=kind, type_version=1, data=data, blobs=blobs)


def append(
    stream: StreamId,
    expected: int,
    *events: NewEvent,
    index: Index | None = None,
    snapshot: Snapshot | None = None,
) -> Append:
    return Append(stream=stream, expected=expected, events=events, index=index, snapshot=snapshot)


def unit(*appends: Append, at: int = 1_000, correlation: str | None = None, blobs: tuple[Blob, ...] = ()) -> Unit:
    return Unit(appends=appends, at=at, correlation=correlation, blobs=blobs)


def one(stream: StreamId, expected: int, *, at: int = 1_000, index: Index | None = None) -> Unit:
    return unit(append(stream, expected, event(), index=index), at=at)


def positions(events: list[Recorded]) -> list[int]:
    return [event.position for event in events]


class Store(Protocol):
    """A place that a log can be opened on again and again."""

    def opened(
        self, *, bounds: Bounds | None = None, on_failure: Callable[[LogWriteError], None] | None = None
    ) -> AbstractAsyncContextManager[AnyLog]: ...


class SqliteStore:
    def __init__(self, path: Path) -> None:
        self.path = path

    @asynccontextmanager
    async def opened(
        self, *, bounds: Bounds | None = None, on_failure: Callable[[LogWriteError], None] | None = None
    ) -> AsyncGenerator[AnyLog]:
        log = await SqliteEventLog.open(self.path, bounds=bounds, on_failure=on_failure)
        try:
            yield log
        finally:
            await log.close()


class MemoryStore:
    def __init__(self) -> None:
        self.storage = MemoryStorage()

    @asynccontextmanager
    async def opened(
        self, *, bounds: Bounds | None = None, on_failure: Callable[[LogWriteError], None] | None = None
    ) -> AsyncGenerator[AnyLog]:
        log = MemoryEventLog(self.storage, bounds=bounds, on_failure=on_failure)
        try:
            yield log
        finally:
            await log.close()
