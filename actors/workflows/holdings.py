"""The facts of a run about shared state: what its code read, what it wrote, and what was refused.

Tags are for ever. Not here: the changes themselves (`state/shared_state.py`), which are in the same unit.
"""

import msgspec

from perdure.actors.state.errors import StateConflictError
from perdure.actors.state.operations import Changing, Looking
from perdure.actors.state.scopes import Scope
from perdure.actors.state.seen import Sighting
from perdure.store.codec import Event


class StateRead(Event, frozen=True, omit_defaults=True, tag="state-read"):
    """The workflow read shared state; a replay gives it the same `value`."""

    step: str
    branch: str
    action: Looking
    digest: str
    key: str = ""
    value: msgspec.Raw = msgspec.Raw(b"null")
    found: bool = True
    """Whether a scope has the key."""
    seen: tuple[Sighting, ...] = ()
    """Of a synchronized run: which state of the keys it has seen, as [stream, changes, {key: change}, all keys?]."""


class StateWritten(Event, frozen=True, omit_defaults=True, tag="state-written"):
    """The workflow wrote shared state, which is in the same unit, or found nothing to write (`result` is false)."""

    step: str
    branch: str
    action: Changing
    digest: str
    scope: Scope
    keys: tuple[str, ...]
    result: msgspec.Raw = msgspec.Raw(b"null")
    seen: tuple[Sighting, ...] = ()


class StateConflicted(Event, frozen=True, omit_defaults=True, tag="state-conflicted"):
    """A synchronized run was to overwrite what it had read and somebody else has changed since; it was told."""

    step: str
    branch: str
    action: Changing
    digest: str
    scope: Scope
    key: str
    place: str
    by: str
    """The run that changed it, or who else."""

    @property
    def error_type(self) -> str:
        """The error that the workflow got."""
        return StateConflictError.__name__

    @property
    def error(self) -> str:
        """What that said."""
        return str(StateConflictError(key=self.key, place=self.place, by=self.by))

    @property
    def details(self) -> msgspec.Raw:
        """What it is built from."""
        return msgspec.Raw(msgspec.json.encode({"key": self.key, "place": self.place, "by": self.by}))


class StateRefused(Event, frozen=True, omit_defaults=True, tag="state-refused"):
    """Nothing was written: the scope is full, or the function of an update raised; the workflow was told."""

    step: str
    branch: str
    action: Changing
    digest: str
    scope: Scope
    keys: tuple[str, ...]
    error_type: str
    error: str
    details: msgspec.Raw = msgspec.Raw(b"null")
    """What the error is built from, where it is one of the state's own."""


HOLDING_EVENTS = (StateRead, StateWritten, StateConflicted, StateRefused)
