"""The tools `read_file` and `write_file`: whole small files of a workspace. It runs no command.

Plain functions that block: run them off the event loop. Each takes the slot's folder and the tool's arguments,
unchecked, and returns a `Reply`; it does not raise for anything that a path or a command in the slot can cause. Paths
in a reply are relative to the workspace; `metadata` has `path`, `size` in bytes and the file's `sha256`.
"""

import hashlib
import os
from typing import Any, NamedTuple

from perdure.runtime.sandbox.artifacts import DEFAULT_LIMITS, ArtifactLimits, read_opened, shown
from perdure.runtime.sandbox.beneath import Beneath, PathError, closing
from perdure.runtime.sandbox.jail import SlotFolder


class Reply(NamedTuple):
    """What a tool came to, without the id of its execution."""

    success: bool
    output: str
    error: str
    metadata: dict[str, Any]


def failed(error: str, **metadata: Any) -> Reply:
    """Return the reply of a tool that did not do it."""
    return Reply(success=False, output="", error=shown(error), metadata=metadata)


def read_file(folder: SlotFolder, arguments: dict[str, Any], *, limits: ArtifactLimits = DEFAULT_LIMITS) -> Reply:
    """Return the text of the file `path`; what is not UTF-8 in it is replaced by U+FFFD."""
    match arguments:
        case {"path": str(path)}:
            pass
        case _:
            return failed("read_file needs `path`, a text")
    try:
        with Beneath(folder) as workspace:
            plain = workspace.relative(path)
            with closing(workspace.open_file(path)) as opened:
                size = os.fstat(opened).st_size
                if size > limits.max_file_size:
                    return failed(_too_large("File", size, limits), path=shown(plain), size=size)
                data, size, digest = read_opened(opened, limits.max_file_size, limits.max_file_size)
    except PathError as error:
        return failed(str(error))
    if digest is None:  # it grew while it was read
        return failed(_too_large("File", size, limits), path=shown(plain), size=size)
    text = data.decode("utf-8", "replace")
    return Reply(success=True, output=text, error="", metadata={"path": shown(plain), "size": size, "sha256": digest})


def write_file(folder: SlotFolder, arguments: dict[str, Any], *, limits: ArtifactLimits = DEFAULT_LIMITS) -> Reply:
    """Make `content` the whole text of the file `path`, made with its folders where it is not there.

    The file is written in place, so that it keeps its mode: who reads it meanwhile may see a part.
    """
    match arguments:
        case {"path": str(path), "content": str(content)}:
            pass
        case _:
            return failed("write_file needs `path` and `content`, both texts")
    try:
        data = content.encode("utf-8")
    except UnicodeEncodeError:
        return failed("write_file cannot write half of a surrogate pair: `content` is not valid text")
    if len(data) > limits.max_file_size:
        return failed(_too_large("Content", len(data), limits))
    try:
        with Beneath(folder) as workspace:
            plain = workspace.relative(path)
            with closing(workspace.create_file(path)) as opened:
                os.ftruncate(opened, 0)
                _write_all(opened, data)
    except PathError as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"Cannot write {path}: {error.strerror}")
    metadata = {"path": shown(plain), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return Reply(success=True, output=f"Wrote {len(data)} bytes to {shown(plain)}", error="", metadata=metadata)


def _too_large(what: str, size: int, limits: ArtifactLimits) -> str:
    return f"{what} too large: {size} bytes (max {limits.max_file_size})"


def _write_all(opened: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(opened, left) :]
