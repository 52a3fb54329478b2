"""Worker threads for functions that block: daemons, so that none of them can hold the interpreter's exit.

`asyncio.to_thread` cannot be used: its threads are joined at exit, so one stuck tool would keep the process alive.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from perdure.store.flights import Flights

MAX_THREADS = 32
"""Sync tools running at the same time; more wait for a thread."""

Work = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class WorkerThreads:
    """A bounded pool that grows on demand."""

    def __init__(self, maximum: int = MAX_THREADS) -> None:
        self._maximum = maximum
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = 0
        self.flights = Flights()

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run *call* on a worker thread and return what it returns; on the loop only.

        Cancelling fences the thread off: it goes on to its end, and what it returns is dropped.

        Raises:
            Whatever the call raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if len(self.flights) >= self._threads and self._threads < self._maximum:
            self._threads += 1
            threading.Thread(target=self._work, name=f"perdure-worker-{self._threads}", daemon=True).start()
        self.flights.took_off()
        self._queue.put((call, future, loop))
        return await future

    def close(self) -> None:
        """End the threads that are idle; those that are stuck in a call are left to the end of the process."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            call, future, loop = work
            result, error = None, None
            try:
                result = call()
            except BaseException as raised:  # noqa: BLE001 - whatever it is belongs to the caller
                error = raised
            try:
                loop.call_soon_threadsafe(self._hand_over, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del work, call, future, loop, result, error

    def _hand_over(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        self.flights.landed()
        if future.done():
            return
        if isinstance(error, StopIteration):  # a future refuses it
            error = RuntimeError("the function raised StopIteration")
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
