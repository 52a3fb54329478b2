"""From events to state: the fold, with snapshots as a short cut. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.messages import Event, Index
from perdure.store.codec import Codec
from perdure.store.records import Loaded, Snapshot, StreamId

S = TypeVar("S")

SNAPSHOT_EVERY = 200
"""Events between snapshots of a stream, at least: about a millisecond of replay."""


def replay(behavior: Behavior[S], events: Iterable[Event], stream: StreamId | None = None) -> S:
    """Return the state after *events*, from the beginning."""
    state = behavior.initial(stream or StreamId(f"{behavior.kind}/test"))
    for event in events:
        state = behavior.evolve(state, event)
    return state


class Revived(msgspec.Struct, Generic[S], frozen=True):
    """A stream brought back from the log."""

    stream: StreamId
    version: int
    state: S
    index: Index | None
    snapshot_version: int


class Core(Generic[S]):
    """A behavior with what snapshots need: the codec of its state and the key of its schema."""

    __slots__ = ("_decoder", "_encoder", "behavior", "schema")

    def __init__(self, behavior: Behavior[S]) -> None:
        self.behavior = behavior
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(behavior.state_type)
        state_type: Any = behavior.state_type  # to mypy a type[S] is not hashable
        self.schema = f"{behavior.kind}:{behavior.state_version}:{_schema_digest(state_type)}"

    def revive(self, loaded: Loaded, codec: Codec, blobs: Mapping[str, bytes]) -> Revived[S]:
        """Return the state of a loaded stream.

        Raises:
            UnknownTagError: the stream holds an event of a type that nobody registered.
            UndecodableEventError: an event does not fit its type.
        """
        behavior = self.behavior
        if loaded.snapshot is None:
            state, since = behavior.initial(loaded.stream), 0
        else:
            state, since = self._decoder.decode(loaded.snapshot.data), loaded.snapshot.version
        evolve, decode = behavior.evolve, codec.decode
        for recorded in loaded.events:
            state = evolve(state, decode(recorded, blobs))
        return Revived(loaded.stream, loaded.version, state, loaded.index, since)

    def snapshot(self, state: S, version: int, since: int) -> Snapshot | None:
        """Return a snapshot when one is due: after 200 events, then after half as many again as there were.

        The growing distance keeps the cost of snapshots of a growing state linear.
        """
        if version - since < max(SNAPSHOT_EVERY, since // 2):
            return None
        return Snapshot(version, self.schema, self._encoder.encode(state))


@lru_cache(maxsize=256)  # a type's schema does not change, and takes milliseconds
def _schema_digest(state_type: type) -> str:
    schema = msgspec.json.encode(msgspec.json.schema(state_type), order="deterministic")
    return hashlib.blake2b(schema, digest_size=8).hexdigest()


def check_behaviors(behaviors: Iterable[Behavior[Any]]) -> dict[str, Core[Any]]:
    """Return the cores by kind."""
    return {behavior.kind: Core(behavior) for behavior in behaviors}
