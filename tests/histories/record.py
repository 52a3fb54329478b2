"""Record the history of a new workflow: `python -m tests.histories.record NAME`. One that exists is never replaced."""

import asyncio
import sys
from typing import Any

from perdure import RunHandle
from perdure.testing import TestClock
from tests.histories.loading import FOLDER, Expected, write
from tests.histories.outside import PLANS, RUN, Outside, Plan, box_for
from tests.support.lives import MarkedDisk
from tests.support.runs import Box

CLOSED_MEANWHILE = {"scopes", "family", "trip", "steered"}
"""Beside a crash, these are closed in good order."""


async def start(name: str, plan: Plan, box: Box) -> None:
    rt = await box.open()
    if name == "guards":
        await rt.force_circuit("indulged", "disabled", because="it is known to fail", who="ada")
    options: dict[str, Any] = {"queue": "mail"} if name == "lined" else {}
    if name == "lined":
        await rt.with_options(id="ahead", **options).start("lined", "first")
    starting = rt.with_options(id=RUN, **options)
    await (starting.start(name, plan.arguments) if name == "route" else starting.start(name, **plan.arguments))
    await box.clock.advance(1)


async def meddle(name: str, box: Box) -> None:
    """Have the process die, or stop; have an operator do what one does before anything went wrong."""
    rt = await box.crash_and_reopen()
    await box.clock.advance(1)
    if name == "steered":
        await rt.run(RUN).pause("the bank is closed", who="ada")
        await box.clock.advance(60)
    if name in CLOSED_MEANWHILE:
        await box.close_and_reopen()


async def record(name: str) -> None:
    disk, plan = MarkedDisk(), PLANS[name]
    async with box_for(plan, disk, TestClock()) as box:
        await start(name, plan, box)
        await meddle(name, box)
        outside = Outside(box, plan)
        runs = await outside.attend()
        if name == "steered":
            run: RunHandle[Any] = box.runtime.run(RUN)
            await run.fork("gather#1.1/brittle#1", id="forked", who="ada")
            runs = await outside.attend()
    expected = Expected(name, plan.arguments, *runs[RUN], is_cancelled=plan.cancels, runs=runs)
    write(name, expected, disk, disk.borders)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        if (FOLDER / f"{wanted}.jsonl").exists():
            sys.exit(f"{wanted}.jsonl is there; a history is kept for ever")
        asyncio.run(record(wanted))
