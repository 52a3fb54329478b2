"""One connected socket to the owner: numbers the requests, gives each its reply, tells all when it breaks.

Invariant: a request ends in exactly one of its reply, its error, or `ConnectionLostError`.
"""

import asyncio
import os
import socket
import weakref
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.runtime.control import address, meanings, messages
from perdure.runtime.control.channel import Channel
from perdure.runtime.control.errors import ConnectionLostError, NotOwnedError, OwnerUnreachableError
from perdure.runtime.control.faults import error_of
from perdure.runtime.control.request import Request
from perdure.runtime.control.session import IN_FLIGHT, WAITS
from perdure.store import lock

_LONG: Final = (
    messages.Ended, messages.Follow, messages.CallTool, messages.Dispatch,
    *meanings.WAITS, *meanings.CALLS,
)  # fmt: skip
_WITHDRAWN: Final = (*_LONG, messages.ReadPage, *meanings.LARGE)
_POLL_SECONDS: Final = (0.01, 0.02, 0.05)
_HELLO_SECONDS: Final = 10.0
_GRACE_SECONDS: Final = 0.3
"""Between the taking of the lock and the making of the socket file, with much to spare."""


class _HungUpError(Exception):
    """The connection was closed before the owner greeted."""


class Line:
    """A connection that is up, until it is lost."""

    def __init__(self, database: Path, connected: socket.socket) -> None:
        self._path = str(database)
        self._socket = connected
        self._channel = Channel(self._received, self._lost)
        self._open: dict[int, asyncio.Future[messages.Reply]] = {}
        self._hello: asyncio.Future[messages.Hello] = asyncio.get_running_loop().create_future()
        self._short, self._long = asyncio.Semaphore(IN_FLIGHT), asyncio.Semaphore(WAITS - IN_FLIGHT)
        self._last = 0
        self._why = "the owner of the log went away"
        self.redaction = Redaction()
        """The owner's."""
        reference = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (method := reference()) and method())

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._channel.is_lost

    @classmethod
    async def open(cls, database: Path, wait_seconds: float) -> Self:
        """Connect to the owner of *database*, waiting for one that is still opening it.

        Raises:
            NotOwnedError: nobody has it open.
            OwnerUnreachableError: the owner has no socket, refuses, or speaks another version.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + wait_seconds
        while True:
            connected = await _connected(database, max(0.0, give_up_at - loop.time()))
            line = cls(database, connected)
            try:
                await line._attach(connected)
                await line._greet(_HELLO_SECONDS)
            except _HungUpError as error:
                await line.close()
                # An owner that is just ending, or dying: in a moment there is none, or another one.
                if loop.time() >= give_up_at:
                    raise _unreachable(str(database), "it closes every connection") from error
                await asyncio.sleep(_POLL_SECONDS[-1])
            except BaseException:
                await line.close()
                raise
            else:
                return line

    async def _attach(self, connected: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._channel, connected)

    async def _greet(self, wait_seconds: float) -> None:
        try:
            async with asyncio.timeout(wait_seconds):
                hello = await self._hello
        except TimeoutError:
            raise _unreachable(self._path, f"it did not answer within {wait_seconds:g} s") from None
        if hello.refused:
            raise _unreachable(self._path, hello.refused)
        if hello.protocol != messages.PROTOCOL:
            detail = f"it runs Perdure {hello.version}, whose language is another: use the same version"
            raise _unreachable(self._path, detail)
        self.redaction = Redaction(hello.redacted_keys)

    # Requests

    async def request(self, request: Request) -> Any:
        """Return the answer to *request*.

        Cancelled, a wait for a run and a tool call are withdrawn at the owner; everything else is carried out.

        Raises:
            ConnectionLostError: the owner went away before it answered.
            PerdureError: as it answered.
        """
        async with self._long if isinstance(request, _LONG) else self._short:
            number = self._next()
            answered: asyncio.Future[messages.Reply] = asyncio.get_running_loop().create_future()
            self._open[number] = answered
            try:
                await self._channel.send(_frame(number, request))
                reply = await answered
            except ConnectionResetError:
                raise ConnectionLostError(path=self._path, detail=self._why) from None
            except asyncio.CancelledError:
                self._withdraw(number, request)
                raise
            finally:
                self._open.pop(number, None)
        if reply.fault is not None:
            raise error_of(reply.fault)
        return msgspec.json.decode(reply.result, type=messages.answer_type(request))

    def _withdraw(self, number: int, request: Request) -> None:
        if isinstance(request, _WITHDRAWN):
            self._channel.send_at_once(_frame(self._next(), messages.Withdraw(number)))

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _received(self, frame: bytes) -> None:
        try:
            if not self._hello.done():
                self._hello.set_result(messages.decode_hello(frame))
                return
            reply = messages.decode_reply(frame)
        except (msgspec.MsgspecError, RecursionError):
            self._why = "what listens there sent something that is not an answer"
            self._channel.abort()
            return
        if reply.id == 0:
            self._why = reply.fault.text if reply.fault is not None else self._why
            return
        answered = self._open.get(reply.id)
        if answered is not None and not answered.done():
            answered.set_result(reply)

    # The end

    def _lost(self) -> None:
        if not self._hello.done():
            self._hello.set_exception(_HungUpError())
        for answered in self._open.values():
            if not answered.done():
                answered.set_exception(ConnectionLostError(path=self._path, detail=self._why))

    async def close(self) -> None:
        """Let go; requests in flight end with `ConnectionLostError`. Idempotent."""
        self._why = "this connection was closed"
        await self._channel.end(None, 0)
        self._socket.close()
        if self._hello.done() and not self._hello.cancelled():
            self._hello.exception()  # it was told where it was waited for

    def _forked(self) -> None:
        self._socket.close()  # the child's copy


def _frame(number: int, request: Request) -> bytes:
    return messages.encode(messages.Envelope(number, msgspec.Raw(messages.encode(request))))


async def _connected(database: Path, wait_seconds: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    started, pauses = loop.time(), iter(_POLL_SECONDS)
    while True:
        try:
            connected = address.connect(database)
        except FileNotFoundError:
            problem, limit = "it has no socket (its Settings say socket=False, or its log says why)", _GRACE_SECONDS
        except (ConnectionRefusedError, BlockingIOError):
            problem, limit = f"it did not take a connection within {wait_seconds:g} s", wait_seconds
        except PermissionError:
            raise _unreachable(str(database), "it is another user's") from None
        except OSError as error:
            raise _unreachable(str(database), f"its socket cannot be used: {error.strerror or error}") from error
        else:
            return _trusted(database, connected)
        if not lock.look(database).is_held:
            raise NotOwnedError(path=str(database))
        if loop.time() - started >= min(limit, wait_seconds):
            raise _unreachable(str(database), problem)
        await asyncio.sleep(next(pauses, _POLL_SECONDS[-1]))


def _trusted(database: Path, connected: socket.socket) -> socket.socket:
    # Whoever may write to the folder could put a socket there: nothing is told to another user's process but root's and
    # that of the user whose log it is.
    try:
        user = address.peer_user(connected)
        if user is not None and user in (0, os.geteuid(), database.stat().st_uid):
            return connected
    except OSError:
        pass
    connected.close()
    raise _unreachable(str(database), "what listens beside it is another user's process")


def _unreachable(path: str, detail: str) -> OwnerUnreachableError:
    owner = lock.look(Path(path)).owner
    return OwnerUnreachableError(path=path, owner="somebody" if owner is None else str(owner), detail=detail)
