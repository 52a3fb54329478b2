"""Opening paths that cannot leave a slot's workspace, whatever its commands do meanwhile. Not what is read there.

Paths come from models and are hostile, and so is the tree: links may be swapped for folders at any instant. Nothing is
checked and then opened by name: every path is opened relative to the workspace's descriptor by one call that refuses to
leave it (`openat2` with `RESOLVE_BENEATH`), and what was opened is looked at afterwards. Where the kernel has no
`openat2`, every component is opened by itself and links are refused altogether.

A path is relative to the workspace; `/workspace/a.txt` is the workspace's file `a.txt` in every backend, and so is
`a.txt` under the real path of the workspace, which is what plain processes see. Links are followed where they are
relative and stay inside. What we create belongs to the slot's user. Everything here blocks; none of it waits for a
writer of a pipe.
"""

import errno
import os
import posixpath
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NoReturn, Self

from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.openat import OPEN_PATH, TRIES, open_beneath

INSIDE = "/workspace"
"""What the workspace is called inside a jail."""

_MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL
_LEAVES = frozenset({errno.EXDEV, errno.ELOOP, errno.EAGAIN})
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_NO_FILE = frozenset({errno.EISDIR, errno.ENXIO, errno.ENODEV})
_DENIED = frozenset({
    *(errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT),
    *(errno.EROFS, errno.EINVAL, errno.ETXTBSY, errno.EMLINK),
})  # fmt: skip
FOLDER_MODE = 0o755
FILE_MODE = 0o644


class PathError(SlotError):
    """Base of the refusals of a path; `path` is the path as it was given."""

    http_status: ClassVar[int] = 400
    path: str


class OutsideWorkspaceError(PathError):
    """The path leaves the workspace, or would have to be followed through a link that does."""

    message = "Access denied: path outside workspace"
    http_status: ClassVar[int] = 403


class MissingPathError(PathError):
    """There is nothing at this path."""

    message = "File not found: {path}"
    http_status: ClassVar[int] = 404


class NotAFileError(PathError):
    """What is at this path is not a regular file: a folder, a pipe, a socket or a device."""

    message = "Not a file: {path}"


class UnusablePathError(PathError):
    """No file can have this path, or it cannot be opened; `reason` says why."""

    message = "{reason}"
    reason: str


