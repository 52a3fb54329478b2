"""How things look: tables, times, sizes, JSON lines. Knows nothing of logs and runs.

On a terminal: colour, and columns that fit its width. Elsewhere: plain text, aligned, never cut. The invariant: text
from a log is data; no control character and no markup in it ever reaches a terminal.
"""

import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import TextIOBase
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, Final, TextIO, TypeAlias, cast

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from perdure.store.wording import harmless, harmless_json, printable

STYLES: Final = {
    "running": "cyan", "in flight": "cyan", "retrying": "yellow", "sleeping": "blue", "queued": "blue", "due": "blue",
    "suspended": "blue", "interrupted": "yellow", "cancelling": "yellow", "in doubt": "bold magenta",
    "blocked": "bold magenta", "completed": "green", "continued": "green", "done": "green", "failed": "bold red",
    "cancelled": "yellow",
    "damaged": "bold red", "ok": "green", "warning": "yellow", "problem": "bold red",
    "closed": "green", "half_open": "yellow", "open": "bold red", "forced open": "bold red", "disabled": "yellow",
    "waiting": "blue", "available": "green", "acquired": "cyan", "executing": "cyan", "releasing": "yellow",
    "error": "bold red", "quarantined": "bold red", "retired": "dim",
}  # fmt: skip
_MILLISECOND: Final = 1_000
_SECOND: Final = 1_000_000
_MINUTE: Final = 60
_UUID_LENGTH: Final = 36
_WIDE: Final = 110
"""Columns from which on there is room for whole ids."""
_LEAST: Final = 8
"""Characters that a column keeps, however narrow the terminal."""
_KIBI: Final = 1024
_SIZES: Final = ("KiB", "MiB", "GiB", "TiB")
_UNITS: Final = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
"""What comes after it in a log, such as a limit that means for ever, has no date that could be shown."""


class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    right: bool = False
    fixed: bool = True
    """Whether it keeps its width; the others give way on a narrow terminal."""
    styled: bool = False
    """Whether its values are states, which have colours."""


class Span(msgspec.Struct, frozen=True):
    """A line between the rows of a table that its columns do not divide; wrapped behind its head."""

    head: str
    text: str


Row: TypeAlias = Sequence[str] | Span


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at *stream*."""
    return stream.isatty()


def console(stream: TextIO | None = None) -> Console:
    """Return a console on *stream*, stdout when left out."""
    return Console(file=stream or sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=False)


def short_id(run: str) -> str:
    """Return a run's id: the end of a UUIDv7 on a narrow terminal, since its beginning is only the time."""
    if len(run) < _UUID_LENGTH or not is_terminal(sys.stdout) or get_terminal_size().columns >= _WIDE:
        return run
    return f"…{run[-8:]}"


