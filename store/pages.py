"""Reading in pages, without I/O: which statements answer a `Query`, one after the other.

A generator yields a statement, is sent the one value of its result, and returns the events in the end; so the async log
and the blocking reader share it. The invariant: no statement looks at more than some 20,000 rows, because a read that
lasts keeps the WAL from being reset.
"""

from collections.abc import Generator
from typing import Final, NamedTuple

import msgspec

from perdure.store.queries import queries
from perdure.store.records import Query, Recorded

PAGE: Final = 2_000
"""Events in one page: some 5 ms beside a busy loop."""
WINDOW: Final = 20_000
"""Positions that one statement filters: at most some 50 ms."""
NAME_END: Final = "\x7f"
"""Greater than every character of a stream's name: `prefix <= name < prefix + NAME_END`."""

_decode = msgspec.json.Decoder(list[Recorded]).decode


class Statement(NamedTuple):
    """A statement whose result is one value."""

    sql: str
    parameters: dict[str, object] | tuple[object, ...]


Reading = Generator[Statement, object, list[Recorded]]


def decode_page(text: object) -> list[Recorded]:
    """Return the events in a page."""
    assert isinstance(text, str)  # noqa: S101 - for the type checker: the statements return json_group_array
    return _decode(text)


def reading(query: Query, last: int | None = None) -> Reading:
    """Read the events that match *query*, none of them after the position *last*."""
    low, high = query.after, query.until
    if last is None:
        last = yield from _number("last_position")
    high = last if high is None else min(high, last)
    if query.since_time is not None:
        low = max(low, (yield from _number("position_at", query.since_time)))
    if query.until_time is not None:
        high = min(high, (yield from _number("position_at", query.until_time + 1)))
    found: list[Recorded] = []
    while low < high and len(found) < query.limit:
        start, end = _window(query, low, high)
        limit = min(PAGE, query.limit - len(found))
        events = decode_page((yield _page(query, start, end, limit)))
        found.extend(events)
        # A full page may have left events of this window behind.
        if query.newest_first:
            high = events[-1].position - 1 if len(events) == limit else start
        else:
            low = events[-1].position if len(events) == limit else end
    return found


def _number(name: str, *parameters: object) -> Generator[Statement, object, int]:
    value = yield Statement(queries()[name], parameters)
    assert isinstance(value, int)  # noqa: S101 - for the type checker: the statements return integers
    return value


def _window(query: Query, low: int, high: int) -> tuple[int, int]:
    filters = (query.types, query.correlation, query.stream_prefix, query.tool)
    if query.stream is not None or filters == (None, None, None, None):
        return low, high  # every row that is looked at is an answer, or the stream's own
    return (max(low, high - WINDOW), high) if query.newest_first else (low, min(high, low + WINDOW))


def _page(query: Query, after: int, until: int, limit: int) -> Statement:
    sql = queries()["page_of_log" if query.stream is None else "page_of_stream"]
    prefix = query.stream_prefix or None
    parameters: dict[str, object] = {
        "stream": query.stream,
        "after": after,
        "until": until,
        "types": None if query.types is None else msgspec.json.encode(query.types).decode(),
        "correlation": query.correlation,
        "prefix": prefix,
        "prefix_end": None if prefix is None else prefix + NAME_END,
        "tool": query.tool,
        "limit": limit,
    }
    return Statement(sql.replace(" ASC ", " DESC ") if query.newest_first else sql, parameters)
