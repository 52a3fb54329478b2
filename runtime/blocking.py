"""Methods that block, made from those of the asynchronous core with their signatures and types.

Not here: the loop that they wait for (`bridge.py`), and what any of them does. Invariant: nothing is decided here, and
whatever belongs to the loop is touched on the loop.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")


class Bridge(Protocol):
    """The way from a thread to the loop of a runtime."""

    @property
    def is_running(self) -> bool:
        """Whether there is a loop to wait for."""
        ...

    def wait(self, work: Coroutine[Any, Any, R], timeout: float | None = None) -> R:
        """Run *work* on the loop and block until it ends."""
        ...


class Front:
    """Base of the blocking fronts; the asynchronous original documents what each method does and raises."""

    def __init__(self, bridge: Bridge, inner: Any) -> None:
        self._bridge = bridge
        self._inner = inner

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """Return a method that blocks until the asynchronous *method* has ended."""
    name = method.__name__

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        done: R = self._bridge.wait(getattr(self._inner, name)(*args, **kwargs))
        return done

    functools.update_wrapper(call, method)
    return call


def on_loop(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return a method that calls *method*, which is not asynchronous, on the loop; directly while there is no loop."""
    name = method.__name__

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        there: Callable[..., R] = getattr(self._inner, name)
        if not self._bridge.is_running:
            return there(*args, **kwargs)

        async def called() -> R:
            return there(*args, **kwargs)

        done: R = self._bridge.wait(called())
        return done

    functools.update_wrapper(call, method)
    return call


def fronted(method: Callable[Concatenate[Any, P], Any], kind: type[F]) -> Callable[Concatenate[Any, P], F]:
    """Return a method that wraps what *method*, which is not asynchronous, returns in the blocking *kind*."""
    get = on_loop(method)

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> F:
        return cast("Callable[..., F]", kind)(self._bridge, get(self, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call