def shorten(text: str, width: int) -> str:
    """Return *text* cut to *width* characters."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def print_table(columns: Sequence[Column], rows: Iterable[Row], *, wraps: bool = False) -> None:
    """Print rows under their columns' names; a `Span` stands on lines of its own.

    On a terminal that is too narrow flexible columns are cut, or, with *wraps*, the last one is wrapped.
    """
    cleaned = [row if isinstance(row, Span) else [_clean(cell) for cell in row] for row in rows]
    cells = [[column.name for column in columns], *(row for row in cleaned if not isinstance(row, Span))]
    widths = [max(cell_len(line[number]) for line in cells) for number in range(len(columns))]
    on = is_terminal(sys.stdout)
    if on:
        widths = fit(widths, [not column.fixed for column in columns], get_terminal_size().columns)
    for number, row in enumerate([cells[0], *cleaned]):
        for line in _span(row) if isinstance(row, Span) else _lines(columns, widths, row, wraps=on and wraps):
            if not on:
                click.echo(line.plain.rstrip())
                continue
            if number == 0:
                line.stylize("bold")
            console().print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _clean(cell: str) -> str:
    text = cell.lstrip(" ")
    return " " * (len(cell) - len(text)) + printable(text)


def fit(widths: Sequence[int], flexible: Sequence[bool], available: int) -> list[int]:
    """Return widths of columns that together fit, two blanks apart: the widest flexible ones give way first."""
    found = list(widths)
    givers = [number for number, gives in enumerate(flexible) if gives]
    excess = sum(found) + 2 * (len(found) - 1) - available
    while excess > 0 and givers and max(found[number] for number in givers) > _LEAST:
        widest = max(givers, key=lambda number: found[number])
        others = [found[number] for number in givers if number != widest and found[number] < found[widest]]
        step = min(excess, found[widest] - max([_LEAST, *others]))
        found[widest] -= max(1, step)
        excess -= max(1, step)
    return found


def _lines(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], *, wraps: bool) -> Iterator[Text]:
    *_, last = row
    parts = wrap(last, max(_LEAST, widths[-1])) or [""] if wraps and len(last) > widths[-1] else [last]
    for number, part in enumerate(parts):
        yield _line(columns, widths, [*(row[:-1] if number == 0 else [""] * (len(row) - 1)), part])


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> Text:
    line = Text()
    for number, (column, cell, width) in enumerate(zip(columns, row, widths, strict=True)):
        text = Text("  " if number else "")
        shown = Text(cell, style=STYLES.get(cell.strip(), "") if column.styled else "")
        if is_terminal(sys.stdout):
            shown.truncate(width, overflow="ellipsis")
        blank = " " * (width - cell_len(shown.plain))
        line.append_text(text + blank + shown if column.right else text + shown + blank)
    return line


def _span(span: Span) -> Iterator[Text]:
    head, text = printable(span.head), printable(span.text)
    if not is_terminal(sys.stdout):
        yield Text(f"{head}{text}")
        return
    for part in wrap(text, max(_LEAST, get_terminal_size().columns - len(head))) or [""]:
        yield Text(f"{head}{part}", "dim")
        head = " " * len(head)


def print_line(text: str, style: str = "", *, error: bool = False) -> None:
    """Print one line, or several, in colour on a terminal."""
    stream, text = sys.stderr if error else sys.stdout, harmless(text)
    if is_terminal(stream):
        console(stream).print(Text(text, style=style), soft_wrap=True)
    else:
        click.echo(text, err=error)


def print_text(text: str) -> None:
    """Print what a program said: as it is, but for a terminal, which no control character of it reaches."""
    if not text:
        return
    if is_terminal(sys.stdout):
        text = "\n".join(printable(line.expandtabs()) for line in text.removesuffix("\n").split("\n")) + "\n"
    click.echo(text, nl=not text.endswith("\n"))


def print_bytes(data: bytes) -> None:
    """Print the content of a file: as it is, but for a terminal, which gets text without control characters."""
    if is_terminal(sys.stdout):
        print_text(data.decode("utf-8", "replace"))
    else:
        click.echo(data, nl=False)


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """Print one object on one line, at once; on stdout when *stream* is left out."""
    text = msgspec.json.encode(value).decode()
    click.echo(harmless_json(text) if is_terminal(stream or sys.stdout) else text, file=stream)


class _ToStderr(TextIOBase):
    """A stream that writes to whatever stderr is at that moment."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def aside() -> Generator[TextIO]:
    """Keep stdout for results: what application code prints in the block goes to stderr. Yield the real stdout."""
    stdout, sys.stdout = sys.stdout, cast("TextIO", _ToStderr())
    try:
        yield stdout
    finally:
        sys.stdout = stdout


def print_result(text: str) -> None:
    """Print a JSON text: laid out for people on a terminal, on one line elsewhere."""
    on = is_terminal(sys.stdout)
    pretty = msgspec.json.format(text, indent=2 if on else -1)
    click.echo(harmless_json(pretty) if on else pretty)


def now_micros() -> int:
    """Return the time."""
    return time.time_ns() // 1000


def iso(micros: int | None) -> str | None:
    """Return a time in ISO 8601, local, with its offset."""
    return None if micros is None else _local(micros).isoformat(timespec="microseconds")


def clock_time(micros: int, *, now: int | None = None, precise: bool = False) -> str:
    """Return a local time for people; without its date when that is the date of *now*."""
    local = _local(micros)
    text = local.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds" if precise else "seconds")
    is_today = now is not None and _local(now).date() == local.date()
    return text[11:] if is_today else text


def _local(micros: int) -> datetime:
    return (_EPOCH + timedelta(microseconds=min(micros, _LAST))).astimezone()


def duration(micros: int) -> str:
    """Return how long something took, rounded, in the two units that matter."""
    if micros < _MILLISECOND:
        return f"{max(0, micros)} µs"
    if (milliseconds := round(micros / _MILLISECOND)) < _SECOND // _MILLISECOND:
        return f"{milliseconds} ms"
    if (tenths := round(micros / (_SECOND / 10))) < _MINUTE * 10:
        return f"{tenths / 10:g} s"
    seconds = round(micros / _SECOND)
    unit, length, lesser, part = next(row for row in _UNITS if seconds >= row[1])
    rest = seconds % length // part
    return f"{seconds // length} {unit} {rest} {lesser}" if rest else f"{seconds // length} {unit}"


def age(micros: int) -> str:
    """Return how long ago something was, in the one unit that matters."""
    return " ".join(duration(micros // _SECOND * _SECOND).split(" ")[:2]).replace("0 µs", "now")


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < _KIBI:
        return f"{count} B"
    power = min(len(_SIZES), (count.bit_length() - 1) // 10)
    return f"{count / _KIBI**power:.1f} {_SIZES[power - 1]}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
