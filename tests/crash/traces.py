"""Reading what strace saw: which promises were made before the disk had confirmed them. No test.

The order of the lines is the order of the beginnings; a call that another thread interrupted has a second line, at its
end.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)", re.DOTALL)
_CALL = re.compile(r"(?P<name>\w+)\(\d+<(?P<file>[^>]*)>(?P<text>.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<text>.*)", re.DOTALL)
_ACK = re.compile(r"ACK ([\w-]+);")


class Call(NamedTuple):
    """A system call on a file, with the numbers of the lines on which it began and ended."""

    name: str
    file: str
    text: str
    began: int
    ended: int
    succeeded: bool


def calls(trace: Path) -> list[Call]:
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    return sorted(_calls(lines), key=lambda call: call.began)


def _calls(lines: list[str]) -> Iterator[Call]:
    open_calls: dict[str, tuple[str, str, str, int]] = {}
    for number, line in enumerate(lines):
        parts = _LINE.match(line)
        if parts is None:
            continue
        pid, rest = parts["pid"], parts["rest"]
        if (call := _CALL.match(rest)) is not None:
            begun = (call["name"], call["file"], call["text"], number)
            if rest.endswith("<unfinished ...>"):
                open_calls[pid] = begun
            else:
                yield Call(*begun, number, succeeded=_succeeded(rest))
        elif _RESUMED.match(rest) is not None and pid in open_calls:
            yield Call(*open_calls.pop(pid), number, succeeded=_succeeded(rest))


def _succeeded(line: str) -> bool:
    return not line.rpartition(" = ")[2].startswith("-")


def promised(found: list[Call]) -> list[str]:
    """Return the markers that were acknowledged, in order."""
    return [marker for call in found if call.name == "write" for marker in _ACK.findall(call.text)]


def promised_too_early(found: list[Call]) -> list[str]:
    """Return the markers that were acknowledged without a sync of the WAL after the write that carries them."""
    return [marker for marker in promised(found) if not _is_synced(found, marker)]


def _is_synced(found: list[Call], marker: str) -> bool:
    [ack] = [call for call in found if call.name == "write" and f"ACK {marker};" in call.text]
    wal = [call for call in found if call.file.endswith("-wal")]
    carrier = next(call for call in wal if call.name == "pwrite64" and marker in call.text)
    syncs = [call for call in wal if call.name in ("fdatasync", "fsync") and call.succeeded]
    return any(carrier.ended < sync.began and sync.ended < ack.began for sync in syncs)
