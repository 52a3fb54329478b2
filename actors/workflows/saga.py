"""A saga in code: steps that belong together, each with what undoes it should a later one fail.

What undoes a step is itself a recorded step (`undoing.py`). Invariant: when the block ends by a failure or a cancel,
all that it completed and that can be undone is undone, last first, before anybody learns of the end. After H.
Garcia-Molina and K. Salem, Sagas (1987), with pivots and retriable steps.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, Self, TypeVar, overload

import msgspec

from perdure.actors.tools.definition import EffectClass, Tool
from perdure.actors.tools.outcome import recordable
from perdure.actors.tools.retry import Retry
from perdure.actors.workflows.branch import CURRENT, Branch, enter
from perdure.actors.workflows.calls import Fate
from perdure.actors.workflows.errors import CompensationFailedError
from perdure.actors.workflows.events import PivotPassed, SagaCompensated, SagaFailed
from perdure.actors.workflows.undoing import Compensation, Due, undo_all
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.context import Context
    from perdure.actors.workflows.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")


class Saga:
    """`async with ctx.saga() as saga:`, then `await saga.undo_with(release).call(reserve, …)`.

    When the block ends by an exception, also a cancellation or the run's deadline, what it completed is undone, last
    first; then the exception goes on. A saga within a saga that ends well leaves what undoes it to the outer one. A
    cancel that comes during the compensations waits for their end, and so does one that comes after the pivot.

    A compensation that fails for good does not keep the others from running; then the run waits, in need of attention,
    until a person says that it was undone (`settle_done`), is to be tried again (`settle_not_done`) or is given up
    (`settle_failed`); `CompensationFailedError` names what was given up.
    """

    __slots__ = (
        "_branch", "_completed", "_ctx", "_driver", "_due", "_is_open", "_is_past_pivot", "_outer", "_undone",
        "given_up", "id", "key",
    )  # fmt: skip

    def __init__(self, driver: "Driver", ctx: "Context", branch: Branch, key: str) -> None:
        """See `Context.saga`, which makes sagas."""
        self._driver = driver
        self._ctx = ctx
        self._branch = branch
        self.key = key
        """What it is called in the log of its run."""
        self.id = f"{driver.run_id}:{key}"
        """The run's id and the key of the saga in it: no other saga has it."""
        self._outer: Saga | None = None
        self._is_open = False
        self._is_past_pivot = False
        self._due: list[Due] = []
        self._completed: list[Due] = []
        self._undone: tuple[str, ...] = ()
        self.given_up: tuple[str, ...] = ()
        """The keys of the steps whose compensation a person gave up, in the order in which they were to be undone."""

    @property
    def completed(self) -> tuple[str, ...]:
        """The keys of the steps called through the saga that completed, in the order of the code."""
        return tuple(one.undoes for one in sorted(self._completed, key=lambda one: one.place))

    @property
    def compensated(self) -> tuple[str, ...]:
        """The keys of the steps that were undone, in the order in which they were to be."""
        return self._undone

    async def __aenter__(self) -> Self:
        """Open the block.

        Raises:
            UsageError: it is opened twice, or by another branch than the one that made it.
        """
        branch = enter()
        branch.is_inside = False
        if branch is not self._branch or self._is_open or self._is_past_pivot or self._completed:
            raise UsageError("a saga is entered once, where it was made: async with ctx.saga() as saga: …")
        self._outer, branch.saga = branch.saga, self
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Compensate, if the block failed.

        Raises:
            CompensationFailedError: a person gave a compensation up; the block's own failure is its `__context__`.
            Parked: the run leaves memory; it goes on here in its next life.
        """
        self._is_open = False
        branch, is_past_pivot = self._branch, self._is_past_pivot
        branch.saga = self._outer
        is_failure = isinstance(error, (Exception, asyncio.CancelledError)) and self._driver.ending is None
        if is_failure and not is_past_pivot and error is not None:
            await self._compensate(error)
        elif error is None and not is_past_pivot and self._outer is not None:
            self._outer.take_over(self._due)
        if is_past_pivot:
            branch.pivots -= 1
            branch.shields -= 1

    async def _compensate(self, error: BaseException) -> None:
        due = sorted(self._due, key=lambda one: one.place, reverse=True)
        if not due:
            return
        branch, driver, key = enter(), self._driver, self.key
        branch.shields += 1
        try:
            record = branch.take(key, "saga", "saga")
            if record is None:
                driver.note(SagaFailed(key, branch.path, type(error).__name__, recordable(str(error))))
            self._undone, self.given_up = await undo_all(driver, branch, due)
            if record is None or record.progress != "completed":
                driver.note(SagaCompensated(key, self._undone, self.given_up))
        finally:
            branch.shields -= 1
            branch.is_inside = False
        if self.given_up:
            raise CompensationFailedError(saga=self.id, given_up=", ".join(self.given_up), after=recordable(str(error)))

    def pivot(self) -> None:
        """Pass the point of no return: what follows in the block is brought to its end, and nothing is undone.

        From here on a step or an awaited child run in the block that fails for good is not raised: the run waits, in
        need of attention, until a person settles it; only `settle_failed` raises. A cancel, or the deadline, takes
        effect after the block. That a signal or an answer does not come in time is raised: the code set that limit.

        Raises:
            UsageError: the saga is not open, is past its pivot, or was opened by another branch.
            CancelledError: the run was cancelled before it came here.
        """
        branch = enter()
        try:
            if branch is not self._branch or not self._is_open or self._is_past_pivot:
                raise UsageError("saga.pivot() is called once, in the block of its saga and not in a branch of it")
            key = f"{self.key}.pivot"
            if branch.take(key, "pivot", "pivot") is None:
                self._driver.note(PivotPassed(key, branch.path))
            self._is_past_pivot = True
            branch.pivots += 1
            branch.shields += 1
        finally:
            branch.is_inside = False

    # Steps

    @overload
    def undo_with(
        self,
        compensation: Callable[Concatenate[A | None, ...], Any],
        /,
        *,
        unsure: Literal[True],
        retry: Retry | None = None,
    ) -> "Undo": ...
    @overload
    def undo_with(
        self, compensation: Callable[Concatenate[A, ...], Any], /, *, retry: Retry | None = None
    ) -> "UndoOf[A]": ...
    @overload
    def undo_with(
        self,
        compensation: Callable[..., Any],
        first: Any,
        /,
        *args: Any,
        retry: Retry,
        unsure: bool = False,
        **kwargs: Any,
    ) -> "Undo": ...
    @overload
    def undo_with(
        self,
        compensation: Callable[..., Any],
        first: Any,
        /,
        *args: Any,
        unsure: bool,
        retry: Retry | None = None,
        **kwargs: Any,
    ) -> "Undo": ...
    @overload
    def undo_with(self, compensation: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> "Undo": ...
    def undo_with(  # type: ignore[misc] # options cannot stand between P.args and P.kwargs
        self,
        compensation: Callable[..., Any],
        /,
        *args: Any,
        retry: Retry | None = None,
        unsure: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return a way to make a call that *compensation*, a tool or an async function, undoes.

        It is called with the arguments given here; without any, with what the call returned. Beside `retry` and
        `unsure` a checker does not look at the arguments.

        Args:
            compensation: what undoes the call. It gets its own idempotency key, and may be called again after a crash.
            args: its arguments.
            retry: how it is tried again, in place of its own policy; 5 attempts, further and further apart, if it has
                none.
            unsure: call it also where the call did not complete, but may have happened: it failed, timed out or was
                cancelled in flight. The call's result is then None.
            kwargs: its arguments by name.

        Raises:
            UsageError: the saga is not open, or *compensation* is neither a tool nor an async function.
            InvalidArgumentsError: the arguments do not fit.
        """
        self.check_open()
        made = Compensation.of(self._driver, compensation, args, kwargs, retry, unsure=unsure)
        return Undo(self, made, self._ctx)

    def undo_by(
        self,
        compensation: Callable[..., Any],
        arguments: Callable[[Any], dict[str, Any]],
        *,
        retry: Retry | None = None,
        timeout: float | None = None,
        unsure: bool = False,
        instead: "tuple[Tool[..., Any], Callable[[Any], dict[str, Any]]] | None" = None,
    ) -> "Undo":
        """Return a way to make a call that *compensation* undoes, with arguments that are made from what it returned.

        *arguments* gets the result, None where there is none, and returns the arguments by name; it must always return
        the same for the same result. `timeout`: seconds that one attempt at the compensation may take. `instead`: a
        tool, and what makes its arguments, that is called once where the compensation failed for good. Otherwise as
        `undo_with`.

        Raises:
            UsageError: the saga is not open, or *compensation* is neither a tool nor an async function.
        """
        self.check_open()
        limit = None if timeout is None else timedelta(seconds=timeout)
        made = Compensation.by(self._driver, compensation, arguments, retry, unsure=unsure, timeout=limit)
        if instead is not None:
            last = Compensation.by(self._driver, *instead, None, unsure=unsure, timeout=limit)
            made = msgspec.structs.replace(made, instead=last)
        return Undo(self, made, self._ctx)

    def with_options(
        self,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        fallback: Tool[..., Any] | None = None,
        limit_key: str = "",
        effect: EffectClass | None = None,
    ) -> "Undo":
        """Return a way to make a call with options and without a compensation; see `Context.with_options`."""
        ctx = self._ctx.with_options(
            key=key, retry=retry, timeout=timeout, fallback=fallback, limit_key=limit_key, effect=effect
        )
        return Undo(self, None, ctx)

    async def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool that nothing undoes; otherwise as `Context.call`, and counted in `completed`."""
        return await Undo(self, None, self._ctx).call(tool, *args, **kwargs)

    async def step(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an async function that nothing undoes; otherwise as `Context.step`, and counted in `completed`."""
        return await Undo(self, None, self._ctx).step(function, *args, **kwargs)

    def check_open(self) -> None:
        """Check that its block is under way.

        Raises:
            UsageError: it is not.
        """
        if not self._is_open:
            raise UsageError("the saga is not open: its calls belong into its block, async with ctx.saga() as saga: …")

    def take_over(self, due: list[Due]) -> None:
        """Undo *due* as well, should this saga fail: that of a saga within it that has ended well."""
        if not self._is_past_pivot:
            self._due.extend(due)

    def completes(self, one: Due, *, is_done: bool) -> None:
        """Take note of a step that completed, or may have."""
        if is_done:
            self._completed.append(one)
        if one.compensation is not None and not self._is_past_pivot:
            self._due.append(one)