class Beneath:
    """The workspace of a slot, or another folder that its commands write to, from which paths are opened.

    Close it, or use `with`.
    """

    def __init__(self, folder: SlotFolder, root: Path | None = None, *, may_use_openat2: bool = True) -> None:
        self._folder = folder
        self._root = os.open(root or folder.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._may_use_openat2 = may_use_openat2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._root)

    def relative(self, path: str) -> str:
        """Return *path* relative to the workspace, without `.` and `..`; the workspace itself is `.`.

        Raises:
            OutsideWorkspaceError: it is another absolute path, or has more `..` than folders.
            UnusablePathError: it holds a NUL, is too long, or cannot be a name of a file.
        """
        try:
            encoded = os.fsencode(path)
        except UnicodeEncodeError:
            raise UnusablePathError(path=path, reason="Not a usable path: it is not valid text") from None
        if b"\0" in encoded:
            raise UnusablePathError(path=path, reason="Not a usable path: it holds a NUL character")
        if len(encoded) > _MAX_PATH_BYTES:
            raise _too_long(path)
        plain = posixpath.normpath(path or ".")
        if plain.startswith("/"):
            plain = self._without_prefix("/" + plain.lstrip("/"), path)
        if plain == ".." or plain.startswith("../"):
            raise OutsideWorkspaceError(path=path)
        return plain

    def _without_prefix(self, absolute: str, path: str) -> str:
        for prefix in (INSIDE, str(self._folder.workspace)):
            if absolute == prefix:
                return "."
            if absolute.startswith(prefix + "/"):
                return absolute[len(prefix) + 1 :]
        raise OutsideWorkspaceError(path=path)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open what is at *path* and return its descriptor; *flags* as of `os.open`.

        Raises:
            PathError: it is not there, leaves the workspace or cannot be opened.
        """
        plain = self.relative(path)
        try:
            return open_beneath(self._root, plain, flags, mode, may_use_openat2=self._may_use_openat2)
        except OSError as error:
            _refuse(path, error)

    def open_file(self, path: str) -> int:
        """Open the regular file at *path* for reading.

        Raises:
            NotAFileError: it is something else.
            PathError: as of `open`.
        """
        return _regular(self.open(path, os.O_RDONLY), path)

    def open_folder(self, path: str, *, follows: bool = True) -> int:
        """Open the folder at *path* for listing; without *follows* a link at its end is refused.

        Raises:
            PathError: as of `open`; a file is a `MissingPathError`.
        """
        return self.open(path, os.O_RDONLY | os.O_DIRECTORY | (0 if follows else os.O_NOFOLLOW))

    def is_folder(self, path: str) -> bool:
        """Tell whether *path* is a folder, or a link to one inside.

        Raises:
            PathError: as of `open`.
        """
        with closing(self.open(path, OPEN_PATH)) as opened:
            return stat.S_ISDIR(os.fstat(opened).st_mode)

    def status(self, path: str) -> os.stat_result:
        """Return the status of what is at *path*; of a link, its own.

        Raises:
            PathError: as of `open`.
        """
        parent, name = posixpath.split(self.relative(path))
        with closing(self.open_folder(parent or ".")) as opened:
            try:
                return os.stat(name, dir_fd=opened, follow_symlinks=False)
            except OSError as error:
                _refuse(path, error)

    def link_text(self, path: str) -> str:
        """Return where the link at *path* points to.

        Raises:
            PathError: as of `open`; also when it is no link.
        """
        parent, name = posixpath.split(self.relative(path))
        with closing(self.open_folder(parent or ".")) as opened:
            try:
                return os.readlink(name, dir_fd=opened)
            except OSError as error:
                _refuse(path, error)

    def remove(self, path: str) -> None:
        """Remove the file or link at *path*; nothing happens when it is not there.

        Raises:
            PathError: as of `open`; a folder cannot be removed so.
        """
        parent, name = posixpath.split(self.relative(path))
        with closing(self.open_folder(parent or ".")) as opened:
            try:
                os.unlink(name, dir_fd=opened)
            except FileNotFoundError:
                pass
            except OSError as error:
                _refuse(path, error)

    def create_file(self, path: str) -> int:
        """Open the regular file at *path* for writing, made with its folders where it was not there; not truncated.

        Raises:
            NotAFileError: it is something else.
            PathError: as of `open`.
        """
        plain = self.relative(path)
        if plain == ".":
            raise NotAFileError(path=path)
        self._make_folders(posixpath.dirname(plain))
        for _ in range(TRIES):
            try:
                return self._give_away(self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
            except FileThereError:
                pass
            try:
                return _regular(self.open(path, os.O_WRONLY), path)
            except MissingPathError:  # removed since, or a link to nothing: look again
                continue
        raise UnusablePathError(path=path, reason=f"Cannot write {path}: it is a link to nothing, or comes and goes")

    def _make_folders(self, path: str) -> None:
        """Make the folders of *path*, one by one, each in the one that was just opened."""
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            with closing(self.open_folder("/".join(parts[: depth - 1]) or ".")) as parent:
                try:
                    os.mkdir(parts[depth - 1], FOLDER_MODE, dir_fd=parent)
                    made = os.open(parts[depth - 1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                except FileExistsError:  # what it is shows when the next one is made in it
                    continue
                except OSError as error:
                    _refuse(here, error)
                os.close(self._give_away(made))

    def _give_away(self, descriptor: int) -> int:
        """Make what was opened the slot's."""
        if self._folder.uid is not None and os.fstat(descriptor).st_uid != self._folder.uid:
            try:
                os.fchown(descriptor, self._folder.uid, self._folder.uid)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor


class FileThereError(PathError):
    """Something is at this path that must be new."""

    message = "Already there: {path}"


@contextmanager
def closing(descriptor: int) -> Generator[int]:
    """Close *descriptor* at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _regular(descriptor: int, path: str) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NotAFileError(path=path)


def _too_long(path: str) -> UnusablePathError:
    return UnusablePathError(path=path, reason="Not a usable path: it is too long")


def _refuse(path: str, error: OSError) -> NoReturn:
    if error.errno in _LEAVES:
        raise OutsideWorkspaceError(path=path) from None
    if error.errno in _MISSING:
        raise MissingPathError(path=path) from None
    if error.errno == errno.EEXIST:
        raise FileThereError(path=path) from None
    if error.errno in _NO_FILE:
        raise NotAFileError(path=path) from None
    if error.errno == errno.ENAMETOOLONG:
        raise _too_long(path) from None
    if error.errno in _DENIED:
        raise UnusablePathError(path=path, reason=f"Cannot open {path}: {os.strerror(error.errno)}") from None
    raise error
