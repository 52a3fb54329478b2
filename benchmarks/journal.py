"""What an append costs the event loop, apart from the disk: positions, salts, digests, the Merkle tree."""

import asyncio
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, Size, spread
from benchmarks.streams import encoded
from perdure.store.records import Append, NewEvent, StreamId, Unit
from perdure.store.sqlite import SqliteEventLog

UNITS_AT_ONCE = 1_000
EVENTS_A_UNIT = 2


def measure(size: Size) -> dict[str, Row]:
    rounds = size.pick(30, 5)
    with TemporaryDirectory() as folder:
        appending, durable = asyncio.run(_rounds(Path(folder, "log.db"), rounds))
    row = Row(
        what=f"journal append, units of {EVENTS_A_UNIT} events for {UNITS_AT_ONCE:,} streams in turn",
        unit="µs/event",
        figure=spread(appending),
        extra={"µs an event until durable": spread(durable).median},
    )
    return {"append": row}


async def _rounds(path: Path, rounds: int) -> tuple[list[float], list[float]]:
    names = [StreamId(f"run/{number}") for number in range(UNITS_AT_ONCE)]
    events: tuple[NewEvent, ...] = tuple(islice(encoded(1, is_open=True), 1, 1 + EVENTS_A_UNIT))
    appending: list[float] = []
    durable: list[float] = []
    log = await SqliteEventLog.open(path)
    try:
        await log.load([(name, "") for name in names])
        for version in range(0, rounds * EVENTS_A_UNIT, EVENTS_A_UNIT):
            units = [Unit((Append(name, version, events),), version, name) for name in names]
            started = time.perf_counter()
            for unit in units:
                log.append(unit)
            appended = time.perf_counter()
            await log.flush()
            count = UNITS_AT_ONCE * EVENTS_A_UNIT
            appending.append((appended - started) / count * 1e6)
            durable.append((time.perf_counter() - started) / count * 1e6)
    finally:
        await log.close()
    return appending, durable
