"""Slots behind a sandbox server, seen from the executor: nothing is run twice, and nobody waits for another's slot."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from perdure import UsageError
from perdure.actors.slots.errors import ResetFailedError, SandboxUnavailableError, SlotError, StaleLeaseError
from perdure.runtime.sandbox import remote
from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished
from perdure.runtime.sandbox.remote import RemoteBackend
from perdure.runtime.serving.access import Access
from perdure.runtime.serving.errors import NoAnswerError
from perdure.runtime.serving.sandbox_server import sandbox_server
from tests.support.http import Scripted, listening
from tests.support.slots import FakeBackend

Scenario = Callable[[RemoteBackend, FakeBackend], Awaitable[Any]]


def remotely(scenario: Scenario, *, token: str | None = None, given: str | None = None) -> Any:
    async def main() -> Any:
        fake = FakeBackend()
        async with listening(sandbox_server(fake, slots=3, access=Access.by_token(token))) as url:
            backend = RemoteBackend(url, token=given)
            try:
                await backend.start()
                return await scenario(backend, fake)
            finally:
                await backend.stop()

    return asyncio.run(main())


def execution(name: str, command: str = "x", slot: str = "slot_0", lease: int = 1, limit: float = 30.0) -> Execution:
    arguments = {"command": command}
    return Execution(slot=slot, lease=lease, execution_id=name, tool="bash", arguments=arguments, timeout_seconds=limit)


async def results(backend: RemoteBackend, *executions: Execution) -> list[ExecutionResult]:
    return [result async for result in backend.execute_batch(executions)]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.005)


class Cable:
    """A way to a server that can be cut, and mended."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self.is_cut = False
        self.url = ""

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        pipes = {asyncio.ensure_future(_pipe(reader, back)), asyncio.ensure_future(_pipe(there, writer))}
        self._pipes |= pipes
        await asyncio.wait(pipes)

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @asynccontextmanager
    async def laid(self) -> "AsyncGenerator[Cable]":
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            try:
                yield self
            finally:
                self.cut()
                if self._pipes:
                    await asyncio.wait(self._pipes)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def cabled(scenario: Callable[[RemoteBackend, FakeBackend, Cable], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        fake = FakeBackend()
        async with listening(sandbox_server(fake, slots=3)) as url, Cable(url).laid() as cable:
            backend = RemoteBackend(cable.url)
            try:
                await backend.start()
                return await scenario(backend, fake, cable)
            finally:
                await backend.stop()

    return asyncio.run(main())


def test_what_the_server_has_is_known_after_the_start() -> None:
    async def scenario(backend: RemoteBackend, _: FakeBackend) -> Any:
        with pytest.raises(UsageError, match="has 3 slots"):
            backend.slot_name(3)
        return backend.max_slots, backend.default_timeout_seconds, backend.slot_name(2)

    assert remotely(scenario) == (3, 30.0, "slot_2")


def test_before_the_start_nothing_is_known() -> None:
    with pytest.raises(UsageError, match="call start"):
        RemoteBackend("http://127.0.0.1:1").slot_name(0)


def test_results_come_back_with_everything_in_them() -> None:
    async def scenario(backend: RemoteBackend, _: FakeBackend) -> Any:
        return await results(backend, execution("a", "echo ü"))

    (result,) = remotely(scenario)

    assert (result.execution_id, result.success, result.output) == ("a", True, "did echo ü")
    assert result.metadata == {"exit_code": 0, "sandboxed": True, "network_isolated": False}


def test_a_slow_slot_holds_nobody_up() -> None:
    async def scenario(backend: RemoteBackend, fake: FakeBackend) -> list[str]:
        batch = [execution("slow", "hold"), execution("fast", slot="slot_1"), execution("next", slot="slot_1")]
        seen = []
        async for result in backend.execute_batch(batch):
            seen.append(result.execution_id)
            if len(seen) == 2:
                fake.release_held("slow")
        return seen

    assert remotely(scenario) == ["fast", "next", "slow"]


def test_errors_of_slots_are_raised_here_as_there() -> None:
    async def scenario(backend: RemoteBackend, fake: FakeBackend) -> None:
        await backend.acquire("slot_0", 5)
        with pytest.raises(StaleLeaseError) as stale:
            await backend.release("slot_0", 4)
        assert (stale.value.slot, stale.value.lease, stale.value.current) == ("slot_0", 4, 5)
        fake.fails_to_reset = True
        with pytest.raises(ResetFailedError, match="a file is left"):
            await backend.reset("slot_0", 5)
        with pytest.raises(SandboxUnavailableError, match="Unknown slot: nope"):
            await backend.acquire("nope", 1)

    remotely(scenario)


def test_a_stale_execution_fails_and_others_do_not() -> None:
    async def scenario(backend: RemoteBackend, _: FakeBackend) -> Any:
        await backend.acquire("slot_0", 5)
        found = await results(backend, execution("old", lease=4), execution("fine", slot="slot_1"))
        return {result.execution_id: (result.success, result.error) for result in found}

    found = remotely(scenario)

    assert found["fine"] == (True, "")
    assert found["old"][0] is False
    assert "lease 4 of slot slot_0 is over" in found["old"][1]


def test_closing_the_batch_ends_what_runs_and_what_waits() -> None:
    async def scenario(backend: RemoteBackend, fake: FakeBackend) -> Any:
        batch = [execution("a", "hold"), execution("b")]
        async with aclosing(backend.execute_batch(batch)) as found:
            first = asyncio.ensure_future(anext(found))
            await until(lambda: fake.ran == ["a"])
            first.cancel()
            await asyncio.wait((first,))
        return [one for one in fake.told if one[0] == "cancel"]

    assert remotely(scenario) == [("cancel", "slot_0", "b"), ("cancel", "slot_0", "a")]


def test_a_connection_that_is_cut_while_a_command_runs_neither_ends_it_nor_runs_it_twice() -> None:
    async def scenario(backend: RemoteBackend, fake: FakeBackend, cable: Cable) -> Any:
        running = asyncio.create_task(results(backend, execution("a", "hold"), execution("b")))
        await until(lambda: fake.ran == ["a"])
        cable.cut()
        await asyncio.sleep(0)
        fake.release_held("a")
        cable.is_cut = False
        return [(one.execution_id, one.success) for one in await running], fake.ran

    found, ran = cabled(scenario)

    assert found == [("a", True), ("b", True)]
    assert ran == ["a", "b"]


def test_what_the_machine_does_not_know_the_end_of_is_told_as_that() -> None:
    async def scenario(backend: RemoteBackend, fake: FakeBackend, cable: Cable) -> Any:
        running = asyncio.create_task(results(backend, execution("a", "hold")))
        await until(lambda: fake.ran == ["a"])
        cable.cut()
        cable.is_cut = False
        # The server was asked to end it, and what it keeps of it says no more than that it was begun.
        await backend.recover("slot_0", 1)
        fake.outcomes["slot_0", "a"] = Unfinished("it was begun, and nobody knows more")
        return (await running)[0], await backend.outcome("slot_0", "a")

    result, outcome = cabled(scenario)

    assert result.success is False
    assert result.metadata in ({"outcome": "unknown"}, {"cancelled": True, "was_begun": True})
    assert outcome == Unfinished("it was begun, and nobody knows more")


def test_a_server_that_cannot_be_reached_has_done_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAITS", (0.0,))

    async def main() -> ExecutionResult:
        async with Scripted(b"").opened() as server:
            url = server.url
        backend = RemoteBackend(url)
        try:
            return (await results(backend, execution("a")))[0]
        finally:
            await backend.stop()

    result = asyncio.run(main())

    assert result.error.startswith("Batch execution failed: ")
    assert "was not reached" in result.error
    assert result.metadata == {"outcome": "not begun"}


def test_a_request_that_never_came_is_cancelled_before_it_is_called_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(backend: RemoteBackend, fake: FakeBackend) -> Any:
        answers = backend._client.lines

        async def lost(path: str, body: Any, *, timeout_seconds: float) -> AsyncGenerator[Any]:
            if body:
                raise NoAnswerError(server="it", detail="cut")
            yield

        monkeypatch.setattr(backend._client, "lines", lost)
        (result,) = await results(backend, execution("a"))
        monkeypatch.setattr(backend._client, "lines", answers)
        (late,) = await results(backend, execution("a"))  # as if it came after all
        return result, late, fake.ran

    result, late, ran = remotely(scenario)

    assert result.metadata == {"outcome": "not begun"}
    assert late.metadata == {"cancelled": True, "was_begun": False}
    assert ran == []


@pytest.mark.parametrize(
    ("given", "said"), [(None, "401: Missing Authorization header"), ("no", "403: Invalid token"), ("T", None)]
)
def test_a_token_that_is_refused_is_said_at_the_start(given: str | None, said: str | None) -> None:
    async def scenario(backend: RemoteBackend, _: FakeBackend) -> bool:
        return True

    if said is None:
        assert remotely(scenario, token="T", given=given) is True
    else:
        with pytest.raises(SandboxUnavailableError, match=said):
            remotely(scenario, token="T", given=given)


@pytest.mark.parametrize("answer", [b"not json", b"[]", b'{"slots": 3}'])
def test_a_server_of_another_kind_is_unavailable(answer: bytes) -> None:
    async def main() -> None:
        async with Scripted(answer).opened() as server:
            backend = RemoteBackend(server.url)
            try:
                await backend.start()
            finally:
                await backend.stop()

    with pytest.raises(SandboxUnavailableError, match="no usable reply"):
        asyncio.run(main())


def test_files_and_health_come_through() -> None:
    async def scenario(backend: RemoteBackend, _: FakeBackend) -> Any:
        outside = await backend.read_artifact("slot_0", "../x")
        fine = await backend.read_artifact("slot_0", "a", encoding="base64", max_bytes=5, include_sha256=True)
        large = await backend.archive_artifacts("slot_0", max_bytes=1)
        unknown = await backend.list_artifacts("nope")
        return outside, fine["options"], large["http_status"], unknown["http_status"], [
            await backend.health(slot) for slot in ("slot_0", "slot_1")
        ]  # fmt: skip

    outside, options, large, unknown, health = remotely(scenario)

    assert outside == {"http_status": 403, "success": False, "error": "Access denied: path outside workspace"}
    assert options == {"encoding": "base64", "max_bytes": 5, "include_sha256": True}
    assert (large, unknown, health) == (413, 404, [None, "missing: tmp"])


def test_what_is_forgotten_is_forgotten_there() -> None:
    async def scenario(backend: RemoteBackend, _: FakeBackend) -> Any:
        await results(backend, execution("a"))
        before = await backend.outcome("slot_0", "a")
        await backend.forget("slot_0", ["a"])
        return before is not None, await backend.outcome("slot_0", "a")

    assert remotely(scenario) == (True, None)


@pytest.mark.parametrize("data", [{}, {"slot": "slot_0"}, {"slot": [], "lease": "1", "current": None}, {"self": 1}])
def test_a_refusal_with_data_that_do_not_fit_is_still_an_error_that_can_be_shown(data: dict[str, Any]) -> None:
    async def main() -> str:
        refusal = {"success": False, "error": "the reason", "kind": "StaleLeaseError", "data": data}
        async with Scripted(refusal, status=409).opened() as server:
            backend = RemoteBackend(server.url)
            try:
                await backend.acquire("slot_0", 1)
            except SlotError as error:
                return str(error)
            finally:
                await backend.stop()
        return "no error"

    assert asyncio.run(main()) == "the reason"
