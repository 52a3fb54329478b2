"""The figures of the shared state: a fold of events, which a restart does not zero and which goes on where it stopped.

Not here: the values. Invariant: a run is counted as long as it may still read values of its own.
"""

from collections import defaultdict
from typing import Final

import msgspec

from perdure.store.protocols import EventLog
from perdure.store.records import Query, Recorded

_ENDS: Final = ("run-completed", "run-failed", "run-cancelled", "run-continued")
_TYPES: Final = ("state-changed", "state-dropped", "state-moved", "run-retried", *_ENDS)


class _Change(msgspec.Struct):
    key: str
    deleted: bool = False


_read_change = msgspec.json.Decoder(_Change).decode


class StateFigures:
    """What there is to count after the events so far."""

    def __init__(self) -> None:
        self._after = 0
        self._changes = 0
        self._keys: defaultdict[str, set[str]] = defaultdict(set)
        """By stream; those of runs too."""
        self._failed: dict[str, set[str]] = {}
        """Those of runs that an operator may have tried again."""

    async def read(self, log: EventLog) -> None:
        """Take in all that has come since."""
        durable = log.statistics().durable_position  # all of it can be read: what is not of these types is passed once
        while page := await log.read(Query(types=_TYPES, after=self._after)):
            for event in page:
                self._add(event)
        self._after = max(self._after, durable)

    def _add(self, event: Recorded) -> None:
        self._after = event.position
        if event.type in _ENDS or event.type == "state-dropped":
            held = self._keys.pop(event.stream, None)
            if held is not None and event.type == "run-failed":
                self._failed[event.stream] = held
        elif event.type == "run-retried":
            if event.stream in self._failed:
                self._keys[event.stream] = self._failed.pop(event.stream)
        elif event.type == "state-moved":
            self._keys[event.stream].add("")  # which keys does not matter: it is a run's
        else:
            self._changes += 1
            self._change(event)

    def _change(self, event: Recorded) -> None:
        if event.data is None:
            return  # erased
        change = _read_change(event.data)
        if not change.deleted:
            self._keys[event.stream].add(change.key)
        elif event.stream in self._keys:
            self._keys[event.stream].discard(change.key)
            if not self._keys[event.stream]:
                del self._keys[event.stream]

    def counts(self) -> dict[str, int]:
        """Return the figures by the names of `SharedState.statistics`."""
        return {
            "global_keys": len(self._keys.get("state/global", ())),
            "stream_count": sum(stream.startswith("state/stream/") for stream in self._keys),
            "execution_count": sum(stream.startswith("run/") for stream in self._keys),
            "total_changes": self._changes,
            "version": self._changes,
        }
