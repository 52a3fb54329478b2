"""The bus of one process: named events to the functions that asked for them, each told before `emit` returns.

Nothing here is in the log; what has to outlive the process is published (`topic.py`). Invariant: an error of a handler
reaches whoever emitted, and the log of the program, but no other handler.
"""

import asyncio
import inspect
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, cast

import msgspec

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.logs import logger
from perdure.store.errors import UsageError
from perdure.store.expected import checked

HISTORY: Final = 1000
"""Events that are remembered, the newest ones."""
DEEPEST: Final = 32
"""Emits that handlers may make from within one another."""

_DEPTH: ContextVar[int] = ContextVar("perdure_emits", default=0)
_log = logger("perdure.bus")


class BusEvent(msgspec.Struct, frozen=True):
    """An event, as handlers get it."""

    name: str
    data: Any
    at: int
    """Microseconds since 1970 UTC."""


Handler: TypeAlias = Callable[[BusEvent], object]
"""What is told of events: a function, a method, a partial or a callable object; its result is awaited if it can be."""


class HandlerFailure(msgspec.Struct, frozen=True):
    """A handler that raised."""

    handler: Handler
    error: BaseException


class Emission(msgspec.Struct, frozen=True):
    """What became of an event."""

    event: BusEvent
    handled: int
    """How many handlers were told, failed ones among them."""
    failures: tuple[HandlerFailure, ...] = ()


class Subscription:
    """A handler on a bus, until it is taken off."""

    __slots__ = ("_bus", "_pattern", "handler", "is_async", "name")

    def __init__(self, bus: "EventBus", name: str, handler: Handler) -> None:
        self._bus = bus
        self.name = name
        """The name, or the pattern of names, of the events."""
        self.handler = handler
        self.is_async = _is_async(handler)
        self._pattern = re.compile(".*".join(re.escape(part) for part in name.split("*")), re.DOTALL)

    def __repr__(self) -> str:
        return f"<Subscription {self.name} {self.handler!r}>"

    def unsubscribe(self) -> bool:
        """Tell the handler no more; False when it was taken off before."""
        return self._bus.remove(self)

    def fits(self, name: str) -> bool:
        """Return whether the handler is told of events of a name."""
        return self._pattern.fullmatch(name) is not None


@checked
class EventBus:
    """`bus.on("order.*", handler)`, `await bus.emit("order.paid", data)`; for one event loop."""

    def __init__(self, *, history: int = HISTORY, clock: Callable[[], int] | None = None) -> None:
        """Make a bus without handlers.

        Args:
            history: how many events it remembers.
            clock: the time in microseconds since 1970 UTC; the system's when left out.
        """
        self._subscriptions: dict[Subscription, None] = {}
        self._history: deque[BusEvent] = deque(maxlen=history)
        self._clock = clock or (lambda: time.time_ns() // 1000)

    def on(self, name: str, handler: Handler) -> Subscription:
        """Tell *handler* of every event of a name from now on; in a name `*` stands for any characters.

        Raises:
            UsageError: the name is empty.
        """
        if not name:
            raise UsageError("say which events: a name such as 'order.paid', or '*' for all of them")
        subscription = Subscription(self, name, handler)
        self._subscriptions[subscription] = None
        return subscription

    def off(self, name: str, handler: Handler) -> int:
        """Tell *handler* no more of what `on` was told with the same name; return how many subscriptions that ended."""
        # == and not `is`: a bound method is made anew each time that it is looked up.
        ended = [one for one in self._subscriptions if one.name == name and one.handler == handler]
        return sum(self.remove(one) for one in ended)

    def remove(self, subscription: Subscription) -> bool:
        """End a subscription; False when it had ended."""
        if subscription not in self._subscriptions:
            return False
        del self._subscriptions[subscription]
        return True

    async def emit(self, name: str, data: object = None) -> Emission:
        """Tell the handlers of an event and wait for all of them.

        Those that are not async are called first, in the order of `on`; then the async ones run together. One that
        raises stops no other: its error is logged and is in what this returns. A handler that was taken off meanwhile
        is not called. Cancelled, it cancels the async handlers that run.

        Raises:
            UsageError: handlers emit from within one another too deeply.
        """
        depth = _DEPTH.get()
        if depth >= DEEPEST:
            raise UsageError(f"handlers emit from within one another {depth} deep, at {name!r}: let one of them end")
        token = _DEPTH.set(depth + 1)
        try:
            return await self._emit(BusEvent(name, data, self._clock()))
        finally:
            _DEPTH.reset(token)

    async def _emit(self, event: BusEvent) -> Emission:
        self._history.append(event)
        told = [one for one in self._subscriptions if one.fits(event.name)]
        failures: list[HandlerFailure] = []
        waiting: list[tuple[Handler, Awaitable[object]]] = []
        handled = 0
        for one in sorted(told, key=lambda one: one.is_async):  # stable: within each kind the order stays
            if one not in self._subscriptions:
                continue
            handled += 1
            try:
                outcome = one.handler(event)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its own
                failures.append(HandlerFailure(one.handler, error))
            else:
                if inspect.isawaitable(outcome):
                    waiting.append((one.handler, cast("Awaitable[object]", outcome)))
        outcomes = await asyncio.gather(*(awaited for _, awaited in waiting), return_exceptions=True)
        for (handler, _), outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failures.append(HandlerFailure(handler, outcome))
        for failure in failures:
            account = account_of(failure.error)
            _log.error("a handler failed", name=event.name, handler=repr(failure.handler), exception=account)
        return Emission(event, handled, tuple(failures))

    def history(self, name: str = "*") -> list[BusEvent]:
        """Return the newest events of a name, or of a pattern of names, oldest first."""
        wanted = Subscription(self, name, print)
        return [event for event in self._history if wanted.fits(event.name)]


def _is_async(handler: Handler) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004 - of an object, not whether there is one
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)
