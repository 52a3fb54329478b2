"""Following a log: every durable event after a position, for ever, woken by the journal and not by a clock."""

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from perdure.store.errors import LogClosedError
from perdure.store.journal import Journal
from perdure.store.records import Query, Recorded


async def follow(
    journal: Journal,
    read: Callable[[Query], Awaitable[list[Recorded]]],
    after: int,
    query: Query | None = None,
    *,
    page: int = 1_000,
) -> AsyncIterator[Recorded]:
    """Yield every durable event after *after* that matches, in order and without gaps; ends when the log closes.

    At most *page* events are in memory, or the query's `limit` where that is less.

    Raises:
        LogWriteError: a commit failed.
    """
    if query is not None:
        page = max(1, min(page, query.limit))
    template = msgspec.structs.replace(query or Query(), limit=page, newest_first=False)
    while await journal.beyond(after):
        # Read up to a known position: when a page is not full, everything up to it was seen and `after` may skip it.
        until = journal.durable_position
        try:
            events = await read(msgspec.structs.replace(template, after=after, until=_least(until, template.until)))
        except LogClosedError:
            return
        for event in events:
            yield event
        after = events[-1].position if len(events) == page else until


def _least(position: int, bound: int | None) -> int:
    return position if bound is None else min(position, bound)
