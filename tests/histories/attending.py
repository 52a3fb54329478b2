"""The life of three schedules, of some subscriptions and of values that are dropped: where `attended.jsonl` is from.

`python -m tests.histories.attending` records it. Never changed, as `code.py`: what is new gets a new history.
Invariant: a history can be gone on with wherever it was cut; who subscribes and what is due depends on nothing else.
"""

import asyncio
import contextlib
import sys
from datetime import timedelta
from typing import Any

from perdure import (
    Context,
    EntryPoint,
    LogEvent,
    Retry,
    Runtime,
    Schedule,
    Settings,
    UnknownDeadLetterError,
    workflow,
)
from perdure.testing import MemoryDisk, TestClock
from tests.histories.loading import FOLDER, Expected, write
from tests.support.lives import MarkedDisk
from tests.support.runs import DAY, HOUR, MINUTE, Box

NAME = "attended"
WORDS = ("heard", "lost", "late")
RETRY = Retry(attempts=2, backoff=timedelta(seconds=5), jitter=False)


@workflow
async def rings(ctx: Context, event: dict[str, Any]) -> str:
    """A run that is not over when the next one is due."""
    await ctx.sleep(90 * MINUTE)
    return str(event["due"])


ENTRIES = (
    EntryPoint("bell", rings, Schedule(every=HOUR)),
    EntryPoint("chime", rings, Schedule(every=HOUR, overlap="skip")),
    EntryPoint("gong", rings, Schedule(every=HOUR, overlap="cancel_previous", jitter=MINUTE)),
)


class Ear:
    """A handler that takes a word at once, another one at the second time, a third one when it is to take all."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.takes_all = False
        self._late = set[int]()

    async def __call__(self, event: LogEvent) -> None:
        word = event.data["word"]
        if word == "late" and event.position not in self._late and not self.takes_all:
            self._late.add(event.position)
            raise ConnectionError("not yet")
        if word == "lost" and not self.takes_all:
            raise ValueError("nobody hears that")
        self.heard.append(word)


def box_on(disk: MemoryDisk, clock: TestClock) -> Box:
    """Return a process that has the schedules."""
    settings = Settings(idle_after=30 * DAY, socket=False)
    return Box(disk, clock, workflows=[rings], entry_points=ENTRIES, settings=settings)


async def listen(rt: Runtime, ear: Ear) -> None:
    """Have somebody hear the words that are published."""
    await rt.events.subscribe(ear, "word", name="ear", after="start", retry=RETRY).opened()


async def say(rt: Runtime, *words: str) -> None:
    """Publish words."""
    for word in words:
        await rt.publish("word", {"word": word})


async def redrive(rt: Runtime) -> None:
    """Have everything delivered once more that the ear did not take."""
    for letter in (await rt.events.dead_letters("ear"))["ear"]:
        with contextlib.suppress(UnknownDeadLetterError):
            await rt.events.redrive("ear", letter.position, who="ada")


async def live(box: Box) -> None:
    """Do what the history tells of."""
    rt, ear = await box.open(), Ear()
    await listen(rt, ear)
    await rt.events.subscribe(ear, "nothing", name="passing").opened()
    rt.events.subscribe(Ear(), "word")
    await say(rt, *WORDS)
    await box.clock.advance(10)
    await redrive(rt)
    await box.clock.advance(1)
    ear.takes_all = True
    await redrive(rt)
    await rt.events.forget("passing")
    await rt.state.view(stream="bell").write_batch({"rope": "long", "oil": 1})
    await rt.state.drop(stream="bell", who="ada")
    await box.clock.advance(3 * HOUR.total_seconds())
    await rt.schedules.pause("bell", "it is sunday", who="ada")
    await rt.schedules.fire_now("bell", who="ada")
    await say(rt, "late")
    rt, ear = await box.crash_and_reopen(), Ear()
    await listen(rt, ear)
    await box.clock.advance(HOUR.total_seconds())
    await rt.schedules.resume("bell", who="ada")
    await box.crash()
    await box.clock.advance(2.5 * HOUR.total_seconds())
    rt, ear = await box.open(), Ear()
    await listen(rt, ear)
    await say(rt, "heard")
    await box.clock.advance(HOUR.total_seconds())
    await box.crash()


async def record() -> None:
    """Live it, and keep the log."""
    disk = MarkedDisk()
    async with box_on(disk, TestClock()) as box:
        await live(box)
    write(NAME, Expected(NAME, {}, "", "", ""), disk, disk.borders)


if __name__ == "__main__":
    if (FOLDER / f"{NAME}.jsonl").exists():
        sys.exit(f"{NAME}.jsonl is there; a history is kept for ever")
    asyncio.run(record())
