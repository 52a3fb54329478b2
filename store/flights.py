"""Counts the calls that other threads are working on, so that a test can wait until none is.

Knows nothing of what the calls are. The invariant: a call is counted until its outcome is back on the loop.
"""

import asyncio


class Flights:
    """Calls whose outcome has not come back; touched on one loop only."""

    __slots__ = ("_count", "_waiters")

    def __init__(self) -> None:
        self._count = 0
        self._waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def took_off(self) -> None:
        """Count one more."""
        self._count += 1

    def landed(self) -> None:
        """Count one less."""
        self._count -= 1
        if not self._count:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def settle(self) -> bool:
        """Wait until there is none; return whether there was one."""
        if not self._count:
            return False
        while self._count:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return True
