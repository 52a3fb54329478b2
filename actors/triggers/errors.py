"""What can go wrong with an event."""

from perdure.store.errors import Rejected, UsageError


class PublicationConflictError(UsageError):
    """The id belongs to another event of the type; nothing was published."""

    message = "another event of this type has the id {event!r}: an id is for one event"
    event: str


class UnknownDeadLetterError(UsageError):
    """The subscription has no dead letter of that position that could be delivered again."""

    message = "there is no dead letter of the event {position} here that could be delivered again: perdure dead-letters"
    position: int


class NotDueError(Rejected):
    """The schedule was paused or changed, or acted, meanwhile; nothing was started."""

    message = "the schedule of {entry} is not due any more"
    entry: str


class UnknownEntryPointError(UsageError, LookupError):
    """No entry point has that id."""

    message = "entry point {entry!r} not found; registered are {known}"
    entry: str
    known: str


class TriggerRefusedError(Rejected):
    """The entry point does not start a run; `trigger-refused` in its stream says so."""

    message = "entry point {entry} was not triggered: {reason}"
    entry: str
