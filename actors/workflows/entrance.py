"""How a run came in: by which entry point, why, and what it may see of the state that it shares. Data only.

Invariant: a run's children, and the runs that it goes on as, have the entrance of the run itself.
"""

from typing import Literal, TypeAlias

import msgspec

Isolation: TypeAlias = Literal["isolated", "shared", "synchronized"]
"""How much of the shared state a run sees, and what it may write."""

TriggerKind: TypeAlias = Literal["api", "manual", "webhook", "event", "schedule"]
"""Why an entry point started a run."""

EndStatus: TypeAlias = Literal["completed", "failed", "cancelled"]
"""How a run ends."""


class Entrance(msgspec.Struct, frozen=True, omit_defaults=True):
    """The entry point that started a run, and why."""

    entry: str
    """The entry point's id: the name of the scope `stream` of the shared state."""
    kind: TriggerKind
    isolation: Isolation = "shared"
    correlation: str | None = None
    """What the caller ties the run to; the run's own id when null."""
    depth: int = 0
    """How many runs led to this one, each by an event that the one before it caused."""
    cause: int | None = None
    """The position of the event that triggered it."""
    before: EndStatus | None = None
    """Of a run that goes on for one that was tried again: how that had ended before, as its entry point was told."""
