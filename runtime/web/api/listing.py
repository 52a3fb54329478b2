"""Pages of runs, read from the log's file by the view `runs`, off the loop.

The runtime itself is not asked, so that a list brings no run into memory. Invariant: one page looks at so many streams
at most, whatever is asked for; where few of them match, it is short and says where to go on.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from perdure.actors.kernel.clock import moment_of
from perdure.runtime.web.api.problems import Refused
from perdure.runtime.web.api.shapes import RunLine, Runs, RunsQuery, maybe_moment
from perdure.store.reader import LogReader

WINDOW: Final = 5_000
"""Streams that one page looks at: some 50 ms."""

# The rows come back as one JSON text: the GIL changes hands for every row that is fetched, which a busy loop delays.
_PAGE: Final = """
SELECT json_group_array(json_array(run, workflow, status, json(iif(is_open, 'true', 'false')), started_at, last_at,
       wake_at, waits_on, entry, parent, continued_as, error_type, error, number))
FROM (
    SELECT * FROM runs WHERE number < ?1 AND number >= ?2
      AND (?3 = '[]' OR status IN (SELECT value FROM json_each(?3)))
      AND (?4 IS NULL OR workflow = ?4)
      AND (?5 IS NULL OR entry = ?5)
      AND (?6 IS NULL OR parent = ?6)
      AND (?7 IS NULL OR is_open = ?7)
    ORDER BY number DESC LIMIT ?8
)
"""
_LAST: Final = "SELECT coalesce(max(id), 0) FROM streams"


class _Row(msgspec.Struct, frozen=True, array_like=True):
    run: str
    workflow: str | None
    status: Any
    is_open: bool
    started_at: int
    last_at: int
    wake_at: int | None
    waits_on: str | None
    entry: str | None
    parent: str | None
    continued_as: str | None
    error_type: str | None
    error: str | None
    number: int


_decode: Final = msgspec.json.Decoder(list[_Row]).decode


async def list_runs(path: Path, query: RunsQuery) -> Runs:
    """Return a page of the runs in the log at *path*, the newest first.

    Raises:
        Refused: there is no such file.
        LogUnavailableError, CorruptLogError: the file cannot be read.
    """
    return await asyncio.to_thread(_list, path, query)


def _list(path: Path, query: RunsQuery) -> Runs:
    if not path.is_file():
        raise Refused(404, "NoFileError", "the log of this runtime is no file: its runs cannot be listed")
    with LogReader.open(path) as reader:
        before = int(query.cursor) if query.cursor is not None else _one(reader, _LAST) + 1
        least = before - WINDOW
        is_open = None if query.is_open is None else int(query.is_open)
        statuses = msgspec.json.encode(query.status).decode()
        filters = (statuses, query.workflow, query.entry, query.parent, is_open)
        rows = _decode(_one(reader, _PAGE, before, least, *filters, query.limit))
    following = rows[-1].number if len(rows) == query.limit else least
    return Runs([_line(row) for row in rows], str(following) if following > 1 else None)


def _one(reader: LogReader, sql: str, *parameters: object) -> Any:
    ((value,),) = list(reader.sql(sql, parameters).rows)
    return value


def _line(row: _Row) -> RunLine:
    return RunLine(
        run=row.run,
        workflow=row.workflow or "",
        status=row.status,
        is_open=row.is_open,
        started_at=moment_of(row.started_at),
        last_at=moment_of(row.last_at),
        wake_at=maybe_moment(row.wake_at) if row.is_open else None,
        waits_on=row.waits_on if row.is_open else None,
        entry=row.entry,
        parent=row.parent,
        continued_as=row.continued_as,
        error_type=row.error_type,
        error=row.error,
    )
