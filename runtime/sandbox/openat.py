"""One call that opens a path beneath a folder or fails: `openat2`, or a walk without links where there is none.

It never looks at a path and opens it afterwards. Which file may be opened, and what its absence means, is told in
`beneath`.
"""

import ctypes
import errno
import os
import stat
import sys
from functools import cache

OPEN_PATH = getattr(os, "O_PATH", os.O_RDONLY)
"""Opens a file without touching it; Linux only."""

TRIES = 16
"""EAGAIN of openat2: somebody renames all the time, maybe on purpose."""

_OPENAT2 = 437  # the number of the system call on every architecture that CPython supports
_NO_MAGICLINKS = 0x02
_BENEATH = 0x08
# EPERM: a seccomp filter that does not know the call (older Docker, systemd-nspawn; containers/crun#545).
_UNUSABLE = frozenset({errno.ENOSYS, errno.EPERM})


def open_beneath(root: int, path: str, flags: int, mode: int = 0, *, may_use_openat2: bool = True) -> int:
    """Return a descriptor of what is at *path*, relative and without `..`, beneath the folder *root*.

    Opening a pipe or a device does not wait. With `openat2` links are followed where they stay beneath *root*;
    without it none is.

    Raises:
        OSError: with EXDEV, ELOOP or EAGAIN where *path* leaves *root*, or could not be followed safely.
    """
    flags |= os.O_CLOEXEC if flags & getattr(os, "O_PATH", 0) else os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    if may_use_openat2 and has_openat2():
        return _openat2(root, path, flags, mode)
    return _walk(root, path, flags, mode)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(root: int, path: str, flags: int, mode: int) -> int:
    syscall = _system_calls().syscall
    how = _OpenHow(flags, mode, _BENEATH | _NO_MAGICLINKS)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    name = ctypes.c_char_p(os.fsencode(path))
    for _ in range(TRIES):
        opened = syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(root), name, ctypes.byref(how), size)
        if opened >= 0:
            return int(opened)
        if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def _system_calls() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


@cache
def has_openat2() -> bool:
    """Tell whether this kernel has `openat2`, and nothing that filters our system calls forbids it."""
    if not sys.platform.startswith("linux"):
        return False
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(_openat2(root, ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0))
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        return False
    finally:
        os.close(root)
    return True


def _walk(root: int, path: str, flags: int, mode: int) -> int:
    """Open one component after the other, none of them a link."""
    here = os.dup(root)
    *folders, name = path.split("/")
    try:
        for folder in folders:
            below = _step(here, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0)
            os.close(here)
            here = below
        return _step(here, name, flags, mode)
    finally:
        os.close(here)


def _step(folder: int, name: str, flags: int, mode: int) -> int:
    try:
        opened = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    except NotADirectoryError:  # what O_DIRECTORY makes of a link too
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _is_a_link() from None
        raise
    if stat.S_ISLNK(os.fstat(opened).st_mode):  # O_PATH opens the link itself
        os.close(opened)
        raise _is_a_link()
    return opened


def _is_a_link() -> OSError:
    return OSError(errno.ELOOP, os.strerror(errno.ELOOP))
