"""Finds the sleepers that an event is for, and wakes them: in the index of open work, not in memory.

Not here: runs that are in memory (`exchange.py`). Invariant: when a batch of events has been taken, every sleeper that
listens for one of them has a durable reason to wake; a row that was of no use is closed.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from perdure.actors.kernel.errors import MailboxFullError
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.triggers.listing import (
    LeaveListings,
    StopListening,
    after_field,
    field_of,
    listing_of,
    listings_of,
    place_for,
    read_row,
    type_of,
)
from perdure.actors.triggers.wanted import Occurrence, holds
from perdure.actors.workflows.commands import FindEvent
from perdure.store.errors import BacklogFullError, LogClosedError, LogWriteError, PerdureError
from perdure.store.records import OpenStream, StreamId

PAGE: Final = 500
"""Rows that are read with one query, and runs that are asked together."""
FEW: Final = 50
"""Rows that are judged before those with another value than the events' are passed over."""

_log = logger("perdure.events")


class Sleepers:
    """Runs that left memory and listen for events."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._silent: set[str] = set()
        """Types for which nobody is listed."""
        self._listed = 0
        """How many entries were made in this life."""

    def listed(self, place: str) -> None:
        """Take note that a sleeper is being listed at a place."""
        self._listed += 1
        self._silent.discard(type_of(place))

    def leave(self, shell: Shell, effect: LeaveListings) -> None:
        """Perform what takes a run off the index that ended without its code."""
        del shell
        for place in effect.places:
            self._system.ref(listing_of(place, effect.run)).tell(StopListening())

    async def wake(self, batch: Iterable[Occurrence]) -> None:
        """Give every sleeper that listens for one of these events a durable reason to wake.

        Raises:
            PerdureError: the log cannot be read, or written; the same batch may be given again.
        """
        by_type: dict[str, list[tuple[Occurrence, Any]]] = {}
        for event in batch:
            if event.type not in self._silent:
                by_type.setdefault(event.type, []).append((event, msgspec.json.decode(event.data)))
        if not by_type:
            return
        # A run that left memory before these events were begun, and is listed since, must be among what is read.
        await self._system.log.flush()
        found: dict[tuple[str, str], int] = {}
        rows: dict[str, dict[StreamId, OpenStream]] = {}
        for type, events in by_type.items():
            await self._look(type, events, found, rows)
        wakes = list(found.items())
        for start in range(0, len(wakes), PAGE):
            await self._ask(wakes[start : start + PAGE], rows)

    async def _look(
        self,
        type: str,
        events: Sequence[tuple[Occurrence, Any]],
        found: dict[tuple[str, str], int],
        rows: dict[str, dict[StreamId, OpenStream]],
    ) -> None:
        """Find the sleepers for events of one type, and the first event for each of their waits."""
        listed, is_silent = self._listed, True
        async for row in self._rows(type, events):
            is_silent = False
            entry = read_row(row.waits_on or "")
            for wait in entry.waits:
                first = next(
                    (e.position for e, data in events if e.position > wait.after and holds(wait.either, data)), None
                )
                if first is not None:
                    key = (entry.run, wait.step)
                    found[key] = min(found.get(key, first), first)
                    rows.setdefault(entry.run, {})[row.stream] = row
        if is_silent and listed == self._listed:
            self._silent.add(type)

    async def _rows(self, type: str, events: Sequence[tuple[Occurrence, Any]]) -> AsyncIterator[OpenStream]:
        """Yield all rows of a type but those of sleepers that want a value of a field which none of the events has."""
        after, limit = "", FEW
        while page := await self._system.log.open_streams(listings_of(type), after=after, limit=limit):
            for row in page:
                yield row
            after, field = page[-1].stream, field_of(page[-1].stream)
            if len(page) < limit:
                return
            limit = PAGE
            if field is not None:  # one of many: the others of the field are found by the values
                for place in sorted({place for _, data in events if (place := place_for(type, field, data))}):
                    async for row in self._at(place, after):
                        yield row
                after, limit = after_field(type, field), FEW

    async def _at(self, place: str, after: str) -> AsyncIterator[OpenStream]:
        while page := await self._system.log.open_streams(listings_of(place), after=after, limit=PAGE):
            for row in page:
                yield row
            after = page[-1].stream

    async def _ask(
        self, wakes: Sequence[tuple[tuple[str, str], int]], rows: Mapping[str, Mapping[StreamId, OpenStream]]
    ) -> None:
        asked = [(run, self._find(run, step, position)) for (run, step), position in wakes]
        for (run, answer), ((_, step), position) in zip(asked, wakes, strict=True):
            if not await self._is_found(answer, run, step, position):
                for row in rows[run].values():  # it is awake, or has ended: it is listed anew when it leaves memory
                    self._system.ref(row.stream).tell(StopListening(row.waits_on))

    def _find(self, run: str, step: str, position: int) -> Any:
        return self._system.ref(StreamId(f"run/{run}")).ask(FindEvent(step, position), correlation=run)

    async def _is_found(self, answer: Any, run: str, step: str, position: int) -> bool:
        while True:
            try:
                return bool(await answer)
            except (BacklogFullError, MailboxFullError):
                await self._system.log.flush()
                answer = self._find(run, step, position)
            except (LogWriteError, LogClosedError):
                raise
            except PerdureError as error:
                _log.warning("a run could not be told of an event", run=run, step=step, reason=str(error))
                return True
