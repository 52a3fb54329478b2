"""Calls of tools in the name of trajectories: what a tool server does once a request is understood. Knows no HTTP.

Where a trajectory is comes from the request alone: what a model writes under those names never reaches a tool. Each
call is made once while the server lives and remembers it; who must know after a restart is the executor, in whose log
the call stands.
"""

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, Protocol

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.slots.calls import ToolResult
from perdure.actors.tools.context import ToolContext, call_deadline
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.errors import (
    BulkheadFullError,
    CircuitOpenError,
    InvalidArgumentsError,
    ToolError,
    ToolFailedError,
)
from perdure.actors.tools.invoke import Invoker
from perdure.actors.tools.outcome import Success
from perdure.actors.tools.registry import Registry
from perdure.runtime.app import Runtime
from perdure.runtime.clock import SystemClock
from perdure.runtime.naming import CONVERSATION
from perdure.runtime.options import OptionValues
from perdure.runtime.serving.once import Once, OtherWorkError
from perdure.runtime.serving.payloads import ToolResultPayload, ToolServerExecuteRequest
from perdure.runtime.threads import WorkerThreads
from perdure.store.errors import PayloadTooLargeError, PerdureError, UnencodableError

CONTEXT_NAMES: Final = ("trajectory_id", "slot_id", "container_addr", "task_id")
"""Parameters that a tool server fills in, from the request."""

MAX_SECONDS: Final = 600.0
"""Of a call that says nothing, of a tool that has no limit of its own: no call holds its place for ever."""

MAX_WAITING: Final = 1_000
"""Calls that may wait for a place; more are refused."""


class Caller(Protocol):
    """Makes one call whose arguments are encoded and checked."""

    redaction: Redaction

    async def call(
        self, tool: Tool[..., Any], arguments: bytes, request: ToolServerExecuteRequest, timeout: timedelta
    ) -> Success:
        """Return what the call came to.

        Raises:
            ToolError: it was refused or failed.
        """
        ...


class GuardedCaller:
    """Calls through a runtime: circuits, limits and the log apply."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.redaction = runtime.redaction

    async def call(
        self, tool: Tool[..., Any], arguments: bytes, request: ToolServerExecuteRequest, timeout: timedelta
    ) -> Success:
        """Return what the call came to. See `Caller`."""
        options = OptionValues(timeout=timeout, conversation=_conversation(request.trajectory_id))
        return await self._runtime.call_encoded(tool, arguments, options)


class PlainCaller:
    """Calls with nothing recorded; a tool's breaker, rate limit, concurrency and fallback are a runtime's."""

    def __init__(self) -> None:
        self._threads = WorkerThreads()
        self._clock = SystemClock()
        self.redaction = Redaction(())  # nothing of this is recorded: a tool gets what was sent
        self._invoker = Invoker(self._threads, self.redaction, os.environ.get, self._clock)
        self._is_started = False

    async def call(
        self, tool: Tool[..., Any], arguments: bytes, request: ToolServerExecuteRequest, timeout: timedelta
    ) -> Success:
        """Return what the call came to. See `Caller`."""
        if not self._is_started:
            self._clock.start(asyncio.get_running_loop(), 0)
            self._is_started = True
        key = call_key(request)
        deadline = call_deadline(self._clock.moment().now, timeout)
        context = ToolContext(key, tool.name, key, 1, trajectory=request.trajectory_id, deadline=deadline)
        ended = await self._invoker.invoke(tool, arguments, context, timeout)
        if isinstance(ended.outcome, Success):
            return ended.outcome
        failure = ended.outcome
        shown = None if failure.result is None else failure.result.decode()
        raise ToolFailedError(
            tool=tool.name, error_type=failure.error_type, reason=failure.message, result=shown
        ) from ended.cause

    def close(self) -> None:
        """End the idle threads."""
        self._threads.close()


class ToolCalls:
    """The tools of a server, at most so many of them running at once."""

    def __init__(self, tools: Registry, caller: Caller, max_concurrency: int) -> None:
        self.tools = tools
        self._caller = caller
        self._places = asyncio.Semaphore(max_concurrency)
        self._waiting = 0
        self._once: Once[ToolResultPayload] = Once(_size_of, _given_up)

    def definitions(self) -> list[dict[str, Any]]:
        """Return the tools that can be used now in the OpenAI function form, without what the server fills in."""
        return [shown_to_models(definition) for definition in self.tools.definitions()]

    async def execute(self, request: ToolServerExecuteRequest) -> ToolResultPayload:
        """Return what a call came to; never raises for what goes wrong with it.

        The same `uniq_id` of the same trajectory is the same call: it is made once, and both get its result.
        Cancelled, an async tool is cancelled and the thread of another one fenced off, unless somebody else waits.
        """
        name, uniq_id = request.tool.name, request.tool.uniq_id
        tool: Tool[..., Any] | None = self.tools.get(name)
        if tool is None:
            return _failed(uniq_id, f"Unknown tool: {name}")
        if not self.tools.is_available(name):
            return _failed(uniq_id, f"Tool not available: {name}")
        try:
            arguments = self._arguments(tool, request)
            digest = blake2b(name.encode() + b"\0" + arguments, digest_size=16).digest()
            result = await self._once.do(call_key(request), digest, lambda: self._make(tool, arguments, request))
        except (ToolError, PayloadTooLargeError, UnencodableError) as error:
            return _result_of(uniq_id, error)
        except OtherWorkError:
            return _failed(uniq_id, f"Tool execution error: uniq_id {uniq_id} was used before for another call")
        return msgspec.structs.replace(result, uniq_id=uniq_id)

    def _arguments(self, tool: Tool[..., Any], request: ToolServerExecuteRequest) -> bytes:
        given = {key: value for key, value in request.tool.arguments.items() if key not in CONTEXT_NAMES}
        parameters = tool.schema["function"]["parameters"]
        given |= {
            name: value
            for name, value in _context(request).items()
            if name in parameters["properties"] and (value is not None or name in parameters["required"])
        }
        return tool.encode_arguments((), given, self._caller.redaction)

    async def _make(
        self, tool: Tool[..., Any], arguments: bytes, request: ToolServerExecuteRequest
    ) -> ToolResultPayload:
        """Return what the call came to.

        Raises:
            ToolError: the tool was not called; asked again, it may be.
        """
        uniq_id, seconds = request.tool.uniq_id, _seconds(tool, request)
        await self._take_place(tool, seconds)
        try:
            success = await self._caller.call(tool, arguments, request, timedelta(seconds=seconds))
        except ToolFailedError as error:
            return _result_of(uniq_id, error)
        except ToolError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked is told, and the next call is made
            return _failed(uniq_id, f"Tool execution error: {type(error).__name__}: {error}")
        finally:
            self._places.release()
        if isinstance(success.value, ToolResult):
            return ToolResultPayload.of(msgspec.structs.replace(success.value, uniq_id=uniq_id))
        return ToolResultPayload(success=True, output=_output(success.result), uniq_id=uniq_id)

    async def _take_place(self, tool: Tool[..., Any], seconds: float) -> None:
        if self._waiting >= MAX_WAITING:
            raise BulkheadFullError(tool=tool.name, reason=f"{MAX_WAITING} calls wait for a place at the server")
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise BulkheadFullError(tool=tool.name, reason=f"no place at the server within {seconds:g} s") from None
        finally:
            self._waiting -= 1


def call_key(request: ToolServerExecuteRequest) -> str:
    """Return what is the same for every request of one call; ids are unique within a trajectory only."""
    return f"{request.trajectory_id or ''}:{request.tool.uniq_id}"


def shown_to_models(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's definition without the parameters that a tool server fills in."""
    function = definition["function"]
    parameters = dict(function["parameters"])
    parameters["properties"] = {k: v for k, v in parameters["properties"].items() if k not in CONTEXT_NAMES}
    parameters["required"] = [name for name in parameters["required"] if name not in CONTEXT_NAMES]
    return {**definition, "function": {**function, "parameters": parameters}}


