"""What a run costs in memory: one that waits in a tool, and one that sleeps. Each measured in a process of its own.

The figure is what tracemalloc counts: every object of Python's. The growth of the resident set stands beside it, from a
process of its own; it counts SQLite's pages too, and not what fits into memory that was freed before.
"""

import subprocess
import sys

import msgspec

from benchmarks.memory_probe import Growth
from benchmarks.rows import Row, Size, Target, against, spread

ACTIVE_LIMIT = 10 * 1024
ASLEEP_LIMIT = 16
"""Bytes, two pointers: an entry of a dictionary costs more, so below this nothing is kept for each sleeping run."""


def measure(size: Size) -> dict[str, Row]:
    repetitions = size.pick(3, 1)
    return {
        "memory-active": _active(size.pick(2_000, 500), repetitions),
        "memory-asleep": _asleep(size.pick(10_000, 1_000), repetitions),
    }


def _active(count: int, repetitions: int) -> Row:
    traced = [probe("active", count, "traced") for _ in range(repetitions)]
    resident = [probe("active", count, "rss") for _ in range(repetitions)]
    return against(
        f"an active run over its data, {count:,} waiting in a tool",
        "bytes/run",
        [(one.memory - one.data, ACTIVE_LIMIT) for one in traced],
        baseline_is="the limit of 10 KB",
        target=Target("at most", 1.0),
        extra={
            "bytes of resident set": spread([one.memory for one in resident]).median,
            "bytes of data": traced[0].data,
        },
    )


def _asleep(count: int, repetitions: int) -> Row:
    traced = [probe("asleep", count, "traced") for _ in range(repetitions)]
    resident = [probe("asleep", count, "rss") for _ in range(repetitions)]
    return against(
        f"a sleeping run, {count:,} beside as many",
        "bytes/run",
        [(one.memory, ASLEEP_LIMIT) for one in traced],
        baseline_is="two pointers: none is kept",
        target=Target("at most", 1.0),
        extra={
            "bytes of resident set": spread([one.memory for one in resident]).median,
            "actors in memory": max(one.actors for one in traced),
        },
    )


def probe(what: str, count: int, how: str) -> Growth:
    """Return what so many runs made a process of their own grow by, each."""
    command = [sys.executable, "-m", "benchmarks.memory_probe", what, str(count), how]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=900)  # noqa: S603 - our own module
    return msgspec.json.decode(done.stdout, type=Growth)
