"""Histories as files: one JSON object a line, first what is expected, then every event of the log as it was written."""

import json
from pathlib import Path
from typing import Any

import msgspec

from perdure.store.memory import MemoryEventLog
from perdure.store.records import Append, Index, NewEvent, StreamId, Unit
from perdure.testing import MemoryDisk

FOLDER = Path(__file__).parent
WITH_POSITIONS = {"event-awaited", "event-found", "event-taken", "event-places-moved", "listing-changed"}
"""Events whose data say where others are in the log."""


class Expected(msgspec.Struct, frozen=True):
    """The first line: which run it is and how it ends."""

    workflow: str
    arguments: dict[str, Any]
    status: str
    result: str
    error: str
    is_cancelled: bool = False
    runs: dict[str, tuple[str, str, str]] = {}
    """How each run ends, where there are several."""


class Line(msgspec.Struct, frozen=True):
    """An event; `index` is what the index of open work said from then on, None when it did not change.

    `more` says that the next event is of the same unit: a log that ends between the two was never on a disk.
    """

    stream: str
    version: int
    type: str
    type_version: int
    at: int
    correlation: str | None
    index: tuple[bool, int | None, str | None] | None
    data: msgspec.Raw
    more: bool = False


def read(name: str) -> tuple[Expected, list[Line]]:
    first, *rest = (FOLDER / f"{name}.jsonl").read_bytes().splitlines()
    return msgspec.json.decode(first, type=Expected), [msgspec.json.decode(line, type=Line) for line in rest]


def write(name: str, expected: Expected, disk: MemoryDisk, borders: set[int]) -> None:
    """Keep the log of *disk*, whose units end at *borders*; who ran it is left out, since it says nothing."""
    storage = disk._storage
    lines = [msgspec.json.encode(expected)]
    rows = list(storage.events)
    while rows[-1].type == "head-recorded":
        rows.pop()
    # Positions are in the data of some events: what is left out is not to lie before one of those.
    last_head = max((row.position for row in rows if row.type == "head-recorded"), default=0)
    assert not any(row.type in WITH_POSITIONS and row.position > last_head > 0 for row in rows)
    for row in rows:
        data = row.data
        if row.type == "head-recorded":
            continue
        if row.type == "runtime-opened":
            data = msgspec.json.encode({**json.loads(row.data), "pid": 1, "host": "host", "version": "0"})
        index = None if row.idx is None else tuple(json.loads(row.idx))
        line = Line(
            storage.names[row.stream], row.version, row.type, row.type_version, row.at, row.correlation, index,
            msgspec.Raw(data), row.position not in borders,
        )  # fmt: skip
        lines.append(msgspec.json.encode(line))
    (FOLDER / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


async def disk_of(lines: list[Line]) -> MemoryDisk:
    """A disk that holds the events of *lines* and nothing else."""
    disk = MemoryDisk()
    log = MemoryEventLog(disk._storage)
    for line in lines:
        if line.version == 1:
            await log.load([(StreamId(line.stream), "")])
        event = NewEvent(line.type, line.type_version, bytes(line.data))
        index = None if line.index is None else Index(*line.index)
        append = Append(StreamId(line.stream), line.version - 1, (event,), index)
        log.append(Unit((append,), line.at, line.correlation))
    await log.flush()
    log.abandon()
    return disk
