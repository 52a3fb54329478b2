"""Which calls of a trajectory ended last, and where the log has their results: an immutable map that grows cheaply.

Not a general map: nothing is removed but the oldest, by whole chunks. Invariant: an `Ended` never changes; adding one
copies the newest chunk at most.
"""

import msgspec

REMEMBERED = 10_000
"""Calls whose repetition is recognised, at least."""

CHUNK = 250
"""Entries copied at most when one is added; `REMEMBERED` of them in 40 chunks are searched in a microsecond or two."""


class Ended(msgspec.Struct, frozen=True):
    """By `uniq_id`, the version of the event that ended the call."""

    recent: dict[str, int] = {}
    older: tuple[dict[str, int], ...] = ()
    """Full chunks, oldest first; never changed."""

    def __contains__(self, execution: str) -> bool:
        """Return whether the call is remembered."""
        return self.get(execution) is not None

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self.recent) + CHUNK * len(self.older)

    def get(self, execution: str) -> int | None:
        """Return the version of the event that ended the call, if it is remembered."""
        version = self.recent.get(execution)
        if version is not None:
            return version
        for chunk in reversed(self.older):
            if execution in chunk:
                return chunk[execution]
        return None

    def with_one(self, execution: str, version: int) -> "Ended":
        """Return the same with one more; the oldest chunk is forgotten when there are enough without it."""
        recent = {**self.recent, execution: version}
        if len(recent) < CHUNK:
            return Ended(recent, self.older)
        return Ended({}, (*self.older[-(REMEMBERED // CHUNK - 1) :], recent))

    def to_dict(self) -> dict[str, int]:
        """Return all that are remembered, oldest first."""
        merged: dict[str, int] = {}
        for chunk in self.older:
            merged.update(chunk)
        merged.update(self.recent)
        return merged
