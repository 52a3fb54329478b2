"""Finding the run or trajectory that a person means: by its id, or the beginning or end of it, if that is only one."""

from typing import Final

from perdure.actors.workflows.errors import UnknownRunError
from perdure.runtime.cli.facts import RUN_PREFIX
from perdure.store.errors import UsageError
from perdure.store.reader import LogReader
from perdure.store.records import StreamId, StreamSummary

_SHOWN: Final = 5
_LEAST: Final = 4
"""Characters of an id's end that are worth a search through all names."""
_BY_END: Final = "SELECT name FROM streams WHERE kind = ?1 AND substr(name, -?2) = ?3 LIMIT ?4"


def find_run(reader: LogReader, wanted: str) -> StreamSummary:
    """Return the run whose id is *wanted*, or begins with it, or ends with it.

    Raises:
        UnknownRunError: there is none.
        UsageError: there are several.
    """
    found = _find(reader, "run", wanted)
    if found is None:
        raise UnknownRunError(run=wanted.removeprefix(RUN_PREFIX))
    return found


def find_trajectory(reader: LogReader, wanted: str) -> StreamSummary:
    """Return the trajectory whose id is *wanted*, or begins with it, or ends with it.

    Raises:
        UsageError: there is none, or there are several.
    """
    found = _find(reader, "trajectory", wanted)
    if found is None:
        known = [row.stream.partition("/")[2] for row in reader.streams("trajectory/", limit=_SHOWN + 1)]
        more = ", …" if len(known) > _SHOWN else ""
        raise UsageError(f"this log has no trajectory {wanted!r}; it has: {', '.join(known[:_SHOWN]) or 'none'}{more}")
    return found


def _find(reader: LogReader, kind: str, wanted: str) -> StreamSummary | None:
    prefix = f"{kind}/"
    wanted = wanted.removeprefix(prefix)
    if exact := reader.stream(StreamId(prefix + wanted)):
        return exact
    found = reader.streams(prefix + wanted, limit=_SHOWN + 1) if wanted else []
    if not found and len(wanted) >= _LEAST:
        names = reader.sql(_BY_END, (kind, len(wanted), wanted, _SHOWN + 1)).rows
        found = [row for (name,) in list(names) if (row := reader.stream(name))]
    if len(found) > 1:
        several = ", ".join(row.stream[len(prefix) :] for row in found[:_SHOWN])
        more = ", …" if len(found) > _SHOWN else ""
        raise UsageError(f"{wanted!r} is the id of no {kind} and fits several: {several}{more}")
    return found[0] if found else None
