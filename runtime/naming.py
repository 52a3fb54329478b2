"""What a caller may name runs, conversations and principals: checked before anything is recorded. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from perdure.actors.workflows.children import MAX_ID
from perdure.actors.workflows.queue import Queue
from perdure.store.errors import UsageError

CONVERSATION = re.compile(r"[!-~]{1,60}")
"""What a conversation may be called: with a tool's name it makes a stream's."""

MAX_PRINCIPAL_LENGTH = 200
"""Of what a principal is called: an e-mail address, a service's name, a subject of a token."""

MAX_PRIORITY = 1_000_000
"""Of a run in a queue, either way."""


def is_name(text: object, most: int = MAX_ID) -> bool:
    """Return whether something is a text of 1 to so many printable characters."""
    return isinstance(text, str) and 0 < len(text) <= most and text.isprintable()


def check_signal(name: str, signal: str | None) -> None:
    """Check what a signal is called, and its id; None is none.

    Raises:
        UsageError: it cannot be called that.
    """
    if not is_name(name):
        raise UsageError(f"a signal's name is 1 to {MAX_ID} printable characters, not {name!r}")
    if signal is not None and not (is_name(signal) and signal[0] != "#"):
        detail = f"a signal's id is 1 to {MAX_ID} printable characters and does not begin with #, not {signal!r}"
        raise UsageError(detail)


def check_conversation(conversation: str | None) -> None:
    """Check a conversation's id; None is none.

    Raises:
        UsageError: it cannot be one.
    """
    if conversation is not None and not (is_name(conversation) and CONVERSATION.fullmatch(conversation)):
        detail = f"a conversation's id is 1 to 60 printable ASCII characters without a space, not {conversation!r}"
        raise UsageError(detail)


def check_priority(priority: int | None) -> None:
    """Check a priority; None is none.

    Raises:
        UsageError: it is out of range.
    """
    if priority is not None and (type(priority) is not int or abs(priority) > MAX_PRIORITY):
        raise UsageError(f"a priority is a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}")


def check_place(queue: str | None, priority: int, partition: str | None, known: Mapping[str, Queue]) -> None:
    """Check where a run is to wait for its turn; None is nowhere.

    Raises:
        UsageError: there is no such queue, or what its turn is to go by can be written nowhere.
    """
    if queue is None:
        if priority or partition is not None:
            raise UsageError("priority=… and partition=… are of a queue: say queue=…, too")
        return
    if queue not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UsageError(f"there is no queue {queue!r}, there are {names}: Runtime(…, queues=[Queue({queue!r}, …)])")
    check_priority(priority)
    if partition is not None and not is_name(partition):
        raise UsageError(f"a partition is 1 to {MAX_ID} printable characters, not {partition!r}")


def queues_by_name(queues: Iterable[Any]) -> dict[str, Queue]:
    """Return queues by their names.

    Raises:
        UsageError: two have the same, or something is not a queue.
    """
    named: dict[str, Queue] = {}
    for queue in queues:
        if not isinstance(queue, Queue):
            raise UsageError(f"queues=[Queue('mail', concurrency=5)], not {queue!r}")
        if named.setdefault(queue.name, queue) is not queue:
            raise UsageError(f"two queues are called {queue.name!r}")
    return named


def check_speaker(who: str | None, on_behalf: str | None) -> None:
    """Check who says something, and whose word they pass on; None is nobody, and their own.

    Raises:
        UsageError: nobody can be called that, or nobody passes on what somebody said.
    """
    check_principal(who)
    check_principal(on_behalf)
    if on_behalf is not None and who is None:
        raise UsageError(f"on_behalf={on_behalf!r} needs to know who passes it on: say who=…, too")


def check_principal(principal: str | None) -> None:
    """Check what a principal is called; None is nobody.

    Raises:
        UsageError: nobody can be called that.
    """
    if principal is not None and not is_name(principal, MAX_PRINCIPAL_LENGTH):
        raise UsageError(f"a principal is 1 to {MAX_PRINCIPAL_LENGTH} printable characters, not {principal!r}")
