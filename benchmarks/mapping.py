"""One run that maps over 100,000 items, as code and as a definition: speed, memory, the log and its largest event.

The baseline is a plain loop over the same items that keeps the same rows with SQLite alone, in as many commits as the
run needed; so it is the disk's part of the work.
"""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.map_probe import Mapped
from benchmarks.raw import batches, events_of, raw_log
from benchmarks.rows import Row, Size, against, spread

KINDS = {
    "map": ("code", "ctx.map over {count:,} items"),
    "map-reduce": ("definition", "a map-reduce over {count:,} items that the run was given"),
    "map-reduce source": ("source", "a map-reduce over {count:,} items that come in pages from its first step"),
}
_LARGEST = "SELECT max(length(CAST(data AS BLOB))) FROM events"


class Sample(msgspec.Struct, frozen=True):
    """One run and the raw commits of its rows."""

    run: Mapped
    raw_seconds: float
    file: int
    """Bytes of the log."""
    events: int
    largest: int
    """Bytes of the largest event, its large values apart, which are kept as blobs."""
    largest_blob: int


def measure(size: Size) -> dict[str, Row]:
    count, repetitions = size.pick(100_000, 2_000), size.pick(3, 1)
    return {name: _row(what.format(count=count), kind, count, repetitions) for name, (kind, what) in KINDS.items()}


def _row(what: str, kind: str, count: int, repetitions: int) -> Row:
    with TemporaryDirectory() as folder:
        samples = [_sample(Path(folder, f"{number}.db"), kind, count) for number in range(repetitions)]
    first = samples[0]
    return against(
        what,
        "items/s",
        [(count / one.run.seconds, count / one.raw_seconds) for one in samples],
        baseline_is="a loop that writes the same rows with SQLite alone, in as many commits",
        extra={
            "MiB of memory at the highest": spread([one.run.peak / 2**20 for one in samples]).median,
            "bytes of the log an item": first.file / count,
            "events an item": first.events / count,
            "commits": spread([one.run.commits for one in samples]).median,
            "bytes of the largest event": first.largest,
            "bytes of the largest value beside it": first.largest_blob,
        },
    )


def _sample(path: Path, kind: str, count: int) -> Sample:
    command = [sys.executable, "-m", "benchmarks.map_probe", kind, str(count), str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600)  # noqa: S603 - our own module
    run = msgspec.json.decode(done.stdout, type=Mapped)
    shape, rows = events_of(path)
    with raw_log(path.with_suffix(".raw"), shape) as log:
        raw_seconds = log.write(batches(rows, max(1, len(rows) // run.commits)))
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        (largest,) = connection.execute(_LARGEST).fetchone()
        (largest_blob,) = connection.execute("SELECT coalesce(max(length(data)), 0) FROM blobs").fetchone()
    return Sample(run, raw_seconds, path.stat().st_size, len(rows), largest, largest_blob)
