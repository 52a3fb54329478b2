"""Checking the evidence: is every row what its digests say? Shared by opening a log and by the audit.

Pure: rows in, findings out. The invariant: a finding names the first position at which the log contradicts itself, and
a checker that has found damage in a stream does not report its consequences again.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

from perdure.store.chain import Frontier, Header, commitment, digest, genesis
from perdure.store.errors import UsageError
from perdure.store.heads import HEADS, parse_head

FindingKind = Literal["position", "version", "chain", "commitment", "time", "head", "rebuild", "blob", "integrity"]


class Finding(msgspec.Struct, frozen=True):
    """One contradiction in a log."""

    kind: FindingKind
    detail: str
    position: int | None = None
    """Of the event in which the damage lies; None where it lies in no event."""
    stream: str | None = None


class EvidenceRow(NamedTuple):
    """A row of the query `evidence`."""

    position: int
    stream: int
    name: str | None
    version: int
    type: str
    type_version: int
    at: int
    blobs: str | None
    correlation: str | None
    causation: str | None
    principal: str | None
    idx: str | None
    data: bytes | None
    salt: bytes | None
    commitment: bytes
    digest: bytes


class Checker:
    """Walks over rows in the order of positions."""

    def __init__(self, log_id: str, *, position: int = 0, frontier: Frontier | None = None) -> None:
        self.position = position
        """The last position checked."""
        self.frontier = frontier or Frontier()
        self.heads = 0
        self.at = 0
        self._log_id = log_id
        self._ends: dict[int, tuple[int, bytes]] = {}
        self._rivals: dict[int, bytes] = {}

    def start(self, stream: int, version: int, last: bytes) -> None:
        """Say where a stream stands before the first row."""
        self._ends[stream] = (version, last)

    def check(self, row: EvidenceRow) -> list[Finding]:
        """Return what is wrong with *row*, given those before it."""
        found = [*self._check_order(row), *self._check_payload(row), *self._check_digest(row)]
        if row.name == HEADS:
            self.heads += 1
            found.extend(self._check_head(row))
        self.position, self.at = row.position, row.at
        self._ends[row.stream] = (row.version, row.digest)
        self.frontier.add(row.digest)
        return found

    def ends(self) -> Mapping[int, tuple[int, bytes]]:
        """Return the last version and digest of every stream seen."""
        return MappingProxyType(self._ends)

    def _check_order(self, row: EvidenceRow) -> list[Finding]:
        found: list[Finding] = []
        version, _ = self._ends.get(row.stream, (0, b""))
        if row.position != self.position + 1:
            found.append(_finding("position", row, f"follows position {self.position}"))
        if row.version != version + 1:
            found.append(_finding("version", row, f"version {row.version} follows version {version}"))
        if row.at < self.at:
            found.append(_finding("time", row, "its time is before that of the event before it"))
        if row.name is None:
            found.append(_finding("rebuild", row, f"its stream {row.stream} has no name"))
        return found

    def _check_payload(self, row: EvidenceRow) -> list[Finding]:
        if row.data is None and row.salt is None:
            return []  # erased: the commitment stays
        if row.data is None or row.salt is None or commitment(row.salt, row.data) != row.commitment:
            return [_finding("commitment", row, "its payload is not the one that was recorded")]
        return []

    def _check_digest(self, row: EvidenceRow) -> list[Finding]:
        name = row.name or ""
        _, previous = self._ends.get(row.stream) or (0, genesis(self._log_id, name))
        header = Header(
            name, row.version, row.type, row.type_version, row.at, row.blobs, row.correlation, row.causation,
            row.principal, row.idx,
        )  # fmt: skip
        expected = digest(previous, header, row.commitment)
        rival = self._rivals.pop(row.stream, None)
        if row.digest in (expected, None if rival is None else digest(rival, header, row.commitment)):
            return []
        # Either the event was changed (what follows builds on the digest as stored) or the digest was (it builds on the
        # one expected): the next event of the stream accepts both, so that one change is one finding.
        self._rivals[row.stream] = expected
        return [_finding("chain", row, "its digest does not follow from the event and the digest before it")]

    def _check_head(self, row: EvidenceRow) -> list[Finding]:
        try:
            head, frontier = parse_head(row.data or b"")
        except UsageError as error:
            return [_finding("head", row, str(error))]
        if head.size != row.position - 1 or head.root != self.frontier.root().hex():
            self.frontier = frontier  # so that the next head speaks of what lies between the two only
            return [_finding("head", row, "its root is not that of the digests before it")]
        return []


def _finding(kind: FindingKind, row: EvidenceRow, detail: str) -> Finding:
    return Finding(kind, detail, row.position, row.name)
