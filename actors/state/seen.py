"""What a synchronized view has seen of shared values, and whether somebody else changed one since. Pure.

Invariant: of two sightings of a key the later one counts, whichever is told first; so branches may be replayed in any
order.
"""

from collections.abc import Iterable

import msgspec

from perdure.actors.state.errors import StateConflictError
from perdure.actors.state.scopes import Place
from perdure.actors.state.shared_state import Put, Shelf

ABSENT = 0
"""The stamp of a key that is not there."""


class Sighting(msgspec.Struct, frozen=True, array_like=True):
    """Keys of a scope with their stamps, after so many changes of the scope."""

    stream: str
    as_of: int
    stamps: dict[str, int]
    is_whole: bool = False
    """Whether every key that there was is named."""


class Seen:
    """What one run, or one view of an application, has seen."""

    def __init__(self, sightings: Iterable[Sighting] = ()) -> None:
        self._keys: dict[tuple[str, str], tuple[int, int]] = {}
        self._whole: dict[str, int] = {}
        self.add(sightings)

    def add(self, sightings: Iterable[Sighting]) -> None:
        """Take note of what was seen."""
        for one in sightings:
            if one.is_whole:
                self._add_absent(one)
            for key, stamp in one.stamps.items():
                place = (one.stream, key)
                self._keys[place] = max(self._keys.get(place, (-1, ABSENT)), (one.as_of, stamp))

    def _add_absent(self, whole: Sighting) -> None:
        self._whole[whole.stream] = max(self._whole.get(whole.stream, -1), whole.as_of)
        for (stream, key), (as_of, _) in self._keys.items():
            if stream == whole.stream and key not in whole.stamps and as_of <= whole.as_of:
                self._keys[stream, key] = (whole.as_of, ABSENT)

    def about(self, keys: Iterable[str]) -> tuple[Sighting, ...]:
        """Return what was seen of some keys, to be handed on."""
        wanted = frozenset(keys)
        wholes = [Sighting(stream, as_of, {}, is_whole=True) for stream, as_of in self._whole.items()]
        held = [(place, seen) for place, seen in self._keys.items() if place[1] in wanted]
        return (*wholes, *(Sighting(stream, as_of, {key: stamp}) for (stream, key), (as_of, stamp) in held))

    def check(self, place: Place, shelf: Shelf, keys: Iterable[str]) -> None:
        """Check that none of *keys* that were seen has been changed since.

        Raises:
            StateConflictError: one has.
        """
        for key in keys:
            seen = self._keys.get((place.stream, key))
            if seen is None and place.stream not in self._whole:
                continue
            stamp = ABSENT if seen is None else seen[1]
            held = shelf.entries.get(key)
            if stamp != (ABSENT if held is None else held.stamp):
                by = "whoever deleted it" if held is None else held.run or "the application"
                raise StateConflictError(key=key, place=place.name, by=by)


def sighting(place: Place, shelf: Shelf, keys: Iterable[str] | None) -> Sighting:
    """Return what is to be seen of some keys, or with None of all."""
    wanted = shelf.entries if keys is None else keys
    stamps = {key: held.stamp if (held := shelf.entries.get(key)) is not None else ABSENT for key in wanted}
    return Sighting(place.stream, shelf.changes, stamps, keys is None)


def sighting_after(place: Place, shelf: Shelf, puts: Iterable[Put]) -> Sighting:
    """Return what is to be seen of the keys of *puts* once these are done."""
    stamps: dict[str, int] = {}
    changes = shelf.changes
    for put in puts:
        if put.value is not None:
            changes += 1
            stamps[put.key] = changes
        else:
            changes += put.key in shelf.entries
            stamps[put.key] = ABSENT
    return Sighting(place.stream, changes, stamps)
