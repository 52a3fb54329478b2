"""Makes events of rows of the log, for those who subscribe: from what is on its way to the disk, or read back.

Not here: who gets them. Invariant: both ways make the same event of the same row; an event that was erased, or that is
about subscriptions or the log itself, is made of no row.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from perdure.actors.kernel.clock import moment_of
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.triggers.event_names import all_tags
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.matching import ANY
from perdure.actors.workflows.entrance import Entrance
from perdure.actors.workflows.state import RunState
from perdure.store.codec import blob_hashes
from perdure.store.records import Query, Recorded, StreamId, Unit

PAGE: Final = 200
"""Rows that are read with one query."""
MAX_RUNS: Final = 10_000
"""Runs of which it is remembered how they came in."""
PUBLISHED: Final = "event-published"

_HIDDEN_KINDS: Final = frozenset({"subscription", "listing", "log"})
_HIDDEN: Final = frozenset({"events-delivered"})
"""What says how far somebody is: it would be an event for each event that is handled."""
_NO_BLOBS: Final[Mapping[str, bytes]] = {}
_hashes = msgspec.json.Decoder(dict[str, str]).decode


class Descent(msgspec.Struct, frozen=True):
    """Of which workflow a run is, and how it came in."""

    workflow: str | None = None
    entrance: Entrance | None = None


class _Started(msgspec.Struct, frozen=True):
    workflow: str
    entrance: Entrance | None = None


_started = msgspec.json.Decoder(_Started).decode


def name_of(stream: str, type: str) -> str | None:
    """Return what an event is asked for by: of a published one its own type; None if nobody can ask for it."""
    kind, _, rest = stream.partition("/")
    if kind == "topic":
        return rest if type == PUBLISHED else None
    return None if kind in _HIDDEN_KINDS or type in _HIDDEN else type


def rows_of(unit: Unit, last: int) -> Iterable[Recorded]:
    """Return the rows that a unit becomes whose last event has the position *last*."""
    position = last - sum(len(append.events) for append in unit.appends)
    for append in unit.appends:
        for number, event in enumerate(append.events, append.expected + 1):
            position += 1
            yield Recorded(
                position,
                append.stream,
                number,
                event.type,
                event.type_version,
                unit.at,
                event.data.decode(),
                None if event.blobs is None else event.blobs.decode(),
                unit.correlation,
                unit.causation,
                unit.principal,
            )


class LogEvents:
    """Reads the log as events."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._runs: dict[str, Descent] = {}

    async def read(self, tags: Sequence[str], query: Query) -> tuple[list[LogEvent], int | None]:
        """Return the events with these tags of one page, and after which position the next page begins, if it may be.

        *query* says where; what fields of an event must be is for the caller to judge.
        """
        rows = await self._system.log.read(msgspec.structs.replace(query, types=_types(tags)))
        wanted = frozenset(tags)
        named = [row for row in rows if (name := name_of(row.stream, row.type)) and (ANY in wanted or name in wanted)]
        needed = blob_hashes(named)
        blobs: Mapping[str, bytes] = await self._system.log.blobs(needed) if needed else _NO_BLOBS
        found = [event for row in named if (event := await self.event(row, blobs)) is not None]
        return found, rows[-1].position if len(rows) == query.limit else None

    async def event(self, row: Recorded, blobs: Mapping[str, bytes]) -> LogEvent | None:
        """Return the event that a row is; None if it was erased."""
        name = name_of(row.stream, row.type)
        if name is None or row.data is None:
            return None
        data: dict[str, Any] = msgspec.json.decode(row.data)
        if row.blobs is not None:
            data.update({field: _large(blobs, sha256) for field, sha256 in _hashes(row.blobs).items()})
        at = moment_of(row.at)
        kind, _, rest = row.stream.partition("/")
        run = rest if kind == "run" else _text(data.get("run"))
        if kind == "topic":
            return _published(name, row.position, at, data, await self._descent(run))
        if run is None and row.correlation is not None:
            # What a tool's actor, a queue or a goal recorded for a run is in a unit that is correlated with it.
            descent = await self._descent(row.correlation)
            return _own(name, row, at, data, row.correlation if descent.workflow else None, descent)
        return _own(name, row, at, data, run, await self._descent(run))

    async def _descent(self, run: str | None) -> Descent:
        if run is None:
            return Descent()
        found = self._runs.get(run) or self._in_memory(run) or await self._recorded(run)
        if found is None:
            return Descent()
        self._runs[run] = found
        while len(self._runs) > MAX_RUNS:
            del self._runs[next(iter(self._runs))]
        return found

    def _in_memory(self, run: str) -> Descent | None:
        shell = self._system.directory.active(StreamId(f"run/{run}"))
        state = None if shell is None else cast("RunState", shell.state)
        return None if state is None or not state.workflow else Descent(state.workflow, state.entrance)

    async def _recorded(self, run: str) -> Descent | None:
        rows = await self._system.log.read(Query(stream=StreamId(f"run/{run}"), types=("run-started",), limit=1))
        if not rows or rows[0].data is None:
            return None
        started = _started(rows[0].data)
        return Descent(started.workflow, started.entrance)


def _types(tags: Sequence[str]) -> tuple[str, ...] | None:
    # A tag may be a topic's type: the topic's events all have one type in the log.
    return None if ANY in tags else tuple(dict.fromkeys((*all_tags(tags), PUBLISHED)))


def _large(blobs: Mapping[str, bytes], sha256: str) -> Any:
    value = blobs.get(sha256)
    return None if value is None else msgspec.json.decode(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _step_of(call: str | None, run: str | None) -> str | None:
    # What a tool's actor records has the id of the call: the run's, a colon, the step's key.
    return call[len(run) + 1 :] if call and run and call.startswith(f"{run}:") else None


def _published(type: str, position: int, at: datetime, data: Mapping[str, Any], descent: Descent) -> LogEvent:
    run = _text(data.get("run"))
    return LogEvent(
        position=position,
        type=type,
        stream=_text(data.get("source")),
        run=run,
        node=_text(data.get("node")),
        workflow=descent.workflow,
        data=data.get("data"),
        at=at,
        correlation=_text(data.get("correlation")) or run,
        source=_text(data.get("source")),
        depth=data.get("depth", 0),
        id=data["id"],
    )


def _own(
    type: str, row: Recorded, at: datetime, data: Mapping[str, Any], run: str | None, descent: Descent
) -> LogEvent:
    kind, _, rest = row.stream.partition("/")
    came = descent.entrance
    depth = came.depth if came is not None else data.get("depth", 0)
    return LogEvent(
        position=row.position,
        type=type,
        stream=rest if kind == "entry-point" else came.entry if came is not None else _text(data.get("entry")),
        run=run,
        node=_text(data.get("step")) or _text(data.get("node")) or _step_of(_text(data.get("call")), run),
        workflow=descent.workflow,
        data=data,
        at=at,
        correlation=(came.correlation if came is not None else None) or run,
        depth=depth if isinstance(depth, int) else 0,
    )
