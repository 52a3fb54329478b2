"""What a run costs in memory: one that waits in a tool, and one that sleeps. Each measured in a process of its own.

The figure is the growth of the resident set, everything counted: Python's objects, the log's tips, SQLite's pages.
tracemalloc's count of Python's own objects comes from another process, because it costs memory itself.
"""

import subprocess
import sys

import msgspec

from benchmarks.memory_probe import Growth
from benchmarks.rows import Row, Size, Target, against, spread

ACTIVE_LIMIT = 10 * 1024
ASLEEP_LIMIT = 16
"""Two pointers: a dictionary's entry alone costs more, so below this nothing is kept for each sleeping run."""


def measure(size: Size) -> dict[str, Row]:
    repetitions = size.pick(5, 1)
    return {
        "memory-active": _active(size.pick(2_000, 500), repetitions),
        "memory-asleep": _asleep(size.pick(20_000, 2_000), repetitions),
    }


def _active(count: int, repetitions: int) -> Row:
    resident = [_probe("active", count, "rss") for _ in range(repetitions)]
    traced = _probe("active", count, "traced")
    return against(
        f"an active run over its data, {count:,} waiting in a tool",
        "bytes/run",
        [(one.memory - one.data, ACTIVE_LIMIT) for one in resident],
        baseline_is="the limit of 10 KB",
        target=Target("at most", 1.0),
        extra={"bytes of Python objects": traced.memory, "bytes of data": traced.data},
    )


def _asleep(count: int, repetitions: int) -> Row:
    traced = [_probe("asleep", count, "traced") for _ in range(repetitions)]
    resident = [_probe("asleep", count, "rss") for _ in range(repetitions)]
    return against(
        f"a sleeping run, {count:,} of them",
        "bytes/run",
        [(one.memory, ASLEEP_LIMIT) for one in traced],
        baseline_is="two pointers: none is kept",
        target=Target("at most", 1.0),
        extra={
            "bytes of resident set": spread([one.memory for one in resident]).median,
            "actors in memory": max(one.actors for one in traced),
        },
    )


def _probe(what: str, count: int, how: str) -> Growth:
    command = [sys.executable, "-m", "benchmarks.memory_probe", what, str(count), how]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=300)  # noqa: S603 - our own module
    return msgspec.json.decode(done.stdout, type=Growth)
