"""Files of a slot's workspace as replies of the wire format: read, listed, packed. It runs no command.

Plain functions that block: run them off the event loop. All take the slot's folder first and then what the caller
asked for, unchecked, and answer with a dict that has `http_status` beside the fields of the wire; they do not raise for
anything that a path or a command in the slot can cause. No more of a file is kept in memory than what is returned.

- Text is decoded as UTF-8, what is invalid replaced by U+FFFD; a cut never splits a character, so `bytes` can be up to
  three less than asked for. Base64 is exact.
- Links are followed to what is read where they stay inside. They are listed as themselves, never as what they lead to.
- Names that are not UTF-8 are listed with U+FFFD in them and cannot be asked for.
- `truncated` of an archive says that something is missing in it: beyond a bound, changed while it was packed, no file
  (pipes, sockets), or a link that does not stay inside whoever unpacks it (see `packing`).
"""

import base64
import codecs
import hashlib
import os
import posixpath
import re
import stat
from typing import Any

import msgspec

from perdure.runtime.sandbox.beneath import Beneath, MissingPathError, PathError, closing
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.walking import Found, walk

CHUNK_BYTES = 1 << 18
_SURROGATES = re.compile("[\ud800-\udfff]")

MIME_TYPES = {
    ".tar.gz": "application/gzip",
    ".tgz": "application/gzip",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".txt": "text/plain",
    ".log": "text/plain",
    ".json": "application/json",
    ".xml": "application/xml",
    ".html": "text/html",
    ".md": "text/markdown",
}


class ArtifactLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a workspace may go in or out at once."""

    max_file_size: int = 100_000
    """Bytes that `read_file` and `write_file` take."""
    max_artifact_size: int = 5_000_000
    """Bytes of a file that are read, and of an archive as it is sent."""
    max_artifact_entries: int = 5_000
    """Entries of a list or an archive."""
    max_hashed_size: int = 1 << 30
    """Bytes of a file whose sha256 is told; a larger one has none. Hashing takes about a second a gigabyte."""
    max_packed_size: int = 500_000_000
    """Bytes of all files in an archive before they are compressed: zeros shrink to a thousandth."""


DEFAULT_LIMITS = ArtifactLimits()


class _RequestError(Exception):
    """A field of the request cannot be; the text says which."""


def read_artifact(
    folder: SlotFolder,
    path: str,
    *,
    encoding: str = "text",
    max_bytes: int | None = None,
    include_sha256: bool = False,
    limits: ArtifactLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Return the beginning of a file, at most *max_bytes* of it, as text or base64.

    The sha256 is that of the whole file also where less is returned, and `file_size` is what was hashed.
    """
    try:
        bound = _bound("max_bytes", max_bytes, limits.max_artifact_size)
        _one_of("encoding", encoding, ("text", "base64"))
        with Beneath(folder) as workspace:
            plain = workspace.relative(path)
            with closing(workspace.open_file(path)) as opened:
                data, size, digest = read_opened(opened, bound, limits.max_hashed_size if include_sha256 else 0)
    except (PathError, _RequestError) as error:
        return _refusal(error)
    content, used = _as_text(data, is_whole=len(data) == size) if encoding == "text" else _as_base64(data)
    return {
        "success": True,
        "content": content,
        "error": "",
        "encoding": encoding,
        "truncated": used < size,
        "bytes": used,
        "file_size": size,
        "path": shown(plain),
        "mime": mime_of(plain),
        "sha256": digest,
        "http_status": 200,
    }


