"""Writes `ACK marker` to a file whenever the runtime has promised something; traced by `test_sync_before_ack.py`.

Each marker comes into the log with the very event that was promised: `start-001` with the run's start, `effect-001`
with the intent of a step (written by the tool itself), `result-001` with the run's end.

    python -m tests.crash.acknowledge DATABASE full|normal
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Literal

from perdure import Context, Runtime, Settings, tool, workflow

ROUNDS = 5
BESIDE_ONE_ANOTHER = 3


def acknowledge(marker: str) -> None:
    descriptor = os.open(f"{sys.argv[1]}.acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"ACK {marker};".encode())
    os.close(descriptor)


@tool
def touch(marker: str) -> None:
    acknowledge(marker)


@workflow
async def touched(ctx: Context, number: str) -> str:
    await ctx.call(touch, f"effect-{number}")
    return f"result-{number}"


async def one(runtime: Runtime, number: str) -> None:
    run = await runtime.with_options(id=f"start-{number}").start(touched, number)
    acknowledge(run.id)
    acknowledge(await run.result())


async def main(database: Path, synchronous: Literal["full", "normal"]) -> None:
    settings = Settings(synchronous=synchronous)
    async with Runtime(database, tools=[touch], workflows=[touched], settings=settings) as runtime:
        for number in range(ROUNDS):
            await asyncio.gather(*(one(runtime, f"{number}{n:02}") for n in range(BESIDE_ONE_ANOTHER)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), "full" if sys.argv[2] == "full" else "normal"))
