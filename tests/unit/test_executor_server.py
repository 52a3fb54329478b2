"""The executor server in this process, over an executor that notes what it is asked, and its client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from perdure import UsageError
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.errors import ResetFailedError
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.serving.access import Access
from perdure.runtime.serving.errors import NotReachedError, UnusableReplyError
from perdure.runtime.serving.executor_client import ExecutorClient
from perdure.runtime.serving.executor_server import ExecutorServerConfig, executor_server
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListEntryPayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)
from tests.support.http import asking, listening


class Noting:
    """An executor without slots."""

    def __init__(self) -> None:
        self.config = ExecutorConfig(lease_seconds=90.0)
        self.told: list[tuple[Any, ...]] = []
        self.raises: Exception | None = None
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def execute(
        self,
        trajectory_id: str,
        call: ToolCall,
        timeout_s: float | None = None,
        *,
        lease_seconds: float | None = None,
    ) -> ToolResult:
        self.told.append(("execute", trajectory_id, call.name, call.arguments, timeout_s, lease_seconds))
        if self.raises is not None:
            raise self.raises
        if call.name == "hold":
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return ToolResult(success=True, output="hi", uniq_id=call.uniq_id)

    async def release_trajectory(self, trajectory_id: str, *, reset_workspace: bool = False) -> None:
        if self.raises is not None:
            raise self.raises
        self.told.append(("release", trajectory_id, reset_workspace))

    async def read_artifact(self, trajectory_id: str, path: str, **options: Any) -> ArtifactReadResponsePayload:
        self.told.append(("read", trajectory_id, path, options))
        return ArtifactReadResponsePayload(success=True, content="text", path=path)

    async def list_artifacts(self, trajectory_id: str, path: str = ".", **options: Any) -> ArtifactListResponsePayload:
        self.told.append(("list", trajectory_id, path, options))
        entry = ArtifactListEntryPayload(path="a", is_dir=False, size=1, mtime=2.5)
        return ArtifactListResponsePayload(success=True, entries=[entry])

    async def archive_artifacts(
        self, trajectory_id: str, path: str = ".", **options: Any
    ) -> ArtifactArchiveResponsePayload:
        self.told.append(("archive", trajectory_id, path, options))
        return ArtifactArchiveResponsePayload(success=True, content="UEs=")

    def status(self) -> dict[str, Any]:
        return {"queue_size": 0, "total_requests": 1, "total_errors": 0, "pool": {"total_slots": 2}}


def asked(scenario: Callable[[httpx2.AsyncClient, Noting], Awaitable[Any]], access: Access | None = None) -> Any:
    async def main() -> Any:
        executor = Noting()
        async with asking(executor_server(executor, access=access or Access())) as client:
            return await scenario(client, executor)

    return asyncio.run(main())


def call(name: str = "terminal") -> dict[str, Any]:
    return {"trajectory_id": "t1", "tool": {"name": name, "arguments": {"command": "ls"}, "uniq_id": "u1"}}


def test_a_call_reaches_the_executor_and_its_result_comes_back_with_all_keys() -> None:
    async def scenario(client: httpx2.AsyncClient, executor: Noting) -> Any:
        return (await client.post("/execute", json={**call(), "timeout_s": 0.2})).json(), executor.told

    result, told = asked(scenario)

    assert result == {"success": True, "output": "hi", "error": "", "metadata": {}, "uniq_id": "u1"}
    assert told == [("execute", "t1", "terminal", {"command": "ls"}, 0.2, 90.0)]


def test_the_other_routes_answer_as_the_wire_format_says() -> None:
    async def scenario(client: httpx2.AsyncClient, executor: Noting) -> Any:
        where = {"trajectory_id": "t1"}
        replies = [
            await client.get("/health"),
            await client.get("/status"),
            await client.post("/release", json={**where, "reset_workspace": True}),
            await client.post("/artifacts/read", json={**where, "path": "a"}),
            await client.post("/artifacts/list", json=where),
            await client.post("/artifacts/archive", json=where),
        ]
        return [reply.json() for reply in replies], executor.told

    (health, status, released, read, listed, packed), told = asked(scenario)

    assert (health, released) == ({"status": "ok"}, {"status": "ok"})
    assert list(status) == ["queue_size", "total_requests", "total_errors", "pool"]
    assert list(read) == [
        "success", "content", "error", "encoding", "truncated", "bytes", "file_size", "path", "mime", "sha256",
    ]  # fmt: skip
    assert listed == {
        "success": True, "truncated": False, "error": "",
        "entries": [{"path": "a", "is_dir": False, "size": 1, "mtime": 2.5}],
    }  # fmt: skip
    assert (packed["encoding"], packed["format"], packed["entry_count"]) == ("base64", "tar.gz", 0)
    assert told[0] == ("release", "t1", True)
    assert told[3] == ("archive", "t1", ".", {"archive_format": "tar.gz", "max_bytes": None, "max_entries": None})


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/execute", b"no json", 400),
        ("/execute", b"[]", 400),
        ("/execute", b'{"tool": {"name": "a", "uniq_id": "u"}}', 422),
        ("/release", b"{}", 422),
        ("/release", b'{"trajectory_id": "t", "reset_workspace": "yes"}', 400),
        ("/artifacts/read", b'{"trajectory_id": "t"}', 422),
        ("/artifacts/read", b'{"trajectory_id": "t", "path": "a", "encoding": "rot13"}', 400),
        ("/artifacts/list", b'{"trajectory_id": "t", "max_entries": -1}', 400),
        ("/artifacts/archive", b'{"trajectory_id": "t", "format": "zip"}', 400),
    ],
)
def test_a_body_that_does_not_fit_is_an_error_of_the_caller(path: str, content: bytes, status: int) -> None:
    async def scenario(client: httpx2.AsyncClient, executor: Noting) -> Any:
        return await client.post(path, content=content), executor.told

    response, told = asked(scenario)

    assert (response.status_code, told) == (status, [])
    assert response.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(UsageError("a trajectory's id is …"), 400), (ResetFailedError(slot="slot_0", reason="left"), 409)],
)
def test_what_the_executor_refuses_is_said_in_json(error: Exception, status: int) -> None:
    async def scenario(client: httpx2.AsyncClient, executor: Noting) -> Any:
        executor.raises = error
        return await client.post("/release", json={"trajectory_id": "t1"})

    response = asked(scenario)

    assert (response.status_code, response.json()) == (status, {"detail": str(error)})


def test_an_unexpected_error_says_its_kind_and_no_more() -> None:
    async def scenario(client: httpx2.AsyncClient, executor: Noting) -> Any:
        executor.raises = RuntimeError("with a secret in it")
        return await client.post("/execute", json=call())

    response = asked(scenario)

    assert (response.status_code, response.json()) == (500, {"detail": "Internal error: RuntimeError"})


def test_with_a_token_only_the_health_is_open() -> None:
    async def scenario(client: httpx2.AsyncClient, _: Noting) -> list[int]:
        replies = [await client.get(path) for path in ("/", "/health", "/status")]
        return [reply.status_code for reply in [*replies, await client.post("/execute", json=call())]]

    assert asked(scenario, Access.by_token("T")) == [200, 200, 401, 401]


def over_the_wire(scenario: Callable[[ExecutorClient, Noting], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        executor = Noting()
        async with listening(executor_server(executor)) as url:
            client = ExecutorClient(url)
            try:
                return await scenario(client, executor)
            finally:
                await client.aclose()

    return asyncio.run(main())


def test_a_caller_that_leaves_cancels_its_call() -> None:
    async def scenario(client: ExecutorClient, executor: Noting) -> bool:
        calling = asyncio.create_task(client.execute("t1", ToolCall("hold")))
        await executor.begun.wait()
        calling.cancel()
        await executor.cancelled.wait()
        return True

    assert over_the_wire(scenario) is True


def test_a_tool_elsewhere_reads_files_through_the_client() -> None:
    async def scenario(client: ExecutorClient, executor: Noting) -> Any:
        read = await client.read_artifact("t1", "a", max_bytes=9, include_sha256=True)
        listed = await client.list_artifacts("t1", "sub", recursive=True)
        packed = await client.archive_artifacts("t1", max_entries=4)
        await client.release("t1")
        return read.content, listed.entries[0].mtime, packed.content, executor.told

    content, mtime, packed, told = over_the_wire(scenario)

    assert (content, mtime, packed) == ("text", 2.5, "UEs=")
    assert told[0] == ("read", "t1", "a", {"encoding": "text", "max_bytes": 9, "include_sha256": True})
    assert told[3] == ("release", "t1", False)


def test_a_client_says_what_went_wrong_on_the_way() -> None:
    async def scenario(client: ExecutorClient, executor: Noting) -> None:
        executor.raises = UsageError("no")
        with pytest.raises(UnusableReplyError, match="HTTP 400: no") as refused:
            await client.release("t1")
        assert refused.value.status == 400

    async def nobody() -> None:
        client = ExecutorClient("http://127.0.0.1:1")
        try:
            with pytest.raises(NotReachedError):
                await client.list_artifacts("t1")
        finally:
            await client.aclose()

    over_the_wire(scenario)
    asyncio.run(nobody())


def test_the_environment_sets_the_server_up_and_shows_no_token() -> None:
    config = ExecutorServerConfig.from_environment({
        "TOOL_EXECUTOR_TOKEN": "hunter2", "TOOL_EXECUTOR_SLOTS": "3", "TOOL_EXECUTOR_ALLOW_NETWORK": "No",
        "TOOL_EXECUTOR_ACQUIRE_TIMEOUT_S": "1.5", "TOOL_EXECUTOR_TOOL_SERVER_URL": " http://t ", "SLOTS": "99",
    })  # fmt: skip

    assert (config.token, config.slots, config.acquire_timeout_s) == ("hunter2", 3, 1.5)
    assert (config.allow_network, config.tool_server_url, config.batch_window_ms) == (False, "http://t", 20)
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    ("name", "value"), [("SLOTS", "many"), ("ALLOW_NETWORK", "perhaps"), ("ACQUIRE_TIMEOUT_S", "soon")]
)
def test_a_variable_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"TOOL_EXECUTOR_{name} is "):
        ExecutorServerConfig.from_environment({f"TOOL_EXECUTOR_{name}": value})
