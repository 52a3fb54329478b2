"""From a unit to rows: positions, versions, salts and digests, all or nothing.

Pure but for the salts. The invariant: a unit is computed completely before the first piece of state moves, so one that
cannot be encoded leaves nothing behind.
"""

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from perdure.store.batch import Batch, EventRow, NewStream, SnapshotRow, StreamRow
from perdure.store.chain import SALT_BYTES, Frontier, commitment, digest, genesis
from perdure.store.errors import UnencodableError, UsageError
from perdure.store.heads import HEADS
from perdure.store.records import Append, Index, Snapshot, Unit
from perdure.store.tips import Tip, Tips

EVENT_OVERHEAD: Final = 300
"""Bytes that an event is charged beside its payload: its row on disk and in memory."""
_BOUND: Final = 2**63
"""What fits a column of whole numbers: a time beyond it would fail the commit, and all who are in it."""
_SALTS_BYTES: Final = 512 * SALT_BYTES
_encode = msgspec.json.Encoder().encode


class Origin(msgspec.Struct, frozen=True):
    """Where a log stands when it is opened."""

    log_id: str
    heads: Tip
    """Of the stream `log/heads`."""
    position: int = 0
    at: int = 0
    streams: int = 0
    """The greatest id of a stream."""
    headed: int = 0
    """The position of the last head."""
    frontier: Frontier = msgspec.field(default_factory=Frontier)

    @classmethod
    def empty(cls, log_id: str) -> "Origin":
        """Return where a new log stands."""
        return cls(log_id=log_id, heads=Tip(digest=genesis(log_id, HEADS)))


class _Step(msgspec.Struct, frozen=True):
    """One append, computed and not yet applied."""

    append: Append
    tip: Tip
    id: int
    version: int
    digest: bytes
    index: Index


class Stager:
    """Turns units into rows of a batch; holds where the log stands, durable or not."""

    def __init__(self, origin: Origin) -> None:
        self.position = origin.position
        self.frontier = origin.frontier.copy()
        self._log_id = origin.log_id
        self._at = origin.at
        self._streams = origin.streams
        self._salts = b""
        self._salt = _SALTS_BYTES

    def stage(self, unit: Unit, tips: Sequence[Tip], batch: Batch) -> None:
        """Add *unit* to *batch* and move the tips.

        `at` never decreases in a log: a unit that is stamped earlier than the one before (a clock set back) gets the
        time of that one, so that a range of times is a range of positions.

        Raises:
            UnencodableError: a text cannot be written; nothing has moved.
        """
        at = max(unit.at, self._at)
        rows: list[EventRow] = []
        steps: list[_Step] = []
        streams = self._streams
        try:
            for append, tip in zip(unit.appends, tips, strict=True):
                streams += tip.id == 0
                steps.append(self._step(unit, append, tip, at=at, id=tip.id or streams, rows=rows))
        except (UnicodeError, TypeError) as error:
            raise UnencodableError(where="a unit", detail=str(error)) from error
        self._at, self._streams = at, streams
        self._apply(unit, at, steps, rows, batch)

    def _step(self, unit: Unit, append: Append, tip: Tip, *, at: int, id: int, rows: list[EventRow]) -> _Step:
        stream, events = append.stream, append.events
        correlation, causation, principal = unit.correlation, unit.causation, unit.principal
        version, previous = tip.version, tip.digest or genesis(self._log_id, stream)
        position = self.position + len(rows)
        index = append.index or (Index() if tip.id == 0 else Index(tip.is_open, tip.wake_at, tip.waits_on))
        # The index changes with the last event of the append: its header is what proves the row in `streams`.
        changed = None if append.index is None else _encode((index.is_open, index.wake_at, index.waits_on)).decode()
        last = version + len(events)
        for event in events:
            version += 1
            position += 1
            salt = self._next_salt()
            blobs = None if event.blobs is None else event.blobs.decode()
            idx = changed if version == last else None
            header = (
                stream, version, event.type, event.type_version, at, blobs, correlation, causation, principal, idx,
            )  # fmt: skip
            committed = commitment(salt, event.data)
            previous = digest(previous, header, committed)
            rows.append(
                EventRow(
                    position, id, version, event.type, event.type_version, at, blobs, correlation, causation,
                    principal, idx, event.data, salt, committed, previous,
                )
            )  # fmt: skip
        return _Step(append, tip, id, version, previous, index)

    def _apply(self, unit: Unit, at: int, steps: list[_Step], rows: list[EventRow], batch: Batch) -> None:
        add = self.frontier.add
        for row in rows:
            add(row.digest)
        self.position += len(rows)
        batch.events.extend(rows)
        batch.ticket.position = self.position
        for blob in unit.blobs:
            batch.blobs[blob.sha256] = blob.data
        for step in steps:
            tip, index, append = step.tip, step.index, step.append
            if append.events:
                if tip.id == 0:
                    batch.created[step.id] = NewStream(step.id, append.stream, at)
                tip.id, tip.version, tip.digest = step.id, step.version, step.digest
                tip.is_open, tip.wake_at, tip.waits_on = index.is_open, index.wake_at, index.waits_on
                batch.moved[step.id] = StreamRow(
                    step.id, step.version, index.is_open, index.wake_at, index.waits_on, at
                )
            tip.ticket = batch.ticket
            if (snapshot := append.snapshot) is not None:
                batch.snapshots[step.id] = SnapshotRow(step.id, snapshot.version, snapshot.schema, snapshot.data)

    def _next_salt(self) -> bytes:
        start = self._salt
        if start == _SALTS_BYTES:
            # One system call for many events: urandom costs half a microsecond however little is asked.
            self._salts = os.urandom(_SALTS_BYTES)
            start = 0
        self._salt = start + SALT_BYTES
        return self._salts[start : self._salt]


