"""Deleting, and measuring, a folder that somebody hostile has filled. Plain functions that block.

Nothing is assumed of what is in it: links are never followed, names are bytes of any kind, folders may be locked
(mode 000), thousands of levels deep, or still be written to. Invariant: nothing outside of the folder is touched.
"""

import os
import stat
import subprocess
from pathlib import Path

MAX_ROUNDS = 50
"""After so many, somebody makes files faster than they are deleted."""
MEASURING_SECONDS = 60
"""A tree that takes longer has some ten million files."""
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty(folder: Path) -> str | None:
    """Delete everything in *folder*, not itself; return what is left and why, or None.

    However deep the tree is, two folders are open at most: a folder found in a folder is moved up to the top first.
    """
    try:
        top = _open(folder)
    except OSError as error:
        return f"{folder.name} cannot be opened: {error.strerror}"
    try:
        for _ in range(MAX_ROUNDS):
            names = os.listdir(top)  # noqa: PTH208 - of a descriptor
            if not names:
                return None
            problems: list[str] = []
            while names:  # what is moved up is next in line
                try:
                    names += _delete(top, names.pop())
                except OSError as error:
                    problems.append(f"{error.filename!r} cannot be deleted: {error.strerror}")
            if problems:
                return problems[0]
        return f"{folder.name} is filled faster than it can be emptied"
    finally:
        os.close(top)


def used_bytes(*folders: Path) -> int | None:
    """Return how much disk the folders take together, or None when it could not be found out in time.

    By du(1): it has no trouble with depth, and runs beside the event loop where a walk in Python would hold the GIL.
    """
    command = ["du", "-skxc", "--", *map(str, folders)]
    try:
        told = subprocess.run(  # noqa: S603 - a fixed program over our own folders
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MEASURING_SECONDS, check=False
        )
        return int(told.stdout.splitlines()[-1].split()[0]) * 1024
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None  # what is locked or gone meanwhile is only not counted; here there was no sum at all


def free_bytes(folder: Path) -> int:
    """Return how much of the disk that a folder is on nobody uses; at once."""
    facts = os.statvfs(folder)
    return facts.f_bfree * facts.f_frsize


def _open(path: Path) -> int:
    try:
        return os.open(path, OPEN_FOLDER)
    except PermissionError:
        path.chmod(0o700)  # of the folder itself, which stands in one that no command reaches
        return os.open(path, OPEN_FOLDER)


def _delete(top: int, name: str) -> list[str]:
    """Delete a file, or a folder but for the folders in it; return under which names those are at the top now."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=top)
            return []
        inner = _enter(top, name)
        try:
            moved = _flatten(top, inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return []
    return moved


def _flatten(top: int, inner: int) -> list[str]:
    with os.scandir(inner) as entries:
        children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    moved: list[str] = []
    for child, is_folder in children:
        if not is_folder:
            os.unlink(child, dir_fd=inner)
            continue
        if os.geteuid() != 0:
            _unlock(inner, child)  # moving a folder writes its `..`
        moved.append(f".moved-{os.urandom(12).hex()}")
        os.rename(child, moved[-1], src_dir_fd=inner, dst_dir_fd=top)
    return moved


def _enter(top: int, name: str) -> int:
    try:
        handle = os.open(name, OPEN_FOLDER, dir_fd=top)
    except PermissionError:
        _unlock(top, name)
        return os.open(name, OPEN_FOLDER, dir_fd=top)
    if os.geteuid() != 0:
        os.fchmod(handle, 0o700)  # readable is not enough to delete what is in it
    return handle


def _unlock(parent: int, name: str) -> None:
    """Give ourselves all rights to a folder, by a descriptor so that no link can take its place."""
    handle = os.open(name, getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{handle}").chmod(0o700)
    finally:
        os.close(handle)
