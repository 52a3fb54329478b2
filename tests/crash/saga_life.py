"""One life of a process that runs a saga and kills itself at one place of it. No test: a child of `test_saga_kills.py`.

`python -m tests.crash.saga_life DIRECTORY PLACE`: PLACE is such as `unbook 2 after`: when that call has had its effect,
and before anybody learns of it. In the lives that follow nothing kills it.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from perdure import Context, RunFailedError, Runtime, ToolContext, tool, workflow

_directory = Path(sys.argv[1])
_effects = _directory / "effects"
_mark = _directory / "killed"


def _die_at(place: str) -> None:
    if place == sys.argv[2] and not _mark.exists():
        _mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _happen(what: str, context: ToolContext) -> None:
    _die_at(f"{what} before")
    with _effects.open("a") as file:
        file.write(json.dumps([context.idempotency_key, what]) + "\n")
    _die_at(f"{what} after")


@tool
async def book(context: ToolContext, number: int) -> int:
    if number == 4:
        raise ValueError("no place left")
    _happen(f"book {number}", context)
    return number


@tool
async def unbook(context: ToolContext, number: int) -> None:
    _happen(f"unbook {number}", context)


@workflow
async def journey(ctx: Context) -> None:
    async with ctx.saga() as saga:
        for number in range(1, 5):
            await saga.undo_with(unbook).call(book, number)


async def _live() -> None:
    async with Runtime(_directory / "log.db", tools=[book, unbook], workflows=[journey]) as rt:
        run = await rt.with_options(id="r").start(journey)
        try:
            await run.result()
        except RunFailedError as error:
            (_directory / "end").write_text(error.error)


if __name__ == "__main__":
    asyncio.run(_live())
