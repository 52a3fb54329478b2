"""An application in another process, which does what its first argument says. No test.

    python -m tests.faults.application ENDING|work|try DATABASE …

It prints a line when it is where the test wants it, and goes on when it reads one.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine
from typing import Any

from perdure import PerdureError, StoreError
from perdure.runtime import cli
from tests.faults.programs import ENDINGS, busy, forget_the_blocking_front, hear, make_runtime, say, touch

NOBODY = 65534


async def work(database: str, gate: str, runs: str) -> None:
    """Own the log, with runs that go on until the gate is there."""
    async with make_runtime(database) as runtime:
        handles = await asyncio.gather(
            *(runtime.with_options(id=f"busy-{n}").start(busy, gate) for n in range(int(runs)))
        )
        say(f"working {os.getpid()}")
        for handle in handles:
            await handle.result()
        say("done")


async def attempt(database: str) -> None:
    """Open the log when told to, say how it went, keep it until told to go."""
    say("ready")
    hear()
    try:
        async with make_runtime(database):
            say(f"owner {os.getpid()}")
            hear()
    except StoreError as error:
        say(f"{type(error).__name__} {getattr(error, 'pid', None)}")


async def fork(database: str) -> None:
    """Own the log, fork, say what the child and afterwards the parent could do."""
    async with make_runtime(database) as runtime:
        say(f"owner {os.getpid()}")
        child = os.fork()
        if child == 0:
            say(f"inherited {_outcome(runtime.call(touch, 'child'))}")
            say(f"own {_outcome(attempt_at_once(database))}")
            hear()
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222 - nothing else is to happen meanwhile
        text = await runtime.call(touch, "after")
        say(f"parent {text}")
        hear()


async def attempt_at_once(database: str) -> None:
    async with make_runtime(database):
        pass


def _outcome(work: Coroutine[Any, Any, Any]) -> str:
    try:
        asyncio.run(work)
    except (PerdureError, TimeoutError) as error:
        return f"{type(error).__name__} {getattr(error, 'pid', None)}"
    return "ok"


def read_as_nobody(database: str, is_root: str) -> None:
    """Run the reading commands as somebody who may write neither the log nor its folder; say their exit codes."""
    commands = [[*command, "--db", database] for command in (["ps", "--all"], ["log"], ["verify"], ["doctor"])]
    for command in commands:  # so that nothing need be imported any more
        _exit_code(command)
    if is_root == "root":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    for command in commands:
        say(f"{command[0]} {_exit_code(command)}")
    say(f"own {_outcome(attempt_at_once(database))}")


def _exit_code(command: list[str]) -> object:
    with contextlib.redirect_stdout(sys.stderr):
        try:
            cli.main(command)
        except SystemExit as end:
            return end.code
    return None


def main(what: str, *arguments: str) -> None:
    match what:
        case "fork":
            asyncio.run(fork(*arguments))
        case "read_as_nobody":
            read_as_nobody(*arguments)
        case "work":
            asyncio.run(work(*arguments))
        case "try":
            asyncio.run(attempt(*arguments))
        case "forget_the_blocking_front":
            forget_the_blocking_front(*arguments)
        case _:
            asyncio.run(_ending(what, *arguments))


async def _ending(name: str, database: str, gate: str) -> None:
    await ENDINGS[name](database, gate)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
