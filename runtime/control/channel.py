"""Frames over a stream socket: four bytes of length, then so many bytes. Knows nothing of what is in them.

Invariants: a frame over the bound ends the connection, unread; while paused, at most what one read of the socket gave
is held; `send` is never called past the transport's high-water mark by whoever waits for `drained` first.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Final, cast

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""A value may have 8 MiB, and 4/3 of it where bytes are written as text."""

_LENGTH: Final = struct.Struct(">I")


class Channel(asyncio.Protocol):
    """One connection."""

    def __init__(self, on_frame: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._is_paused = False
        self._is_congested: asyncio.Future[None] | None = None
        self._sending = asyncio.Lock()
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] | None = None
        self.is_lost = False
        """Whether the other end, or this one, has let go."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take in what came; called by asyncio."""
        self._buffer += data
        self._deliver()

    def _deliver(self) -> None:
        start, buffer = 0, self._buffer
        while not self._is_paused and not self.is_lost and len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME_BYTES:
                self.abort()
                return
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            frame = bytes(memoryview(buffer)[start + _LENGTH.size : end])
            start = end
            self._on_frame(frame)
        del buffer[:start]

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._is_paused or self._transport is None:
            return
        self._is_paused = False
        self._deliver()
        if not self._is_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    async def send(self, frame: bytes) -> None:
        """Write a frame, after those that wait already; what a slow reader has not read yet makes this wait.

        Raises:
            ConnectionResetError: the connection is lost; whether the frame arrived is not known.
            ValueError: the frame is over the bound; nothing was sent.
        """
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {len(frame)} bytes is over the bound of {MAX_FRAME_BYTES}")
        if self._is_congested is None and not self._sending.locked():
            self._write(frame)
            return
        async with self._sending:
            while self._is_congested is not None:
                await self._is_congested
            self._write(frame)

    def send_at_once(self, frame: bytes) -> None:
        """Write a small frame without waiting for a slow reader; nothing happens if the connection is lost."""
        if not self.is_lost:
            self._write(frame)

    def _write(self, frame: bytes) -> None:
        if self.is_lost or self._transport is None:
            raise ConnectionResetError
        self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def pause_writing(self) -> None:
        """Take note that the other end reads slowly; called by asyncio."""
        self._is_congested = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Take note that it has caught up; called by asyncio."""
        congested, self._is_congested = self._is_congested, None
        if congested is not None and not congested.done():
            congested.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by asyncio."""
        del exc
        self.is_lost = True
        self._buffer.clear()
        self.resume_writing()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._on_lost()

    async def lost(self) -> None:
        """Return once the connection is no more."""
        if self._transport is None or self.is_lost:
            return
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._ended)

    async def end(self, frame: bytes | None, patience_seconds: float) -> None:
        """Send what waits and a last *frame*, and let go; of an end that does not read, after a while all the same."""
        if self._transport is None or self.is_lost:
            return
        if frame is not None and not self._transport.is_closing():
            self._write(frame)
        self._transport.close()
        try:
            async with asyncio.timeout(patience_seconds):
                await self.lost()
        except TimeoutError:
            self._transport.abort()
            await self.lost()

    def abort(self) -> None:
        """Let go at once."""
        if self._transport is not None:
            self._transport.abort()
