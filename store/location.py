"""Where a log may be: a file, or a place at which one can be made. Asked before anything is opened or made.

It looks at what the file system says of a path and never opens it: only SQLite may. The invariant: a path that is
refused here is left as it was, with no lock beside it.
"""

import os
import stat
from pathlib import Path
from typing import Final, cast

from perdure.store.errors import LogNotFoundError, LogUnavailableError, NotALogError, UsageError
from perdure.store.wording import shown

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip


def checked_path(given: object) -> Path:
    """Return what a caller gave as the path of a log.

    Raises:
        UsageError: it is no text and no path, is empty, or holds a NUL.
    """
    path: object = os.fspath(cast("os.PathLike[str]", given)) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str):
        raise UsageError(f"the path of a log is a text or a Path, such as 'agents.db', not {shown(path)}")
    if not path or "\0" in path:
        fault = "holds a NUL" if path else "is empty"
        raise UsageError(f"the path of a log is that of a file, such as 'agents.db': this one {fault}")
    return Path(path)


def check_file(path: Path) -> bool:
    """See to it that *path* can be a log as far as the file system says; return whether there is a file.

    Raises:
        NotALogError: it is a folder, a pipe or a device.
        LogUnavailableError: it is a link to nothing, or the system does not let us look.
        UsageError: it is no path.
    """
    path = checked_path(path)
    try:
        if path.is_symlink() and not path.exists():
            detail = f"it is a link to {path.readlink()}, and nothing is there: mend the link, or name the file itself"
            raise LogUnavailableError(path=str(path), detail=detail)
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LogUnavailableError(
            path=str(path), detail=f"it cannot be looked at: {error.strerror or error}"
        ) from error
    for is_kind, name in _KINDS:
        if is_kind(mode):
            example = f", such as {path / 'agents.db'}" if name == "a folder" else ""
            raise NotALogError(path=str(path), detail=f"it is {name}; name a file{example}")
    return True


def to_read(given: object) -> Path:
    """Return the file at the path of a log, without links in it.

    Raises:
        LogNotFoundError: there is no file.
        As `check_file`.
    """
    path = checked_path(given)
    if not check_file(path):
        raise LogNotFoundError(path=str(_resolved(path)))
    return _resolved(path)


def to_write(given: object) -> Path:
    """Return where a log can be made, or gone on with, without links: two names of one file have one lock.

    Raises:
        LogUnavailableError: the file or its folder may not be written, or there is no folder.
        As `check_file`.
    """
    exists = check_file(checked_path(given))
    path = _resolved(checked_path(given))
    if not path.parent.is_dir():
        raise LogUnavailableError(path=str(path), detail=f"there is no folder {path.parent}: make it first")
    for what, needs in ((path.parent, os.W_OK | os.X_OK), *([(path, os.R_OK | os.W_OK)] if exists else [])):
        if not os.access(what, needs, effective_ids=os.access in os.supports_effective_ids):
            detail = f"{what} may not be written; check its owner, its permissions and how it is mounted"
            raise LogUnavailableError(path=str(path), detail=detail)
    return path


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12: "Symlink loop"
        raise LogUnavailableError(path=str(path), detail=str(error)) from error
