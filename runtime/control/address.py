"""Where the owner's socket is, and who is at its other end. The one module that makes and finds socket files.

It lies beside the log, `<log>.sock`, mode 0600; a path longer than the 107 bytes that a socket's address holds is gone
to through its folder. Invariants: nobody can connect before the mode is set; only a socket file is ever replaced, and
only by whoever holds the log's lock.
"""

import contextlib
import errno
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SUFFIX: Final = ".sock"
BACKLOG: Final = 1024
"""Connections that may wait to be accepted; the kernel takes fewer if it is told so."""

_NAME_BYTES: Final = 70
"""Of the socket's name: with the way to its folder before it, it fits the 104 bytes of macOS too."""
_PROC: Final = Path("/proc/self/fd")
_CREDENTIALS: Final = struct.Struct("3i")
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED = 0, 1, struct.Struct("2I")


def socket_path(database: Path) -> Path:
    """Return where the socket of *database* is; a name that is too long for an address is shortened by a hash."""
    database = Path(os.path.realpath(database))
    name = database.name + SUFFIX
    if len(os.fsencode(name)) > _NAME_BYTES:
        digest = hashlib.blake2b(os.fsencode(database.name), digest_size=16).hexdigest()
        name = f".perdure-{digest}{SUFFIX}"
    return database.with_name(name)


class Bound:
    """A socket at its place: nobody can connect before `listen`."""

    def __init__(self, path: Path, bound: socket.socket, identity: tuple[int, int]) -> None:
        self.path = path
        self.socket = bound
        self._identity = identity

    def listen(self) -> None:
        """Let others connect."""
        self.socket.listen(BACKLOG)

    def remove(self) -> None:
        """Take the socket's file away, if it still is this one's."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()

    def close(self) -> None:
        """Listen no more; the file stays. Idempotent."""
        self.socket.close()

    def __del__(self) -> None:
        self.socket.close()


def bind(database: Path) -> Bound:
    """Return a socket at the place of *database*, whose lock the caller holds; one that was left there is replaced.

    Raises:
        OSError: there cannot be one.
    """
    path = socket_path(database)
    remove_stale(database)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(0)
        with _reachable(path) as address:
            made.bind(address)
        path.chmod(0o600)
        return Bound(path, made, _identity(path))
    except BaseException:
        made.close()
        raise


def remove_stale(database: Path) -> None:
    """Remove a socket that a former owner left; the caller holds the lock.

    Raises:
        OSError: something else is at its place, or it cannot be removed.
    """
    path = socket_path(database)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "something that is no socket is there", str(path))
    path.unlink()


def connect(database: Path) -> socket.socket:
    """Return a socket that is connected to the owner of *database*.

    Raises:
        FileNotFoundError: there is no socket.
        ConnectionRefusedError: nobody listens on it, or not yet.
        BlockingIOError: too many wait to be accepted.
        OSError: it cannot be connected to.
    """
    path = socket_path(database)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(0)
        with _reachable(path) as address:
            made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def peer_user(connected: socket.socket) -> int | None:
    """Return the user id of the process at the other end, as the kernel saw it; None where that cannot be told."""
    try:
        if sys.platform == "darwin":
            return int(_XUCRED.unpack(connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))[1])
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(credentials)[1])
    except (OSError, AttributeError):
        return None


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextmanager
def _reachable(path: Path) -> Generator[str]:
    """Yield a short name of *path*."""
    if len(os.fsencode(path)) <= _NAME_BYTES:
        yield str(path)
    elif _PROC.is_dir():
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield str(_PROC / str(folder) / path.name)
        finally:
            os.close(folder)
    else:
        # Without /proc (macOS): through a link in a folder of our own (0700), which is gone again at once.
        with tempfile.TemporaryDirectory(prefix="perdure-", dir="/tmp") as near:
            link = Path(near) / "d"
            link.symlink_to(path.parent)
            try:
                yield str(link / path.name)
            finally:
                link.unlink()
