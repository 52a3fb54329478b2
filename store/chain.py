"""The evidence: a hash chain for each stream, and one Merkle tree over the whole log.

Pure functions and one accumulator; no clock, no disk. The invariant: whoever has the rows can recompute every value
here with nothing but blake2b, sha256 and a JSON encoder, so a proof needs no Perdure.
"""

from hashlib import blake2b, sha256
from typing import NamedTuple

import msgspec

from perdure.store.errors import UsageError

SALT_BYTES = 16
DIGEST_BYTES = 32

_encode = msgspec.json.Encoder().encode
_decode_frontier = msgspec.json.Decoder(tuple[int, list[str]]).decode


class Header(NamedTuple):
    """What an event says beside its payload, in the order in which it is hashed.

    The position is not part of it: an archive of some streams keeps its proofs.
    """

    stream: str
    version: int
    type: str
    type_version: int
    at: int
    blobs: str | None
    correlation: str | None
    causation: str | None
    principal: str | None
    idx: str | None


def genesis(log_id: str, stream: str) -> bytes:
    """Return what stands before the first event of *stream*: blake2b-256(log id, stream)."""
    return blake2b(f"{log_id}{stream}".encode(), digest_size=DIGEST_BYTES).digest()


def commitment(salt: bytes, data: bytes) -> bytes:
    """Return blake2b-256 of *data* keyed with *salt*: it binds the payload and, once both are erased, tells nothing."""
    return blake2b(data, digest_size=DIGEST_BYTES, key=salt).digest()


def digest(previous: bytes, header: tuple[object, ...], committed: bytes) -> bytes:
    """Return blake2b-256(previous, header, commitment); *header* is hashed as a compact JSON array in UTF-8."""
    return blake2b(previous + _encode(header) + committed, digest_size=DIGEST_BYTES).digest()


class Frontier:
    """A Merkle tree of RFC 6962 that grows, kept as the roots of its complete subtrees, the largest first.

    It holds one node per set bit of `size`, so a log of a million events needs at most twenty. Adding a leaf costs two
    hashes on average.
    """

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: list[bytes] | None = None) -> None:
        self.size = size
        self.nodes: list[bytes] = [] if nodes is None else nodes
        if size < 0 or len(self.nodes) != size.bit_count():
            raise UsageError(f"a frontier of {size} leaves has {max(size, 0).bit_count()} nodes, not {len(self.nodes)}")

    def add(self, leaf: bytes) -> None:
        """Append one leaf; sha256(0x00, leaf), joined upwards with sha256(0x01, left, right)."""
        node = sha256(b"\x00" + leaf).digest()
        nodes = self.nodes
        size = self.size
        self.size = size + 1
        while size & 1:
            node = sha256(b"\x01" + nodes.pop() + node).digest()
            size >>= 1
        nodes.append(node)

    def root(self) -> bytes:
        """Return the root over all leaves so far; that of no leaves is sha256 of nothing."""
        if not self.nodes:
            return sha256(b"").digest()
        node = self.nodes[-1]
        for left in reversed(self.nodes[:-1]):
            node = sha256(b"\x01" + left + node).digest()
        return node

    def copy(self) -> "Frontier":
        """Return an independent frontier of the same tree."""
        return Frontier(self.size, self.nodes.copy())

    def encode(self) -> bytes:
        """Return the frontier as JSON, `[size, [hex, ...]]`."""
        return _encode((self.size, [node.hex() for node in self.nodes]))

    @classmethod
    def decode(cls, encoded: bytes) -> "Frontier":
        """Return the frontier that `encode` wrote.

        Raises:
            UsageError: *encoded* is not a frontier.
        """
        try:
            size, nodes = _decode_frontier(encoded)
            frontier = cls(size, [bytes.fromhex(node) for node in nodes])
        except (msgspec.DecodeError, ValueError) as error:
            raise UsageError(f"not a frontier: {error}") from error
        if any(len(node) != DIGEST_BYTES for node in frontier.nodes):
            raise UsageError(f"not a frontier: every node is {DIGEST_BYTES} bytes")
        return frontier
