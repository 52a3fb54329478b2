"""A batch as the two parameters of the one statement that writes it: rows in JSON, bytes in one buffer.

See `writer.sql` for what the columns of each kind of row mean. The invariant: payloads and evidence travel in the
buffer only, so their bytes arrive unchanged and nothing is escaped twice.
"""

from typing import Final

import msgspec
from msgspec.structs import astuple

from perdure.store.batch import Batch

_encode = msgspec.json.Encoder().encode
_EVIDENCE_BYTES: Final = 80
_GUARD, _EVENT, _LAST, _INDEXED, _SNAPSHOT, _BLOB, _CREATED = range(7)


def encode(batch: Batch, data_version: int) -> tuple[bytes, bytes]:
    """Return the rows and the buffer of *batch*, guarded by *data_version* and the position before it."""
    # Encoded one by one: a list of all the tuples would make the garbage collector look at each of them.
    rows = [_encode((_GUARD, batch.after, None, data_version))]
    parts: list[bytes] = []
    rows += [
        _encode((_CREATED, id, name, None, name.partition("/")[0], None, first_at))
        for id, name, first_at in batch.created.values()
    ]
    offset = _add_events(batch, rows, parts)
    for stream, version, schema, data in batch.snapshots.values():
        rows.append(_encode((_SNAPSHOT, stream, None, version, schema, None, None, offset, len(data))))
        parts.append(data)
        offset += len(data)
    for sha256, data in batch.blobs.items():
        rows.append(_encode((_BLOB, None, None, None, sha256, None, None, offset, len(data))))
        parts.append(data)
        offset += len(data)
    return b"[" + b",".join(rows) + b"]", b"".join(parts)


def _add_events(batch: Batch, rows: list[bytes], parts: list[bytes]) -> int:
    offset = 0
    moved = batch.moved
    for row in batch.events:
        (
            position, stream, version, type_, type_version, at, blobs, correlation, causation, principal, idx,
            data, salt, commitment, digest,
        ) = astuple(row)  # fmt: skip
        size = len(data)
        kind = _INDEXED if idx is not None else _LAST if version == moved[stream].version else _EVENT
        columns = (
            kind, position, stream, version, type_, type_version, at, offset, size, blobs, correlation, causation,
            principal, idx,
        )  # fmt: skip
        rows.append(_encode(columns))
        parts += (data, salt, commitment, digest)
        offset += size + _EVIDENCE_BYTES
    return offset
