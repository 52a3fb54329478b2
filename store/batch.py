"""What one commit writes: the rows of a batch, independent of where they go.

A batch is filled by the journal and read by a `Committer`. The invariant: it contains whole units only, and its first
position follows the last position of the batch before.
"""

from typing import NamedTuple, Protocol

import msgspec

from perdure.store.records import StreamId
from perdure.store.ticket import Ticket


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much a journal takes; all are soft limits of memory and latency, none is a limit of the log."""

    batch_events: int = 5_000
    """Also the most events in one unit. At 5,000 a commit takes some 60 ms: what waits behind it feels that."""
    batch_bytes: int = 2 * 2**20
    unit_bytes: int = 32 * 2**20
    """A unit with large blobs may be larger than a batch's bound; it is then committed alone."""
    backlog_events: int = 50_000
    backlog_bytes: int = 64 * 2**20
    head_every: int = 4_096
    """Events between heads: opening verifies about so many, some 20 ms."""


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """A row of `events`, in the order of its columns but for `data` and the evidence, which come last.

    `gc=False` because thousands wait for the disk at a time, and each would bring the next collection nearer; no cycle
    can go through texts, numbers and bytes.
    """

    position: int
    stream: int
    version: int
    type: str
    type_version: int
    at: int
    blobs: str | None
    correlation: str | None
    causation: str | None
    principal: str | None
    idx: str | None
    data: bytes
    salt: bytes
    commitment: bytes
    digest: bytes


class StreamRow(msgspec.Struct, frozen=True, gc=False):
    """The state of a row of `streams` after a batch."""

    id: int
    version: int
    is_open: bool
    wake_at: int | None
    waits_on: str | None
    last_at: int


class NewStream(NamedTuple):
    """What a row of `streams` says for ever."""

    id: int
    name: StreamId
    first_at: int


class SnapshotRow(NamedTuple):
    """A row of `snapshots`; it replaces the one before."""

    stream: int
    version: int
    schema: str
    data: bytes


class Batch:
    """Units on their way to one commit; several changes of one stream's row are merged into the last."""

    __slots__ = ("after", "blobs", "created", "events", "moved", "size", "snapshots", "ticket")

    def __init__(self, after: int) -> None:
        self.after = after
        """The last position before this batch."""
        self.ticket = Ticket()
        self.ticket.position = after
        self.events: list[EventRow] = []
        self.created: dict[int, NewStream] = {}
        self.moved: dict[int, StreamRow] = {}
        self.snapshots: dict[int, SnapshotRow] = {}
        self.blobs: dict[str, bytes] = {}
        self.size = 0
        """Bytes that the batch is charged for."""


class Committer(Protocol):
    """Where a journal writes to."""

    async def commit(self, batch: Batch) -> None:
        """Write *batch* whole and durably, or not at all; called for one batch at a time, in order.

        Raises:
            LogWriteError: it was not written, or nobody knows; the journal then takes no more.
        """
        ...
