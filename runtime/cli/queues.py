"""The queues of runs, as the log alone has them: how many wait, how many are at work, and who is next.

How many places a queue has is the application's to say, and in no log.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import Column, clock_time, iso, now_micros, print_json, print_line, print_table, shorten
from perdure.store.reader import LogReader

_QUEUES: Final = """
SELECT began.data ->> '$.place.queue' AS queue, sum(coalesce(s.waits_on, '') LIKE 'queue:%') AS waiting,
       sum(coalesce(s.waits_on, '') NOT LIKE 'queue:%') AS begun,
       min(iif(s.waits_on LIKE 'queue:%', s.first_at, NULL)) AS since
FROM streams AS s JOIN events AS began ON began.stream = s.id AND began.version = 1
WHERE s.kind = 'run' AND s.is_open AND began.data ->> '$.place.queue' IS NOT NULL
GROUP BY queue ORDER BY queue
"""
_NEXT: Final = """
SELECT substr(s.name, 5) FROM streams AS s JOIN events AS began ON began.stream = s.id AND began.version = 1
WHERE s.kind = 'run' AND s.is_open AND s.waits_on = 'queue:' || ?1
ORDER BY coalesce(began.data ->> '$.place.priority', 0) DESC, began.position LIMIT 5
"""
_COLUMNS: Final = (
    Column("QUEUE"), Column("WAITING", right=True), Column("BEGUN", right=True), Column("OLDEST"),
    Column("NEXT", fixed=False),
)  # fmt: skip
_WIDTH: Final = 60


class Line(msgspec.Struct, frozen=True):
    """A queue, as the log has it."""

    queue: str
    waiting: int
    begun: int
    """Runs that had their turn and are open: at work, asleep, or waiting for somebody."""
    oldest: int | None
    """When the one that has waited longest was started, in microseconds."""
    next: tuple[str, ...]
    """Whose turns come first, where no partition is full."""


@click.command(short_help="Show the queues that runs wait in.")
@db_option
@json_option
def queues(*, db: Path, as_json: bool) -> None:
    """Show each queue with open runs: how many wait for their turn, how many had it, and who is next."""
    with LogReader.open(db) as reader:
        found = read_queues(reader)
    if as_json:
        for one in found:
            print_json(msgspec.to_builtins(one) | {"oldest": None if one.oldest is None else iso(one.oldest)})
    elif found:
        now = now_micros()
        print_table(_COLUMNS, [_row(one, now) for one in found])
    else:
        print_line(f"no run waits in a queue in {db}", error=True)


def read_queues(reader: LogReader) -> list[Line]:
    """Return the queues that have open runs, by name."""
    rows = reader.sql(_QUEUES).rows
    return [Line(str(row[0]), int(row[1]), int(row[2]), row[3], _next(reader, str(row[0]))) for row in rows]


def _next(reader: LogReader, queue: str) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in reader.sql(_NEXT, (queue,)).rows)


def _row(one: Line, now: int) -> Sequence[str]:
    since = "" if one.oldest is None else clock_time(one.oldest, now=now)
    return (one.queue, str(one.waiting), str(one.begun), since, shorten(", ".join(one.next), _WIDTH))
