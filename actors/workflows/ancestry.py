"""What a fork takes over: the events of the runs that it comes from, read where they are.

Nothing is copied. Invariant: of each ancestor as many events are read as the fork names, the oldest ancestor first.
"""

from typing import TypeAlias

from perdure.actors.kernel.messages import Event
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.workflows.errors import UnknownRunError
from perdure.actors.workflows.events import Origin, RunStarted
from perdure.store.codec import blob_hashes
from perdure.store.errors import InternalError
from perdure.store.records import Loaded, Query, Recorded, stream_id

Part: TypeAlias = list[tuple[Event, int]]
"""Events of one run with their times, from its first."""


def is_fork(run: Loaded) -> bool:
    """Return whether a run that was read from its beginning takes over what another one recorded."""
    return bool(run.events) and '"forked_from":{' in (run.events[0].data or "")


async def read_ancestors(system: ActorSystem, origin: Origin | None) -> list[Part]:
    """Return what a run that begins at *origin* takes over, decoded.

    Raises:
        UnknownRunError: an ancestor is not in the log any more.
        UndecodableEventError, UnknownTagError: an ancestor cannot be read, or was erased.
    """
    parts: list[Part] = []
    while origin is not None:
        part = await decoded(system, await read_first(system, origin.run, origin.version))
        if not part:
            raise UnknownRunError(run=origin.run)
        parts.insert(0, part)
        origin = beginning(part).forked_from
    return parts


async def read_first(system: ActorSystem, run: str, version: int | None = None) -> list[Recorded]:
    """Return the events of a run, in their order, up to a version."""
    query = Query(stream=stream_id(f"run/{run}"))
    found: list[Recorded] = []
    while page := await system.log.read(query):
        found.extend(event for event in page if version is None or event.version <= version)
        if version is not None and page[-1].version >= version:
            break
        query = Query(stream=query.stream, after=page[-1].position)
    return found


async def decoded(system: ActorSystem, events: list[Recorded]) -> Part:
    """Return events with their times, their large values included.

    Raises:
        UndecodableEventError, UnknownTagError: one cannot be decoded.
    """
    blobs = await system.log.blobs(blob_hashes(events))
    return [(system.codec.decode(event, blobs), event.at) for event in events]


def beginning(part: Part) -> RunStarted:
    """Return the first event of a run."""
    started = part[0][0]
    if not isinstance(started, RunStarted):
        raise InternalError(detail=f"a run begins with {type(started).__name__}")
    return started
