"""What a slot's terminal has written, in files of the slot's `run` folder that never grow beyond three mebibytes.

`command` is what tmux pipes the terminal into; `Transcript` reads whole lines on from where it stopped last, also in
another life: its place is a small file in the slot's `calls` folder, where no command of the slot can see it. The slot
may do to its files whatever it likes; it reads its own lies.
"""

import os
import re
import shlex
from typing import NamedTuple

import msgspec

from perdure.runtime.sandbox.beneath import Beneath, MissingPathError, closing
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.walking import walk

PREFIX = "terminal.log."
PLACE_NAME = "terminal.place"
SEGMENT_BYTES = 1 << 20
SEGMENTS = 3
_DIGITS = 12
_MAX_ENTRIES = 1_000  # of the run folder: some ten are there, unless somebody plays

# CSI, OSC and other strings, then the short ones (ECMA-48); what is left of control characters; the CR before an LF.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
_RETURNS = re.compile(r"\r*\n\r*")


class Place(msgspec.Struct, frozen=True):
    """How far somebody has read: the number of a file, and bytes in it."""

    segment: int = 0
    offset: int = 0


class Lines(NamedTuple):
    """What was read."""

    text: str
    has_more: bool
    """Whether whole lines are left."""
    has_gap: bool
    """Whether something before these lines had been dropped already."""


def command(run: str, first: int) -> str:
    """Return what tmux pipes the terminal into: it keeps files in the folder *run*, from number *first* on.

    GNU split writes what it reads at once and begins a new file every mebibyte.
    """
    prefix = shlex.quote(f"{run}/{PREFIX}")
    keep = f'cat >"$FILE"; set -- {prefix}*; while [ $# -gt {SEGMENTS - 1} ]; do rm -f -- "$1"; shift; done'
    split = f"split -b {SEGMENT_BYTES} -a {_DIGITS} --numeric-suffixes={first} --filter={shlex.quote(keep)} - {prefix}"
    return f"exec {split}".replace("#", "##")  # tmux expands `#`


class Transcript:
    """Reads what the terminal of a slot wrote."""

    def __init__(self, folder: SlotFolder) -> None:
        self._folder = folder
        self._place = folder.calls / PLACE_NAME

    def read(self, max_bytes: int, *, from_start: bool = False) -> Lines:
        """Return the whole lines since the last call, at most *max_bytes* of them, without escape sequences.

        A line longer than *max_bytes* comes in pieces. How far was read is on disk on return. *from_start* begins with
        the oldest that is kept.

        Raises:
            PathError: the slot has put something else where its files are.
        """
        place = Place() if from_start else self._load()
        with Beneath(self._folder, self._folder.run) as run:
            here, has_gap = _existing(run, place)
            data, begins = _read_on(run, here, max_bytes + 1)
        cut = data.rfind(b"\n", 0, max_bytes) + 1
        if not cut and len(data) > max_bytes:
            cut = max_bytes
        self._save(_advanced(begins, cut))
        return Lines(_plain(data[:cut]), b"\n" in data[cut:] or len(data) > max_bytes, has_gap and not from_start)

    def next_segment(self) -> int:
        """Return the number of a file that is not there yet.

        Raises:
            PathError: the run folder cannot be listed.
        """
        with Beneath(self._folder, self._folder.run) as run:
            return max(_segments(run), default=-1) + 1

    def forget(self) -> None:
        """Remove the files, and begin at the start again."""
        self._place.unlink(missing_ok=True)
        with Beneath(self._folder, self._folder.run) as run:
            for number in _segments(run):
                run.remove(_name(number))

    def _load(self) -> Place:
        try:
            return msgspec.json.decode(self._place.read_bytes(), type=Place)
        except (FileNotFoundError, msgspec.MsgspecError):
            return Place()

    def _save(self, place: Place) -> None:
        fresh = self._place.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(place))
        fresh.replace(self._place)


def _name(number: int) -> str:
    return f"{PREFIX}{number:0{_DIGITS}}"


def _segments(run: Beneath) -> list[int]:
    found, _ = walk(run, ".", recursive=False, bound=_MAX_ENTRIES)
    names = [each.path.removeprefix(PREFIX) for each in found if each.path.startswith(PREFIX)]
    return sorted(int(name) for name in names if len(name) == _DIGITS and name.isascii() and name.isdigit())


def _existing(run: Beneath, place: Place) -> tuple[Place, bool]:
    """Return *place*, or the start of the oldest file after it where its own is gone, and whether it is."""
    kept = _segments(run)
    if place.segment in kept or not kept:
        return place, False
    after = next((number for number in kept if number > place.segment), kept[0])
    was_read = place.offset >= SEGMENT_BYTES and after == place.segment + 1
    return Place(after), not was_read


def _read_on(run: Beneath, place: Place, most: int) -> tuple[bytes, list[tuple[Place, int]]]:
    """Return bytes from *place* on, and of every file where in them it begins, and at which offset."""
    data, begins = bytearray(), [(place, 0)]
    while len(data) < most:
        try:
            with closing(run.open_file(_name(place.segment))) as opened:
                data += _pread(opened, most - len(data), place.offset)
        except MissingPathError:
            break
        place = Place(place.segment + 1)
        begins.append((place, len(data)))
    return bytes(data), begins


def _pread(opened: int, count: int, offset: int) -> bytes:
    data = bytearray()
    while len(data) < count and (chunk := os.pread(opened, count - len(data), offset + len(data))):
        data += chunk
    return bytes(data)


def _advanced(begins: list[tuple[Place, int]], count: int) -> Place:
    """Return the place *count* bytes after the first."""
    # At the end of a file the place stays in it: it may be growing, and the next is not there yet.
    place, at = max(
        begins[:1] + [each for each in begins if each[1] < count], key=lambda each: (each[1], each[0].segment)
    )
    return Place(place.segment, place.offset + count - at)


def _plain(data: bytes) -> str:
    """Return the text without escape sequences, and without carriage returns but for those within a line."""
    return _RETURNS.sub("\n", _ESCAPES.sub("", data.decode("utf-8", "replace"))).lstrip("\r")
