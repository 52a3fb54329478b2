"""One connection to the owner, seen from the owner: its requests, their bounds, their replies.

Invariants: a request that changes something is carried out whether the other program stays or not; what only waits ends
with the connection. So many requests are in flight at most, whatever is sent; then no more is read.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.logs import logger
from perdure.runtime.control import meanings
from perdure.runtime.control.answering import answer
from perdure.runtime.control.channel import MAX_FRAME_BYTES, Channel
from perdure.runtime.control.faults import fault_of
from perdure.runtime.control.messages import (
    AnyRequest,
    CallTool,
    Dispatch,
    Ended,
    Fault,
    Follow,
    ReadPage,
    Reply,
    Withdraw,
    decode_envelope,
    decode_request,
    encode,
)
from perdure.store.errors import PayloadTooLargeError, PerdureError, UsageError

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

IN_FLIGHT: Final = 64
"""Short requests of one connection at the same time; the next is read when one of them is answered."""
WAITS: Final = 10_000
"""Waits for runs' ends, and tool calls, of one connection at the same time; the next one is refused."""
FOLLOWS: Final = 16
"""Of these, at most so many that wait for events."""
LAST_SECONDS: Final = 2.0
"""How long the end of the runtime waits for a program that does not read its answers."""
PAGES: Final = 4
"""Pages and blobs of one connection in memory at the same time."""

_ENDING: Final = (Ended, Follow, *meanings.WAITS)
_WAITS: Final = (*_ENDING, CallTool, Dispatch, *meanings.CALLS)
_LARGE: Final = (ReadPage, *meanings.LARGE)

_log = logger("perdure.control")


class Session:
    """What one connection asked for and has not been answered."""

    def __init__(self, runtime: "Runtime", on_end: Callable[["Session"], None]) -> None:
        self._runtime = runtime
        self._on_end = on_end
        self.channel = Channel(self._received, self._lost)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._requests: dict[int, AnyRequest] = {}
        self._short = 0
        self._pages = asyncio.Semaphore(PAGES)
        self._is_closing = False

    # Requests

    def _received(self, frame: bytes) -> None:
        try:
            envelope = decode_envelope(frame)
        except (msgspec.MsgspecError, RecursionError):
            self._break("it sent something that is not a request")
            return
        if envelope.id in self._tasks or envelope.id <= 0:
            self._break(f"it used the number {envelope.id} twice")
            return
        try:
            request = decode_request(envelope.request)
        except (msgspec.MsgspecError, RecursionError) as error:
            text = f"the owner of the log does not understand the request ({error}): is its Perdure another version?"
            self._begin(envelope.id, UsageError(text))
            return
        if isinstance(request, Withdraw):
            self._withdraw(request.request)
        elif refusal := self._refusal(request):
            self._begin(envelope.id, UsageError(refusal))
        else:
            self._begin(envelope.id, request)

    def _refusal(self, request: AnyRequest) -> str:
        if isinstance(request, _WAITS) and len(self._tasks) - self._short >= WAITS:
            return f"{WAITS} waits are open on this connection: wait for some of them"
        follows = sum(isinstance(one, Follow) for one in self._requests.values()) if isinstance(request, Follow) else 0
        if follows >= FOLLOWS:
            return f"{FOLLOWS} readers follow the log on this connection: close some of them"
        return ""

    def _begin(self, number: int, request: AnyRequest | UsageError) -> None:
        if not isinstance(request, _WAITS):
            self._short += 1
            if self._short >= IN_FLIGHT:
                self.channel.pause()
        if not isinstance(request, UsageError):
            self._requests[number] = request
        task = asyncio.get_running_loop().create_task(self._answer(number, request))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._answered(number, request))

    async def _answer(self, number: int, request: AnyRequest | UsageError) -> None:
        with contextlib.suppress(ConnectionResetError):  # nobody is there to be told
            if isinstance(request, _LARGE):
                async with self._pages:
                    await self._reply(number, request)
            else:
                await self._reply(number, request)

    def _answered(self, number: int, request: AnyRequest | UsageError) -> None:
        del self._tasks[number]
        self._requests.pop(number, None)
        if not isinstance(request, _WAITS):
            self._short -= 1
        if not self._is_closing:
            self.channel.resume()
        if self.channel.is_lost and not self._tasks:
            self._on_end(self)

    async def _reply(self, number: int, request: AnyRequest | UsageError) -> None:
        try:
            if isinstance(request, UsageError):
                reply = Reply(number, fault=fault_of(request))
            else:
                reply = Reply(number, msgspec.Raw(await answer(self._runtime, request)))
        except PerdureError as error:
            if isinstance(error, UsageError) and self._is_closing and not self._runtime.is_running:
                return  # nothing is wrong with what was asked: it came too late, and `close` tells so
            reply = Reply(number, fault=fault_of(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours: the other program must not wait for ever
            account = account_of(error)
            _log.error("a request of another process failed", request=type(request).__name__, exception=account)
            reply = Reply(number, fault=fault_of(error))
        await self.channel.send(_framed(reply))

    def _withdraw(self, number: int) -> None:
        if isinstance(self._requests.get(number), (*_WAITS, *_LARGE)):
            self._tasks[number].cancel()

    # The end

    def _break(self, why: str) -> None:
        _log.warning("a connection of another process was closed", reason=why)
        self.channel.abort()

    def _lost(self) -> None:
        self._end_waits(_WAITS_ONLY)
        if not self._tasks:
            self._on_end(self)

    def _end_waits(self, kinds: tuple[type, ...]) -> None:
        for number, request in list(self._requests.items()):
            if isinstance(request, kinds):
                self._tasks[number].cancel()

    def close_begins(self) -> None:
        """Read no more requests, and end those that only wait."""
        self._is_closing = True
        self.channel.pause()
        self._end_waits(_WAITS_ONLY)

    async def close(self, why: str) -> None:
        """Answer what was asked before, say why it ends, and let go."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=LAST_SECONDS)
        await self.channel.end(encode(Reply(0, fault=Fault("LogClosedError", text=why))), LAST_SECONDS)
        await self._cancel_all()  # of those whose answers nobody reads

    async def abandon(self) -> None:
        """Let go at once, as if the process had been killed."""
        self._is_closing = True
        self.channel.abort()
        await self.channel.lost()
        await self._cancel_all()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


_WAITS_ONLY: Final = (*_ENDING, *_LARGE)


def _framed(reply: Reply) -> bytes:
    frame = encode(reply)
    if len(frame) <= MAX_FRAME_BYTES:
        return frame
    error = PayloadTooLargeError(where="the answer", size=len(frame), limit=MAX_FRAME_BYTES)
    return encode(Reply(reply.id, fault=fault_of(error)))
