"""The standard streams as a shell hands them over: closed, full, without a reader, of an encoding that lacks letters.

None of it is a bug, so none of it is a traceback. The invariant: what could not be written changes the exit code, and
never what was recorded.
"""

import errno
import sys
from io import BytesIO, TextIOBase, TextIOWrapper
from typing import Any, Final, cast

_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


class _Nowhere(TextIOBase):
    """A stream that was closed before we began: what is written to it is gone."""

    def write(self, text: str) -> int:
        return len(text)


def prepare() -> None:
    """Make the streams writable: a letter that the encoding lacks is written as its number."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, cast("Any", _Nowhere()))
        elif isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    if cast("Any", sys.stdin) is None:
        sys.stdin = TextIOWrapper(BytesIO())


def is_unwritable(error: OSError) -> bool:
    """Return whether *error* says that stdout cannot be written to any more, such as a full disk."""
    return error.errno in _UNWRITABLE and error.filename is None
