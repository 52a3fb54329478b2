"""One tool call outside of a run: guarded by the tool's circuit breaker, recorded, never made again after a crash.

Its intent is durable before the tool runs (unless its effect is `read`). A crash in between leaves a `call-lost`.
"""

import asyncio
from typing import Any

import uuid_utils

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.breaker import Admission
from perdure.actors.tools.definition import Tool, ToolContext
from perdure.actors.tools.errors import CircuitOpenError, ToolFailedError
from perdure.actors.tools.invoke import Ended
from perdure.actors.tools.outcome import Failure, Success
from perdure.actors.tools.tool import Admit, RecordCancel, RecordFailure, RecordSuccess
from perdure.actors.workflows.engine import Engine
from perdure.store.errors import UsageError
from perdure.store.protocols import Ticket


async def call_tool(engine: Engine, tool: Tool[..., Any], arguments: bytes) -> Any:
    """Call *tool* once and return its result, as it is read from JSON; its outcome is durable on return.

    Raises:
        CircuitOpenError: the circuit breaker refused; the tool was not called.
        ToolFailedError: it failed; the original exception is the cause.
        LogWriteError: the log failed meanwhile; an async tool was cancelled.
        UsageError: the runtime was closed meanwhile; an async tool was cancelled.
    """
    system, shell = engine.system, await engine.tool_shell(tool)
    call = str(uuid_utils.uuid7())
    intent = None if tool.effect == "read" else tool.effect
    asked = system.transact(((shell, Admit(call, engine.life, intent)),), correlation=call)
    admission: Admission = asked.replies[0]
    if not admission.is_admitted:
        if asked.ticket is not None:
            await asked.ticket
        wait = admission.retry_after / SECOND
        raise CircuitOpenError(tool=tool.name, reason=admission.reason, retry_after_seconds=wait)
    intended = None if intent is None else asked.ticket
    return await _make(engine, shell, tool, call, arguments, admission, intended)


async def _make(
    engine: Engine,
    shell: Shell,
    tool: Tool[..., Any],
    call: str,
    arguments: bytes,
    admission: Admission,
    intended: Ticket | None,
) -> Any:
    system, generation = engine.system, admission.generation
    try:
        if intended is not None:
            await intended  # Durable before visible: the intent is on disk before the effect leaves the process.
        context = ToolContext(call, tool.name, call, 1)
        ended = await engine.beside_runs(engine.invoker.invoke(tool, arguments, context, tool.timeout))
    except asyncio.CancelledError:
        system.transact(((shell, RecordCancel(call, generation, 0)),), correlation=call, is_refusable=False)
        if engine.is_stopping and not _is_cancelled():
            raise UsageError(f"the runtime was closed during this call of {tool.name}") from None
        raise
    done = system.transact(((shell, _record(call, generation, ended)),), correlation=call, is_refusable=False)
    if done.ticket is not None:
        await done.ticket
    match ended.outcome:
        case Success(value=value):
            return value
        case Failure(error_type=kind, message=text):
            raise ToolFailedError(tool=tool.name, error_type=kind, reason=text) from ended.cause


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _record(call: str, generation: int, ended: Ended) -> RecordSuccess | RecordFailure:
    match ended.outcome:
        case Failure(error_type=kind, message=text):
            return RecordFailure(call, generation, ended.micros, kind, text)
        case _:
            return RecordSuccess(call, generation, ended.micros)
