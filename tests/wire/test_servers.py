"""The three servers as processes of their own, asked over loopback, stopped and killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

from perdure.actors.slots.calls import ToolCall
from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished
from perdure.runtime.sandbox.remote import RemoteBackend
from perdure.runtime.serving.executor_client import ExecutorClient
from perdure.runtime.serving.tool_client import ToolServerClient
from tests.support.backends import make_root, need, remove_root
from tests.support.cli import Ended, Process, command

TOOLS = """
import os

from perdure import tool


@tool
async def web(q: int) -> str:
    return f"found {q}"


@tool
async def environment() -> str:
    return ",".join(name for name in os.environ if "TOKEN" in name)


@tool(external=True)
async def far(q: int, slot_id: str | None = None) -> str:
    return f"{q} in {slot_id}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def root() -> Any:
    made = make_root()
    yield made
    remove_root(made)


class Server:
    """A server that has said that it listens."""

    def __init__(self, folder: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        self._process = Process(folder, *arguments, "--port", "0", "--json", env=env)
        self._entered = self._process.__enter__()
        line = self._process.line()
        if not line:
            ended = self._process.end()
            raise AssertionError(f"it did not start: {ended.err}")
        self.ready: dict[str, Any] = json.loads(line)
        self.url: str = self.ready["url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.__exit__(*exc)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        self._process.signal(number)
        return self._process.end()


@asynccontextmanager
async def closing(client: Any) -> AsyncGenerator[Any]:
    try:
        yield client
    finally:
        await client.aclose()


def bash(text: str, slot: str = "slot_0", **more: Any) -> dict[str, Any]:
    return {"slot_id": slot, "tool": "bash", "args": {"command": text}, **more}


def sandbox(root: Path, *more: str, **env: str) -> Server:
    need("bwrap", "bubblewrap")
    return Server(root, "sandbox-server", "--data-dir", root / "slots", "--slots", "3", *more, env=env)


def remotely(url: str, scenario: Callable[[RemoteBackend], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        backend = RemoteBackend(url)
        await backend.start()
        try:
            return await scenario(backend)
        finally:
            await backend.stop()

    return asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_when_it_listens_and_stops_when_it_is_asked_to(folder: Path, number: signal.Signals) -> None:
    with Server(folder, "tool-server", "tools.py") as server:
        alive = httpx2.get(f"{server.url}/health", trust_env=False).json()
        ended = server.stop(number)

    assert (server.ready["server"], server.ready["pid"]) == ("tool-server", server.pid)
    assert alive == {"status": "ok"}
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_a_person_is_told_the_address_in_words(folder: Path) -> None:
    with Process(folder, "tool-server", "tools.py", "--port", "0") as process:
        line = process.line()
        process.signal(signal.SIGTERM)
        process.end()

    assert line.startswith("tool-server listens on http://127.0.0.1:")


def test_tools_are_called_over_the_wire_and_the_token_is_gone_from_the_environment(folder: Path) -> None:
    async def scenario(url: str) -> tuple[Any, Any, Any]:
        async with closing(ToolServerClient(url, "T")) as right, closing(ToolServerClient(url, "wrong")) as wrong:
            call = ToolCall("web", {"q": 4})
            seen = await right.execute(ToolCall("environment"))
            return await right.execute(call), await wrong.execute(call), seen

    with Server(folder, "tool-server", "tools.py", env={"TOOL_SERVER_TOKEN": "T"}) as server:
        right, wrong, seen = asyncio.run(scenario(server.url))
        command_line = Path(f"/proc/{server.pid}/cmdline").read_bytes() if Path("/proc/self").is_dir() else b""

    assert (right.success, right.output) == (True, "found 4")
    assert wrong.error == "External tool failed: HTTP 403: Invalid token"
    assert seen.output == ""
    assert b"T\0" not in command_line.split(b"tools.py", 1)[-1]


def test_a_token_is_read_from_a_file(folder: Path) -> None:
    (folder / "token").write_text("from-a-file\n", encoding="utf-8")

    with Server(folder, "tool-server", "tools.py", "--token-file", "token") as server:
        statuses = [
            httpx2.get(f"{server.url}/tools", headers=headers, trust_env=False).status_code
            for headers in ({}, {"Authorization": "Bearer from-a-file"}, {"Host": "evil.example.com"})
        ]

    assert statuses == [401, 200, 403]


def test_with_a_log_every_call_is_recorded(folder: Path) -> None:
    async def scenario(url: str) -> None:
        async with closing(ToolServerClient(url)) as client:
            await client.execute(ToolCall("web", {"q": 4}), trajectory_id="t1")

    with Server(folder, "tool-server", "tools.py", "--db", "a.db") as server:
        asyncio.run(scenario(server.url))
        server.stop()

    events = [json.loads(line) for line in command(folder, "log", "--db", "a.db", "--json").out.splitlines()]
    assert [event["type"] for event in events if event["stream"] == "tool/web"] == ["call-started", "call-succeeded"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "set a token, or listen on 127.0.0.1"),  # noqa: S104 - it is refused
        (("--token-file", "nowhere"), "nowhere cannot be read"),
        (("--host", "no.such.host.invalid"), "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = command(folder, "tool-server", "tools.py", "--port", "0", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert said in ended.err


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    with Server(folder, "tool-server", "tools.py") as server:
        ended = command(folder, "tool-server", "tools.py", "--port", server.url.rpartition(":")[2])

    assert ended.code == 2
    assert "Address already in use" in ended.err


@pytest.mark.row("A1-50")
def test_an_execution_in_a_real_slot_is_answered_as_the_wire_format_says(root: Path) -> None:
    with sandbox(root) as server, httpx2.Client(base_url=server.url, trust_env=False) as client:
        reply = client.post("/execute", json=bash("echo hi; echo $SECRET")).json()

    assert list(reply) == ["success", "output", "error", "execution_id", "metadata"]
    assert (reply["success"], reply["output"]) == (True, "hi")
    assert set(reply["metadata"]) == {"exit_code", "sandboxed", "network_isolated"}


@pytest.mark.row("A1-54")
def test_a_batch_keeps_the_order_of_a_slot_and_runs_slots_side_by_side(root: Path) -> None:
    with sandbox(root) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        stamp = "date +%s%N; sleep 0.5; date +%s%N"
        batch = [bash(stamp, execution_id="a"), bash(stamp, execution_id="b"), bash(stamp, "slot_1", execution_id="c")]
        replies = client.post("/batch", json=batch).json()

    (_, a_ended), (b_began, _), (c_began, _) = (map(int, reply["output"].split()) for reply in replies)
    assert [reply["execution_id"] for reply in replies] == ["a", "b", "c"]
    assert b_began >= a_ended
    assert c_began < a_ended


@pytest.mark.row("A1-55")
def test_a_long_output_is_cut_after_fifty_thousand_characters(root: Path) -> None:
    with sandbox(root) as server, httpx2.Client(base_url=server.url, trust_env=False) as client:
        reply = client.post("/execute", json=bash("head -c 60000 /dev/zero | tr '\\0' x")).json()

    assert reply["output"] == "x" * 50_000 + "\n... (output truncated)"


@pytest.mark.row("A1-56")
@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "out", "sub/../../x"])
def test_no_path_leaves_the_workspace(root: Path, path: str) -> None:
    with sandbox(root) as server, httpx2.Client(base_url=server.url, trust_env=False) as client:
        client.post("/execute", json=bash("ln -s /etc/passwd out; mkdir sub"))
        read = client.post("/execute", json={"slot_id": "slot_0", "tool": "read_file", "args": {"path": path}}).json()
        arguments = {"path": path, "content": "x"}
        write = client.post("/execute", json={"slot_id": "slot_0", "tool": "write_file", "args": arguments}).json()
        artifact = client.post("/artifacts/read", json={"slot_id": "slot_0", "path": path})

    refused = "Access denied: path outside workspace"
    assert (read["success"], read["error"]) == (False, refused)
    assert (write["success"], write["error"]) == (False, refused)
    assert (artifact.status_code, artifact.json()["error"]) == (403, refused)


@pytest.mark.row("A1-64")
def test_a_reset_empties_the_workspace_and_ends_what_runs_in_the_background(root: Path) -> None:
    with sandbox(root) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        client.post("/execute", json=bash("touch a"))
        started = client.post("/execute", json={"slot_id": "slot_0", "tool": "tmux", "args": {"action": "start"}})
        reset = client.post("/reset", json={"slot_id": "slot_0"})
        left = client.post("/execute", json=bash("ls -A")).json()
        screen = client.post("/execute", json={"slot_id": "slot_0", "tool": "tmux", "args": {"action": "capture"}})
        unknown = client.post("/reset", json={"slot_id": "slot_77"})

    assert started.json()["success"] is True, started.json()
    assert (reset.status_code, reset.json()["output"]) == (200, "Reset workspace for slot_0")
    assert (left["success"], left["output"]) == (True, "")
    assert screen.json()["success"] is False
    assert (unknown.status_code, unknown.json()["success"]) == (404, False)


def test_a_caller_that_leaves_ends_its_command(root: Path) -> None:
    async def scenario(url: str) -> Any:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            endless = asyncio.create_task(client.post("/execute", json=bash("touch began; sleep 600")))
            asked = {"slot_id": "slot_0", "path": "began"}
            while not (await client.post("/artifacts/read", json=asked)).is_success:  # noqa: ASYNC110 - over the wire
                await asyncio.sleep(0.02)
            endless.cancel()
            await asyncio.wait((endless,))
            return (await client.post("/execute", json=bash("echo next"))).json()["output"]

    with sandbox(root) as server:
        assert asyncio.run(scenario(server.url)) == "next"


def test_a_server_that_is_killed_leaves_what_is_known_of_its_executions(root: Path) -> None:
    async def begin(backend: RemoteBackend) -> Any:
        await backend.acquire("slot_0", 1)
        found = [result async for result in backend.execute_batch([_execution("done", "echo kept > a")])]
        running = asyncio.create_task(_collect(backend, _execution("lost", "touch began; sleep 600")))
        while (await backend.read_artifact("slot_0", "began"))["http_status"] != 200:  # noqa: ASYNC110 - over the wire
            await asyncio.sleep(0.02)
        os.kill(pids[0], signal.SIGKILL)
        running.cancel()
        await asyncio.wait((running,))
        return found

    async def after(backend: RemoteBackend) -> Any:
        await backend.recover("slot_0", 1)
        outcomes = [await backend.outcome("slot_0", name) for name in ("done", "lost", "never")]
        kept = await backend.read_artifact("slot_0", "a")
        again = await _collect(backend, _execution("lost", "touch twice"))
        twice = await backend.read_artifact("slot_0", "twice")
        return outcomes, kept["content"], again, twice["http_status"]

    with sandbox(root) as server:
        pids = [server.pid]
        (first,) = remotely(server.url, begin)
    with sandbox(root) as server:
        (done, lost, never), kept, (again,), twice = remotely(server.url, after)

    assert (first.success, done) == (True, first)
    assert isinstance(lost, Unfinished)
    assert (never, kept) == (None, "kept\n")
    assert (again.success, twice) == (False, 404)


def _execution(name: str, text: str) -> Execution:
    arguments = {"command": text}
    return Execution(slot="slot_0", lease=1, execution_id=name, tool="bash", arguments=arguments, timeout_seconds=600.0)


async def _collect(backend: RemoteBackend, *executions: Execution) -> list[ExecutionResult]:
    return [result async for result in backend.execute_batch(executions)]


def test_a_trajectory_lives_behind_three_servers_and_survives_the_death_of_its_executor(
    folder: Path, root: Path
) -> None:
    async def first(url: str) -> Any:
        async with closing(ExecutorClient(url)) as client:
            ran = await client.execute("t1", ToolCall("terminal", {"command": "echo hi > a; cat a"}, uniq_id="u1"))
            far = await client.execute("t1", ToolCall("far", {"q": 3, "slot_id": "EVIL"}, uniq_id="u2"))
            return ran, far, await client.read_artifact("t1", "a", include_sha256=True)

    async def second(url: str) -> Any:
        async with closing(ExecutorClient(url)) as client:
            again = await client.execute("t1", ToolCall("terminal", {"command": "rm a"}, uniq_id="u1"))
            kept = await client.execute("t1", ToolCall("bash", {"command": "cat a"}, uniq_id="u3"))
            listed = await client.list_artifacts("t1")
            packed = await client.archive_artifacts("t1")
            await client.release("t1", reset_workspace=True)
            gone = await client.read_artifact("t1", "a")
            return again, kept, [entry.path for entry in listed.entries], packed.entry_count, gone

    with sandbox(root) as slots, Server(folder, "tool-server", "tools.py") as tools:
        arguments = ("executor-server", "tools.py", "--db", "a.db", "--sandbox-url", slots.url)
        env = {"TOOL_EXECUTOR_TOOL_SERVER_URL": tools.url}
        with Server(folder, *arguments, env=env) as executor:
            ran, far, read = asyncio.run(first(executor.url))
            os.kill(executor.pid, signal.SIGKILL)
        with Server(folder, *arguments, env=env) as executor:
            again, kept, listed, entries, gone = asyncio.run(second(executor.url))
            status = httpx2.get(f"{executor.url}/status", trust_env=False).json()
            ended = executor.stop()

    assert (ran.success, ran.output, far.output) == (True, "hi", "3 in slot_0")
    assert (read.success, read.content) == (True, "hi\n")
    assert (again.output, kept.output) == ("hi", "hi")
    assert listed == ["a"]
    assert entries >= 1
    assert (gone.success, gone.error) == (False, "No active slot for trajectory (run a sandbox tool first)")
    assert set(status) == {"queue_size", "total_requests", "total_errors", "pool"}
    assert ended.code == 0
