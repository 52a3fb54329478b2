"""The owner's side: listens beside the log for other processes of the same user.

It is an extra: where there cannot be a socket, one line says why, and the runtime works without. Invariants: nobody but
the same user and root is answered; the file is gone when the runtime is closed; a forked child holds neither the socket
nor a connection, so that its parent's death is seen at once.
"""

import asyncio
import contextlib
import os
import socket
import struct
import weakref
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perdure.actors.kernel.logs import logger
from perdure.runtime.control import address
from perdure.runtime.control.messages import PROTOCOL, Hello, encode
from perdure.runtime.control.session import Session

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

CONNECTIONS: Final = 500
"""At the same time; a process has some 1,000 descriptors by default."""
_A_TURN: Final = 64
"""Connections accepted before others have their turn on the loop."""
_AGAIN_SECONDS: Final = 1.0
"""Until the next try to accept when this process has no descriptors left."""

_log = logger("perdure.control")


class ControlServer:
    """A listener and its connections."""

    def __init__(self, runtime: "Runtime", bound: address.Bound) -> None:
        self._runtime = runtime
        self._bound = bound
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[Session, socket.socket] = {}
        self._greeting: set[asyncio.Task[None]] = set()
        self._is_closing = False
        reference = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: (method := reference()) and method())

    @classmethod
    def bind(cls, runtime: "Runtime", database: Path, *, is_wanted: bool) -> "ControlServer | None":
        """Take the place beside *database*, whose lock is held; nobody can connect yet.

        None if it is not wanted, or cannot be had, which is logged.
        """
        try:
            if is_wanted:
                return cls(runtime, address.bind(database))
            address.remove_stale(database)
        except OSError as error:
            path = address.socket_path(database)
            _log.warning("other processes cannot reach this runtime", socket=str(path), reason=str(error))
        return None

    def listen(self) -> None:
        """Let others connect."""
        self._bound.listen()
        self._loop.add_reader(self._bound.socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_A_TURN):
            try:
                connected, _ = self._bound.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("a connection could not be accepted; it is tried again", reason=str(error))
                self._loop.remove_reader(self._bound.socket)
                self._loop.call_later(_AGAIN_SECONDS, self._accept_again)
                return
            connected.settimeout(0)
            if refusal := self._refusal(connected):
                _refuse(connected, self._hello(refusal))
            else:
                task = self._loop.create_task(self._greet(connected))
                self._greeting.add(task)
                task.add_done_callback(self._greeting.discard)

    def _accept_again(self) -> None:
        if not self._is_closing:
            self._loop.add_reader(self._bound.socket, self._accept)

    def _refusal(self, connected: socket.socket) -> str:
        # The file's mode keeps others out already; the kernel's word on who it is does so wherever the file ends up.
        user = address.peer_user(connected)
        if user is None or user not in (0, os.geteuid()):
            _log.warning("another user's connection was refused", user=user)
            return "it is another user's"
        if len(self._sessions) + len(self._greeting) >= CONNECTIONS:
            return f"it has {CONNECTIONS} connections already"
        return ""

    def _hello(self, refused: str = "") -> bytes:
        return encode(Hello(PROTOCOL, _version(), tuple(sorted(self._runtime.settings.redacted_keys)), refused))

    async def _greet(self, connected: socket.socket) -> None:
        session = Session(self._runtime, self._ended)
        self._sessions[session] = connected
        try:
            await self._loop.connect_accepted_socket(lambda: session.channel, connected)
            await session.channel.send(self._hello())
        except OSError:  # it is gone again
            connected.close()
            self._ended(session)

    def _ended(self, session: Session) -> None:
        self._sessions.pop(session, None)

    # The end

    def close_begins(self) -> None:
        """Take no more connections and requests, end what only waits; what was asked for before goes on. Idempotent."""
        if self._is_closing:
            return
        self._is_closing = True
        self._stop_listening()
        self._bound.remove()
        for session in list(self._sessions):
            session.close_begins()

    async def close(self) -> None:
        """Answer what was asked for, then let go of every connection."""
        await self._each(lambda session: session.close("the owner has closed the log"))

    async def abandon(self) -> None:
        """Let go as a killed process does: the file stays."""
        self._is_closing = True
        self._stop_listening()
        await self._each(lambda session: session.abandon())

    def _stop_listening(self) -> None:
        self._loop.remove_reader(self._bound.socket)
        self._bound.close()

    async def _each(self, end: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
        if self._greeting:
            await asyncio.wait(self._greeting)
        await asyncio.gather(*(end(session) for session in list(self._sessions)))

    def _forked(self) -> None:
        # A child's copies would keep the connections open after this process has died, and others would wait for ever.
        self._bound.close()
        for connected in self._sessions.values():
            connected.close()


def _refuse(connected: socket.socket, hello: bytes) -> None:
    with contextlib.suppress(OSError):
        connected.send(struct.pack(">I", len(hello)) + hello)
    connected.close()


def _version() -> str:
    try:
        return version("perdure")
    except PackageNotFoundError:
        return "unknown"
