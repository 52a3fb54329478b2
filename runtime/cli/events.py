"""How single events look: a line for people, an object for programs."""

import re
import sys
from shutil import get_terminal_size
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from perdure.runtime.cli.output import clock_time, console, is_terminal, iso, print_json
from perdure.store.records import Recorded
from perdure.store.wording import printable

_NOISE: Final = frozenset({"digest", "branch", "life", "generation", "at", "counts"})
"""Fields that a person who reads the log does not look for; `--json` has them."""
_TIMES: Final = frozenset(
    {"due", "until", "retry_at", "wake_at", "deadline", "full_at", "expires_at", "anchor", "since", "first", "last",
     "at"}
)  # fmt: skip
"""Fields that are times, also within others, where their value is one; without their date when that is the event's."""
_EARLIEST, _LATEST = 10**14, 10**17
"""In microseconds since 1970, from 1973 on: what is less is a position or a count, or an application's milliseconds."""
_WITHIN: Final = re.compile(rf'"({"|".join(sorted(_TIMES))})":(\d{{15,17}})(?=[,}}])')
_ID_LENGTH: Final = 36
_WIDE: Final = 120
_COLOURS: Final = (
    ("failed", "red"), ("blocked", "bold magenta"), ("in-doubt", "bold magenta"), ("circuit", "magenta"),
    ("completed", "green"), ("succeeded", "green"), ("refused", "yellow"), ("delayed", "yellow"),
    ("cancelled", "yellow"), ("lost", "yellow"),
)  # fmt: skip
"""Words in a type, in the order in which they count."""


def print_event(event: Recorded, *, as_json: bool = False) -> None:
    """Print one event on one line: cut to the terminal's width, whole elsewhere."""
    if as_json:
        print_json(event_object(event))
        return
    if not is_terminal(sys.stdout):
        click.echo(_plain(event))
        return
    width = get_terminal_size().columns
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{event.position:>7}  ", "dim")
    line.append(f"{clock_time(event.at, now=event.at, precise=True)}  ", "dim")
    line.append(f"{_stream(event.stream, width):<12}  ", "cyan")
    line.append(f"{event.type:<15}  ", next((colour for word, colour in _COLOURS if word in event.type), "bold"))
    line.append(printable(summary(event)))
    console().print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _plain(event: Recorded) -> str:
    when = clock_time(event.at, precise=True)
    return f"{event.position:>7}  {when}  {event.stream:<12}  {event.type:<15}  {printable(summary(event))}".rstrip()


def _stream(name: str, width: int) -> str:
    kind, _, rest = name.partition("/")
    return name if len(rest) < _ID_LENGTH or width >= _WIDE else f"{kind}/…{rest[-8:]}"


def summary(event: Recorded) -> str:
    """Return what an event says, in one line."""
    if event.data is None:
        return "(erased)"
    try:
        fields = msgspec.json.decode(event.data, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        return event.data
    parts = [_part(name, bytes(value), event.at) for name, value in fields.items() if name not in _NOISE]
    if event.blobs is not None:
        parts.append(f"blobs={event.blobs}")
    if event.principal is not None:
        parts.append(f"by={event.principal}")
    return " ".join(part for part in parts if part)


def _part(name: str, value: bytes, at: int) -> str:
    if value == b"null":
        return ""
    if name in _TIMES and value.isdigit():
        return f"{name}={_time(value.decode(), at)}"
    if value.startswith(b'"'):
        text: str = msgspec.json.decode(value)
        return text if name == "step" else f"{name}={text if text and ' ' not in text else value.decode()}"
    told = _WITHIN.sub(lambda found: f'"{found[1]}":{_time(found[2], at)}', value.decode())
    return f"{name}={told}"


def _time(number: str, at: int) -> str:
    """Return a number of microseconds as everybody reads it, and any other number as it is."""
    if not _EARLIEST <= int(number) < _LATEST:
        return number
    return clock_time(int(number), now=at, precise=True).replace(" ", "T")


def event_object(event: Recorded) -> dict[str, Any]:
    """Return an event for programs: its payload as it is in the log."""
    return {
        "position": event.position,
        "at": iso(event.at),
        "stream": event.stream,
        "version": event.version,
        "type": event.type,
        "type_version": event.type_version,
        "data": None if event.data is None else msgspec.Raw(event.data.encode()),
        "blobs": None if event.blobs is None else msgspec.Raw(event.blobs.encode()),
        "correlation": event.correlation,
        "causation": event.causation,
        "principal": event.principal,
    }
