"""The tools of slots as tools of workflows and models: each runs in the slot of the trajectory that it is called in.

In a run that is the run's own slot (or its conversation's). A command is irreversible: after a crash the executor
says whether it was begun and how it ended, and what nobody knows is in doubt, for a person to settle.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.errors import SlotError
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.decorator import tool
from perdure.actors.tools.definition import Done, NotDone, Tool
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.store.errors import UsageError
from perdure.store.expected import checked_function

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.sandbox.executor import ToolExecutor

RUNTIME: "ContextVar[Runtime | None]" = ContextVar("perdure_runtime", default=None)
"""The one that calls the tool."""


class CommandResult(msgspec.Struct, frozen=True):
    """What a command came to. That it failed is its answer, not a failure of the tool."""

    exit_code: int
    """-1: it was ended by its limit."""
    output: str
    timed_out: bool = False


class FileResult(msgspec.Struct, frozen=True):
    """What a file tool came to."""

    success: bool
    content: str = ""
    problem: str = ""


@checked_function
def slot_of(call: ToolContext) -> Trajectory:
    """Return the trajectory that a tool is called in, whose slot it may work in; only inside a tool.

    Raises:
        UsageError: outside of a tool, of a run and a conversation, or in a runtime without slots.
    """
    runtime = RUNTIME.get()
    if runtime is None or call.trajectory is None:
        raise UsageError("slot_of() is for tools that are called in a run, or with_options(conversation=…)")
    return runtime.trajectory(call.trajectory)


def _executor() -> "ToolExecutor":
    runtime = RUNTIME.get()
    if runtime is None:
        raise UsageError("a tool of slots is called by a runtime: await ctx.call(bash, command=…)")
    return runtime.executor


async def _call(context: ToolContext, name: str, arguments: dict[str, Any], timeout: float | None) -> ToolResult:
    if context.trajectory is None:
        raise UsageError(f"{name} needs a slot: call it in a run, or rt.with_options(conversation=…).call(…)")
    call = ToolCall(name, arguments, "", context.idempotency_key)
    return await _executor().execute(context.trajectory, call, timeout)


async def _command(context: ToolContext, name: str, arguments: dict[str, Any], timeout: float | None) -> CommandResult:
    result = await _call(context, name, arguments, timeout)
    exit_code = result.metadata.get("exit_code")
    if not isinstance(exit_code, int):
        raise SlotError(detail=result.error or f"{name} gave no exit code")
    return CommandResult(exit_code, result.output or result.error, bool(result.metadata.get("timeout")))


async def _reconcile(key: str) -> Done | NotDone:
    """Find out from the executor whether a command of a former life ran, and how it ended."""
    result = await _executor().find(key)
    if result is None:
        return NotDone()
    exit_code = result.metadata.get("exit_code")
    if not isinstance(exit_code, int):
        raise SlotError(detail=result.error or "the command's end is not known")
    return Done(CommandResult(exit_code, result.output or result.error, bool(result.metadata.get("timeout"))))


@tool(effect="irreversible", reconcile=_reconcile, toolset="sandbox")
async def bash(call: ToolContext, command: str, timeout: float | None = None) -> CommandResult:
    """Run a shell command in the workspace and return its exit code and output. Nothing it starts outlives it."""
    return await _command(call, "bash", {"command": command}, timeout)


@tool(effect="irreversible", reconcile=_reconcile, toolset="sandbox")
async def bash_stateful(call: ToolContext, command: str, timeout: float | None = None) -> CommandResult:
    """Run a command in a shell that keeps its directory, variables and functions from one call to the next."""
    return await _command(call, "bash_stateful", {"command": command}, timeout)


@tool(effect="read", toolset="sandbox")
async def read_file(call: ToolContext, path: str) -> FileResult:
    """Return a text file of the workspace."""
    return _file(await _call(call, "read_file", {"path": path}, None))


@tool(effect="idempotent", toolset="sandbox")
async def write_file(call: ToolContext, path: str, content: str) -> FileResult:
    """Write a text file into the workspace; folders on the way are made."""
    return _file(await _call(call, "write_file", {"path": path, "content": content}, None))


def _file(result: ToolResult) -> FileResult:
    return FileResult(result.success, result.output, result.error)


@tool(effect="irreversible", toolset="sandbox")
async def tmux(  # noqa: PLR0913, PLR0917 - the parameters of the tool, by name
    call: ToolContext,
    action: Literal["start", "send_keys", "stream", "stop", "capture"],
    keys: str | list[str] | None = None,
    block: bool = False,  # noqa: FBT001, FBT002 - the parameter is a model's, by name
    min_wait_s: float = 0.0,
    max_wait_s: float | None = None,
    capture_entire: bool = False,  # noqa: FBT001, FBT002 - the same
    max_bytes: int | None = None,
    reset: bool = False,  # noqa: FBT001, FBT002 - the same
    pane_width: int | None = None,
    pane_height: int | None = None,
) -> FileResult:
    """Drive the slot's terminal: start it, send keys, read the screen or what was written since the last look."""
    given = {
        "action": action, "keys": keys, "block": block, "min_wait_s": min_wait_s, "max_wait_s": max_wait_s,
        "capture_entire": capture_entire, "max_bytes": max_bytes, "reset": reset, "pane_width": pane_width,
        "pane_height": pane_height,
    }  # fmt: skip
    arguments = {name: value for name, value in given.items() if value is not None}
    return _file(await _call(call, "tmux", arguments, None))


TOOLS: tuple[Tool[..., Any], ...] = (bash, bash_stateful, read_file, write_file, tmux)
