"""The changes of shared values as the log has them, the newest first.

It reads only what is durable. Invariant: a change is told as it was recorded; one that was erased is passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from perdure.actors.kernel.system import ActorSystem
from perdure.actors.state.scopes import Permissions, Place, place_of
from perdure.actors.state.shared_state import StateChanged
from perdure.store.codec import blob_hashes
from perdure.store.records import Query, Recorded, StreamId

_TYPES: Final = ("state-changed",)
_PAGE: Final = 200
_EVERYTHING: Final = Permissions()


async def changes_json(
    system: ActorSystem, places: Sequence[Place] | None, permissions: Permissions = _EVERYTHING, limit: int = 10
) -> bytes:
    """Return the newest changes at these places (None: at all) of keys that may be read, as JSON (`change_of`).

    Raises:
        LogWriteError, LogClosedError: the log failed, or was closed.
    """
    await system.log.flush()  # what was changed a moment ago is to be among them
    streams: list[StreamId | None] = [None] if places is None else [place.stream for place in places]
    found: list[tuple[int, dict[str, Any]]] = []
    for stream in streams:
        found.extend(await _newest(system, stream, permissions, limit))
    found.sort(key=lambda one: one[0], reverse=True)
    return msgspec.json.encode([change for _, change in found[:limit]])


async def _newest(
    system: ActorSystem, stream: StreamId | None, permissions: Permissions, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    found: list[tuple[int, dict[str, Any]]] = []
    query = Query(stream=stream, types=_TYPES, newest_first=True, limit=max(limit, _PAGE))
    while page := await system.log.read(query):
        wanted = [row for row in page if row.data is not None and permissions.may_read(_key(row.data))]
        wanted = wanted[: limit - len(found)]
        blobs: Mapping[str, bytes] = {}
        if hashes := blob_hashes(wanted):
            blobs = await system.log.blobs(hashes)
        for row in wanted:
            event = system.codec.decode(row, blobs)
            if isinstance(event, StateChanged):
                found.append((row.position, _told(row, event)))
        if len(found) >= limit:
            break
        query = msgspec.structs.replace(query, until=page[-1].position - 1)
    return found


class _Key(msgspec.Struct):
    key: str


_read_key = msgspec.json.Decoder(_Key).decode


def _key(data: str) -> str:
    return _read_key(data).key


def _told(row: Recorded, event: StateChanged) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if event.old is not msgspec.UNSET:
        values["old"] = event.old
    if not event.deleted:
        values["new"] = event.new
    place = place_of(event.scope, row.stream).name
    told = {"key": event.key, "scope": event.scope, "place": place, "run": event.run, "entry": event.entry}
    return {**told, **values, "step": event.step, "who": row.principal, "position": row.position, "at": row.at}
