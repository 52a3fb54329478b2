"""What can go wrong with an event."""

from perdure.store.errors import UsageError


class PublicationConflictError(UsageError):
    """The id belongs to another event of the type; nothing was published."""

    message = "another event of this type has the id {event!r}: an id is for one event"
    event: str
