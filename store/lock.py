"""The owner's lock: one process, and one log object in it, may write a log.

`flock` on a file beside the database. The kernel releases it when the owner dies, however it dies; the text in the file
(pid, its start time, host) only feeds messages. The invariant: the file is never deleted, because whoever deletes it
while another waits for it makes two owners.
"""

import fcntl
import os
import socket
import stat
import time
import weakref
from pathlib import Path

import msgspec

from perdure.store.errors import LogUnavailableError, StoreLockedError


class Owner(msgspec.Struct, frozen=True):
    """Who holds a lock, as far as the text in the file is to be trusted."""

    pid: int
    started: int
    """Of the process, in clock ticks since boot where /proc tells: a pid is used again, together with it is not."""
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_alive(self) -> bool:
        """Whether that very process runs on this host."""
        return self.host == socket.gethostname() and _started(self.pid) == self.started and _exists(self.pid)


class OwnerLock:
    """The lock, held from `acquire` to `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        # A forked child shares the lock with its parent until it closes its copy: the log would stay locked for as
        # long as any child lives. Registrations cannot be undone, hence a weak reference.
        reference = weakref.WeakMethod(self._close)
        os.register_at_fork(after_in_child=lambda: (method := reference()) and method())

    @classmethod
    def acquire(cls, database: Path) -> "OwnerLock":
        """Take the lock of *database*; the process holds it until `release` or its death.

        Raises:
            StoreLockedError: another log object holds it, in this process or another.
            LogUnavailableError: the lock's file cannot be made.
        """
        path = lock_path(database)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LogUnavailableError(path=str(database), detail=f"its lock {path} cannot be made: {error}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise LogUnavailableError(
                path=str(database), detail=f"its lock {path} is no file: something is in its place"
            )
        if not _try_exclusively(descriptor):
            owner = _parse(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise StoreLockedError(
                path=str(database), owner="another runtime" if owner is None else str(owner), pid=owner and owner.pid
            )
        lock = cls(path, descriptor)
        lock._write(msgspec.json.encode(Owner(os.getpid(), _started(os.getpid()), socket.gethostname())))
        return lock

    def release(self) -> None:
        """Give the lock up. Idempotent."""
        if self._descriptor is not None:
            self._write(b"")
            self._close()

    def _write(self, text: bytes) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self._close()


class LockState(msgspec.Struct, frozen=True):
    """What an onlooker sees of a lock."""

    is_held: bool
    owner: Owner | None
    """Who wrote the text; with `is_held` false, an owner that ended without closing the log."""


def lock_path(database: Path) -> Path:
    """Return where the lock of *database* lives."""
    return database.with_name(database.name + ".lock")


def look(database: Path) -> LockState:
    """Return who owns *database*, without taking or creating anything."""
    try:
        descriptor = os.open(lock_path(database), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return LockState(is_held=False, owner=None)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return LockState(is_held=False, owner=None)
        return LockState(is_held=not _try(descriptor, fcntl.LOCK_SH), owner=_parse(os.pread(descriptor, 4096, 0)))
    finally:
        os.close(descriptor)


def _try_exclusively(descriptor: int) -> bool:
    # An onlooker in `look` holds a shared lock for some microseconds: it must not be taken for an owner.
    for pause in (0.005, 0.02, 0.1):
        if _try(descriptor, fcntl.LOCK_EX):
            return True
        owner = _parse(os.pread(descriptor, 4096, 0))
        if owner is not None and owner.is_alive:
            return False
        time.sleep(pause)
    return _try(descriptor, fcntl.LOCK_EX)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(text: bytes) -> Owner | None:
    try:
        return msgspec.json.decode(text, type=Owner)
    except msgspec.DecodeError:
        return None


def _started(pid: int) -> int:
    try:
        told = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name of the program may contain spaces and brackets; the fields after its last bracket do not.
    return int(told.rpartition(b")")[2].split()[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
