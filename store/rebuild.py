"""Rebuilding `streams` from the events: every derived column is a fold, or it is wrong.

The index of open work (`is_open`, `wake_at`, `waits_on`) is set by behaviours that the store knows nothing of; so each
change of it is written into the event that made it (`events.idx`, part of what the digest covers), and the fold reads
it back.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from perdure.store.evidence import EvidenceRow, Finding

_decode_index = msgspec.json.Decoder(tuple[bool, int | None, str | None]).decode


class DerivedRow(NamedTuple):
    """A row of the query `stream_rows`."""

    id: int
    name: str
    kind: str
    version: int
    is_open: int
    wake_at: int | None
    waits_on: str | None
    first_at: int
    last_at: int


class StreamState:
    """What the events say of one stream."""

    __slots__ = ("first_at", "index", "last_at", "name", "version")

    def __init__(self, row: EvidenceRow) -> None:
        self.name = row.name
        self.first_at = self.last_at = row.at
        self.version = row.version
        self.index: tuple[bool, int | None, str | None] = (True, None, None)


class Rebuild:
    """Folds events into the rows of `streams`."""

    def __init__(self) -> None:
        self.streams: dict[int, StreamState] = {}

    def add(self, row: EvidenceRow) -> Iterator[Finding]:
        """Take in *row* and yield what of it cannot be read."""
        state = self.streams.get(row.stream)
        if state is None:
            state = self.streams[row.stream] = StreamState(row)
        state.version, state.last_at = row.version, row.at
        if row.idx is not None:
            try:
                state.index = _decode_index(row.idx)
            except msgspec.DecodeError as error:
                yield Finding("rebuild", f"its idx cannot be read: {error}", row.position, row.name)

    def compare(self, stored: DerivedRow) -> Iterator[Finding]:
        """Yield each column of a row of `streams` that is not what the events say."""
        name = stored.name
        state = self.streams.get(stored.id)
        if state is None:
            yield Finding("rebuild", "it has a row and no event", None, name)
            return
        is_open, wake_at, waits_on = state.index
        rebuilt = DerivedRow(
            stored.id, name, name.partition("/")[0], state.version, is_open, wake_at, waits_on, state.first_at,
            state.last_at,
        )  # fmt: skip
        for column, found, expected in zip(DerivedRow._fields, stored, rebuilt, strict=True):
            if found != expected:
                yield Finding("rebuild", f"its {column} is {found!r}, its events say {expected!r}", None, name)
