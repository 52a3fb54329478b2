"""Heads: events in the stream `log/heads` that hold the Merkle root over every digest before them.

A head is what an owner prints, mails or has signed; whoever kept one can later prove that nothing before it changed.
It also carries the frontier, so that opening a log re-reads only the events after the last head.
"""

from typing import Final

import msgspec

from perdure.store.chain import Frontier
from perdure.store.errors import UsageError
from perdure.store.records import NewEvent, StreamId

HEADS: Final = StreamId("log/heads")
HEAD_RECORDED: Final = "head-recorded"


class HeadRecorded(msgspec.Struct, frozen=True):
    """The payload of a head: the tree over the digests of positions 1 to *size*."""

    size: int
    root: str
    frontier: list[str]


def head_event(frontier: Frontier) -> NewEvent:
    """Return the event that records *frontier*."""
    head = HeadRecorded(size=frontier.size, root=frontier.root().hex(), frontier=[n.hex() for n in frontier.nodes])
    return NewEvent(type=HEAD_RECORDED, type_version=1, data=msgspec.json.encode(head))


def parse_head(data: str | bytes) -> tuple[HeadRecorded, Frontier]:
    """Return a head's payload and the frontier in it.

    Raises:
        UsageError: it is not a head, or its root is not the root of its own frontier.
    """
    try:
        head = msgspec.json.decode(data, type=HeadRecorded)
        frontier = Frontier(head.size, [bytes.fromhex(node) for node in head.frontier])
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"not a head: {error}") from error
    if frontier.root().hex() != head.root:
        raise UsageError("the root of the head is not that of its own frontier")
    return head, frontier
