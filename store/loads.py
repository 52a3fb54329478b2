"""Loading streams: one query for their tips and snapshots, then pages for the events of all of them together.

The invariant: the second step asks only for versions that the first one saw, so an append in between changes nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from perdure.store.connection import Connection
from perdure.store.errors import CorruptLogError
from perdure.store.pages import PAGE, decode_page
from perdure.store.queries import queries
from perdure.store.records import Index, Loaded, Recorded, Snapshot, StreamId
from perdure.store.tips import Tip

_NAMES: Final = 1_000
"""Streams in one query; a snapshot may be large."""
_AHEAD: Final = 3
"""Pages asked for at once: the connection's thread does not wait for us to take one before it reads the next."""


class _TipRow(msgspec.Struct, frozen=True, array_like=True):
    name: StreamId
    id: int
    version: int
    digest: str
    is_open: int
    wake_at: int | None
    waits_on: str | None
    snapshot_version: int | None
    snapshot_schema: str | None
    snapshot_data: str | None


_encode = msgspec.json.Encoder().encode
_decode_tips = msgspec.json.Decoder(list[_TipRow]).decode

Found = tuple[dict[StreamId, Tip], dict[StreamId, Snapshot]]
_Range = tuple[int, int, int]
_Page = list[_Range]


async def load_tips(connection: Connection, path: Path, streams: Sequence[tuple[StreamId, str]]) -> Found:
    """Return the tips of the streams that exist, and those snapshots whose schema is the one given.

    Raises:
        CorruptLogError: the last event of a stream is missing.
    """
    tips: dict[StreamId, Tip] = {}
    snapshots: dict[StreamId, Snapshot] = {}
    for start in range(0, len(streams), _NAMES):
        text = await connection.value(queries()["tips"], (_encode(streams[start : start + _NAMES]).decode(),))
        for row in _decode_tips(text):
            if not row.digest:
                raise CorruptLogError(path=str(path), position=None, detail=f"{row.name} lacks event {row.version}")
            tips[row.name] = _tip(row)
            if row.snapshot_version is not None:
                snapshots[row.name] = _snapshot(row)
    return tips, snapshots


async def load_events(connection: Connection, path: Path, found: Found) -> dict[StreamId, list[Recorded]]:
    """Return the events after the snapshots, up to the tips.

    Raises:
        CorruptLogError: some of them are missing.
    """
    tips, snapshots = found
    names = {tip.id: name for name, tip in tips.items()}
    events: dict[StreamId, list[Recorded]] = {name: [] for name in tips}
    wanted = [
        (tip.id, snapshot.version if (snapshot := snapshots.get(name)) else 0, tip.version)
        for name, tip in tips.items()
    ]
    async with aclosing(_read_ahead(connection, list(_plan(wanted)))) as pages:
        async for page, text in pages:
            for stream, part in _parts(page, decode_page(text), names, path):
                events[stream] += part
    return events


def _parts(
    page: _Page, found: Sequence[Recorded], names: Mapping[int, StreamId], path: Path
) -> Iterator[tuple[StreamId, Sequence[Recorded]]]:
    """Yield what a page has of each stream; this guards the order that the query promises, too."""
    start = 0
    for stream, after, upto in page:
        name, end = names[stream], start + upto - after
        part = found[start:end]
        is_whole = len(part) == upto - after
        if not is_whole or (part[0].stream, part[0].version, part[-1].version) != (name, after + 1, upto):
            detail = f"{name} lacks events from {after + 1} to {upto}"
            raise CorruptLogError(path=str(path), position=None, detail=detail)
        yield name, part
        start = end


async def _read_ahead(connection: Connection, pages: Sequence[_Page]) -> AsyncGenerator[tuple[_Page, str]]:
    """Yield each page with its rows; while the caller decodes them, the connection's thread reads the next ones."""
    if len(pages) == 1:  # nearly always
        yield pages[0], await _rows(connection, pages[0])
        return
    left = iter(pages)
    coming = deque((page, asyncio.create_task(_rows(connection, page))) for page in islice(left, _AHEAD))
    try:
        while coming:
            page, reading = coming.popleft()
            text = await reading
            coming.extend((page, asyncio.create_task(_rows(connection, page))) for page in islice(left, 1))
            await asyncio.sleep(0)  # its statement is in the thread's queue before this page is decoded
            yield page, text
    finally:
        for _, reading in coming:
            reading.cancel()
        await asyncio.gather(*(reading for _, reading in coming), return_exceptions=True)


async def _rows(connection: Connection, page: _Page) -> str:
    text: str = await connection.value(queries()["stream_ranges"], (_encode(page).decode(),))
    return text


def compose(stream: StreamId, found: Found, events: Mapping[StreamId, Sequence[Recorded]]) -> Loaded:
    """Return *stream* as a caller of `load` gets it."""
    tips, snapshots = found
    tip = tips.get(stream)
    if tip is None:
        return Loaded(stream, 0, None, (), None)
    index = Index(tip.is_open, tip.wake_at, tip.waits_on)
    return Loaded(stream, tip.version, snapshots.get(stream), tuple(events[stream]), index)


def _plan(ranges: Sequence[_Range]) -> Iterator[_Page]:
    """Yield *ranges* in pages of at most PAGE events; one that is longer is cut."""
    page: _Page = []
    room = PAGE
    for stream, start, end in ranges:
        after = start
        while after < end:
            upto = min(end, after + room)
            page.append((stream, after, upto))
            room -= upto - after
            after = upto
            if room == 0:
                yield page
                page, room = [], PAGE
    if page:
        yield page


def _tip(row: _TipRow) -> Tip:
    return Tip(
        id=row.id,
        version=row.version,
        digest=bytes.fromhex(row.digest),
        is_open=bool(row.is_open),
        wake_at=row.wake_at,
        waits_on=row.waits_on,
    )


def _snapshot(row: _TipRow) -> Snapshot:
    return Snapshot(row.snapshot_version or 0, row.snapshot_schema or "", (row.snapshot_data or "").encode())
