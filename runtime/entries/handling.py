"""Calls the handler of a subscription with one event, and says what became of that.

Not here: which event, and what follows (`delivering.py`). Invariant: whatever a handler raises is an answer, also that
a log failed, which may be that of another runtime; only the end of the task itself goes through.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from perdure.actors.kernel.clock import Clock
from perdure.actors.tools.retry import Retry, allows, next_due
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.typed import Topic

if TYPE_CHECKING:
    from perdure.runtime.threads import WorkerThreads

EventHandler: TypeAlias = Callable[[LogEvent], object]
"""What is given events: a function, a method, a partial or a callable object; async, or run in a worker thread."""

LONGEST_ERROR: Final = 1_000
"""Characters of an error that are recorded."""

CAUSE: ContextVar[LogEvent | None] = ContextVar("perdure_event", default=None)
"""The event that is being handled, so that what the handler publishes is known to be led to by it."""


class Handling:
    """A handler, and how often it is asked."""

    __slots__ = ("_clock", "_handler", "_is_async", "_retry", "_threads")

    def __init__(self, handler: EventHandler, retry: Retry, clock: Clock, threads: "WorkerThreads") -> None:
        self._handler = handler
        self._retry = retry
        self._clock = clock
        self._threads = threads
        self._is_async = _is_async(handler)

    async def attempt(self, event: LogEvent) -> Exception | None:
        """Have the handler take an event; return what it raised."""
        token = CAUSE.set(event)
        try:
            await self._call(event)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return RuntimeError(f"the handler was cancelled from within: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its own
            return error
        finally:
            CAUSE.reset(token)
        return None

    async def _call(self, event: LogEvent) -> None:
        if self._is_async:
            outcome = self._handler(event)
        else:
            context = copy_context()
            outcome = await self._threads.run(lambda: context.run(self._handler, event))
        if inspect.isawaitable(outcome):
            await cast("Awaitable[object]", outcome)

    def due(self, error: Exception, attempt: int, first_at: int) -> int | None:
        """Return when the event is to be given again after an error, in microseconds; None: never."""
        names = tuple(kind.__name__ for kind in type(error).__mro__)
        if not allows(self._retry, names) or (self._retry.when is not None and not self._retry.when(error)):
            return None
        now = self._clock.moment().now
        chance = random.random()  # noqa: S311 - jitter
        return next_due(self._retry, attempt=attempt, first_at=first_at, now=now, chance=chance)


def said(error: BaseException) -> str:
    """Return what an error says, as it can be recorded."""
    text = str(error).encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1] + "…"


def _is_async(handler: EventHandler) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004 - of an object, not whether there is one
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def reading(handler: EventHandler, topic: Topic[Any]) -> EventHandler:
    """Return what gives a handler events with their data as the topic says; others are an error of the handler."""
    if not _is_async(handler):
        return lambda event: handler(topic.read(event))

    async def read(event: LogEvent) -> object:
        outcome = handler(topic.read(event))
        return await outcome if inspect.isawaitable(outcome) else outcome

    return read
