"""A batch as the two parameters of the one statement that writes it: rows in JSON, bytes in one buffer.

See `writer.sql` for what the columns of each kind of row mean. The invariant: payloads and evidence travel in the buffer
only, so their bytes arrive unchanged and nothing is escaped twice.
"""

import msgspec

from perdure.store.batch import Batch

_encode = msgspec.json.Encoder().encode
_EVIDENCE_BYTES = 80


def encode(batch: Batch, data_version: int) -> tuple[bytes, bytes]:
    """Return the rows and the buffer of *batch*, guarded by *data_version* and the position before it."""
    rows: list[tuple[object, ...]] = [(0, batch.after, None, data_version)]
    parts: list[bytes] = []
    offset = _add_events(batch, rows, parts)
    _add_streams(batch, rows)
    for snapshot in batch.snapshots.values():
        rows.append((4, snapshot.stream, None, snapshot.version, snapshot.schema, None, None, offset, len(snapshot.data)))
        parts.append(snapshot.data)
        offset += len(snapshot.data)
    for sha256, data in batch.blobs.items():
        rows.append((5, None, None, None, sha256, None, None, offset, len(data)))
        parts.append(data)
        offset += len(data)
    return _encode(rows), b"".join(parts)


def _add_events(batch: Batch, rows: list[tuple[object, ...]], parts: list[bytes]) -> int:
    offset = 0
    for row in batch.events:
        (
            position, stream, version, type_, type_version, at, blobs, correlation, causation, principal, idx,
            data, salt, commitment, digest,
        ) = row  # fmt: skip
        size = len(data)
        rows.append(
            (
                1, position, stream, version, type_, type_version, at, offset, size, blobs, correlation, causation,
                principal, idx,
            )
        )  # fmt: skip
        parts += (data, salt, commitment, digest)
        offset += size + _EVIDENCE_BYTES
    return offset


def _add_streams(batch: Batch, rows: list[tuple[object, ...]]) -> None:
    for id_, version, is_open, wake_at, waits_on, last_at in batch.moved.values():
        new = batch.created.get(id_)
        if new is None:
            rows.append((3, id_, None, version, None, is_open, last_at, None, None, waits_on, wake_at))
        else:
            kind = new.name.partition("/")[0]
            rows.append((2, id_, new.name, version, kind, is_open, new.first_at, None, None, waits_on, wake_at, last_at))
