"""A process that owns slots until it is killed: `python -m tests.faults.slot_owner KIND ROOT COMMAND`. No test.

It prints `running` once the command has written the file `begun` into its workspace, and waits for its end.
"""

import asyncio
import sys
from pathlib import Path

from tests.support.backends import FACTORIES, execution, perform


async def own(kind: str, root: Path, command: str) -> None:
    factory = FACTORIES[kind]
    async with factory(root) as backend:
        await backend.acquire("slot_0", 1)
        batch = asyncio.create_task(perform(backend, execution(command, id="held", timeout=600)))
        begun = factory.local(root).folder("slot_0").workspace / "begun"
        while not begun.exists():  # noqa: ASYNC110 - a command makes it
            await asyncio.sleep(0.01)
        print("running", flush=True)  # noqa: T201 - to who kills it
        await batch
        print("ended", flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    asyncio.run(own(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
