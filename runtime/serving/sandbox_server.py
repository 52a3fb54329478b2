"""The sandbox server: the slots of a backend for executors on other machines, over HTTP.

The wire is that of `payloads.py`. `POST /batch` answers with an array, or, to who accepts `application/x-ndjson`, with
a line for each result as soon as it is there. Who waits for an array and leaves has cancelled; who reads lines has
not: it can ask for the outcome.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from perdure.actors.slots.errors import ResetFailedError, SandboxUnavailableError, SlotError, StaleLeaseError
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.serving.access import OPEN, Access
from perdure.runtime.serving.exchange import answer, application, error_shape, read, read_json, unless_left
from perdure.runtime.serving.payloads import (
    BackendReply,
    ForgetRequest,
    OutcomeReply,
    SandboxReply,
    SandboxRequest,
    SlotArtifactArchiveRequest,
    SlotArtifactListRequest,
    SlotArtifactReadRequest,
    SlotExecutionRequest,
    SlotRequest,
)
from perdure.runtime.serving.slot_jobs import MAX_JOBS, SlotJobs, refusal_of

LINES: Final = "application/x-ndjson"

_encode = msgspec.json.Encoder().encode
_STATUS: Final[dict[type[SlotError], int]] = {StaleLeaseError: 409, ResetFailedError: 500, SandboxUnavailableError: 503}


def sandbox_server(
    backend: Backend, *, slots: int = 10, access: Access = OPEN, bwrap_available: bool = False
) -> Starlette:
    """Return a sandbox server as an ASGI application; it starts the backend, and stops it at its end.

    Args:
        backend: where the slots are.
        slots: how many of them there are.
        access: who may ask; everybody when left out.
        bwrap_available: what `GET /health` says of bubblewrap.
    """
    routes = SlotRoutes(backend, slots, bwrap_available=bwrap_available)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        await backend.start()
        try:
            yield
        finally:
            await routes.close()
            await backend.stop()

    app = application(routes.table(), access, error_shape, lifespan)
    app.add_exception_handler(SlotError, _refuse)
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, SlotError)  # noqa: S101 - what it was registered for
    return answer(refusal_of(error), _STATUS.get(type(error), 409))


class SlotRoutes:
    """The routes of a sandbox server."""

    def __init__(self, backend: Backend, slots: int, *, bwrap_available: bool) -> None:
        self._backend = backend
        self._jobs = SlotJobs(backend, slots)
        self._bwrap_available = bwrap_available
        self._detached: set[asyncio.Task[None]] = set()

    def table(self) -> list[Route]:
        """Return the routes by their paths."""
        posts = {
            "/execute": self.execute,
            "/batch": self.batch,
            "/reset": self.reset,
            "/artifacts/read": self.read_artifact,
            "/artifacts/list": self.list_artifacts,
            "/artifacts/archive": self.archive_artifacts,
            "/slots/acquire": self.acquire,
            "/slots/release": self.release,
            "/slots/reset": self.reset_for_holder,
            "/slots/recover": self.recover,
            "/slots/remove": self.remove,
            "/slots/cancel": self.cancel,
            "/slots/outcome": self.outcome,
            "/slots/forget": self.forget,
            "/slots/health": self.slot_health,
        }
        gets = {"/health": self.health, "/slots": self.slots, "/backend": self.backend}
        return [
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
            *(Route(path, endpoint) for path, endpoint in gets.items()),
        ]

    async def close(self) -> None:
        """End everything that runs and waits."""
        for task in self._detached:
            task.cancel()
        if self._detached:
            await asyncio.wait(self._detached)
        await self._jobs.close()

    # Executions

    async def execute(self, request: Request) -> Response:
        """Perform one execution; who leaves before its end cancels it."""
        asked = await read(request, SandboxRequest)
        return answer((await unless_left(request, self._run([asked])))[0])

    async def batch(self, request: Request) -> Response:
        """Perform executions, and answer in the order of the request."""
        asked = await self._read_batch(request)
        if LINES in request.headers.get("accept", ""):
            return self._lines(asked)
        return answer(await unless_left(request, self._run(asked)))

    async def _read_batch(self, request: Request) -> list[SandboxRequest]:
        items: object = await read_json(request)
        if not isinstance(items, list):
            raise HTTPException(400, "Expected array of requests")
        many = len(cast("list[object]", items))
        if many > MAX_JOBS:  # ten million empty ones are a body of the allowed size, and minutes of work
            raise HTTPException(413, f"{many} requests at once: at most {MAX_JOBS}")
        try:
            return msgspec.convert(items, list[SandboxRequest])
        except msgspec.ValidationError as error:
            raise HTTPException(400, str(error)) from None

    async def _run(self, requests: list[SandboxRequest]) -> list[SandboxReply]:
        replies: dict[int, SandboxReply] = {}
        await self._jobs.run(requests, replies.__setitem__)
        return [replies[place] for place in range(len(requests))]

    def _lines(self, requests: list[SandboxRequest]) -> Response:
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def run() -> None:
            try:
                await self._jobs.run(requests, lambda _, reply: lines.put_nowait(_encode(reply) + b"\n"))
            finally:
                lines.put_nowait(None)

        async def send() -> AsyncGenerator[bytes]:
            while (line := await lines.get()) is not None:
                yield line

        task = asyncio.create_task(run())
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        return StreamingResponse(send(), media_type=LINES)

    async def cancel(self, request: Request) -> Response:
        """End one execution, begun or not."""
        asked = await read(request, SlotExecutionRequest)
        await self._jobs.cancel(self._known(asked.slot_id), asked.execution_id)
        return _done()

    async def outcome(self, request: Request) -> Response:
        """Say what became of an execution."""
        asked = await read(request, SlotExecutionRequest)
        found: OutcomeReply = await unless_left(
            request, self._jobs.outcome(self._known(asked.slot_id), asked.execution_id, asked.wait_seconds)
        )
        return answer(found)

    async def forget(self, request: Request) -> Response:
        """Drop what is kept of executions."""
        asked = await read(request, ForgetRequest)
        await self._jobs.forget(self._known(asked.slot_id), asked.execution_ids)
        return _done()

    # Slots

    async def reset(self, request: Request) -> Response:
        """Empty a slot that nobody holds with a lease."""
        asked = await read(request, SlotRequest)
        if asked.slot_id not in self._jobs:
            return answer(SandboxReply(success=False, error=f"Unknown slot: {asked.slot_id}"), 404)
        try:
            await self._jobs.reset(asked.slot_id, asked.lease or 0)
        except SlotError as error:
            return answer(SandboxReply(success=False, error=str(error)), _STATUS.get(type(error), 409))
        return answer(SandboxReply(success=True, output=f"Reset workspace for {asked.slot_id}"))

    async def acquire(self, request: Request) -> Response:
        """Make a slot ready for a holder."""
        slot, lease = await self._held(request)
        await self._jobs.acquire(slot, lease)
        return _done()

    async def release(self, request: Request) -> Response:
        """End every process of a holder."""
        slot, lease = await self._held(request)
        await self._jobs.hand_over(slot, lease, self._backend.release)
        return _done()

    async def reset_for_holder(self, request: Request) -> Response:
        """Empty a slot for its holder."""
        slot, lease = await self._held(request)
        await self._jobs.reset(slot, lease)
        return _done()

    async def recover(self, request: Request) -> Response:
        """End what is left of the commands of a holder's former life."""
        slot, lease = await self._held(request)
        await self._jobs.hand_over(slot, lease, self._backend.recover)
        return _done()

    async def remove(self, request: Request) -> Response:
        """Delete a slot with its files."""
        asked = await read(request, SlotRequest)
        await self._jobs.remove(self._known(asked.slot_id))
        return _done()

    async def slot_health(self, request: Request) -> Response:
        """Say what is wrong with a slot."""
        asked = await read(request, SlotRequest)
        return answer({"success": True, "problem": await self._backend.health(self._known(asked.slot_id))})

    async def slots(self, _: Request) -> Response:
        """List the slots."""
        return answer({"slots": [self._slot(name) for name in self._jobs.names]})

    def _slot(self, name: str) -> Mapping[str, Any]:
        current = self._jobs.current(name)
        state = "available" if current is None else "executing"
        return {"slot_id": name, "state": state, "workspace_dir": "/workspace", "current_execution_id": current}

    async def health(self, _: Request) -> Response:
        """Say that it lives, and what it has; the folders are those that commands see."""
        executing = sum(self._jobs.current(name) is not None for name in self._jobs.names)
        body: dict[str, Any] = {
            "status": "ok",
            "slots": len(self._jobs.names),
            "available": len(self._jobs.names) - executing,
            "executing": executing,
            "data_dir": "/workspace",
            "bwrap_available": self._bwrap_available,
            "stateful_dir": "/run/perdure",
        }
        return answer(body)

    async def backend(self, _: Request) -> Response:
        """Say what a `RemoteBackend` must know."""
        return answer(
            BackendReply(slots=self._jobs.names, default_timeout_seconds=self._backend.default_timeout_seconds)
        )

    # Files

    async def read_artifact(self, request: Request) -> Response:
        """Read a file."""
        asked = await read(request, SlotArtifactReadRequest)
        return _artifact(
            await self._backend.read_artifact(
                self._known(asked.slot_id),
                asked.path,
                encoding=asked.encoding,
                max_bytes=asked.max_bytes,
                include_sha256=asked.include_sha256,
            )
        )

    async def list_artifacts(self, request: Request) -> Response:
        """List a folder."""
        asked = await read(request, SlotArtifactListRequest)
        return _artifact(
            await self._backend.list_artifacts(
                self._known(asked.slot_id), asked.path, recursive=asked.recursive, max_entries=asked.max_entries
            )
        )

    async def archive_artifacts(self, request: Request) -> Response:
        """Archive a folder."""
        asked = await read(request, SlotArtifactArchiveRequest)
        return _artifact(
            await self._backend.archive_artifacts(
                self._known(asked.slot_id),
                asked.path,
                archive_format=asked.format,
                max_bytes=asked.max_bytes,
                max_entries=asked.max_entries,
            )
        )

    def _known(self, slot: str) -> str:
        if slot not in self._jobs:
            raise HTTPException(404, f"Unknown slot: {slot}")
        return slot

    async def _held(self, request: Request) -> tuple[str, int]:
        asked = await read(request, SlotRequest)
        if asked.lease is None:
            raise HTTPException(422, "Object missing required field `lease`")
        return self._known(asked.slot_id), asked.lease


def _done() -> Response:
    return answer({"success": True})


def _artifact(reply: dict[str, Any]) -> Response:
    body = {key: value for key, value in reply.items() if key != "http_status"}
    return answer(body, int(reply.get("http_status", 200)))
