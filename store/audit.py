"""The audit: recompute everything that a log claims, and say where it is wrong.

Read only, from any process, also beside a running owner: it looks at one consistent snapshot, and while it does the
owner's WAL cannot be reset and grows. The invariant: damage is data, never an exception; a file that SQLite cannot read
is a finding too. What it cannot see: a tail that was cut off together with its heads. Keep a head elsewhere for that.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec

from perdure.store.errors import CorruptLogError, LogUnavailableError, NotALogError
from perdure.store.evidence import Checker, EvidenceRow, Finding
from perdure.store.heads import HEADS
from perdure.store.location import to_read
from perdure.store.queries import queries
from perdure.store.reader import connect
from perdure.store.rebuild import DerivedRow, Rebuild

MAX_FINDINGS = 1_000
_NAME = re.compile(r"[!-~]{1,200}")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit looked at, and what it found."""

    path: str
    log_id: str | None = None
    events: int = 0
    streams: int = 0
    heads: int = 0
    snapshots: int = 0
    blobs: int = 0
    last_head: int | None = None
    """The position of the last head; events after it are proved by their chains alone."""
    root: str | None = None
    """The Merkle root over all events, hex: compare it with one that was kept elsewhere."""
    findings: tuple[Finding, ...] = ()
    omitted: int = 0
    """Findings beyond the first thousand."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def first_position(self) -> int | None:
        """The first position in which damage lies; None when it lies in no event."""
        return min((found.position for found in self.findings if found.position is not None), default=None)


def verify(path: str | Path) -> Report:
    """Return what a complete audit of the log at *path* finds; takes some 7 s for a million events.

    Raises:
        LogNotFoundError: there is no file.
        NotALogError: it is a folder, a pipe or a device.
        SchemaTooNewError: a newer version of Perdure wrote it.
    """
    resolved = to_read(path)
    try:
        connection = connect(resolved)
    except (CorruptLogError, LogUnavailableError, NotALogError) as error:
        return Report(path=str(resolved), findings=(Finding("integrity", str(error)),))
    with closing(connection):
        return _Audit(resolved, connection).run()


class _Audit:
    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._findings: list[Finding] = []
        self._omitted = 0
        self._log_id: str | None = None
        self._checker = Checker("")
        self._rebuild = Rebuild()
        self._last_head: int | None = None
        self._snapshots = self._blobs = self._events = 0

    def run(self) -> Report:
        parts: tuple[Callable[[], Iterator[Finding]], ...] = (
            self._integrity, self._identity, self._walk, self._streams, self._check_snapshots, self._check_blobs,
            self._references,
        )  # fmt: skip
        self._attempt(self._begin)
        for part in parts:
            self._attempt(part)
        return Report(
            path=str(self._path),
            log_id=self._log_id,
            events=self._events,
            streams=len(self._rebuild.streams),
            heads=self._checker.heads,
            snapshots=self._snapshots,
            blobs=self._blobs,
            last_head=self._last_head,
            root=self._checker.frontier.root().hex() if self._events else None,
            findings=tuple(sorted(self._findings, key=lambda found: (found.position is None, found.position or 0))),
            omitted=self._omitted,
        )

    def _attempt(self, part: Callable[[], Iterator[Finding]]) -> None:
        try:
            for found in part():
                self._add(found)
        except sqlite3.Error as error:
            self._add(Finding("integrity", f"SQLite cannot read on after position {self._checker.position}: {error}"))

    def _add(self, found: Finding) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(found)
        else:
            self._omitted += 1

    def _begin(self) -> Iterator[Finding]:
        self._connection.execute("BEGIN")
        yield from ()

    def _integrity(self) -> Iterator[Finding]:
        for (text,) in self._connection.execute("PRAGMA integrity_check"):
            if text != "ok":
                yield Finding("integrity", text)

    def _identity(self) -> Iterator[Finding]:
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'log_id'").fetchone()
        if row is None:
            yield Finding("rebuild", "the log has lost its identity")
            return
        self._log_id = row[0]
        self._checker = Checker(row[0])

    def _walk(self) -> Iterator[Finding]:
        for raw in self._connection.execute(queries()["evidence"], (0, -1)):
            row = EvidenceRow(*raw)
            yield from self._checker.check(row)
            yield from self._rebuild.add(row)
            self._events += 1
            if row.name == HEADS:
                self._last_head = row.position

    def _streams(self) -> Iterator[Finding]:
        seen: set[int] = set()
        for row in self._connection.execute(queries()["stream_rows"]):
            stored = DerivedRow(*row)
            seen.add(stored.id)
            yield from self._rebuild.compare(stored)
            if not _NAME.fullmatch(stored.name):
                yield Finding("rebuild", f"the stream {stored.id} has an impossible name", None, stored.name)
        for missing in self._rebuild.streams.keys() - seen:
            yield Finding("rebuild", f"the stream {missing} has events and no row")

    def _check_snapshots(self) -> Iterator[Finding]:
        for stream, name, version, newest, is_json in self._connection.execute(queries()["snapshot_rows"]):
            self._snapshots += 1
            if name is None:
                yield Finding("rebuild", f"there is a snapshot of a stream {stream} that does not exist")
            elif not 1 <= version <= newest:
                detail = f"its snapshot is of version {version}, its last event is {newest}"
                yield Finding("rebuild", detail, None, name)
            elif not is_json:
                yield Finding("rebuild", "its snapshot is not JSON", None, name)

    def _check_blobs(self) -> Iterator[Finding]:
        for name, size, data in self._connection.execute(queries()["blob_rows"]):
            self._blobs += 1
            if len(data) != size or sha256(data).hexdigest() != name:
                yield Finding("blob", f"the blob {name} does not have the content of its hash")

    def _references(self) -> Iterator[Finding]:
        for position, stream, name in self._connection.execute(queries()["missing_blobs"]):
            yield Finding("blob", f"the blob {name} is missing", position, stream)
