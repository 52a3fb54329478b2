"""`@tool`: makes a function a tool, and tells a checker what is left to give.

What a tool is stands in `definition.py`; nothing is registered here, and no call is made.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from perdure.actors.kernel.spans import span_of
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.definition import QUEUE, EffectClass, Offer, Reconcile, Scope, Tool
from perdure.actors.tools.limits import RateLimit
from perdure.actors.tools.retry import NO_RETRY, Retry
from perdure.store.expected import checked_function

P = ParamSpec("P")
R = TypeVar("R")


# A ToolContext in the first place is filled in by the runtime: callers and checkers do not see it.
@overload
def tool(function: Callable[Concatenate[ToolContext, P], Awaitable[R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[Concatenate[ToolContext, P], R], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    effect: EffectClass = "idempotent",
    failure_threshold: int = 3,
    reset_timeout: float = 300,
    breaker: BreakerPolicy | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    reconcile: Reconcile | None = None,
    rate: RateLimit | None = None,
    concurrency: int | None = None,
    queue: int = QUEUE,
    scope: Scope = "global",
    fallback: "Tool[..., Any] | None" = None,
    toolset: str | None = None,
    check: Callable[[], object] | None = None,
    requires_env: Iterable[str] = (),
    tags: Iterable[str] = (),
    capabilities: Iterable[str] = (),
    external: bool = False,
) -> "ToolDecorator": ...
@checked_function
def tool(  # noqa: PLR0913 - the options of a decorator, all by keyword
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    effect: EffectClass = "idempotent",
    failure_threshold: int = 3,
    reset_timeout: float | timedelta = 300,
    breaker: BreakerPolicy | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    reconcile: Reconcile | None = None,
    rate: RateLimit | None = None,
    concurrency: int | None = None,
    queue: int = QUEUE,
    scope: Scope = "global",
    fallback: "Tool[..., Any] | None" = None,
    toolset: str | None = None,
    check: Callable[[], object] | None = None,
    requires_env: Iterable[str] = (),
    tags: Iterable[str] = (),
    capabilities: Iterable[str] = (),
    external: bool = False,
) -> Any:
    """Make a function a tool; async functions run on the loop, others on worker threads.

    Parameters and result need type hints that msgspec can read: arguments are validated against them, and the result
    that a workflow sees is read back from JSON, live as replayed.

    Args:
        function: the function; given when the decorator is used without options.
        name: how it is called in the log; for ever. The function's name if left out.
        effect: what a crash means for a call without an outcome.
        failure_threshold: failures in a row that open the circuit.
        reset_timeout: seconds that the circuit stays open.
        retry: how failed attempts are tried again, unless a call says otherwise; None: not at all.
        timeout: seconds that one attempt may take.
        breaker: the whole policy of the circuit breaker, in place of the two above.
        reconcile: for `irreversible`: given the idempotency key of a call, finds out whether it happened.
        rate: how many calls may start in a while; a call over it waits for its token.
        concurrency: how many calls may run at the same time.
        queue: how many more may wait for a place; further ones are refused.
        scope: whether each conversation has a circuit and a rate limit of its own.
        fallback: a tool with the same parameters, called where this one failed for good or its circuit is open.
        toolset: the group that it belongs to.
        check: truthy when the tool can be offered now.
        requires_env: environment variables without which it is not offered.
        tags: words to find it by.
        capabilities: what it can do, for those who choose among tools.
        external: calls of trajectories go to the tool server; the function only gives name, schema and description.

    Raises:
        UsageError: an option makes no sense, or a type hint cannot be read.
    """
    decorator = ToolDecorator(
        name=name,
        effect=effect,
        breaker=breaker or BreakerPolicy(failure_threshold, span_of(reset_timeout, "reset_timeout")),
        retry=retry or NO_RETRY,
        timeout=None if timeout is None else span_of(timeout, "timeout"),
        reconcile=reconcile,
        rate=rate,
        concurrency=concurrency,
        queue=queue,
        scope=scope,
        fallback=fallback,
        offer=Offer(
            toolset=toolset,
            check=check,
            requires_env=tuple(requires_env),
            tags=frozenset(tags),
            capabilities=frozenset(capabilities),
            external=external,
        ),
    )
    return decorator if function is None else decorator(function)


class ToolDecorator:
    """`@tool(…)` with its options, waiting for the function."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[Concatenate[ToolContext, P], Awaitable[R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[ToolContext, P], R], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Return the tool."""
        made: Tool[..., Any] = Tool(function, **self._options)
        return made
