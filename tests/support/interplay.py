"""Two tools that note their calls and fail at what is in `broken`: for tests of what several features make together.

`forget` before each test, by a fixture of the module's own.
"""

from typing import Any

from perdure import Retry, tool
from tests.support.runs import Box

calls: list[Any] = []
broken: set[str] = set()


def forget() -> None:
    calls.clear()
    broken.clear()


@tool(failure_threshold=100_000, retry=Retry(attempts=1))
async def work(item: Any) -> Any:
    calls.append(item)
    if item in broken:
        raise ValueError(f"bad {item}")
    return item


@tool(failure_threshold=100_000, retry=Retry(attempts=1))
async def undo(item: Any) -> None:
    calls.append(f"undo {item}")
    if f"undo {item}" in broken:
        raise OSError("out of order")


async def settle(box: Box, *, rounds: int = 4, by: float = 60) -> None:
    """Let time go by in steps, in each of which what is due is done."""
    for _ in range(rounds):
        await box.clock.advance(by)
