"""Packing what was found in a workspace as a tar.gz in memory, bounded. It never looks for anything itself.

The archive is made for readers that trust it too much: names are relative and without `..`, owners are 0 and nameless,
special bits are gone, and a link is packed, as a link, only if it cannot lead out of the folder that somebody unpacks
into: its text is relative, has its `..` at the beginning only, and no more of them than it is deep. (With a `..`
further on, another link before it could turn `a/..` into a step outside.) Readers should use the `data` filter still.
"""

import gzip
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Sequence
from typing import NamedTuple

from perdure.runtime.sandbox.beneath import Beneath, PathError, closing
from perdure.runtime.sandbox.walking import Found

_LEVEL = 6  # gzip's own default: 9 takes three times as long for a percent


class Packed(NamedTuple):
    """An archive."""

    data: bytes
    entries: int
    is_incomplete: bool
    """Whether something that was found is not in it, or not as it was found."""


class ArchiveTooLargeError(Exception):
    """The archive passed its bound after *bytes* bytes; how large it would have become is not known."""

    def __init__(self, size: int, most: int, what: str = "") -> None:
        super().__init__(f"Archive too large: {size} bytes{what} (max {most})")
        self.bytes = size


def pack(workspace: Beneath, top: str, found: Sequence[Found], *, max_bytes: int, max_packed_bytes: int) -> Packed:
    """Pack *found* with names relative to *top*.

    Raises:
        ArchiveTooLargeError: more than *max_bytes* compressed, or *max_packed_bytes* before.
    """
    target = _BoundedBytes(max_bytes)
    entries, is_incomplete, left = 0, False, max_packed_bytes
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=target, mtime=0) as squeezed,
        tarfile.open(mode="w|", fileobj=squeezed, format=tarfile.PAX_FORMAT) as archive,
    ):
        for each in found:
            name = posixpath.relpath(each.path, top)
            left -= each.status.st_size if stat.S_ISREG(each.status.st_mode) else 0
            if left < 0:
                raise ArchiveTooLargeError(max_packed_bytes - left, max_packed_bytes, " before compression")
            try:
                was_whole = _add(archive, workspace, each, name, max_packed_bytes)
            except PathError:  # it went, or became something else, since it was found
                was_whole = None
            entries += was_whole is not None
            is_incomplete |= not was_whole
    target.check()
    return Packed(target.getvalue(), entries, is_incomplete)


def _add(archive: tarfile.TarFile, workspace: Beneath, each: Found, name: str, most: int) -> bool | None:
    """Add one thing; return whether it is there as it was found, None if it is not there at all."""
    if stat.S_ISDIR(each.status.st_mode):
        archive.addfile(_header(name, tarfile.DIRTYPE, each.status))
        return True
    if stat.S_ISLNK(each.status.st_mode):
        text = workspace.link_text(each.path)
        if not stays_inside(name, text):
            return None
        link = _header(name, tarfile.SYMTYPE, each.status)
        link.linkname = text
        archive.addfile(link)
        return True
    if not stat.S_ISREG(each.status.st_mode):
        return None
    with closing(workspace.open_file(each.path)) as opened:
        status = os.fstat(opened)
        header = _header(name, tarfile.REGTYPE, status)
        header.size = min(status.st_size, each.status.st_size, most)
        content = _Padded(opened, header.size)
        archive.addfile(header, content)
    return not content.was_short and header.size == status.st_size


def stays_inside(name: str, text: str) -> bool:
    """Tell whether a link *name* with this *text* stays inside the folder of the archive, whatever lies beside it."""
    if not text or text.startswith("/"):
        return False
    parts = [part for part in text.split("/") if part not in ("", ".")]
    ups = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    return ".." not in parts[ups:] and ups <= name.count("/")


def _header(name: str, kind: bytes, status: os.stat_result) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type = kind
    header.mode = stat.S_IMODE(status.st_mode) & 0o777
    header.mtime = int(status.st_mtime)
    return header


class _BoundedBytes(io.BytesIO):
    """Takes no more than so many bytes: the archive is given up, not kept, as soon as it is too large."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._is_over = False

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        if self._is_over:  # what gzip and tar say at their ends, while the error goes up through them
            return len(data)
        super().write(data)
        if self.tell() > self._most:
            self._is_over = True
            raise ArchiveTooLargeError(self.tell(), self._most)
        return len(data)

    def check(self) -> None:
        """Fail if something was dropped."""
        if self._is_over:
            raise ArchiveTooLargeError(self.tell(), self._most)


class _Padded(io.RawIOBase):
    """The first *size* bytes of an open file; zeros where it turns out shorter, as its header has told its size."""

    def __init__(self, opened: int, size: int) -> None:
        self._opened = opened
        self._left = size
        self.was_short = False

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = b"" if self.was_short else os.read(self._opened, wanted)
        if not data and wanted:
            self.was_short = True
            data = bytes(wanted)
        self._left -= len(data)
        return data
