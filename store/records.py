"""What the log stores and hands out: frozen data, no behaviour.

Times are integers, microseconds since 1970 UTC. Payloads are JSON bytes. A position counts the whole log, a version
one stream; both start at 1 and have no gaps.
"""

import re
from typing import NewType

import msgspec

from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

StreamId = NewType("StreamId", str)
"""The name of a stream, `kind/rest`: 1 to 200 printable ASCII characters without a space."""

_STREAM = re.compile(r"[!-~]{1,200}")


def stream_id(name: str) -> StreamId:
    """Return *name* as a stream's id.

    Raises:
        UsageError: *name* is not 1 to 200 characters of printable ASCII without a space.
    """
    if not _STREAM.fullmatch(name):
        raise UsageError(f"a stream's name is 1 to 200 characters of printable ASCII without a space, not {name!r}")
    return StreamId(name)


class NewEvent(msgspec.Struct, frozen=True):
    """An event on its way into the log, encoded."""

    type: str
    type_version: int
    data: bytes
    """A JSON object."""
    blobs: bytes | None = None
    """A JSON object, field -> sha256, of the fields whose values went to the blobs; their place in `data` is null."""


class Blob(msgspec.Struct, frozen=True):
    """A large value, kept once under the hash of its content."""

    sha256: str
    data: bytes


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a stream as of *version*; *schema* names the code that can read it."""

    version: int
    schema: str
    data: bytes


class Index(msgspec.Struct, frozen=True):
    """What the index of open work says of a stream: the row that recovery and timers look at."""

    is_open: bool = True
    wake_at: int | None = None
    waits_on: str | None = None


class Append(msgspec.Struct, frozen=True):
    """Events for one stream, on top of version *expected* (0: the stream is new)."""

    stream: StreamId
    expected: int
    events: tuple[NewEvent, ...]
    index: Index | None = None
    """None leaves the stream's index as it is (a new stream starts open)."""
    snapshot: Snapshot | None = None


class Unit(msgspec.Struct, frozen=True):
    """What is committed together or not at all."""

    appends: tuple[Append, ...]
    at: int
    correlation: str | None = None
    causation: str | None = None
    """`stream#version` of the event that led to this one."""
    principal: str | None = None
    blobs: tuple[Blob, ...] = ()


class Recorded(msgspec.Struct, frozen=True, array_like=True):
    """An event as the log has it; array-like, so that a page of rows decodes in one call."""

    position: int
    stream: StreamId
    version: int
    type: str
    type_version: int
    at: int
    data: str | None
    """A JSON object; None once erased."""
    blobs: str | None = None
    correlation: str | None = None
    causation: str | None = None
    principal: str | None = None


class Loaded(msgspec.Struct, frozen=True):
    """A stream as it is in the log: a usable snapshot, if there is one, and the events after it."""

    stream: StreamId
    version: int
    snapshot: Snapshot | None
    events: tuple[Recorded, ...]
    index: Index | None
    """None when the stream does not exist yet."""


class OpenStream(msgspec.Struct, frozen=True):
    """A row of the index of open work."""

    stream: StreamId
    version: int
    wake_at: int | None
    waits_on: str | None
    last_at: int


class StreamSummary(msgspec.Struct, frozen=True, array_like=True):
    """A row of `streams`, open or closed, as a reader lists it."""

    stream: StreamId
    kind: str
    """What stands before the first `/` of the name."""
    version: int
    is_open: bool
    wake_at: int | None
    waits_on: str | None
    first_at: int
    last_at: int


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to read, in the order of the log; conditions are joined by AND, None asks nothing."""

    after: int = 0
    """Only positions greater than this."""
    until: int | None = None
    """Only positions up to and including this."""
    stream: StreamId | None = None
    stream_prefix: str | None = None
    types: tuple[str, ...] | None = None
    correlation: str | None = None
    since_time: int | None = None
    until_time: int | None = None
    tool: str | None = None
    """Only events whose data has this in the field `tool`."""
    limit: int = 1000
    newest_first: bool = False
    """Count the limit from the end; positions then fall."""

    def __post_init__(self) -> None:
        check_fields(self)


class LogStatistics(msgspec.Struct, frozen=True):
    """Figures of an open log since it was opened, and its sizes in bytes."""

    position: int
    durable_position: int
    commits: int
    events: int
    backlog_events: int
    backlog_bytes: int
    largest_batch: int
    checkpoints: int
    database_bytes: int
    wal_bytes: int
