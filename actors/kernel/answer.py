"""The future of an `ask`: belongs to no loop, is awaited on the loop and waited for from other threads.

Invariant: it is settled once, and every waiter is told.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, TypeVar

import pykka

from perdure.actors.kernel.errors import AskTimeoutError
from perdure.store.errors import UsageError

T = TypeVar("T")

OptExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Answer(pykka.Future[T]):
    """An answer that is there now or later.

    Unlike pykka's own, `await` suspends the task and never the thread, and any number of loops and threads may wait.
    """

    __slots__ = ("_callbacks", "_error", "_settled", "_value")
    _lock = threading.Lock()
    # One lock for all answers: it is held for a few bytecodes, and a lock of its own would cost every ask.

    # pykka's two fields as they are at first. Not super().__init__(), which gives each answer a dict to put them in.
    _get_hook: Callable[[float | None], T] | None = None
    _get_hook_result = vars(pykka.Future[Any]())["_get_hook_result"]

    def __init__(self) -> None:
        self._settled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] | None = None

    def __repr__(self) -> str:
        return f"<Answer {'settled' if self._settled else 'pending'}>"

    @property
    def is_settled(self) -> bool:
        """Whether a value or an error is there."""
        return self._settled

    def set(self, value: T | None = None) -> None:
        """Settle with *value*.

        Raises:
            UsageError: it is settled already.
        """
        self._settle(value, None)

    def set_exception(self, exc_info: OptExcInfo | None = None) -> None:
        """Settle with the error of *exc_info*, or with the one being handled.

        Raises:
            UsageError: it is settled already.
        """
        self._settle(None, (exc_info or sys.exc_info())[1])

    def set_error(self, error: BaseException) -> None:
        """Settle with *error*.

        Raises:
            UsageError: it is settled already.
        """
        self._settle(None, error)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._settled:
                raise UsageError("this answer is settled already")
            self._value, self._error, self._settled = value, error, True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def on_settled(self, callback: Callable[[], None]) -> None:
        """Call *callback*, in the thread that settles, or at once if settled."""
        with self._lock:
            if not self._settled:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback()

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks = [c for c in self._callbacks or () if c is not callback]

    def get(self, *, timeout: float | None = None) -> T:
        """Block this thread until the answer is there, at most *timeout* seconds.

        Raises:
            AskTimeoutError: no answer came in time.
            UsageError: called on a thread whose event loop runs; use `await`.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._settled:
            if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented get_running_loop raises
                raise UsageError("get() would block the event loop: write `await ref.ask(…)`")
            event = threading.Event()
            self.on_settled(event.set)
            if not event.wait(timeout):
                raise AskTimeoutError(timeout_seconds=timeout)
        return self._result()

    def _result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value] # set() without a value means None

    def __await__(self) -> Generator[None, None, T]:
        if not self._settled:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                _wake(loop, future)

            self.on_settled(wake)
            try:
                yield from future
            except BaseException:
                self._forget(wake)
                raise
        return self._result()

    __iter__ = __await__


def _wake(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 - as above
        _set(future)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(_set, future)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
