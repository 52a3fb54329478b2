"""Publishes an event for an application: checked, encoded, durable.

Not here: publishing from a workflow, which is a step (`listening.py`). Invariant: what a handler publishes is known to
be led to by the event that it handles.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.triggers.event_names import RECEIVED
from perdure.actors.triggers.topic import Publish, check_id, check_type, topic_of
from perdure.actors.triggers.typed import Topic, check_data, name_of
from perdure.runtime.entries.handling import CAUSE
from perdure.runtime.naming import check_principal, is_name
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

MAX_NAME = 200
"""Characters of a source, and of a correlation."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher says beside the type and the data."""

    id: str | None = None
    who: str | None = None
    source: str | None = None
    correlation: str | None = None


async def publish(runtime: "Runtime", topic: str | Topic[Any], data: object, said: Published) -> bool:
    """Publish an event. See `Runtime.publish`."""
    type = check_type(name_of(topic))
    check_id(said.id)
    if type == RECEIVED and said.id is not None:  # under the id of a delivery to come, that would be its duplicate
        detail = f"the ids of {RECEIVED} are those of deliveries"
        raise UsageError(f"{detail}: publish it without an id, or under another type, not as {said.id!r}")
    check_principal(said.who)
    check_named(said.source, "source")
    check_named(said.correlation, "correlation")
    encoded = msgspec.Raw(runtime.encode(data, f"the event {type}"))
    check_data(topic, encoded)
    cause = CAUSE.get()
    command = Publish(
        encoded,
        said.id,
        source=said.source,
        correlation=said.correlation or (cause.correlation if cause is not None else None),
        depth=cause.depth + 1 if cause is not None else 0,
    )
    is_new: bool = await runtime.ask(topic_of(type), command, principal=said.who)
    return is_new


def check_named(text: str | None, what: str) -> None:
    """Check what a publisher calls itself, or what it ties an event to; None is nothing.

    Raises:
        UsageError: it cannot be that.
    """
    if text is not None and not is_name(text, MAX_NAME):
        raise UsageError(f"the {what} of an event is 1 to {MAX_NAME} printable characters, not {text!r}")