def check(unit: Unit, tips: Tips) -> list[Tip]:
    """Return the tips that *unit* builds on.

    Raises:
        ConcurrencyError: a stream is at another version.
        UsageError: a stream was not loaded, or the unit makes no sense.
        UnencodableError: a text has a character that the log does not keep.
    """
    found: list[Tip] = []
    for append in unit.appends:
        if append.stream == HEADS:
            raise UsageError(f"the stream {HEADS} belongs to the log: use another name")
        found.append(tips.expect(append.stream, append.expected))
        if append.index is not None or append.snapshot is not None or not append.events:
            _check_append(append)
    if not found:
        raise UsageError("a unit has at least one append")
    if len(found) > 1 and len(set(found)) < len(found):
        raise UsageError("a stream is twice in a unit: put its events into one append")
    for text in (unit.correlation, unit.causation, unit.principal):
        if text is not None and "\0" in text:
            raise UnencodableError(where=repr(text), detail="it contains NUL")
    return found


def weigh(unit: Unit) -> tuple[int, int]:
    """Return the number of events in *unit* and the bytes that it is charged for."""
    events = size = 0
    for append in unit.appends:
        for event in append.events:
            events += 1
            size += len(event.data)
        if append.snapshot is not None:
            size += len(append.snapshot.data)
    for blob in unit.blobs:
        size += len(blob.data)
    return events, size + events * EVENT_OVERHEAD


def _check_append(append: Append) -> None:
    events, snapshot = append.events, append.snapshot
    if not events and (snapshot is None or append.index is not None):
        raise UsageError(f"the append to {append.stream} has no event: only a snapshot may come alone")
    index = append.index
    if index is not None and index.wake_at is not None and not -_BOUND <= index.wake_at < _BOUND:
        raise UnencodableError(where=f"the time of {append.stream}", detail=f"{index.wake_at} µs is not a time")
    if snapshot is not None:
        _check_snapshot(append, snapshot)


def _check_snapshot(append: Append, snapshot: Snapshot) -> None:
    last = append.expected + len(append.events)
    if not 1 <= snapshot.version <= last:
        raise UsageError(f"a snapshot of {append.stream} is of version 1 to {last}, not {snapshot.version}")
