"""Calls a function on behalf of the log: arguments from JSON, the result to JSON, every end as an outcome.

Not here: whether the call may be made, and where its outcome is recorded. Invariant: what comes out holds no revealed
secret.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import msgspec

from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.payloads import Redaction, SecretScope, encode_payload
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.outcome import Failure, Success, describe, reported_error
from perdure.actors.tools.waits import asked_wait
from perdure.store.errors import PerdureError


class Threads(Protocol):
    """Where functions that block run."""

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run *call* on a worker thread. Cancelling fences the thread off: it goes on, and its result is ignored."""
        ...


class Ended(msgspec.Struct, frozen=True):
    """How an invocation ended."""

    outcome: Success | Failure
    micros: int
    cause: BaseException | None = None
    timed_out: bool = False
    """Whether our own limit ended it; what the function did by then is not known."""


class Invoker:
    """Calls tools and steps."""

    def __init__(
        self, threads: Threads, redaction: Redaction, secrets: Callable[[str], str | None], clock: Clock
    ) -> None:
        self._threads = threads
        self._clock = clock
        self.redaction = redaction
        self._secrets = secrets
        self.prepare: Callable[[], object] = lambda: None
        """Called in the task of a call before its tool is, to set what the tool may find in its context."""

    async def invoke(
        self, tool: Tool[..., Any], arguments: bytes | msgspec.Raw, context: ToolContext, timeout: timedelta | None
    ) -> Ended:
        """Call *tool* once and return how it ended.

        Raises:
            CancelledError: the caller was cancelled. One that the tool raises itself is its failure, like `sys.exit`.
        """
        scope = SecretScope(self._secrets)
        started = self._clock.moment().steady
        limit = None if timeout is None else asyncio.timeout(None)
        cancels = _cancels()
        try:
            given = tool.decode_arguments(arguments, context)
            self.prepare()
            with scope:
                called = tool.function(**given) if tool.is_async else self._on_a_thread(tool, given)
                if limit is None or timeout is None:
                    value = await called
                else:
                    async with limit, ending(self._clock, limit, timeout):
                        value = await called
        except asyncio.CancelledError as error:
            if _cancels() > cancels:
                raise
            failure = Failure("CancelledError", "the tool raised CancelledError by itself", ("CancelledError",))
            return Ended(failure, self._since(started), error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tool raises is its failure
            if limit is not None and limit.expired() and isinstance(error, TimeoutError):
                text = f"no result within {timeout.total_seconds():g} s" if timeout else ""
                failure = Failure("TimeoutError", text, ("TimeoutError",))
                return Ended(failure, self._since(started), error, timed_out=True)
            wait = asked_wait(error, self._clock.moment().now)
            return Ended(describe(error, scope.scrub(_text(error)), retry_after=wait), self._since(started), error)
        return self._ended(tool, value, scope, self._since(started))

    def _since(self, started: int) -> int:
        return self._clock.moment().steady - started

    def _on_a_thread(self, tool: Tool[..., Any], given: dict[str, Any]) -> Awaitable[Any]:
        # The thread gets a copy of the context, so that Secret.reveal works there too.
        return self._threads.run(partial(copy_context().run, partial(tool.function, **given)))

    def _ended(self, tool: Tool[..., Any], value: Any, scope: SecretScope, micros: int) -> Ended:
        is_bytes = isinstance(value, (bytes, bytearray))
        if (value is None and not tool.declares_none) or (is_bytes and not tool.declares_bytes):
            what = f"returned {type(value).__name__}: return text or JSON, or declare `-> None` where None is meant"
            return Ended(Failure("InvalidResult", what), micros)
        try:
            result = encode_payload(value, where=f"the result of {tool.name}", redaction=self.redaction)
            result = scope.scrub_json(result)
            read_back = tool.result_decoder.decode(result, f"the result of {tool.name}")
        except PerdureError as error:
            return Ended(Failure("InvalidResult", scope.scrub(str(error)), ("InvalidResult",)), micros, error)
        if (reported := reported_error(result)) is not None:
            return Ended(Failure("ToolReportedError", reported, ("ToolReportedError",), result=result), micros)
        return Ended(Success(result, read_back), micros)


def _cancels() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the tool's own class, which may be broken too
        return f"its text cannot be had: {type(failure).__name__}"


@asynccontextmanager
async def ending(clock: Clock, limit: asyncio.Timeout, after: timedelta) -> AsyncGenerator[None]:
    """Let *limit*, which is entered, expire after so long on the steady clock, as long as the block runs."""
    loop = asyncio.get_running_loop()
    timer = clock.call_after(after // timedelta(microseconds=1), lambda: limit.reschedule(loop.time()))
    try:
        yield
    finally:
        timer.cancel()
