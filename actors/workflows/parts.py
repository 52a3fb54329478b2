"""The coroutines that a workflow hands over to be run as branches: checked, and closed when they are not started.

Invariant: none is left behind that Python would complain of, also when the call itself is refused.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from perdure.actors.workflows.branch import Branch, enter
from perdure.actors.workflows.branches import Start
from perdure.store.errors import UsageError

R = TypeVar("R")
T = TypeVar("T")


@contextmanager
def opened_parts(name: str, parts: Sequence[Coroutine[Any, Any, Any]]) -> Generator[tuple[Branch, list[Start]]]:
    """Enter a ctx call that opens branches; those that never start are closed, or Python would complain of them.

    Raises:
        UsageError: a part is not a coroutine that has not started, or the call is made where none may be.
    """
    try:
        branch = enter()
        try:
            for part in parts:
                if not _is_fresh(part):
                    raise UsageError(f"ctx.{name} takes coroutines such as ctx.call(…), not {_told(part)}")
            yield branch, [_starter(part) for part in parts]
        finally:
            branch.is_inside = False
    finally:
        for part in parts:
            if _is_fresh(part):
                part.close()


def _is_fresh(part: object) -> bool:
    return asyncio.iscoroutine(part) and inspect.getcoroutinestate(part) == inspect.CORO_CREATED


def _told(part: object) -> str:
    return "one that has started" if asyncio.iscoroutine(part) else type(part).__name__


def _starter(part: Coroutine[Any, Any, Any]) -> Callable[[], Coroutine[Any, Any, Any]]:
    return lambda: part


def bound(worker: Callable[[T], Coroutine[Any, Any, R]], item: T) -> Callable[[], Coroutine[Any, Any, R]]:
    """Return what starts *worker* on an item."""
    return lambda: worker(item)
