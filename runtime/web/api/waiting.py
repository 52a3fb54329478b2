"""Waiting on behalf of a request: until it is there, the time is over, who asked has left, or the server ends.

Invariant: whatever ends the wait, no task of it is left behind.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from perdure.runtime.web.api.problems import Refused

T = TypeVar("T")


class Waiting:
    """What all requests of a server wait for beside their own: its end."""

    def __init__(self) -> None:
        self._ends = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether nobody is to wait any more."""
        return self._ends.is_set()

    def end(self) -> None:
        """Let nobody wait any more."""
        self._ends.set()

    async def for_work(self, request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T | None:
        """Return what *work* returns, or None when it did not within *seconds*; then it is cancelled.

        Raises:
            ClientDisconnect: who asked has left.
            Refused: the server is about to end.
            Whatever the work raises.
        """
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(left(request))
        ending = asyncio.create_task(self._ends.wait())
        tasks = (working, leaving, ending)
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if leaving.done():
                raise ClientDisconnect
            if ending.done():
                raise draining()
            return None
        finally:
            await end_tasks(*tasks)

    async def for_next(self, waited_for: "asyncio.Future[Any]", leaving: "asyncio.Future[Any]", seconds: float) -> bool:
        """Return whether *waited_for* is done within *seconds*; it is not cancelled.

        Raises:
            ClientDisconnect: who asked has left, or nobody is to wait any more.
        """
        ending = asyncio.create_task(self._ends.wait())
        try:
            waiting = (waited_for, leaving, ending)
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() or ending.done():
                raise ClientDisconnect
            return waited_for.done()
        finally:
            await end_tasks(ending)


def draining() -> Refused:
    """Return the refusal of a server that is about to end."""
    headers = {"Retry-After": "5", "Connection": "close"}
    return Refused(503, "ServerDrainingError", "the server is being stopped: ask again in a moment", headers)


async def left(request: Request) -> None:
    """Return once who asked has left. Only after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def end_tasks(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
