"""From the log to the state of one long stream, against reading and decoding the same rows and nothing else."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from benchmarks.rows import Row, Size, Target, against
from benchmarks.streams import append_stream, encoded
from perdure.actors.kernel.replay import Core
from perdure.actors.workflows.events import RUN_EVENTS
from perdure.actors.workflows.run import RunBehavior
from perdure.actors.workflows.state import RunState
from perdure.store.codec import Codec
from perdure.store.records import StreamId
from perdure.store.sqlite import SqliteEventLog

STREAM = StreamId("run/long")
_SELECT = """
SELECT e.type, e.data FROM events AS e JOIN streams AS s ON s.id = e.stream WHERE s.name = ? ORDER BY e.version
"""


def measure(size: Size) -> dict[str, Row]:
    steps, repetitions = size.pick(50_000, 5_000), size.pick(9, 3)
    with TemporaryDirectory() as folder:
        pairs = asyncio.run(_in_turns(Path(folder, "log.db"), steps, repetitions))
    row = against(
        f"replay of one stream of {2 * steps + 1:,} events to its state, without a snapshot",
        "events/s",
        pairs,
        baseline_is="SELECT of type and data, fetched one by one, each decoded by msgspec to its type",
        target=Target("at least", 0.40),
    )
    return {"replay": row}


async def _in_turns(path: Path, steps: int, repetitions: int) -> list[tuple[float, float]]:
    log = await SqliteEventLog.open(path)
    try:
        events = encoded(steps, is_open=True)
        await append_stream(log, STREAM, events, is_open=True)
        await log.flush()
        return [(await _replay(log, len(events)), _decode(path, len(events))) for _ in range(repetitions)]
    finally:
        await log.close()


async def _replay(log: SqliteEventLog, count: int) -> float:
    core: Core[RunState] = Core(RunBehavior())
    codec = Codec(RUN_EVENTS)
    started = time.perf_counter()
    (loaded,) = await log.load([(STREAM, "")])
    state = core.revive(loaded, codec, {}).state
    seconds = time.perf_counter() - started
    log.forget([STREAM])
    assert 2 * state.steps_done + 1 == count
    return count / seconds


def _decode(path: Path, count: int) -> float:
    decoders = {kind.__struct_config__.tag: msgspec.json.Decoder(kind).decode for kind in RUN_EVENTS}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        started = time.perf_counter()
        rows: Iterator[tuple[Any, str]] = connection.execute(_SELECT, (STREAM,))
        events = [decoders[tag](data) for tag, data in rows]
        seconds = time.perf_counter() - started
    assert len(events) == count
    return count / seconds
