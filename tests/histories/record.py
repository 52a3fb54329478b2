"""Record the history of a new workflow: `python -m tests.histories.record NAME`. One that exists is never replaced."""

import asyncio
import sys
from typing import Any

from perdure import RunHandle, Workflow
from perdure.testing import MemoryDisk, TestClock
from tests.histories.code import WORKFLOWS
from tests.histories.loading import FOLDER, Expected, write
from tests.support.runs import DAY, Box

ARGUMENTS = {"order": {"item": "lamp"}}


async def record(name: str) -> None:
    disk = MemoryDisk()
    workflow: Workflow[..., Any] = WORKFLOWS[name]
    async with Box(disk, TestClock(), workflows=[workflow]) as box:
        rt = await box.open()
        if name == "guards":
            await rt.force_circuit("indulged", "disabled", because="it is known to fail", who="ada")
        await rt.with_options(id="golden").start(workflow, **ARGUMENTS.get(name, {}))
        await box.clock.advance(1)
        rt = await box.crash_and_reopen()
        await box.clock.advance(1)
        run: RunHandle[Any] = rt.run("golden")
        if name == "cancelled":
            await run.cancel("enough")
        for step in (await run.status()).in_doubt:
            await run.settle_done(step, "by hand")
        await box.clock.advance(3 * DAY)
        view = await run.status()
    expected = Expected(
        name, ARGUMENTS.get(name, {}), view.status, view.result, view.error, view.cancel_reason is not None
    )
    write(name, expected, disk)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        if (FOLDER / f"{wanted}.jsonl").exists():
            sys.exit(f"{wanted}.jsonl is there; a history is kept for ever")
        asyncio.run(record(wanted))
