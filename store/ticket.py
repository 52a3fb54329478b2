"""The promise that a batch is durable: one object for every unit in it.

Not an asyncio.Future, because settling one schedules a call for each callback; a batch settles a thousand waiters at
once and calls them directly. Used on one loop only.
"""

import asyncio
from collections.abc import Callable, Generator

from perdure.store.errors import LogWriteError


class Ticket:
    """Settles once: durable, or failed. Cancelling a waiter cancels nothing but the wait."""

    __slots__ = ("_callbacks", "_error", "_settled", "_waiters", "position")

    def __init__(self) -> None:
        self._settled = False
        self._error: LogWriteError | None = None
        self._callbacks: list[Callable[[Ticket], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self.position = 0
        """The last position that this ticket stands for."""

    def __repr__(self) -> str:
        state = "waiting" if not self._settled else "failed" if self._error else "durable"
        return f"<Ticket {state}, position {self.position}>"

    @property
    def is_durable(self) -> bool:
        """Whether everything up to here is on disk."""
        return self._settled and self._error is None

    @property
    def is_settled(self) -> bool:
        """Whether it is known how the commit went."""
        return self._settled

    @property
    def error(self) -> LogWriteError | None:
        """Why the commit failed; None while it waits and when it is durable."""
        return self._error

    def on_settled(self, callback: Callable[["Ticket"], None]) -> None:
        """Call *callback* on the loop once settled; at once if it is already."""
        if self._settled:
            callback(self)
        else:
            self._callbacks.append(callback)

    def settle(self, error: LogWriteError | None = None) -> None:
        """Settle, call whoever asked in the order of registration, wake the tasks; only the journal does this."""
        self._settled = True
        self._error = error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception as failure:  # noqa: BLE001 - one waiter's bug must not cost the others their answer
                _report(callback, failure)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __await__(self) -> Generator[object, None, None]:
        """Wait until settled.

        Raises:
            LogWriteError: the commit failed; whether it reached the disk is known after reopening.
        """
        if not self._settled:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self._error is not None:
            # A new exception for every waiter: a shared one would collect the tracebacks of all of them.
            raise LogWriteError(detail=self._error.detail) from self._error


def _report(callback: Callable[[Ticket], None], failure: Exception) -> None:
    context = {"message": f"a callback of a ticket raised: {callback!r}", "exception": failure}
    asyncio.get_running_loop().call_exception_handler(context)
