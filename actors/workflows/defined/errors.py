"""What can go wrong with a definition, before any of its runs starts, and with the data of one."""

import msgspec

from perdure.actors.workflows.errors import OrchestrationError
from perdure.store.errors import UsageError


class Fault(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a definition, and where."""

    path: str
    """Such as `steps[2].conditions.gt`; empty: the definition as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class InvalidDefinitionError(OrchestrationError, UsageError):
    """The definition cannot be registered; names everything that is wrong with it, with its path."""

    message = "the definition {workflow_id} cannot be used:{listing}"
    faults: tuple[Fault, ...]
    listing: str

    def __init__(self, detail: str = "", *, faults: tuple[Fault, ...] = (), **data: object) -> None:
        listing = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(detail, **{"workflow_id": "?", "faults": tuple(faults), **data, "listing": listing})


class UnknownNameError(OrchestrationError, LookupError):
    """What the definition of a run names is not registered; the run waits until it is."""

    message = "unknown {kind}: {name}; registered are {known}"
    kind: str
    """`tool`, `workflow`, `predicate` or `reducer`."""
    name: str
    known: str


class DataPathError(OrchestrationError):
    """A result cannot be put where the mapping says: what is on the way there is neither an object nor a list."""

    message = "nothing can be put at {path!r} in the data: {reason}"
    path: str
    reason: str