def list_artifacts(
    folder: SlotFolder,
    path: str = ".",
    *,
    recursive: bool = False,
    max_entries: int | None = None,
    limits: ArtifactLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Return what is in a folder, sorted by path; a path that is no folder lists just itself.

    Where there is more than may be listed, which of it is listed is not defined.
    """
    try:
        bound = _bound("max_entries", max_entries, limits.max_artifact_entries)
        with Beneath(folder) as workspace:
            _, found, has_more = _find(workspace, path, recursive=recursive, bound=bound)
    except (PathError, _RequestError) as error:
        return _refusal(error)
    entries = [
        {
            "path": shown(each.path),
            "is_dir": stat.S_ISDIR(each.status.st_mode),
            "size": each.status.st_size,
            "mtime": each.status.st_mtime,
        }
        for each in found
    ]
    return {"success": True, "entries": entries, "truncated": has_more, "error": "", "http_status": 200}


def archive_artifacts(
    folder: SlotFolder,
    path: str = ".",
    *,
    archive_format: str = "tar.gz",
    max_bytes: int | None = None,
    max_entries: int | None = None,
    limits: ArtifactLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Return a folder with all that is in it as a base64 tar.gz whose names are relative to the folder."""
    from perdure.runtime.sandbox.packing import ArchiveTooLargeError, pack  # noqa: PLC0415 - tarfile is slow to load

    try:
        size = _bound("max_bytes", max_bytes, limits.max_artifact_size)
        bound = _bound("max_entries", max_entries, limits.max_artifact_entries)
        _one_of("archive format", archive_format, ("tar.gz", "tgz"))
        with Beneath(folder) as workspace:
            top, found, has_more = _find(workspace, path, recursive=True, bound=bound)
            packed = pack(workspace, top, found, max_bytes=size, max_packed_bytes=limits.max_packed_size)
    except ArchiveTooLargeError as error:
        return _refusal(error, http_status=413) | {"bytes": error.bytes}
    except (PathError, _RequestError) as error:
        return _refusal(error)
    return {
        "success": True,
        "content": base64.b64encode(packed.data).decode("ascii"),
        "error": "",
        "encoding": "base64",
        "format": "tar.gz",
        "bytes": len(packed.data),
        "entry_count": packed.entries,
        "truncated": has_more or packed.is_incomplete,
        "sha256": hashlib.sha256(packed.data).hexdigest(),
        "http_status": 200,
    }


def _find(workspace: Beneath, path: str, *, recursive: bool, bound: int) -> tuple[str, list[Found], bool]:
    """Return the folder that was looked into, what is in it, and whether there is more."""
    plain = workspace.relative(path)
    if workspace.is_folder(path):
        return plain, *walk(workspace, plain, recursive=recursive, bound=bound)
    itself = [Found(plain, workspace.status(path))]
    return posixpath.dirname(plain) or ".", itself[:bound], bound == 0


def read_opened(opened: int, bound: int, hashed_bound: int) -> tuple[bytes, int, str | None]:
    """Return the first *bound* bytes of an open file, its size, and its sha256 unless it is over *hashed_bound*.

    What is hashed is what is counted: a file that grows meanwhile is taken as it was when its end was reached.
    """
    size = os.fstat(opened).st_size
    if size > hashed_bound:
        return _read_exactly(opened, bound), size, None
    digest, kept, count = hashlib.sha256(), bytearray(), 0
    while count <= hashed_bound and (chunk := os.read(opened, CHUNK_BYTES)):
        digest.update(chunk)
        kept += chunk[: bound - len(kept)]
        count += len(chunk)
    return bytes(kept), count, digest.hexdigest() if count <= hashed_bound else None


def _read_exactly(opened: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (chunk := os.read(opened, min(CHUNK_BYTES, count - len(data)))):
        data += chunk
    return bytes(data)


def _as_text(data: bytes, *, is_whole: bool) -> tuple[str, int]:
    """Return the text, and how many bytes of it are told: the beginning of a cut character is not."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final=is_whole)
    return text, len(data) - len(decoder.getstate()[0])


def _as_base64(data: bytes) -> tuple[str, int]:
    return base64.b64encode(data).decode("ascii"), len(data)


def _bound(name: str, asked: object, most: int) -> int:
    if asked is None:
        return most
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise _RequestError(f"{name} must be a whole number that is not negative")
    return min(asked, most)


def _one_of(name: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        raise _RequestError(f"Unsupported {name}: {asked}; known are {', '.join(known)}")


def _refusal(error: Exception, *, http_status: int = 400) -> dict[str, Any]:
    text = f"Not found: {error.path}" if isinstance(error, MissingPathError) else str(error)
    status = error.http_status if isinstance(error, PathError) else http_status
    return {"success": False, "error": shown(text), "http_status": status}


def shown(name: str) -> str:
    """Return a name as text that can be sent: each byte of it that is not UTF-8 becomes U+FFFD."""
    return _SURROGATES.sub("\ufffd", name)


def mime_of(path: str) -> str:
    """Return the media type that the end of a name stands for."""
    name = posixpath.basename(path).lower()
    return next((mime for end, mime in MIME_TYPES.items() if name.endswith(end)), "application/octet-stream")
