"""Work that is done once for each key, while its outcome is remembered: whoever asks again gets the same outcome.

In memory only. What was begun and given up counts as done: nobody can know how far it came.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

import msgspec

from perdure.store.errors import Rejected

T = TypeVar("T")

REMEMBERED: Final = 10_000
"""Outcomes that are kept."""
REMEMBERED_BYTES: Final = 64 * 1024 * 1024


class OtherWorkError(Rejected):
    """The key was used before for something else; nothing was done."""

    message = "{key!r} was used before for another call"
    key: str


class _Done(msgspec.Struct, Generic[T]):
    digest: bytes
    outcome: T
    size: int


class _Running(Generic[T]):
    def __init__(self, digest: bytes, task: "asyncio.Task[T]") -> None:
        self.digest = digest
        self.task = task
        self.waiting = 0


class Once(Generic[T]):
    """Remembers outcomes by key, up to a number and a size; the oldest are forgotten first."""

    def __init__(
        self,
        size_of: Callable[[T], int],
        given_up: Callable[[], T],
        *,
        remembered: int = REMEMBERED,
        remembered_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        """Remember nothing yet.

        Args:
            size_of: bytes of an outcome, about.
            given_up: the outcome of work that everybody left while it ran.
            remembered: how many outcomes are kept.
            remembered_bytes: and how many bytes of them.
        """
        self._size_of = size_of
        self._given_up = given_up
        self._most = remembered
        self._most_bytes = remembered_bytes
        self._running: dict[str, _Running[T]] = {}
        self._done: OrderedDict[str, _Done[T]] = OrderedDict()
        self._bytes = 0

    async def do(self, key: str, digest: bytes, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the outcome of the work that *key* stands for; it is begun if nobody ever asked for it.

        Cancelled, the work goes on while somebody else waits for it.

        Raises:
            OtherWorkError: the key stands for work with another digest.
            Whatever the work raises: then nothing is remembered.
        """
        known = self._done.get(key) or self._running.get(key)
        if known is not None and known.digest != digest:
            raise OtherWorkError(key=key)
        if isinstance(known, _Done):
            return known.outcome
        running = known or self._begin(key, digest, work)
        running.waiting += 1
        try:
            await asyncio.wait((running.task,))
            return running.task.result()
        finally:
            running.waiting -= 1
            if not running.waiting and not running.task.done():
                running.task.cancel()

    def _begin(self, key: str, digest: bytes, work: Callable[[], Coroutine[Any, Any, T]]) -> "_Running[T]":
        running = _Running(digest, asyncio.create_task(work()))
        self._running[key] = running
        running.task.add_done_callback(lambda task: self._ended(key, digest, task))
        return running

    def _ended(self, key: str, digest: bytes, task: "asyncio.Task[T]") -> None:
        del self._running[key]
        if task.cancelled():
            self._remember(key, digest, self._given_up())
        elif task.exception() is None:
            self._remember(key, digest, task.result())

    def _remember(self, key: str, digest: bytes, outcome: T) -> None:
        size = self._size_of(outcome)
        self._done[key] = _Done(digest, outcome, size)
        self._bytes += size
        while len(self._done) > self._most or (self._bytes > self._most_bytes and len(self._done) > 1):
            _, oldest = self._done.popitem(last=False)
            self._bytes -= oldest.size
