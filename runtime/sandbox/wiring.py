"""What a runtime lends to its executor: its actors, its tools, the way to its tool server. Nothing is decided here."""

from datetime import timedelta

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.tools.errors import ToolError, ToolFailedError
from perdure.actors.tools.registry import Registry
from perdure.actors.workflows.engine import Engine
from perdure.runtime.calls import DirectCall, call_tool
from perdure.runtime.dispatch import text_of
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.executor import Surroundings, ToolExecutor
from perdure.runtime.sandbox.tools import TOOLS as SANDBOX_TOOLS
from perdure.runtime.serving.tool_client import ToolServerClient
from perdure.store.errors import UsageError


class Wiring:
    """The ways from an executor to everything else; close it with `aclose`."""

    def __init__(
        self, engine: Engine, tools: Registry, redaction: Redaction, backend: Backend, config: ExecutorConfig
    ) -> None:
        self._engine = engine
        self._tools = tools
        self._redaction = redaction
        self._address = backend.address
        url = (config.tool_server_url or "").rstrip("/")
        limit = config.external_timeout_seconds
        self._client = ToolServerClient(url, config.tool_server_token, default_timeout_seconds=limit) if url else None

    def surroundings(self, system: ActorSystem) -> Surroundings:
        """Return what the executor is lent."""
        call_server = self._call_server if self._client is not None else None
        return Surroundings(system, self._redaction, self._call_here, call_server)

    async def aclose(self) -> None:
        """Close what is open to the tool server."""
        if self._client is not None:
            await self._client.aclose()

    async def _call_here(self, call: ToolCall, trajectory: str, timeout_seconds: float) -> ToolResult:
        try:
            tool = self._tools[call.name]
            data = tool.encode_arguments((), call.arguments, self._redaction)
            limit = timedelta(seconds=timeout_seconds)
            success = await call_tool(self._engine, DirectCall(tool, data, limit, conversation=trajectory))
        except ToolFailedError as error:
            return ToolResult(success=False, output=error.result or "", error=f"{error.error_type}: {error.reason}")
        except ToolError as error:
            return ToolResult(success=False, error=str(error))
        return ToolResult(success=True, output=text_of(success.result))

    async def _call_server(
        self, call: ToolCall, trajectory: str, timeout_seconds: float, slot: str | None
    ) -> ToolResult:
        if self._client is None:
            return ToolResult(success=False, error="no tool server")
        return await self._client.execute(
            call,
            trajectory_id=trajectory,
            timeout_s=timeout_seconds,
            slot_id=slot,
            container_addr=None if slot is None else self._address,
        )


def make_executor(sandbox: Backend | None, tools: Registry, config: ExecutorConfig | None) -> ToolExecutor | None:
    """Return what runs calls in the slots of *sandbox*, and have *tools* offer what slots bring; None without one.

    Raises:
        UsageError: it is nothing that slots could be on, or there are settings for slots and no slots.
    """
    if sandbox is None:
        if config is not None:
            raise UsageError("executor=… are settings of slots: pass sandbox=… too")
        return None
    if not hasattr(sandbox, "execute_batch"):
        raise UsageError(f"sandbox=… is where slots are, such as Bubblewrap('slots'), not {sandbox!r}")
    made = ToolExecutor(sandbox, tools, config)
    for ours in (each for each in SANDBOX_TOOLS if each.name not in tools):
        tools.register(ours)
    return made
