"""A program with a durable subscription and a chain of entry points, killed again and again while it publishes.

Real processes, `kill -9`, a file. Every event is handled at least once and in order, and starts exactly one run.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded

KILLS = 8

PROGRAM = """
import asyncio, os, sys
from perdure import Context, EntryPoint, OnEvent, Runtime, workflow

LOG = open("handled.txt", "a", buffering=1)
LIFE = sys.argv[1]


@workflow
async def pay(ctx: Context, event: dict) -> int:
    await ctx.publish("paid", event["data"])
    return event["data"]


@workflow
async def ship(ctx: Context, event: dict) -> int:
    return event["data"]


ENTRIES = [EntryPoint("pay", pay, OnEvent("ordered")), EntryPoint("ship", ship, OnEvent("paid"))]


async def book(event):
    LOG.write(f"{LIFE} {event.position}\\n")


async def main():
    async with Runtime("shop.db", entry_points=ENTRIES) as rt:
        rt.subscribe(book, ("ordered", "paid"), name="books", after="start")
        print("open", flush=True)
        if LIFE != "last":
            for number in range(1_000):
                await rt.publish("ordered", number)
                print(number, flush=True)
        await asyncio.sleep(0)
        while True:
            before = rt.events.position
            await rt.until_idle()
            await asyncio.sleep(0.3)  # as long as the log grows there is something to do
            if rt.events.position == before:
                break


asyncio.run(main())
"""


def live(folder: Path, life: str, lines: int | None) -> None:
    """Run the program; kill it after so many lines."""
    command = [sys.executable, str(folder / "shop.py"), life]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines or 0):
            assert process.stdout.readline()
        if lines is not None:
            process.kill()
        process.communicate(timeout=120)
    assert process.returncode == (0 if lines is None else -9)


def number_of(row: Recorded) -> int:
    return int(json.loads(row.data or "{}")["data"])


@pytest.mark.row("A3-27")
def test_a_program_that_is_killed_again_and_again_handles_every_event_and_starts_one_run_for_each(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    (tmp_path / "shop.py").write_text(PROGRAM, encoding="utf-8")

    for life in range(KILLS):
        live(tmp_path, str(life), chance.randrange(1, 60))
    live(tmp_path, "last", None)

    with LogReader.open(tmp_path / "shop.db") as reader:
        published = reader.read(Query(types=("event-published",), limit=100_000))
        started = reader.read(Query(types=("entry-triggered",), limit=100_000))
        ended = reader.read(Query(types=("run-completed",), limit=100_000))
    ordered = [row for row in published if row.stream == "topic/ordered"]
    paid = [row for row in published if row.stream == "topic/paid"]
    causes = Counter(json.loads(row.data or "{}")["cause"] for row in started)
    assert len(ordered) > KILLS
    assert causes == Counter({row.position: 1 for row in published})
    assert Counter(map(number_of, paid)) == Counter(map(number_of, ordered))
    assert len(ended) == len(started)
    lives: dict[str, list[int]] = {}
    for line in (tmp_path / "handled.txt").read_text(encoding="utf-8").splitlines():
        life_, position = line.split()
        lives.setdefault(life_, []).append(int(position))
    assert all(positions == sorted(set(positions)) for positions in lives.values())
    handled = {position for positions in lives.values() for position in positions}
    assert handled == {row.position for row in published}
