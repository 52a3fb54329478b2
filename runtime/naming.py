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


def check_signal(name: str, signal: str | None) -> None:
    """Check what a signal is called, and its id; None is none.

    Raises:
        UsageError: it cannot be called that.
    """
    if not (0 < len(name) <= MAX_ID and name.isprintable()):
        raise UsageError(f"a signal's name is 1 to {MAX_ID} printable characters, not {name!r}")
    if signal is not None and not (0 < len(signal) <= MAX_ID and signal.isprintable() and signal[0] != "#"):
        detail = f"a signal's id is 1 to {MAX_ID} printable characters and does not begin with #, not {signal!r}"
        raise UsageError(detail)


def check_conversation(conversation: str | None) -> None:
    """Check a conversation's id; None is none.

    Raises:
        UsageError: it cannot be one.
    """
    if conversation is not None and not CONVERSATION.fullmatch(conversation):
        detail = f"a conversation's id is 1 to 60 printable ASCII characters without a space, not {conversation!r}"
        raise UsageError(detail)


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
    if type(priority) is not int or abs(priority) > MAX_PRIORITY:
        raise UsageError(f"a priority is a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}")
    if partition is not None and not (0 < len(partition) <= MAX_ID and partition.isprintable()):
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


def check_principal(principal: str | None) -> None:
    """Check what a principal is called; None is nobody.

    Raises:
        UsageError: nobody can be called that.
    """
    if principal is not None and not (0 < len(principal) <= MAX_PRINCIPAL_LENGTH and principal.isprintable()):
        raise UsageError(f"a principal is 1 to {MAX_PRINCIPAL_LENGTH} printable characters, not {principal!r}")
