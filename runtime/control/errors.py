"""What can go wrong between a program and the owner of a log, by what the program does about it."""

from perdure.store.errors import PerdureError


class OwnerError(PerdureError):
    """Base of what can go wrong on the way to the owner of a log."""

    path: str


class NotOwnedError(OwnerError):
    """Nobody owns the log: nothing was done."""

    message = "no runtime has {path} open: start the application that owns it, or open it here with Runtime({path!r})"


class OwnerUnreachableError(OwnerError):
    """Somebody owns the log and cannot be asked from here: nothing was done."""

    message = "{path} is owned by {owner}, which cannot be asked from here: {detail}"
    owner: str
    detail: str


class ConnectionLostError(OwnerError):
    """The owner went away before it answered: whether the request was carried out is not known.

    What was acknowledged before is in the log. The next request connects again, to whoever owns the log then; asked
    with the same id, a start or a signal is done once.
    """

    message = "{detail} before it answered ({path}): it may have done what was asked. Ask again, with the same id"
    detail: str
