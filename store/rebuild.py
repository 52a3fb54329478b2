"""Rebuilding `streams` from the events: every derived column is a fold, or it is wrong.

The index of open work (`is_open`, `wake_at`, `waits_on`) is set by behaviours that the store knows nothing of; so each
change of it is written into the event that made it (`events.idx`, part of what the digest covers), and the fold reads
it back.
"""

from collections.abc import Iterator

import msgspec

from perdure.store.evidence import EvidenceRow, Finding

_decode_index = msgspec.json.Decoder(tuple[bool, int | None, str | None]).decode


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

    def compare(  # noqa: PLR0913 - a row of `streams`
        self,
        id: int,  # noqa: A002
        name: str,
        kind: str,
        version: int,
        is_open: int,
        wake_at: int | None,
        waits_on: str | None,
        first_at: int,
        last_at: int,
    ) -> Iterator[Finding]:
        """Yield each column of a row of `streams` that is not what the events say."""
        state = self.streams.get(id)
        if state is None:
            yield Finding("rebuild", "it has a row and no event", None, name)
            return
        columns = (
            ("kind", kind, name.partition("/")[0]),
            ("version", version, state.version),
            ("is_open", bool(is_open), state.index[0]),
            ("wake_at", wake_at, state.index[1]),
            ("waits_on", waits_on, state.index[2]),
            ("first_at", first_at, state.first_at),
            ("last_at", last_at, state.last_at),
        )
        for column, stored, rebuilt in columns:
            if stored != rebuilt:
                yield Finding("rebuild", f"its {column} is {stored!r}, its events say {rebuilt!r}", None, name)
