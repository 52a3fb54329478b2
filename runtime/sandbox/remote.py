"""Slots on another machine: the backend whose commands run behind a sandbox server.

Nothing is run twice. A request that certainly did not arrive is made again; one that may have arrived is asked about by
its execution id, and where the server knows nothing of it either, it is cancelled there before anybody concludes that
it never ran.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from perdure.actors.slots.errors import ResetFailedError, SandboxUnavailableError, SlotError, StaleLeaseError
from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished
from perdure.runtime.serving.client import JsonClient, Reply
from perdure.runtime.serving.errors import NoAnswerError, NotReachedError, ServingError, UnusableReplyError
from perdure.runtime.serving.payloads import (
    BackendReply,
    ForgetRequest,
    OutcomeReply,
    Refusal,
    SandboxReply,
    SandboxRequest,
    SlotArtifactArchiveRequest,
    SlotArtifactListRequest,
    SlotArtifactReadRequest,
    SlotExecutionRequest,
    SlotRequest,
)
from perdure.store.errors import UsageError
from perdure.store.expected import checked

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

MARGIN_SECONDS: Final = 15.0
"""What an execution gets on the way beyond its own limit: for the network, and for ending what runs too long."""

CONTROL_SECONDS: Final = 60.0
"""Of everything that is no execution; a reset may have much to delete."""

_WAITS: Final = (0.1, 0.3, 1.0, 3.0)
"""Between one attempt and the next, in seconds."""

_WAIT_FOR_OUTCOME: Final = 20.0
_WAIT_FOR_END: Final = 10.0
"""Of a command that was told to end: less than the margin, so that the server answers."""
_OK: Final = 200
_RAISED: Final[dict[type[SlotError], dict[str, type]]] = {
    StaleLeaseError: {"slot": str, "lease": int, "current": int},
    ResetFailedError: {"slot": str, "reason": str},
    SandboxUnavailableError: {"detail": str},
}
"""What a server may raise here, and with which data: others would fail where they are caught or shown."""


@checked
class RemoteBackend:
    """The slots of a sandbox server; `RemoteBackend("http://host:8080", token=…)`."""

    def __init__(
        self, url: str, *, token: str | None = None, transport: "httpx2.AsyncBaseTransport | None" = None
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: of the server.
            token: its bearer token.
            transport: another way than the network, such as `httpx2.ASGITransport`.

        Raises:
            UsageError: httpx2 is missing, or it is no URL.
        """
        self._make_client: Callable[[], JsonClient] = partial(JsonClient, url, token, transport=transport)
        self._client = self._make_client()
        self._about: BackendReply | None = None
        self._is_open = True

    @property
    def default_timeout_seconds(self) -> float:
        """The limit of an execution that names none, as the server has it."""
        return self._known().default_timeout_seconds

    @property
    def address(self) -> str:
        """Where the slots are, as tools on a tool server are told (`container_addr`)."""
        return self._client.url

    @property
    def max_slots(self) -> int | None:
        """How many slots the server has."""
        return len(self._known().slots)

    def slot_name(self, number: int) -> str:
        """Return the name of the slot with this number.

        Raises:
            UsageError: the server has fewer slots.
        """
        names = self._known().slots
        if not 0 <= number < len(names):
            raise UsageError(f"{self._client.url} has {len(names)} slots, numbered from 0: there is no {number}")
        return names[number]

    def _known(self) -> BackendReply:
        if self._about is None:
            raise UsageError(f"nothing is known of {self._client.url} yet: call start() first")
        return self._about

    async def start(self) -> None:
        """Ask the server what it has. Idempotent.

        Raises:
            SandboxUnavailableError: it cannot be asked; says why.
        """
        if not self._is_open:
            self._client = self._make_client()
            self._is_open = True
        self._about = _decode(self._client.url, await self._get("/backend"), BackendReply)

    async def stop(self) -> None:
        """Close the connections; what runs on the server is ended by who closes the batches. Idempotent."""
        if self._is_open:
            self._is_open = False
            await self._client.aclose()

    # Holders

    async def acquire(self, slot: str, lease: int) -> None:
        """Make the slot's workspace ready for a new holder. See `Backend`."""
        await self._post("/slots/acquire", SlotRequest(slot_id=slot, lease=lease))

    async def release(self, slot: str, lease: int) -> None:
        """End every process of the holder. See `Backend`."""
        await self._post("/slots/release", SlotRequest(slot_id=slot, lease=lease))

    async def reset(self, slot: str, lease: int) -> None:
        """Empty the slot.

        Raises:
            ResetFailedError: something is left, or the server does not say; nobody may use the slot.
        """
        try:
            await self._post("/slots/reset", SlotRequest(slot_id=slot, lease=lease))
        except SandboxUnavailableError as error:
            raise ResetFailedError(slot=slot, reason=str(error)) from error

    async def recover(self, slot: str, lease: int) -> None:
        """End what is left of the commands of a former life. See `Backend`."""
        await self._post("/slots/recover", SlotRequest(slot_id=slot, lease=lease))

    async def remove(self, slot: str) -> None:
        """Delete the slot with all its files."""
        await self._post("/slots/remove", SlotRequest(slot_id=slot))

    async def health(self, slot: str) -> str | None:
        """Return what is wrong with the slot, or with the way to it, or None."""
        try:
            reply = await self._post("/slots/health", SlotRequest(slot_id=slot))
        except SandboxUnavailableError as error:
            return str(error)
        problem = _decode(self._client.url, reply, dict[str, Any]).get("problem")
        return None if problem is None else str(problem)

    # Executions

    async def execute_batch(self, executions: Sequence[Execution]) -> AsyncGenerator[ExecutionResult]:
        """Perform executions, one stream for each slot, so that none waits for another. See `Backend`.

        Raises:
            SandboxUnavailableError: the server refused one of the streams; the results of the others come first.
        """
        by_slot: dict[str, list[Execution]] = {}
        for execution in executions:
            by_slot.setdefault(execution.slot, []).append(execution)
        results: asyncio.Queue[ExecutionResult | SlotError | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._stream(slot, mine, results)) for slot, mine in by_slot.items()]
        open_streams, refusal = len(tasks), None
        try:
            while open_streams:
                match await results.get():
                    case None:
                        open_streams -= 1
                    case ExecutionResult() as result:
                        yield result
                    case error:
                        refusal = error
            if refusal is not None:
                raise refusal
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _stream(
        self, slot: str, executions: list[Execution], results: "asyncio.Queue[ExecutionResult | SlotError | None]"
    ) -> None:
        """Perform the executions of one slot; cancelled, end them on the server."""
        left = {execution.execution_id: execution for execution in executions}
        try:
            why = await self._send(left, results)
            for execution_id, execution in list(left.items()):
                results.put_nowait(await self._found(execution, why))
                del left[execution_id]
        except SlotError as error:
            results.put_nowait(error)
        except asyncio.CancelledError:
            await self._give_up(slot, list(left))
            raise
        except Exception as error:  # noqa: BLE001 - told to everybody whose result is missing
            for execution in left.values():
                results.put_nowait(_failed(execution, f"Batch execution failed: {error}", "unknown"))
        finally:
            results.put_nowait(None)

    async def _send(
        self, left: dict[str, Execution], results: "asyncio.Queue[ExecutionResult | SlotError | None]"
    ) -> str:
        """Send executions and take in what comes; return why some are left.

        Raises:
            SlotError: the server refused.
        """
        body = self._encoded(left, results)
        if not left:
            return ""
        limit = sum(execution.timeout_seconds + MARGIN_SECONDS for execution in left.values())
        for wait in (*_WAITS, None):
            try:
                async with aclosing(self._client.lines("/batch", body, timeout_seconds=limit)) as lines:
                    async for line in lines:
                        result = self._read_result(line)
                        if left.pop(result.execution_id, None) is not None:
                            results.put_nowait(result)
            except NotReachedError as error:
                if wait is None:
                    for execution in left.values():
                        results.put_nowait(_failed(execution, f"Batch execution failed: {error}", "not begun"))
                    left.clear()
                    return str(error)
                await asyncio.sleep(wait)
            except NoAnswerError as error:
                return str(error)
            else:
                break
        return "Missing result in batch response"

    def _encoded(
        self, left: dict[str, Execution], results: "asyncio.Queue[ExecutionResult | SlotError | None]"
    ) -> list[msgspec.Raw]:
        """Return executions as they are sent; one that cannot be, such as half a character, fails by itself."""
        body: list[msgspec.Raw] = []
        for execution in list(left.values()):
            try:
                body.append(msgspec.Raw(msgspec.json.encode(_request(execution))))
            except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
                results.put_nowait(_failed(execution, f"the call cannot be sent: {error}", "not begun"))
                del left[execution.execution_id]
        return body

    def _read_result(self, line: Reply) -> ExecutionResult:
        return _result(_decode(self._client.url, line, SandboxReply))

    async def _found(self, execution: Execution, why: str) -> ExecutionResult:
        """Return how an execution ended that no result came of."""
        try:
            found = await self.outcome(execution.slot, execution.execution_id)
            if found is None:
                # It may still be on its way: cancelled, it will not begin when it comes.
                await self.cancel(execution.slot, execution.execution_id)
                found = await self.outcome(execution.slot, execution.execution_id)
        except SlotError as error:
            return _failed(execution, f"Batch execution failed: {why}; {error}", "unknown")
        match found:
            case ExecutionResult(metadata={"cancelled": True, "was_begun": False}) | None:
                return _failed(execution, f"Batch execution failed: {why}; it was not begun", "not begun")
            case ExecutionResult():
                return found
            case Unfinished(reason=reason):
                return _failed(execution, f"Batch execution failed: {why}; {reason}", "unknown")

    async def _give_up(self, slot: str, execution_ids: Sequence[str]) -> None:
        """End executions whose caller has left, and wait until they have ended, as far as the server can be told."""
        asked = [
            SlotExecutionRequest(slot_id=slot, execution_id=id, wait_seconds=_WAIT_FOR_END) for id in execution_ids
        ]
        with suppress(ServingError):  # where the server does not hear it, the execution's own limit ends it
            for one in reversed(asked):  # the last first: none may begin because the one before it has ended
                await self._client.post("/slots/cancel", one, timeout_seconds=MARGIN_SECONDS)
            for one in asked:
                await self._client.post("/slots/outcome", one, timeout_seconds=MARGIN_SECONDS)

    async def cancel(self, slot: str, execution_id: str) -> None:
        """End one execution, begun or not. See `Backend`."""
        await self._post("/slots/cancel", SlotExecutionRequest(slot_id=slot, execution_id=execution_id))

    async def outcome(self, slot: str, execution_id: str) -> ExecutionResult | Unfinished | None:
        """Return how an execution ended, waiting for its end where it runs. See `Backend`.

        Raises:
            SandboxUnavailableError: the server cannot be asked.
        """
        request = SlotExecutionRequest(slot_id=slot, execution_id=execution_id, wait_seconds=_WAIT_FOR_OUTCOME)
        while True:
            found = _decode(self._client.url, await self._post("/slots/outcome", request), OutcomeReply)
            match found.state:
                case "running":
                    await asyncio.sleep(_WAITS[0])  # a server that does not wait is not asked without a pause
                case "ended" if found.result is not None:
                    return _result(found.result)
                case "unknown":
                    return None
                case _:
                    return Unfinished(found.reason or "the server says that it ended, and not how")

    async def forget(self, slot: str, execution_ids: Iterable[str]) -> None:
        """Drop what the server keeps of executions."""
        await self._post("/slots/forget", ForgetRequest(slot_id=slot, execution_ids=list(execution_ids)))

    # Files

    async def read_artifact(
        self,
        slot: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> dict[str, Any]:
        """Return a file of the workspace. See `Backend`."""
        return await self._artifact(
            "/artifacts/read",
            SlotArtifactReadRequest(
                slot_id=slot, path=path, encoding=encoding, max_bytes=max_bytes, include_sha256=include_sha256
            ),
        )

    async def list_artifacts(
        self, slot: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> dict[str, Any]:
        """Return what is in a folder. See `Backend`."""
        request = SlotArtifactListRequest(slot_id=slot, path=path, recursive=recursive, max_entries=max_entries)
        return await self._artifact("/artifacts/list", request)

    async def archive_artifacts(
        self,
        slot: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> dict[str, Any]:
        """Return a folder as an archive. See `Backend`."""
        return await self._artifact(
            "/artifacts/archive",
            SlotArtifactArchiveRequest(
                slot_id=slot, path=path, format=archive_format, max_bytes=max_bytes, max_entries=max_entries
            ),
        )

    async def _artifact(self, path: str, request: msgspec.Struct) -> dict[str, Any]:
        reply = await self._attempt(lambda: self._client.post(path, request, timeout_seconds=CONTROL_SECONDS))
        body: dict[str, Any] = _parse(self._client.url, reply, dict[str, Any])
        return {**body, "http_status": reply.status}

    # Asking

    async def _get(self, path: str) -> Reply:
        return self._checked(await self._attempt(lambda: self._client.get(path, timeout_seconds=CONTROL_SECONDS)))

    async def _post(self, path: str, body: msgspec.Struct) -> Reply:
        """Return the answer to a request that may be made again: all but executions are idempotent.

        Raises:
            SlotError: the server refused, or cannot be asked.
        """
        reply = await self._attempt(lambda: self._client.post(path, body, timeout_seconds=CONTROL_SECONDS))
        return self._checked(reply)

    async def _attempt(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        for wait in (*_WAITS, None):
            try:
                return await ask()
            except (NotReachedError, NoAnswerError) as error:
                if wait is None:
                    raise SandboxUnavailableError(detail=str(error)) from error
                await asyncio.sleep(wait)
            except UnusableReplyError as error:
                raise SandboxUnavailableError(detail=str(error)) from error
        raise AssertionError("the last attempt has no wait")

    def _checked(self, reply: Reply) -> Reply:
        if reply.status == _OK:
            return reply
        try:
            refusal = msgspec.json.decode(reply.body, type=Refusal)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            refusal = Refusal()
        if refusal.kind:
            raise _raised(refusal)
        raise SandboxUnavailableError(detail=f"{self._client.url} answers {reply.status}: {reply.detail()}")


def _request(execution: Execution) -> SandboxRequest:
    return SandboxRequest(
        slot_id=execution.slot,
        tool=execution.tool,
        args=execution.arguments,
        execution_id=execution.execution_id,
        timeout=execution.timeout_seconds,
        lease=execution.lease,
    )


def _result(reply: SandboxReply) -> ExecutionResult:
    return ExecutionResult(
        execution_id=reply.execution_id or "",
        success=reply.success,
        output=reply.output,
        error=reply.error,
        metadata=reply.metadata,
    )


def _failed(execution: Execution, error: str, outcome: str) -> ExecutionResult:
    metadata = {"outcome": outcome}
    return ExecutionResult(execution_id=execution.execution_id, success=False, error=error, metadata=metadata)


def _raised(refusal: Refusal) -> SlotError:
    """Return the error that a server raised."""
    data = refusal.data
    for kind, fields in _RAISED.items():
        if kind.__name__ == refusal.kind and {name: type(value) for name, value in data.items()} == fields:
            return kind(**data)
    return SlotError(detail=refusal.error)


def _decode(url: str, reply: Reply, kind: type[T]) -> T:
    if reply.status != _OK:
        raise SandboxUnavailableError(detail=f"{url} answers {reply.status}: {reply.detail()}")
    return _parse(url, reply, kind)


def _parse(url: str, reply: Reply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SandboxUnavailableError(detail=f"{url} sent no usable reply: {error}") from error
