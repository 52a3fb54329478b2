"""Calls a function on behalf of the log: arguments from JSON, the result to JSON, every end as an outcome.

Not here: whether the call may be made, and where its outcome is recorded. Invariant: what comes out holds no revealed
secret.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import msgspec

from perdure.actors.kernel.payloads import Redaction, SecretScope, encode_payload, enter_scope
from perdure.actors.tools.definition import Tool, ToolContext
from perdure.actors.tools.outcome import Failure, Success, describe, reported_error
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

    def __init__(self, threads: Threads, redaction: Redaction, secrets: Callable[[str], str | None]) -> None:
        self._threads = threads
        self.redaction = redaction
        self._secrets = secrets

    async def invoke(
        self, tool: Tool[..., Any], arguments: bytes | msgspec.Raw, context: ToolContext, timeout: timedelta | None
    ) -> Ended:
        """Call *tool* once and return how it ended; raises only `CancelledError` and other `BaseException`."""
        scope = SecretScope(self._secrets)
        started = time.perf_counter_ns()
        clock = asyncio.timeout(None if timeout is None else timeout.total_seconds())
        try:
            enter_scope(scope)
            given = tool.decode_arguments(arguments, context)
            async with clock:
                value = await self._call(tool, given)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is its failure
            if clock.expired() and isinstance(error, TimeoutError):
                limit = f"no result within {timeout.total_seconds():g} s" if timeout else ""
                return Ended(Failure("TimeoutError", limit, ("TimeoutError",)), _since(started), error, timed_out=True)
            return Ended(describe(error, scope.scrub(str(error))), _since(started), error)
        return self._ended(tool, value, scope, _since(started))

    async def _call(self, tool: Tool[..., Any], given: dict[str, Any]) -> Any:
        if tool.is_async:
            return await tool.function(**given)
        # The thread gets a copy of the context, so that Secret.reveal works there too.
        return await self._threads.run(partial(copy_context().run, partial(tool.function, **given)))

    def _ended(self, tool: Tool[..., Any], value: Any, scope: SecretScope, micros: int) -> Ended:
        is_bytes = isinstance(value, (bytes, bytearray))
        if (value is None and not tool.declares_none) or (is_bytes and not tool.declares_bytes):
            what = f"returned {type(value).__name__}: return text or JSON, or declare `-> None` where None is meant"
            return Ended(Failure("InvalidResult", what), micros)
        try:
            result = encode_payload(value, where=f"the result of {tool.name}", redaction=self.redaction)
            result = scope.scrub_json(result)
            tool.result_decoder.decode(result, f"the result of {tool.name}")
        except PerdureError as error:
            return Ended(Failure("InvalidResult", scope.scrub(str(error)), ("InvalidResult",)), micros, error)
        if (reported := reported_error(result)) is not None:
            return Ended(Failure("ToolReportedError", reported, ("ToolReportedError",)), micros)
        return Ended(Success(result), micros)


def _since(started: int) -> int:
    return (time.perf_counter_ns() - started) // 1000