class UndoOf(Protocol[A]):
    """An `Undo` whose compensation gets what the call returns: for checkers, which see to it that the two fit."""

    def with_options(
        self,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        fallback: Tool[..., Any] | None = None,
        limit_key: str = "",
        effect: EffectClass | None = None,
    ) -> Self:
        """See `Undo.with_options`."""
        ...

    async def call(self, tool: Tool[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
        """See `Undo.call`."""
        ...

    async def step(self, function: Callable[P, Awaitable[A]], *args: P.args, **kwargs: P.kwargs) -> A:
        """See `Undo.step`."""
        ...

    async def around(self, part: Coroutine[Any, Any, A]) -> A:
        """See `Undo.around`."""
        ...


class Undo:
    """Makes one call that can be undone."""

    __slots__ = ("_compensation", "_ctx", "_saga")

    def __init__(self, saga: Saga, compensation: Compensation | None, ctx: "Context") -> None:
        self._saga = saga
        self._compensation = compensation
        self._ctx = ctx

    def with_options(
        self,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        fallback: Tool[..., Any] | None = None,
        limit_key: str = "",
        effect: EffectClass | None = None,
    ) -> Self:
        """Return the same with options for the call, not for what undoes it; see `Context.with_options`."""
        ctx = self._ctx.with_options(
            key=key, retry=retry, timeout=timeout, fallback=fallback, limit_key=limit_key, effect=effect
        )
        return type(self)(self._saga, self._compensation, ctx)

    async def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool; see `Context.call`.

        Raises:
            StepFailedError, InvalidArgumentsError, UsageError: as `Context.call`.
            UsageError: another tool has the name of the compensation.
        """
        fate = Fate()
        return await self._made(self._ctx.watched(fate).call(tool, *args, **kwargs), fate)

    async def step(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an async function as a step; see `Context.step`.

        Raises:
            StepFailedError, InvalidArgumentsError, UsageError: as `Context.step`.
            UsageError: another tool has the name of the compensation.
        """
        fate = Fate()
        return await self._made(self._ctx.watched(fate).step(function, *args, **kwargs), fate)

    async def around(self, part: Coroutine[Any, Any, R]) -> R:
        """Await several calls that are undone as one, such as `ctx.run(…)`, `ctx.gather(…)` or a function of your own.

        Its key is that of the place. With `unsure` it is undone however it failed.

        Raises:
            Whatever *part* raises.
        """
        try:
            branch = enter()
            branch.is_inside = False
            fate = Fate(branch.key("around"))
            return await self._made(_dispatched(part, fate), fate)
        finally:
            part.close()  # should the call itself be refused: Python would complain of it

    async def _made(self, call: Coroutine[Any, Any, R], fate: Fate) -> R:
        try:
            self._saga.check_open()
            if self._compensation is not None:
                await self._compensation.prepare()
            result = await call
        except (Exception, asyncio.CancelledError):
            if fate.was_dispatched and self._compensation is not None and self._compensation.unsure:
                self._register(fate, None, is_done=False)
            raise
        finally:
            call.close()
        self._register(fate, result, is_done=True)
        return result

    def _register(self, fate: Fate, result: object, *, is_done: bool) -> None:
        branch = CURRENT.get()
        assert branch is not None  # noqa: S101 - it has just made a call
        due = Due.of((*branch.place, branch.turn), fate.key, self._compensation, result)
        self._saga.completes(due, is_done=is_done)


async def _dispatched(part: Coroutine[Any, Any, R], fate: Fate) -> R:
    fate.was_dispatched = True
    return await part
