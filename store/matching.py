"""What a `Query` means, as a predicate: the oracle for the SQL, and the filter of the fake."""

import msgspec

from perdure.store.records import Query, Recorded


class _Tool(msgspec.Struct, frozen=True):
    tool: str | None = None


def matches(event: Recorded, query: Query) -> bool:
    """Return whether *event* satisfies every condition of *query* but its limit."""
    return (
        event.position > query.after
        and (query.until is None or event.position <= query.until)
        and (query.stream is None or event.stream == query.stream)
        and (query.stream_prefix is None or event.stream.startswith(query.stream_prefix))
        and (query.types is None or event.type in query.types)
        and (query.correlation is None or event.correlation == query.correlation)
        and (query.since_time is None or event.at >= query.since_time)
        and (query.until_time is None or event.at <= query.until_time)
        and (query.tool is None or _tool(event) == query.tool)
    )


def _tool(event: Recorded) -> str | None:
    if event.data is None:
        return None
    try:
        return msgspec.json.decode(event.data, type=_Tool).tool
    except msgspec.ValidationError:
        return None
