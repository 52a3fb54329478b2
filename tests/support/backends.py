"""What the tests of slots share: the backends, made and thrown away, and short ways to run commands in a slot.

`FACTORIES` is the list of backends that the contract tests run over; a new one adds its factory there.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from perdure.runtime.sandbox.backend import Backend, Execution, ExecutionResult
from perdure.runtime.sandbox.limits import SlotLimits
from perdure.runtime.sandbox.local import Bubblewrap, LocalBackend, PlainProcess
from perdure.runtime.sandbox.remote import RemoteBackend
from perdure.runtime.serving.access import Access
from perdure.runtime.serving.listening import bind, serving
from perdure.runtime.serving.sandbox_server import sandbox_server

T = TypeVar("T")
LIMITS = SlotLimits(
    memory_bytes=512 * 1024**2, processes=200, file_bytes=64 * 1024**2, workspace_bytes=96 * 1024**2, grace_seconds=0.3,
    cpu_seconds=60, output_bytes=4 * 1024**2,
)  # fmt: skip
"""Small enough that a test which breaks out of them does not hurt the machine."""

_numbers = count(1)


class Factory(Protocol):
    """A way to have a backend over a folder of this machine, again and again, as after a crash."""

    is_sandbox: bool

    def __call__(self, root: Path, *, limits: SlotLimits = LIMITS) -> AbstractAsyncContextManager[Backend]:
        """Return a started backend, stopped in the end."""
        ...

    def local(self, root: Path) -> LocalBackend:
        """Return the local backend that performs what this one is asked for, to look at its folders."""
        ...


class BubblewrapFactory:
    is_sandbox = True

    @asynccontextmanager
    async def __call__(self, root: Path, *, limits: SlotLimits = LIMITS) -> AsyncGenerator[Backend]:
        need("bwrap", "bubblewrap")
        backend = Bubblewrap(root, limits=limits)
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()

    def local(self, root: Path) -> LocalBackend:
        return Bubblewrap(root, limits=LIMITS)


class PlainFactory:
    is_sandbox = False

    @asynccontextmanager
    async def __call__(self, root: Path, *, limits: SlotLimits = LIMITS) -> AsyncGenerator[Backend]:
        backend = PlainProcess(root, allow_unsandboxed=True, limits=limits)
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()

    def local(self, root: Path) -> LocalBackend:
        return PlainProcess(root, allow_unsandboxed=True, limits=LIMITS)


class RemoteFactory:
    """Slots behind a sandbox server: the same program may well play both parts."""

    def __init__(self, behind: Factory) -> None:
        self._behind = behind
        self.is_sandbox = behind.is_sandbox

    @asynccontextmanager
    async def __call__(self, root: Path, *, limits: SlotLimits = LIMITS) -> AsyncGenerator[Backend]:
        async with self._behind(root, limits=limits) as there:
            server = sandbox_server(there, slots=20, access=Access.by_token("T"))
            async with serving(server, bind("127.0.0.1", 0), drain_seconds=1) as url:
                backend = RemoteBackend(url, token="T")
                await backend.start()
                try:
                    yield backend
                finally:
                    await backend.stop()

    def local(self, root: Path) -> LocalBackend:
        return self._behind.local(root)


FACTORIES: dict[str, Factory] = {
    "bubblewrap": BubblewrapFactory(),
    "plain": PlainFactory(),
    "remote": RemoteFactory(BubblewrapFactory()),
}


def need(program: str, package: str) -> None:
    """Skip the test where *program* is not here; in CI fail it, since .ci/run installs it."""
    if shutil.which(program) is None:
        if "CI" in os.environ:
            pytest.fail(f"{program} is missing: .ci/run installs {package}")
        pytest.skip(f"{program} is not here: apt-get install {package}")


def make_root() -> Path:
    """Make a folder that the users of slots can reach, which pytest's own folders are not for root's tests."""
    root = Path(tempfile.mkdtemp(prefix="perdure-slots-", dir="/tmp"))  # open to all
    root.chmod(0o711)
    return root


def remove_root(root: Path) -> None:
    """Delete what `make_root` made, whatever tests have left in it."""
    shutil.rmtree(root, ignore_errors=True)


def execution(
    command: str | None = None,
    *,
    slot: str = "slot_0",
    lease: int = 1,
    id: str | None = None,
    tool: str = "bash",
    timeout: float = 30.0,
    **arguments: Any,
) -> Execution:
    """Return an execution, of `bash` unless another tool is named, with an id of its own unless one is given."""
    return Execution(
        slot=slot,
        lease=lease,
        execution_id=id or f"execution-{next(_numbers)}",
        tool=tool,
        arguments=arguments if command is None else {"command": command, **arguments},
        timeout_seconds=timeout,
    )


async def perform(backend: Backend, *executions: Execution) -> list[ExecutionResult]:
    """Perform a batch; return the results in the order of the executions."""
    results = {result.execution_id: result async for result in backend.execute_batch(executions)}
    return [results[each.execution_id] for each in executions]


async def bash(backend: Backend, command: str, **options: Any) -> ExecutionResult:
    """Run one command in slot_0."""
    return (await perform(backend, execution(command, **options)))[0]


def run(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario on a loop of its own."""
    return asyncio.run(scenario())
