"""Effects outside of runs, such as a tool that the application calls itself: tasks that a stop of the engine waits for.

Invariant: none outlives the engine.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BesideRuns:
    """The tasks of one engine that belong to no run."""

    __slots__ = ("_effects", "_loop", "_waits")

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop = loop
        self._effects: set[asyncio.Task[Any]] = set()
        self._waits: set[asyncio.Task[Any]] = set()

    @property
    def effects(self) -> frozenset["asyncio.Task[Any]"]:
        """Those that a stop lets end for a while."""
        return frozenset(self._effects)

    @property
    def all(self) -> frozenset["asyncio.Task[Any]"]:
        """The effects, and those that only wait."""
        return frozenset(self._effects | self._waits)

    async def run(self, effect: Coroutine[Any, Any, T], *, is_wait: bool = False) -> T:
        """Return what an effect comes to; a failure of the log cancels it, and so does a stop.

        A stop lets an effect end for a while; one that only waits (*is_wait*) is cancelled at once.

        Raises:
            CancelledError: it was cancelled, or the caller was.
        """
        task = self._loop().create_task(effect, name="perdure call")
        tasks = self._waits if is_wait else self._effects
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return await task

    def cancel_waits(self) -> None:
        """Cancel those that only wait."""
        for task in self._waits:
            task.cancel()

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in self.all:
            task.cancel()