def _context(request: ToolServerExecuteRequest) -> dict[str, str | None]:
    return {
        "trajectory_id": request.trajectory_id,
        "slot_id": request.slot_id,
        "container_addr": request.container_addr,
        "task_id": request.trajectory_id,
    }


def _conversation(trajectory: str | None) -> str | None:
    if trajectory is None or CONVERSATION.fullmatch(trajectory):
        return trajectory
    return blake2b(trajectory.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _seconds(tool: Tool[..., Any], request: ToolServerExecuteRequest) -> float:
    if request.timeout_s is not None:
        return request.timeout_s
    return MAX_SECONDS if tool.timeout is None else tool.timeout.total_seconds()


def _output(result: bytes) -> str:
    """Return a text as it is, anything else as JSON."""
    if result[:1] != b'"':
        return result.decode()
    text: str = msgspec.json.decode(result)
    return text


def _result_of(uniq_id: str, error: PerdureError) -> ToolResultPayload:
    match error:
        case ToolFailedError(error_type="ToolReportedError", reason=reason, result=str() as result):
            try:
                own = msgspec.json.decode(result, type=ToolResult)
            except msgspec.MsgspecError:
                return ToolResultPayload(success=False, output=_output(result.encode()), error=reason, uniq_id=uniq_id)
            return ToolResultPayload.of(msgspec.structs.replace(own, uniq_id=uniq_id))
        case CircuitOpenError(retry_after_seconds=wait):
            metadata = {"circuit_breaker": True, "retry_after_s": round(wait, 3)}
            return ToolResultPayload(success=False, error=_text(error), metadata=metadata, uniq_id=uniq_id)
        case _:
            return _failed(uniq_id, _text(error))


def _text(error: PerdureError) -> str:
    match error:
        case ToolFailedError(error_type=kind, reason=reason):
            return f"Tool execution error: {kind}: {reason}"
        case InvalidArgumentsError(reason=reason):
            return f"Tool execution error: invalid arguments: {reason}"
        case _:
            return f"Tool execution error: {error}"


def _failed(uniq_id: str, error: str) -> ToolResultPayload:
    return ToolResultPayload(success=False, error=error, uniq_id=uniq_id)


def _given_up() -> ToolResultPayload:
    return _failed("", "Tool execution error: cancelled, since who asked left; it is not made again")


def _size_of(result: ToolResultPayload) -> int:
    return 500 + len(result.output) + len(result.error)
