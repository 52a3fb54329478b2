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
_AT_ONCE = 256  # some 0.2 ms of hashing

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

    __slots__ = ("_leaves", "_nodes", "_size")

    def __init__(self, size: int = 0, nodes: list[bytes] | None = None) -> None:
        self._leaves: list[bytes] = []
        """Those that are not in the tree yet: many at a time cost half of what they cost one by one."""
        self._size = size
        self._nodes: list[bytes] = [] if nodes is None else nodes
        if size < 0 or len(self._nodes) != size.bit_count():
            raise UsageError(
                f"a frontier of {size} leaves has {max(size, 0).bit_count()} nodes, not {len(self._nodes)}"
            )

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._size + len(self._leaves)

    @property
    def nodes(self) -> list[bytes]:
        """The roots of the complete subtrees, the largest first."""
        if self._leaves:
            self._grow()
        return self._nodes

    def add(self, leaf: bytes) -> None:
        """Append one leaf."""
        leaves = self._leaves
        leaves.append(leaf)
        if len(leaves) >= _AT_ONCE:
            self._grow()

    def _grow(self) -> None:
        """Hash the leaves, sha256(0x00, leaf), and join them upwards level by level, sha256(0x01, left, right)."""
        level = [sha256(b"\x00" + leaf).digest() for leaf in self._leaves]
        nodes, size, single = self._nodes, self._size, list[bytes]()
        self._size += len(level)
        self._leaves.clear()
        while level:
            if size & 1:
                level.insert(0, nodes.pop())  # it waited for its right half
            if len(level) & 1:
                single.append(level.pop())
            level = [
                sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)
            ]
            size >>= 1
        nodes += reversed(single)

    def root(self) -> bytes:
        """Return the root over all leaves so far; that of no leaves is sha256 of nothing."""
        nodes = self.nodes
        if not nodes:
            return sha256(b"").digest()
        node = nodes[-1]
        for left in reversed(nodes[:-1]):
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
