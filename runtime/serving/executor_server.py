"""The executor server: trajectories' tool calls for programs elsewhere, over HTTP.

The wire is that of `payloads.py`. What goes wrong with a call is told in its result; the same `uniq_id` of the same
trajectory is executed once, for ever: that is the executor's own promise.
"""

import os
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.serving.access import OPEN, Access, first_token
from perdure.runtime.serving.exchange import answer, application, detail_shape, read, unless_left
from perdure.runtime.serving.payloads import (
    ArtifactArchiveRequestPayload,
    ArtifactArchiveResponsePayload,
    ArtifactListRequestPayload,
    ArtifactListResponsePayload,
    ArtifactReadRequestPayload,
    ArtifactReadResponsePayload,
    ToolExecutorExecuteRequest,
    ToolExecutorReleaseRequest,
    ToolResultPayload,
)
from perdure.store.errors import PerdureError, UsageError

MESSAGE: Final = "Atropos-Agent Tool Executor"
"""What `GET /` says: a part of the wire format."""

PREFIX: Final = "TOOL_EXECUTOR_"
"""Of the variables that an executor server is set up by."""

_TRUE: Final = frozenset({"1", "true", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "n", "off", ""})


class Executor(Protocol):
    """What the server needs of a `ToolExecutor`."""

    config: ExecutorConfig

    async def execute(
        self,
        trajectory_id: str,
        call: ToolCall,
        timeout_s: float | None = None,
        *,
        lease_seconds: float | None = None,
    ) -> ToolResult:
        """Run a call."""
        ...

    async def release_trajectory(self, trajectory_id: str, *, reset_workspace: bool = False) -> None:
        """Give a trajectory's slot back."""
        ...

    async def read_artifact(
        self,
        trajectory_id: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> ArtifactReadResponsePayload:
        """Read a file."""
        ...

    async def list_artifacts(
        self, trajectory_id: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> ArtifactListResponsePayload:
        """List a folder."""
        ...

    async def archive_artifacts(
        self,
        trajectory_id: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> ArtifactArchiveResponsePayload:
        """Archive a folder."""
        ...

    def status(self) -> dict[str, Any]:
        """Return the figures."""
        ...


class ExecutorServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an executor server, as its variables say them."""

    token: str | None = None
    tool_server_url: str | None = None
    tool_server_token: str | None = None
    slots: int = 10
    acquire_timeout_s: float = 30.0
    batch_window_ms: int = 20
    max_batch_size: int = 200
    allow_network: bool = True

    def __repr__(self) -> str:
        """Show no token."""
        shown = ((name, getattr(self, name)) for name in self.__struct_fields__ if not name.endswith("token"))
        return f"ExecutorServerConfig({', '.join(f'{name}={value!r}' for name, value in shown)})"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ExecutorServerConfig":
        """Read TOOL_EXECUTOR_TOKEN, TOOL_EXECUTOR_SLOTS and so on; booleans are 1, true, yes, y, on or their opposites.

        Raises:
            UsageError: a value cannot be read; names the variable.
        """
        variables = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(cls)}
        return cls(
            **{
                field.name: _value(environ[variable].strip(), field.type, variable)
                for variable, field in variables.items()
                if variable in environ
            }
        )


def _value(text: str, kind: Any, variable: str) -> Any:
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise UsageError(f"{variable} is true or false, not {text!r}")
        return text.lower() in _TRUE
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise UsageError(f"{variable} is a number, not {text!r}") from None
    return first_token([text])


def executor_server(executor: Executor, *, access: Access = OPEN) -> Starlette:
    """Return an executor server as an ASGI application; the executor is started and closed by who made it."""
    routes = ExecutorRoutes(executor)
    app = application(routes.table(), access, detail_shape)
    app.add_exception_handler(PerdureError, _refuse)
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    """Say an error that is no result: the caller's mistake, or a log that takes no more writes."""
    status = 400 if isinstance(error, UsageError) else 409 if isinstance(error, SlotError) else 503
    return answer(detail_shape(str(error)), status)


class ExecutorRoutes:
    """The routes of an executor server."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def table(self) -> list[Route]:
        """Return the routes by their paths."""
        return [
            Route("/", self.root),
            Route("/health", self.health),
            Route("/status", self.status),
            Route("/execute", self.execute, methods=["POST"]),
            Route("/release", self.release, methods=["POST"]),
            Route("/artifacts/read", self.read_artifact, methods=["POST"]),
            Route("/artifacts/list", self.list_artifacts, methods=["POST"]),
            Route("/artifacts/archive", self.archive_artifacts, methods=["POST"]),
        ]

    async def root(self, _: Request) -> Response:
        """Say what this is."""
        return answer({"message": MESSAGE})

    async def health(self, _: Request) -> Response:
        """Say that it lives."""
        return answer({"status": "ok"})

    async def status(self, _: Request) -> Response:
        """Show the figures."""
        return answer(self._executor.status())

    async def execute(self, request: Request) -> Response:
        """Run a call; who leaves before its end cancels it. Who is not heard of for long loses the slot."""
        asked = await read(request, ToolExecutorExecuteRequest)
        lease = self._executor.config.lease_seconds
        result = await unless_left(
            request,
            self._executor.execute(asked.trajectory_id, asked.tool.call(), asked.timeout_s, lease_seconds=lease),
        )
        return answer(ToolResultPayload.of(result))

    async def release(self, request: Request) -> Response:
        """Give a trajectory's slot back."""
        asked = await read(request, ToolExecutorReleaseRequest)
        await self._executor.release_trajectory(asked.trajectory_id, reset_workspace=asked.reset_workspace)
        return answer({"status": "ok"})

    async def read_artifact(self, request: Request) -> Response:
        """Read a file."""
        asked = await read(request, ArtifactReadRequestPayload)
        return answer(
            await self._executor.read_artifact(
                asked.trajectory_id,
                asked.path,
                encoding=asked.encoding,
                max_bytes=asked.max_bytes,
                include_sha256=asked.include_sha256,
            )
        )

    async def list_artifacts(self, request: Request) -> Response:
        """List a folder."""
        asked = await read(request, ArtifactListRequestPayload)
        return answer(
            await self._executor.list_artifacts(
                asked.trajectory_id, asked.path, recursive=asked.recursive, max_entries=asked.max_entries
            )
        )

    async def archive_artifacts(self, request: Request) -> Response:
        """Archive a folder."""
        asked = await read(request, ArtifactArchiveRequestPayload)
        return answer(
            await self._executor.archive_artifacts(
                asked.trajectory_id,
                asked.path,
                archive_format=asked.format,
                max_bytes=asked.max_bytes,
                max_entries=asked.max_entries,
            )
        )
