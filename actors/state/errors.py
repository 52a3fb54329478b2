"""What can go wrong with the shared state; whatever is raised, nothing was changed."""

from perdure.store.errors import PerdureError


class StateError(PerdureError):
    """Base of the errors of the shared state."""


class StateConflictError(StateError):
    """A synchronized view was to write a key that somebody else changed since the view read it."""

    message = "{key!r} of {place} was changed by {by} since it was read: read it again, or use update"
    key: str
    place: str
    """The scope, such as `stream/orders`."""
    by: str
    """The run that changed it, or `the application`."""


class StateFullError(StateError):
    """The scope would hold more keys, or more bytes, than it may."""

    message = "{place} would hold {size} {unit}, the bound is {bound}: delete keys, or keep a reference instead"
    place: str
    size: int
    unit: str
    """`keys` or `bytes`."""
    bound: int


class StatePermissionError(StateError, PermissionError):
    """The view may not read, or not write, the key."""

    message = "this view may not {verb} {key!r}: it was narrowed by with_permissions"
    verb: str
    """`read` or `write`."""
    key: str
