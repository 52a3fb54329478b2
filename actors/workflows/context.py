"""What a workflow's code works with: every way to learn something from outside, each of them recorded."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast, overload

import msgspec
import structlog

from perdure.actors.kernel.clock import SECOND
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.retry import Retry
from perdure.actors.workflows.branch import CURRENT, Branch, enter
from perdure.actors.workflows.calls import StepCall
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import StepFailedError
from perdure.actors.workflows.events import StepKind, TimerFired, TimerSet, ValueRecorded
from perdure.actors.workflows.fork import Fork
from perdure.actors.workflows.steps import perform_step
from perdure.actors.workflows.waiting import Question, ask_people, take_signal
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

MAP_CONCURRENCY = 16
"""Items of a map that are worked on at the same time, unless the call says otherwise."""


class CallOptions(msgspec.Struct, frozen=True):
    """What a call does not say through the tool's own arguments."""

    key: str | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    fallback: Tool[..., Any] | None = None
    limit_key: str = ""


class Context:
    """The way of a workflow to the outside; the same calls give the same results, live and replayed.

    Every call belongs to the branch (task) that makes it. A call from any other task is a `UsageError`.
    """

    __slots__ = ("_driver", "_options", "run_id")

    def __init__(self, driver: "Driver", run_id: str, options: CallOptions = CallOptions()) -> None:  # noqa: B008 - frozen
        self._driver = driver
        self._options = options
        self.run_id = run_id
        """The id of this run."""

    def with_options(
        self,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        fallback: Tool[..., Any] | None = None,
        limit_key: str = "",
    ) -> "Context":
        """Return a context whose calls use these options.

        Args:
            key: the step's key within its branch, in place of the tool's name and ordinal; for one call only.
            retry: how failed attempts are tried again, in place of the tool's own policy.
            timeout: seconds that one attempt may take.
            fallback: a tool with the same parameters, called where the first failed for good or was refused.
            limit_key: whose bucket of the tool's rate limit the call takes its token from, such as a customer's id.

        Raises:
            UsageError: the key is empty, too long, or has one of the characters `/`, `#` and space; the timeout is not
                more than 0.
        """
        if key is not None and (not key or len(key) > 128 or any(c in "/#" or not "!" <= c <= "~" for c in key)):  # noqa: PLR2004 - fits an idempotency key
            raise UsageError(f"a step's key is 1 to 128 printable ASCII characters without space, / and #, not {key!r}")
        if timeout is not None and timeout <= 0:
            raise UsageError("timeout is more than 0 seconds, or left out")
        seconds = None if timeout is None else timedelta(seconds=timeout)
        return Context(self._driver, self.run_id, CallOptions(key, retry, seconds, fallback, limit_key))

    async def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once and for all: its result is recorded, and it is not called again.

        The call's intent is durable before the tool runs (unless its effect is `read`). The result comes back as it
        is read from the log.

        Raises:
            StepFailedError: the tool failed for good, or its circuit is open; the same live and replayed.
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
            UsageError: another tool has the same name, or the call is made where none may be.
        """
        branch = enter()
        try:
            fallback = self._options.fallback or tool.fallback
            try:
                return await self._call_tool(branch, tool, args, kwargs)  # type: ignore[no-any-return] # decoded as R
            except StepFailedError:
                if fallback is None:
                    raise
            return await self._call_tool(branch, fallback, args, kwargs, is_fallback=True)  # type: ignore[no-any-return] # decoded as R
        finally:
            branch.is_inside = False

    async def _call_tool(
        self,
        branch: Branch,
        tool: Tool[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_fallback: bool = False,
    ) -> Any:
        engine, conversation = self._driver.engine, self._driver.conversation
        shell = engine.toolbox.shell_in_memory(tool, conversation) or await engine.toolbox.shell(tool, conversation)
        call = self._step_call(branch, "tool", tool, args, kwargs, is_fallback=is_fallback)
        shell.pins += 1  # the actor stays until it was told how the call ended
        try:
            return await perform_step(self._driver, branch, call, shell)
        finally:
            shell.pins -= 1

    async def step(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an async function as a step: recorded like a tool, without a circuit breaker.

        After a crash without an outcome it runs again (its effect class is `idempotent`).

        Raises:
            StepFailedError: it raised; the same live and replayed.
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
        """
        branch = enter()
        try:
            tool = self._driver.engine.toolbox.as_tool(function)
            call = self._step_call(branch, "function", tool, args, kwargs)
            return await perform_step(self._driver, branch, call, None)  # type: ignore[no-any-return] # decoded as R
        finally:
            branch.is_inside = False

    def _step_call(
        self,
        branch: Branch,
        kind: StepKind,
        tool: Tool[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_fallback: bool = False,
    ) -> StepCall:
        options = self._options
        arguments = tool.encode_arguments(args, kwargs, self._driver.engine.redaction)
        named = f"{options.key}~" if is_fallback and options.key else options.key
        key = branch.key(tool.name) if named is None else branch.named_key(named)
        return StepCall(
            key=key,
            kind=kind,
            tool=tool,
            arguments=arguments,
            digest=digest(tool.name, arguments),
            retry=options.retry or tool.retry,
            timeout=options.timeout or tool.timeout,
            limit_key=options.limit_key,
            may_fall_back=kind == "tool" and not is_fallback and (options.fallback or tool.fallback) is not None,
        )

    @overload
    async def gather(self, a: Coroutine[Any, Any, T1], b: Coroutine[Any, Any, T2], /) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self, a: Coroutine[Any, Any, T1], b: Coroutine[Any, Any, T2], c: Coroutine[Any, Any, T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        a: Coroutine[Any, Any, T1],
        b: Coroutine[Any, Any, T2],
        c: Coroutine[Any, Any, T3],
        d: Coroutine[Any, Any, T4],
        /,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(self, *parts: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...
    async def gather(self, *parts: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
        """Run *parts* as numbered branches beside one another and return their results in order.

        All have ended when it returns. When one fails the others are cancelled, and the failure with the lowest number
        is raised.

        Raises:
            UsageError: a part is not a coroutine that has not started.
        """
        try:
            branch = enter()
            try:
                for part in parts:
                    if not asyncio.iscoroutine(part):
                        raise UsageError(f"ctx.gather takes coroutines such as ctx.call(…), not {type(part).__name__}")
                starts = [_starter(part) for part in parts]
                return tuple(await Fork(branch, branch.key("gather"), starts, len(parts) or 1).join())
            finally:
                branch.is_inside = False
        finally:
            # Those that never started, also when the call itself is refused: Python would complain of them.
            for part in parts:
                if asyncio.iscoroutine(part):
                    part.close()

    @overload
    async def map(
        self, function: Tool[Concatenate[T, ...], R], items: Iterable[T], *, concurrency: int = MAP_CONCURRENCY
    ) -> list[R]: ...
    @overload
    async def map(
        self, function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, concurrency: int = MAP_CONCURRENCY
    ) -> list[R]: ...
    async def map(
        self,
        function: Tool[Concatenate[T, ...], R] | Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        concurrency: int = MAP_CONCURRENCY,
    ) -> list[R]:
        """Run *function* on each item, each in a numbered branch; return the results in the order of the items.

        *function* may be a tool or any async function that uses `ctx`. At most *concurrency* items at a time.

        Raises:
            UsageError: the items have no order (a set), or the concurrency is below 1.
            Whatever the item with the lowest number raises among those that failed; the others are cancelled.
        """
        branch = enter()
        try:
            if isinstance(items, AbstractSet) or concurrency < 1:
                raise UsageError("ctx.map needs items in an order (a list, not a set) and a concurrency of at least 1")
            worker = self._worker(function)
            starts = [_bound(worker, item) for item in items]
            return await Fork(branch, branch.key("map"), starts, concurrency).join()
        finally:
            branch.is_inside = False

    def _worker(
        self, function: Tool[Concatenate[T, ...], R] | Callable[[T], Coroutine[Any, Any, R]]
    ) -> Callable[[T], Coroutine[Any, Any, R]]:
        if not isinstance(function, Tool):
            return function
        tool = cast("Tool[..., Any]", function)
        return lambda item: self.call(tool, item)

    async def sleep(self, duration: timedelta | float) -> None:
        """Sleep for seconds, or a timedelta; the end is recorded, so a restart neither adds nor saves time.

        A run in which every branch sleeps for more than a minute leaves memory meanwhile.
        """
        branch = enter()
        driver = self._driver
        try:
            seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
            key = branch.key("sleep")
            record = branch.take(key, "timer", "sleep")
            if record is None:
                due = driver.engine.clock.moment().now + int(seconds * SECOND)
                driver.note(TimerSet(key, branch.path, due))
            elif record.progress == "completed":
                return
            elif branch.is_cut or branch.is_replaying:
                raise branch.cut()  # what was recorded after a sleep that never ended was done when it was cancelled
            else:
                due = record.due
            await driver.wait(branch, due, key)
            driver.note(TimerFired(key))
        finally:
            branch.is_inside = False

    async def signal(self, name: str, *, of: type[T], timeout: timedelta | None = None) -> T:
        """Wait for the next signal of that name and return its value; signals come in the order of sending.

        One that came before anybody waited is kept, and each is taken once. A run that only waits for signals and
        people leaves memory.

        Raises:
            StepFailedError: none came in time (`error_type` is `TimeoutError`), or its value is not of the type
                (`InvalidSignal`; it is taken all the same). The same live and replayed.
            UsageError: the type cannot be read from JSON, or the timeout is not more than 0.
        """
        branch = enter()
        try:
            return await take_signal(self._driver, branch, self._wait_key(branch, "signal"), name, of, timeout)  # type: ignore[no-any-return] # decoded as T
        finally:
            branch.is_inside = False

    async def ask(
        self,
        text: str,
        *,
        of: type[T],
        choices: Sequence[T] | None = None,
        timeout: timedelta | None = None,
        to: str | Sequence[str] = (),
    ) -> T:
        """Ask people and return the answer, which is given by `run.answer` or `perdure answer`.

        Args:
            text: the question.
            of: the type of the answer; what does not fit is refused where it is given.
            choices: the only answers that are taken.
            timeout: how long the question is open; for ever when left out.
            to: who is asked. It is written down for those who list questions, not checked.

        Raises:
            StepFailedError: nobody answered in time; `error_type` is `TimeoutError`. The same live and replayed.
            UsageError: the type cannot be read from JSON, the timeout is not more than 0, or the question is too long.
        """
        branch = enter()
        try:
            key = self._wait_key(branch, "ask")
            addressed = (to,) if isinstance(to, str) else tuple(to)
            return await ask_people(self._driver, branch, key, Question(text, of, choices, timeout, addressed))  # type: ignore[no-any-return] # decoded as T
        finally:
            branch.is_inside = False

    def _wait_key(self, branch: Branch, name: str) -> str:
        return branch.key(name) if self._options.key is None else branch.named_key(self._options.key)

    def now(self) -> datetime:
        """Return the time (UTC) when the code first came here."""
        micros: int = self._value("now", lambda: self._driver.engine.clock.moment().now)
        return datetime.fromtimestamp(micros / SECOND, UTC)

    def random(self) -> float:
        """Return a random number in [0, 1), drawn when the code first came here."""
        return float(self._value("random", random.random))  # pyright: ignore[reportUnknownArgumentType]

    def uuid(self) -> uuid.UUID:
        """Return a random UUID (version 4), drawn when the code first came here."""
        return uuid.UUID(self._value("uuid", lambda: str(uuid.uuid4())))

    def _value(self, name: str, draw: Callable[[], Any]) -> Any:
        branch = enter()
        try:
            key = branch.key(name)
            record = branch.take(key, "value", name)
            if record is not None:
                return msgspec.json.decode(record.result)
            value = draw()
            self._driver.note(ValueRecorded(key, branch.path, msgspec.Raw(msgspec.json.encode(value))))
            return value
        finally:
            branch.is_inside = False

    @property
    def is_replaying(self) -> bool:
        """Whether the branch is still going through what it did before."""
        branch = CURRENT.get()
        return branch is not None and branch.is_replaying

    @property
    def logger(self) -> "RunLogger":
        """A structlog logger bound to the run, silent while the code is replayed."""
        return RunLogger(self, structlog.get_logger("perdure.run").bind(run=self.run_id))


class RunLogger:
    """Passes to a structlog logger what is said for the first time."""

    __slots__ = ("_ctx", "_logger")

    def __init__(self, ctx: Context, logger: Any) -> None:
        self._ctx = ctx
        self._logger = logger

    def bind(self, **values: Any) -> "RunLogger":
        """Return a logger with more values bound."""
        return RunLogger(self._ctx, self._logger.bind(**values))

    def debug(self, event: str, **values: Any) -> None:
        """Log at the level DEBUG."""
        self._say("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Log at the level INFO."""
        self._say("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Log at the level WARNING."""
        self._say("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Log at the level ERROR."""
        self._say("error", event, values)

    def _say(self, level: str, event: str, values: dict[str, Any]) -> None:
        if not self._ctx.is_replaying:
            getattr(self._logger, level)(event, **values)


def _starter(part: Coroutine[Any, Any, Any]) -> Callable[[], Coroutine[Any, Any, Any]]:
    return lambda: part


def _bound(worker: Callable[[T], Coroutine[Any, Any, R]], item: T) -> Callable[[], Coroutine[Any, Any, R]]:
    return lambda: worker(item)
