"""Finding the run that a person means: by its id, or by the beginning or the end of it, as long as that is only one."""

from typing import Final

from perdure.actors.workflows.errors import UnknownRunError
from perdure.runtime.cli.facts import RUN_PREFIX
from perdure.store.errors import UsageError
from perdure.store.reader import LogReader
from perdure.store.records import StreamId, StreamSummary

_SHOWN: Final = 5
_LEAST: Final = 4
"""Characters of an id's end that are worth a search through all names."""
_BY_END: Final = "SELECT name FROM streams WHERE kind = 'run' AND substr(name, -?1) = ?2 LIMIT ?3"


def find_run(reader: LogReader, wanted: str) -> StreamSummary:
    """Return the run whose id is *wanted*, or begins with it, or ends with it.

    Raises:
        UnknownRunError: there is none.
        UsageError: there are several.
    """
    wanted = wanted.removeprefix(RUN_PREFIX)
    if exact := reader.stream(StreamId(RUN_PREFIX + wanted)):
        return exact
    found = reader.streams(RUN_PREFIX + wanted, limit=_SHOWN + 1) if wanted else []
    if not found and len(wanted) >= _LEAST:
        names = reader.sql(_BY_END, (len(wanted), wanted, _SHOWN + 1)).rows
        found = [row for (name,) in list(names) if (row := reader.stream(name))]
    if not found:
        raise UnknownRunError(run=wanted)
    if len(found) > 1:
        several = ", ".join(row.stream[len(RUN_PREFIX) :] for row in found[:_SHOWN])
        more = ", …" if len(found) > _SHOWN else ""
        raise UsageError(f"{wanted!r} is the id of no run and fits several: {several}{more}")
    return found[0]
