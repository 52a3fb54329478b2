"""A type of events together with the type of their data, for programs that want both checked.

Not here: the topic's actor (`topic.py`), which keeps what was published as JSON. Invariant: what is published on a
typed topic can be read from it; what others publish under its name may not be, and is then refused to the reader.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec

from perdure.actors.kernel.payloads import payload_decoder
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.topic import check_type
from perdure.actors.triggers.wanted import PublishedEvent
from perdure.store.errors import UsageError
from perdure.store.expected import checked

T = TypeVar("T")
Event = TypeVar("Event", PublishedEvent, LogEvent)

MISFIT: Final = "ValidationError"
"""The type of the error of a run that takes an event whose data are of another type."""


@checked
class Topic(Generic[T]):
    """`PAID = Topic("order.paid", of=Payment)`: what `publish`, `subscribe` and `ctx.event` take in place of a name."""

    __slots__ = ("_decoder", "name", "of")

    def __init__(self, name: str, *, of: type[T]) -> None:
        """Say what the data of the events of a type are.

        Args:
            name: the type of the events.
            of: whatever msgspec reads: a builtin, a dataclass, a `msgspec.Struct`.

        Raises:
            UsageError: the name cannot be one, or data of the type cannot be read from JSON.
        """
        self.name = check_type(name)
        self.of = of
        payload_decoder(of, f"the data of {name!r}")  # refuses what cannot be read back
        self._decoder = msgspec.json.Decoder(of)

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, of={self.of!r})"

    def check(self, encoded: bytes | msgspec.Raw) -> None:
        """Check that what is about to be published can be read by those who know the topic.

        Raises:
            UsageError: it cannot.
        """
        try:
            self._decoder.decode(encoded)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise UsageError(f"the data of {self.name!r} are to be {self.of!r}: {error}") from error

    def read(self, event: Event) -> Event:
        """Return an event with its data as an object of the type.

        Raises:
            msgspec.ValidationError: somebody published other data under the name.
        """
        data: Any = msgspec.convert(event.data, self.of)
        return msgspec.structs.replace(event, data=data)


def check_data(topic: "str | Topic[Any]", encoded: bytes | msgspec.Raw) -> None:
    """Check what is about to be published, where there is a topic that says what it is to be.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(topic, Topic):
        topic.check(encoded)


def name_of(type: "str | Topic[Any]") -> str:
    """Return the name of a type of events."""
    return type.name if isinstance(type, Topic) else type
